//! `albertine stream peek`: a stream's newest records as its mapping sees them; or, for a topic that no stream reads
//! yet, the mapping to start from.

use std::io::Write;

use chrono::DateTime;
use owo_colors::OwoColorize;
use serde_json::Value;

use super::{
    terminal::{excerpt, printable},
    wants_colour,
};
use crate::{
    config::resolved::{Config, StreamConfig},
    decode::{
        Decoded, Decoder, Format, Input, Undecoded,
        mapping::{FieldMapping, FieldPath, TimeUnit},
        proposal::{self, Choice, Proposal, Sample},
        schema::Schemas,
    },
    kafka::{peek, subscribe::TopicRecord},
    text::language,
    topology,
};

/// The bundled model, for a configuration that has none yet.
const BUNDLED_MODEL: (&str, &str) = ("albert-sentiment", "models/albert-sentiment");
/// Records shown below a proposal.
const SHOWN_MAX: usize = 5;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Joins no group and moves nothing. For a topic that no stream of the configuration reads, it looks at the records and
proposes the mapping, as a configuration to start from:
  albertine stream peek reviews-raw > reviews.toml
  albertine --config reviews.toml check
  albertine --config reviews.toml run --dry-run")]
pub struct PeekArgs {
    /// A stream, by its name in the configuration, or any topic
    name: String,
    /// How many records
    #[arg(long, env = "ALBERTINE_STREAM_PEEK_LIMIT", default_value_t = 20, value_name = "RECORDS")]
    limit: usize,
}

pub fn run(config: &Config, args: &PeekArgs) -> anyhow::Result<()> {
    let stream = config.streams.get(&args.name);
    let topic = stream.map_or(args.name.as_str(), |stream| &stream.topic);
    let mut records = peek::newest(&config.kafka.client, topic, args.limit)?.collect::<Result<Vec<_>, _>>()?;
    records.sort_by_key(|record| (record.partition, record.offset));
    let mut out = std::io::stdout().lock();
    match stream {
        _ if records.is_empty() => writeln!(out, "topic `{topic}` holds no records")?,
        Some(stream) => show(&mut out, stream, &records, &*topology::schemas(config)?)?,
        None => out.write_all(proposed(config, topic, &records, &*topology::schemas(config)?).as_bytes())?,
    }
    Ok(())
}

fn show(
    out: &mut std::io::StdoutLock<'_>,
    stream: &StreamConfig,
    records: &[TopicRecord],
    schemas: &dyn Schemas,
) -> std::io::Result<()> {
    let colour = wants_colour(out);
    for record in records {
        let time = record
            .timestamp_ms
            .and_then(DateTime::from_timestamp_millis)
            .map_or_else(|| "-".into(), |time| time.format("%F %T").to_string());
        let place = format!("{:>3} {:>9}  {time}", record.partition, record.offset);
        writeln!(out, "{place}  {}", line(&stream.decoder, record, schemas, colour))?;
    }
    Ok(())
}

/// A record as a mapping sees it.
fn line(decoder: &Decoder, record: &TopicRecord, schemas: &dyn Schemas, colour: bool) -> String {
    let position = record.position();
    let input = Input { key: record.key.as_deref(), value: record.value.as_deref(), position: &position };
    match decoder.decode(&input, schemas) {
        Ok(Decoded::Document(document)) => {
            let attributes = &document.attributes;
            let rating = attributes.rating.map_or_else(String::new, |rating| format!("  rating {rating}"));
            let item =
                attributes.item.as_deref().map_or_else(String::new, |item| format!("  item {}", printable(item)));
            let id = printable(&attributes.id);
            let id = if colour { id.cyan().to_string() } else { id };
            format!("{id}{item}{rating}  {}", excerpt(&document.text))
        }
        Ok(Decoded::Deletion { id }) => format!("{}  deletes the document", printable(&id)),
        Err(Undecoded::Rejected(rejection)) if colour => rejection.red().to_string(),
        Err(Undecoded::Rejected(rejection)) => format!("would be rejected: {rejection}"),
        Err(waiting @ Undecoded::SchemaUnavailable(_)) => format!("would wait: {waiting}"),
    }
}

/// A configuration for a stream on this topic.
fn proposed(config: &Config, topic: &str, records: &[TopicRecord], schemas: &dyn Schemas) -> String {
    let Readable { format, records: readable, samples } = match readable(records, schemas) {
        Ok(readable) => readable,
        Err(problem) => {
            return format!("# The {} newest records of topic `{topic}` cannot be read: {problem}\n", records.len());
        }
    };
    let proposal = proposal::propose(&samples, |word| language::of_tag(word).is_some());
    let mut parts = vec![format!(
        "# Proposed from the {} newest records of topic `{topic}`, of which {} are {}. Correct it, then try:\n\
         #   albertine --config FILE check\n\
         #   albertine --config FILE run --dry-run\n",
        records.len(),
        samples.len(),
        format,
    )];
    let table = table_name(topic);
    let configured = config.models.iter().next().map(|(name, model)| (name.clone(), model.path.display().to_string()));
    let (model, path) = configured.unwrap_or_else(|| (BUNDLED_MODEL.0.into(), BUNDLED_MODEL.1.into()));
    parts.push(format!("[models.{}]\npath = {}\n", table_name(&model), quoted(&path)));
    parts.push(format!(
        "[streams.{table}]\ntopic = {}\nmodels = [{}]\nformat = \"{format}\"\n",
        quoted(topic),
        quoted(&model)
    ));
    parts.push(format!("[streams.{table}.fields]\n{}", fields(&proposal)));
    if let Some(mapping) = mapping(&proposal) {
        let decoder = Decoder { format, mapping };
        let shown = readable.iter().take(SHOWN_MAX);
        let lines = shown.map(|record| format!("#   {}\n", line(&decoder, record, schemas, false)));
        parts.push(format!("# As it reads them:\n{}", lines.collect::<String>()));
    }
    parts.join("\n")
}

/// A name as TOML writes it in the head of a table.
fn table_name(name: &str) -> String {
    if name.contains('.') { quoted(name) } else { name.to_owned() }
}

/// A string as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// What could be read of a topic's records, in the format most of them have.
struct Readable<'a> {
    format: Format,
    records: Vec<&'a TopicRecord>,
    samples: Vec<Sample>,
}

/// Tries the formats one after the other, the most telling first: any JSON is also text.
fn readable<'a>(records: &'a [TopicRecord], schemas: &dyn Schemas) -> Result<Readable<'a>, String> {
    let mut problem = "none is JSON, plain text, or Avro or Protobuf with a schema registry".to_owned();
    let mut best: Option<Readable<'_>> = None;
    for format in [Format::Json, Format::Avro, Format::Protobuf, Format::Text] {
        let mut found = Readable { format, records: Vec::new(), samples: Vec::new() };
        for record in records {
            let Some(bytes) = record.value.as_deref() else { continue };
            match format.value(bytes, schemas) {
                // A number or a lone string is no more JSON than text, and what holds NUL is no text.
                Ok(Value::Number(_) | Value::Bool(_) | Value::Null) if format == Format::Json => {}
                Ok(Value::String(text))
                    if format == Format::Json || (format == Format::Text && text.contains('\0')) => {}
                Ok(value) => {
                    found.samples.push((record.key.clone(), value));
                    found.records.push(record);
                }
                Err(Undecoded::Rejected(_)) => {}
                Err(Undecoded::SchemaUnavailable(unavailable)) => problem = unavailable,
            }
        }
        if found.samples.len() > best.as_ref().map_or(0, |best| best.samples.len()) {
            best = Some(found);
        }
    }
    best.ok_or(problem)
}

/// The lines of the `fields` table, each with what speaks for it.
fn fields(proposal: &Proposal) -> String {
    let line = |key: &str, choice: &Choice| (format!("{key} = {}", quoted(&choice.path)), choice.evidence.clone());
    let mut lines = Vec::new();
    match &proposal.id {
        Some(id) => lines.push(line("id", id)),
        None => lines.push((
            "# id = ".into(),
            "no field and no key is different in all records: which one names the document?".into(),
        )),
    }
    match proposal.text.as_slice() {
        [] => lines
            .push(("# text = ".into(), "no field holds text of several words: which one shall be labelled?".into())),
        [text] => lines.push(line("text", text)),
        texts => {
            let list: Vec<String> = texts.iter().map(|choice| quoted(&choice.path)).collect();
            let evidence: Vec<&str> = texts.iter().map(|choice| choice.evidence.as_str()).collect();
            lines.push((format!("text = [{}]", list.join(", ")), evidence.join("; ")));
        }
    }
    let optional = [
        ("item", &proposal.item),
        ("user", &proposal.user),
        ("rating", &proposal.rating),
        ("language", &proposal.language),
    ];
    lines.extend(optional.into_iter().filter_map(|(key, choice)| choice.as_ref().map(|choice| line(key, choice))));
    if let Some((time, unit)) = &proposal.occurred_at {
        lines.push(line("occurred_at", time));
        if *unit != TimeUnit::default() {
            lines.push((format!("occurred_at_unit = \"{unit}\""), String::new()));
        }
    }
    let width = lines.iter().map(|(setting, _)| setting.chars().count()).max().unwrap_or_default();
    lines.iter().fold(String::new(), |text, (setting, evidence)| match evidence.as_str() {
        "" => format!("{text}{setting}\n"),
        evidence => format!("{text}{setting:width$}  # {evidence}\n"),
    })
}

/// What the proposal comes to; `None` where it lacks what a stream needs.
fn mapping(proposal: &Proposal) -> Option<FieldMapping> {
    let path = |choice: &Choice| FieldPath::parse(&choice.path).ok();
    let optional = |choice: &Option<Choice>| choice.as_ref().and_then(path);
    let text: Vec<FieldPath> = proposal.text.iter().filter_map(path).collect();
    Some(FieldMapping {
        id: optional(&proposal.id)?,
        text: if text.is_empty() { return None } else { text },
        text_pair: Vec::new(),
        item: optional(&proposal.item),
        user: optional(&proposal.user),
        rating: optional(&proposal.rating),
        occurred_at: proposal.occurred_at.as_ref().and_then(|(choice, _)| path(choice)),
        occurred_at_unit: proposal.occurred_at.as_ref().map(|(_, unit)| *unit).unwrap_or_default(),
        language: optional(&proposal.language),
    })
}
