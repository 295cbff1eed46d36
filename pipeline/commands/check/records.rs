//! The newest records of a stream as its mapping reads them: what would be rejected, and in which languages they are.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::bail;

use crate::{
    commands::{report::Report, terminal::printable},
    config::{
        file::OtherLanguages,
        resolved::{Config, StreamConfig},
    },
    decode::{Decoded, Input, Undecoded, schema::Schemas},
    kafka::{peek, subscribe::TopicRecord},
    model::folder::Model,
    stream::intake::language_of,
    topology,
};

/// Records looked at: enough that a wrong mapping shows.
const RECORDS_MAX: usize = 20;
/// Rejections that are told.
const REJECTIONS_SHOWN_MAX: usize = 3;

/// What became of the records.
#[derive(Default)]
struct Sample {
    records: usize,
    rejected: Vec<String>,
    /// Documents by language; those whose language cannot be told are left out.
    languages: BTreeMap<&'static str, usize>,
}

pub fn check(
    config: &Config,
    stream: &StreamConfig,
    models: &BTreeMap<String, Model>,
    report: &mut Report,
) -> std::io::Result<()> {
    let (records, languages) = (format!("records of `{}`", stream.name), format!("languages of `{}`", stream.name));
    let sample = match sample(config, stream) {
        Ok(sample) if sample.records == 0 => {
            report.skipped(&records, "the topic holds none yet")?;
            return report.skipped(&languages, "the topic holds no records yet");
        }
        Ok(sample) => sample,
        Err(error) => {
            report.line(&records, Err(error))?;
            return report.skipped(&languages, "the records could not be read");
        }
    };
    report.line(&records, read(stream, &sample))?;
    if sample.languages.is_empty() {
        return report.skipped(&languages, "no record tells its language, and none could be detected");
    }
    report.line(&languages, Ok(note(stream, &sample, models)))?;
    Ok(())
}

fn sample(config: &Config, stream: &StreamConfig) -> anyhow::Result<Sample> {
    let mut sample = Sample::default();
    let schemas = topology::schemas(config)?;
    for record in peek::newest(&config.kafka.client, &stream.topic, RECORDS_MAX)? {
        sample.add(stream, &record?, &*schemas)?;
    }
    Ok(sample)
}

impl Sample {
    fn add(&mut self, stream: &StreamConfig, record: &TopicRecord, schemas: &dyn Schemas) -> Result<(), Undecoded> {
        self.records += 1;
        let position = record.position();
        let input = Input { key: record.key.as_deref(), value: record.value.as_deref(), position: &position };
        match stream.decoder.decode(&input, schemas) {
            Ok(Decoded::Document(document)) => {
                if let Some(language) = language_of(&document) {
                    *self.languages.entry(language).or_default() += 1;
                }
            }
            Ok(Decoded::Deletion { .. }) => {}
            Err(Undecoded::Rejected(rejection)) => {
                let rejection = printable(&rejection.to_string());
                self.rejected.push(format!("partition {} offset {}: {rejection}", record.partition, record.offset));
            }
            Err(unavailable @ Undecoded::SchemaUnavailable(_)) => return Err(unavailable),
        }
        Ok(())
    }
}

/// A record that cannot be read is rejected in a run too, and stops nothing; only where none can be, the mapping is
/// wrong.
fn read(stream: &StreamConfig, sample: &Sample) -> anyhow::Result<String> {
    let Sample { records, rejected, .. } = sample;
    let shown = rejected[..rejected.len().min(REJECTIONS_SHOWN_MAX)].join("; ");
    match records - rejected.len() {
        _ if rejected.is_empty() => Ok(format!("all of the {records} newest decode")),
        0 => bail!(
            "none of the {records} newest decodes: {shown}; correct `streams.{}.fields`; `albertine stream peek {}` shows the records",
            stream.name,
            stream.name
        ),
        decoded => Ok(format!("{decoded} of the {records} newest decode; the others would be rejected: {shown}")),
    }
}

/// Which languages there are, and which of them a model was not trained for.
fn note(stream: &StreamConfig, sample: &Sample, models: &BTreeMap<String, Model>) -> String {
    let listed: Vec<String> = sample.languages.iter().map(|(language, count)| format!("{language} {count}")).collect();
    let mut note = listed.join(", ");
    for (name, model) in stream.models.iter().filter_map(|name| models.get_key_value(name)) {
        let foreign: usize =
            sample.languages.iter().filter(|(language, _)| !model.knows(language)).map(|(_, count)| count).sum();
        if foreign > 0 {
            let fate = match stream.other_languages {
                OtherLanguages::Label => "labelled all the same",
                OtherLanguages::Reject => "rejected",
            };
            let _ = write!(
                note,
                "; `{name}` was trained for {}: {foreign} record(s) in other languages are {fate} (`streams.{}.other_languages`)",
                model.languages.join(", "),
                stream.name
            );
        }
    }
    note
}
