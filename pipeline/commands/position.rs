//! `albertine position`: shows the positions of a stream's partitions to whoever has to decide, and moves them.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use bytesize::ByteSize;
use chrono::SecondsFormat;
use serde_json::{Value, json};

use super::{
    GlobalOptions, UsageError, find_stream,
    output::{OutputFormat, number, print_json, table},
    runtime,
};
use crate::{
    config::resolved::{Config, StreamConfig},
    domain::{
        checkpoint::Position,
        decision::{Commitment, DecisionError, PublishedDecision, StoredDecision, check_readable},
        standing::{Publication, Standing},
    },
    inspection::{Inspector, StreamStanding},
    kafka::offsets::TopicOffsets,
    publish::kafka::KafkaLiveTopic,
    topology,
};

#[derive(Debug, clap::Args)]
pub struct PositionArgs {
    #[command(subcommand)]
    command: PositionCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PositionCommand {
    /// Show all that is known of each partition's positions, and what the publisher does with it
    Show(ShowArgs),
    /// Decide how far partitions are published, or where reading goes on
    Set(SetArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine position show reviews
  albertine position show reviews --format json | jq '.partitions[] | select(.decision_needed)'

Where the group's offset does not tell how far a partition is published, the live topic is read for it, as the
publisher does: that may take a while. Nothing is joined, claimed or fenced by looking.")]
struct ShowArgs {
    /// The stream, by its name in the configuration
    stream: String,
    /// How it is written
    #[arg(long, env = "ALBERTINE_POSITION_SHOW_FORMAT", value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
}

#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("which").required(true).args(["partition", "all"])),
    group(clap::ArgGroup::new("what").required(true).args(["published", "stored"])),
    after_help = "\
Examples:
  albertine position set reviews --partition 3 --published keep
  albertine position set reviews --all --published stored --yes
  albertine position set reviews --all --stored 2026-01-31T00:00:00Z

--published is the group's offset, from where on the outbox is published:
  stored   everything stored counts as published; of a partition that is published ahead of the store everything
           stored when that was found, so that what follows is published again
  outbox   nothing that the outbox holds was published
  keep     the group's offset is right, though the store is behind it: up to there nothing is published again
  OFFSET   everything before it is published

--stored is the checkpoint, from where on the topic is read: `earliest`, `latest`, OFFSET, or the first record of a
TIME (RFC 3339) or later. What was stored already is not stored or published again, since its version is not newer;
only records that were rejected are rejected again. What is skipped is never read.

Workers may run meanwhile. They are fenced for a moment, and go on by themselves from what was decided.
Exits with 2 where there is neither a terminal to ask on nor --yes."
)]
struct SetArgs {
    /// The stream, by its name in the configuration
    stream: String,
    /// A partition; may be given several times
    #[arg(long, env = "ALBERTINE_POSITION_SET_PARTITION", value_name = "NUMBER", value_delimiter = ',')]
    partition: Vec<i32>,
    /// All partitions that the decision fits
    #[arg(long, env = "ALBERTINE_POSITION_SET_ALL")]
    all: bool,
    /// How far it is published: `stored`, `outbox`, `keep` or an offset
    #[arg(long, env = "ALBERTINE_POSITION_SET_PUBLISHED", value_name = "WHERE")]
    published: Option<PublishedDecision>,
    /// Where reading goes on: `earliest`, `latest`, an offset or a time
    #[arg(long, env = "ALBERTINE_POSITION_SET_STORED", value_name = "WHERE")]
    stored: Option<StoredDecision>,
    /// Do not ask
    #[arg(long, short, env = "ALBERTINE_POSITION_SET_YES")]
    yes: bool,
}

pub fn run(global: &GlobalOptions, args: &PositionArgs) -> anyhow::Result<()> {
    let config = global.load_config()?.with_streams()?;
    match &args.command {
        PositionCommand::Show(args) => show(&config, args),
        PositionCommand::Set(args) => set(&config, args),
    }
}

fn show(config: &Config, args: &ShowArgs) -> anyhow::Result<()> {
    let stream = find_stream(config, &args.stream)?;
    let inspector = Inspector::connect(config, runtime()?, None)?;
    let found = inspector.stream(stream)?;
    let publications = found
        .partitions
        .iter()
        .map(|standing| inspector.publication(stream, standing))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let partitions = found.partitions.iter().zip(publications);
    if args.format == OutputFormat::Json {
        let partitions: Vec<Value> = partitions.map(|(standing, publication)| as_json(standing, publication)).collect();
        return print_json(&json!({
            "stream": *found.name,
            "topic": *found.topic,
            "topic_exists": found.topic_exists,
            "group": found.group,
            "workers": found.workers,
            "partitions": partitions,
        }));
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", headline(&found))?;
    for (standing, publication) in partitions {
        writeln!(out, "\npartition {}", standing.key.partition)?;
        let rows = facts(standing, publication).into_iter().map(|(what, is)| vec![what.into(), is.into()]);
        write!(out, "{}", table(&[], rows))?;
    }
    Ok(())
}

fn headline(found: &StreamStanding) -> String {
    let missing = if found.topic_exists { "" } else { " (does not exist)" };
    format!(
        "stream `{}`, topic `{}`{missing}, group `{}` with {} worker(s)",
        found.name, found.topic, found.group, found.workers
    )
}

fn facts(standing: &Standing, publication: Publication) -> Vec<(&'static str, String)> {
    let none = || "none".to_owned();
    let id = |id: Option<&String>| id.map_or_else(|| "unknown".to_owned(), Clone::clone);
    let time = |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut facts = vec![(
        "topic",
        standing.topic.map_or_else(none, |extent| {
            format!("offsets {} to {}, id {}", extent.low.0, extent.end.0, id(standing.topic_id.as_ref()))
        }),
    )];
    let checkpoint = standing.store.checkpoint.as_ref();
    facts.push((
        "stored",
        checkpoint.map_or_else(none, |checkpoint| {
            let (generation, topic_id) = (checkpoint.generation, id(checkpoint.topic_id.as_ref()));
            format!("up to {}, generation {generation}, topic id {topic_id}", checkpoint.stored)
        }),
    ));
    facts.push((
        "claimed",
        checkpoint.and_then(|checkpoint| Some((checkpoint.owner?, checkpoint.claimed_at?))).map_or_else(
            || "by nobody".to_owned(),
            |(owner, claimed_at)| format!("by {owner} since {}", time(claimed_at)),
        ),
    ));
    facts.push((
        "group's offset",
        standing.offset.as_ref().map_or_else(none, |offset| {
            let kind = if offset.marker().note.is_some() { "" } else { " (not albertine's)" };
            format!("{}, note `{}`{kind}", offset.position.0, offset.metadata)
        }),
    ));
    facts.push((
        "outbox",
        standing.store.outbox.map_or_else(
            || "empty".to_owned(),
            |outbox| {
                format!(
                    "{} range(s), {}, from {} to {}, the first stored {}",
                    outbox.ranges,
                    ByteSize(outbox.bytes),
                    outbox.first,
                    outbox.last,
                    time(outbox.first_stored_at)
                )
            },
        ),
    ));
    facts.push(("publisher", outlook(standing, publication)));
    let notes = standing.notes();
    if !notes.is_empty() {
        facts.push(("note", notes.join(", ")));
    }
    facts
}

/// What the publisher does, in words.
fn outlook(standing: &Standing, publication: Publication) -> String {
    let advice = || PublishedDecision::advice(publication, &standing.key);
    match publication {
        Publication::Off => "is off: the stream has no live topic".into(),
        Publication::NotBegun => "begins with the first claim".into(),
        Publication::At(published) if matches!(standing.publication(), Publication::Unknown { .. }) => {
            format!("finds in the live topic that it goes on from {published}")
        }
        Publication::At(published) => format!("goes on from {published}"),
        Publication::Confirmed(published) => format!("goes on once more than {published} is stored, as confirmed"),
        Publication::Ahead { published, stored } => {
            format!(
                "waits for a decision: it is published up to {published}, but was stored only up to {stored}: {}",
                advice()
            )
        }
        Publication::Unknown { .. } => format!(
            "waits for a decision: neither the group's offset nor the live topic tells how far it is published: {}",
            advice()
        ),
    }
}

fn as_json(standing: &Standing, publication: Publication) -> Value {
    let checkpoint = standing.store.checkpoint.as_ref();
    let choices: Vec<Value> = PublishedDecision::choices(publication)
        .iter()
        .map(|(decision, meaning)| json!({"command": decision.command(&standing.key), "meaning": meaning}))
        .collect();
    json!({
        "partition": standing.key.partition,
        "topic_id": standing.topic_id,
        "low": standing.topic.map(|extent| extent.low),
        "end": standing.topic.map(|extent| extent.end),
        "checkpoint": checkpoint.map(|checkpoint| json!({
            "epoch": checkpoint.stored.epoch,
            "position": checkpoint.stored.position,
            "generation": checkpoint.generation,
            "topic_id": checkpoint.topic_id,
            "owner": checkpoint.owner,
            "claimed_at": checkpoint.claimed_at,
            "stored_at": checkpoint.stored_at,
        })),
        "group_offset": standing.offset.as_ref().map(|offset| json!({
            "offset": offset.position,
            "note": offset.metadata,
            "is_ours": offset.marker().note.is_some(),
        })),
        "outbox": standing.store.outbox.map(|outbox| json!({
            "ranges": outbox.ranges,
            "bytes": outbox.bytes,
            "first": outbox.first,
            "last": outbox.last,
            "first_stored_at": outbox.first_stored_at,
        })),
        "publisher": outlook(standing, publication),
        "decision_needed": !choices.is_empty(),
        "choices": choices,
        "notes": standing.notes(),
    })
}

/// What will be changed of a partition.
struct Change<'a> {
    standing: &'a Standing,
    target: Target,
    now: String,
    then: String,
    effect: String,
}

enum Target {
    Published(Commitment),
    Stored(Position),
}

fn set(config: &Config, args: &SetArgs) -> anyhow::Result<()> {
    let stream = find_stream(config, &args.stream)?;
    if args.published.is_some() && stream.live.is_none() {
        bail!(
            "stream `{}` has no live topic, so nothing of it is published: its group's offset follows what is stored",
            stream.name
        );
    }
    // Moving a checkpoint back looks through the documents.
    let inspector = Inspector::connect(config, runtime()?, Some(MOVE_TIMEOUT))?;
    let found = inspector.stream(stream)?;
    let mut changes = Vec::new();
    for standing in chosen(args, &found)? {
        match plan(&inspector, stream, args, standing) {
            Ok(change) => changes.push(change),
            // What was asked for by its number is not left out silently.
            Err(error) if args.all && error.is::<DecisionError>() => eprintln!("unchanged: {error:#}"),
            Err(error) => return Err(error),
        }
    }
    if changes.is_empty() {
        bail!("there is nothing to change: the decision fits no partition of stream `{}`", stream.name);
    }
    let heads = ["PARTITION", "NOW", "THEN", "EFFECT"];
    let rows = changes.iter().map(|change| {
        let Change { standing, now, then, effect, .. } = change;
        vec![number(Some(standing.key.partition)), now.clone().into(), then.clone().into(), effect.clone().into()]
    });
    write!(std::io::stdout().lock(), "{}", table(&heads, rows))?;
    confirm(args.yes, changes.len())?;
    for change in &changes {
        apply(&inspector, stream, change)?;
    }
    writeln!(std::io::stdout().lock(), "{} partition(s) changed", changes.len())?;
    Ok(())
}

/// Longest run time of a statement here.
const MOVE_TIMEOUT: std::time::Duration = std::time::Duration::from_mins(10);

fn chosen<'a>(args: &SetArgs, found: &'a StreamStanding) -> anyhow::Result<Vec<&'a Standing>> {
    if args.all {
        return Ok(found.partitions.iter().collect());
    }
    let find = |number: &i32| {
        found.partitions.iter().find(|standing| standing.key.partition == *number).ok_or_else(|| {
            let known: Vec<String> =
                found.partitions.iter().map(|standing| standing.key.partition.to_string()).collect();
            UsageError(format!("stream `{}` has no partition {number}; there is: {}", found.name, known.join(", ")))
        })
    };
    let mut numbers = args.partition.clone();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.iter().map(|number| Ok(find(number)?)).collect()
}

fn plan<'a>(
    inspector: &Inspector<'_>,
    stream: &StreamConfig,
    args: &SetArgs,
    standing: &'a Standing,
) -> anyhow::Result<Change<'a>> {
    match (args.published, args.stored) {
        (Some(decision), _) => plan_published(inspector, stream, decision, standing),
        (None, Some(decision)) => plan_stored(inspector, stream, decision, standing),
        (None, None) => Err(UsageError("say `--published` or `--stored`".into()).into()),
    }
}

fn plan_published<'a>(
    inspector: &Inspector<'_>,
    stream: &StreamConfig,
    decision: PublishedDecision,
    standing: &'a Standing,
) -> anyhow::Result<Change<'a>> {
    let commitment = decision.decide(standing)?;
    let partition = standing.key.partition;
    let after =
        inspector.stored(stream, &[(partition, commitment.published())])?.remove(&partition).unwrap_or_default();
    let held = after.outbox.map_or(0, |outbox| outbox.ranges);
    let stored = standing.store.checkpoint.as_ref().map(|checkpoint| checkpoint.stored);
    let confirmed = if stored.is_some_and(|stored| commitment.published() > stored) {
        format!("; what is stored up to {} is not published", commitment.position.0)
    } else {
        String::new()
    };
    let effect = format!(
        "{} range(s) of the outbox are published, {} count as published{confirmed}",
        after.backlog.ranges,
        held - after.backlog.ranges
    );
    let shown = |position: Position, metadata: &str| format!("published {} `{metadata}`", position.0);
    Ok(Change {
        standing,
        now: standing
            .offset
            .as_ref()
            .map_or_else(|| "no offset".into(), |offset| shown(offset.position, &offset.metadata)),
        then: shown(commitment.position, &serde_json::to_string(&commitment.note)?),
        effect,
        target: Target::Published(commitment),
    })
}

fn plan_stored<'a>(
    inspector: &Inspector<'_>,
    stream: &StreamConfig,
    decision: StoredDecision,
    standing: &'a Standing,
) -> anyhow::Result<Change<'a>> {
    let key = &standing.key;
    let checkpoint = standing.store.checkpoint.as_ref().ok_or_else(|| DecisionError::NoCheckpoint(key.clone()))?;
    let extent = standing.topic.ok_or_else(|| DecisionError::NoSuchPartition(key.clone()))?;
    let position = match decision {
        StoredDecision::Earliest => extent.low,
        StoredDecision::Latest => extent.end,
        StoredDecision::At(position) => check_readable(key, position, extent)?,
        StoredDecision::Since(time) => TopicOffsets::new(&inspector.config.kafka.client, &stream.topic)?
            .at(key.partition, time)?
            .unwrap_or(extent.end),
    };
    let stored = checkpoint.stored.position;
    let effect = if standing.is_recreated() {
        format!("reads the topic that was made again from {} on, as newer than all before", position.0)
    } else if position > stored {
        format!("skips {} record(s): they are never read", position.0 - stored.0)
    } else if position < stored {
        format!("reads {} record(s) again; what is stored already is not stored again", stored.0 - position.0)
    } else {
        "fences the worker, which claims again".into()
    };
    Ok(Change {
        standing,
        now: format!("stored {} (epoch {})", stored.0, checkpoint.stored.epoch),
        then: format!("stored {} (epoch {})", position.0, checkpoint.stored.epoch + 1),
        effect,
        target: Target::Stored(position),
    })
}

fn apply(inspector: &Inspector<'_>, stream: &StreamConfig, change: &Change<'_>) -> anyhow::Result<()> {
    let Standing { key, topic_id, store, .. } = change.standing;
    match &change.target {
        Target::Published(Commitment { position, note }) => {
            let live = stream.live.as_ref().context("the stream has no live topic")?;
            KafkaLiveTopic::new(topology::live_config(inspector.config, stream, live))?.decide(key, *position, note)
        }
        Target::Stored(position) => {
            let epoch = store.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.stored.epoch);
            let moving = inspector.store.move_checkpoint(key, epoch, *position, topic_id.as_deref());
            let moved = inspector.runtime.block_on(moving)?;
            moved.map(drop).with_context(|| {
                format!("the checkpoint of {key} is not in epoch {epoch} any more: somebody else moved it; look again with `albertine position show {}`", key.stream)
            })
        }
    }
}

/// Goes on only if somebody says so.
fn confirm(yes: bool, partitions: usize) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(UsageError("nothing was changed: say `--yes` where there is no terminal to ask on".into()).into());
    }
    eprint!("Change {partitions} partition(s)? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(())
}
