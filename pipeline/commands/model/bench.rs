//! `albertine model bench`: how fast one session is on one core or GPU, by length, and what share of the time goes where.
//!
//! Lengths take turns, so that a machine that slows down slows all of them; figures are medians over the rounds.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::{
    commands::{
        GlobalOptions, UsageError,
        output::{Shown, print_json, table},
        progress,
    },
    engine::{
        provider::Provider,
        session::{ModelSession, PartTimes},
    },
    model::folder::Model,
    text::tokenize::{Texts, TokenWindow, Tokens},
    topology,
};

/// Words of which texts are made: so many that caches hold what they hold for real texts.
const WORDS: usize = 4096;
/// Different texts of one length.
const TEXTS: usize = 16;
/// The same texts whenever it is run.
const SEED: u64 = 17;
/// A round is long enough that the clock's own cost and resolution do not matter.
const ROUND: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine model bench albert-sentiment
  albertine model bench models/my-model --lengths 16,64,512 --batch 4 --seconds 20 --json

One session on one thread, as each of the engine's threads has one, on what `engine.execution_provider` names; a GPU
needs many texts at once (`--batch`). Compare figures of one machine and one run only, with nothing else running.")]
pub struct BenchArgs {
    /// The model, by its name in the configuration or by its folder
    model: String,
    /// Tokens of a text, special tokens included [default: powers of two up to the window]
    #[arg(long, value_delimiter = ',', value_name = "TOKENS,…")]
    lengths: Vec<usize>,
    /// Texts computed at once
    #[arg(long, default_value = "1", value_name = "TEXTS", value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// How long each length is measured
    #[arg(long, default_value = "3", value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub fn run(global: &GlobalOptions, args: &BenchArgs) -> anyhow::Result<()> {
    let config = global.load_config_or_defaults()?;
    let model = super::open(&config, &args.model)?;
    let runtime = topology::load_runtime(&config)?;
    let mut session = ModelSession::open(&runtime, &model)?;
    let words = model.tokenizer.single_token_words(WORDS);
    if words.is_empty() {
        bail!("no word of the tokenizer is one token: texts of a known length cannot be made");
    }
    let lengths = lengths(args, &model)?;
    let mut samples: Vec<Sample> = lengths.iter().map(|length| Sample::new(&model, &words, *length)).collect();
    let rounds = (Duration::from_secs(args.seconds.into()).as_millis() / ROUND.as_millis()).max(3) as u64;
    let bar = progress::bar(Some(rounds), "{wide_bar} {percent}%, {eta} left");
    for _ in 0..rounds {
        for sample in &mut samples {
            sample.round(&mut session, &model, args.batch.into())?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let measured: Vec<Measured> = samples.iter().map(Sample::measured).collect();
    if args.json {
        return print_json(&as_json(&model, runtime.provider(), args, &measured));
    }
    Ok(std::io::stdout().lock().write_all(as_text(&model, runtime.provider(), args, &measured).as_bytes())?)
}

fn lengths(args: &BenchArgs, model: &Model) -> Result<Vec<usize>, UsageError> {
    // A pair has at least one token in each text.
    let special = model.tokenizer.special_tokens() + usize::from(model.tokenizer.reads_pairs());
    let longest = model.tokenizer.max_length();
    if args.lengths.is_empty() {
        let powers = (4..).map(|power| 1_usize << power).take_while(|length| *length < longest);
        return Ok(powers.filter(|length| *length > special).chain([longest]).collect());
    }
    match args.lengths.iter().find(|length| **length <= special || **length > longest) {
        Some(length) => Err(UsageError(format!(
            "`--lengths`: `{length}` is not above {special}, and at most {longest}, the model's window"
        ))),
        None => Ok(args.lengths.clone()),
    }
}

/// Texts of one length, and what their rounds took.
struct Sample {
    length: usize,
    /// With the second text where the model reads pairs.
    texts: Vec<(String, Option<String>)>,
    next: usize,
    rounds: Vec<Round>,
}

/// What one text took, by part.
#[derive(Debug, Clone, Copy)]
struct Round {
    tokenize: f64,
    embed: f64,
    layers: f64,
    head: f64,
    rest: f64,
}

impl Sample {
    fn new(model: &Model, words: &[String], length: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(SEED);
        let tokens = length - model.tokenizer.special_tokens();
        let second = if model.tokenizer.reads_pairs() { tokens / 2 } else { 0 };
        let mut text = |tokens: usize| {
            let words: Vec<&str> = (0..tokens).map(|_| words[random.usize(..words.len())].as_str()).collect();
            words.join(" ")
        };
        let texts = (0..TEXTS).map(|_| (text(tokens - second), (second > 0).then(|| text(second)))).collect();
        Self { length, texts, next: 0, rounds: Vec::new() }
    }

    /// Labels texts for a while, `batch` at once.
    fn round(&mut self, session: &mut ModelSession, model: &Model, batch: usize) -> anyhow::Result<()> {
        let (started, mut tokenizing, mut texts) = (Instant::now(), Duration::ZERO, 0_u32);
        session.take_times();
        while started.elapsed() < ROUND {
            let before = Instant::now();
            let windows: Vec<TokenWindow> =
                (0..batch).map(|index| self.window(model, index)).collect::<Result<_, _>>()?;
            tokenizing += before.elapsed();
            let tokens: Vec<Tokens<'_>> = windows.iter().map(TokenWindow::tokens).collect();
            session.infer(&tokens)?;
            self.next += batch;
            texts += u32::try_from(batch)?;
        }
        let PartTimes { embed, layers, head, rest } = session.take_times();
        let a_text = |time: Duration| time.as_secs_f64() / f64::from(texts);
        self.rounds.push(Round {
            tokenize: a_text(tokenizing),
            embed: a_text(embed),
            layers: a_text(layers),
            head: a_text(head),
            rest: a_text(rest),
        });
        Ok(())
    }

    fn window(&self, model: &Model, index: usize) -> anyhow::Result<TokenWindow> {
        let (text, pair) = &self.texts[(self.next + index) % self.texts.len()];
        let texts = Texts { text, pair: pair.as_deref() };
        model.tokenizer.windows(texts)?.into_iter().next().context("a text has at least one window")
    }

    /// The round in the middle, by its time for a text. The first one warms up and does not count.
    fn measured(&self) -> Measured {
        let mut rounds = self.rounds[1..].to_vec();
        rounds.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
        Measured { length: self.length, round: rounds[rounds.len() / 2] }
    }
}

impl Round {
    fn seconds(&self) -> f64 {
        self.parts().iter().map(|(_, seconds)| seconds).sum()
    }

    fn parts(&self) -> [(&'static str, f64); 5] {
        [
            ("tokenize", self.tokenize),
            ("embed", self.embed),
            ("layers", self.layers),
            ("head", self.head),
            ("rest", self.rest),
        ]
    }
}

struct Measured {
    length: usize,
    round: Round,
}

impl Measured {
    fn texts_per_second(&self) -> f64 {
        1.0 / self.round.seconds()
    }

    fn tokens_per_second(&self) -> f64 {
        self.length as f64 / self.round.seconds()
    }
}

fn as_text(model: &Model, provider: Provider, args: &BenchArgs, measured: &[Measured]) -> String {
    let heads = ["tokens", "texts/s", "tokens/s", "ms a text", "tokenize", "embed", "layers", "head", "rest"];
    let row = |measured: &Measured| {
        let seconds = measured.round.seconds();
        let share = |(_, part): (&str, f64)| Shown::Number(format!("{:.1}%", part / seconds * 100.0));
        [
            Shown::Number(measured.length.to_string()),
            Shown::Number(format!("{:.1}", measured.texts_per_second())),
            Shown::Number(format!("{:.0}", measured.tokens_per_second())),
            Shown::Number(format!("{:.3}", seconds * 1000.0)),
        ]
        .into_iter()
        .chain(measured.round.parts().map(share))
        .collect()
    };
    format!(
        "Model {} {}: {} passes, one session on one thread on `{provider}`, {} text(s) at once\n{}",
        model.name,
        model.version,
        model.passes,
        args.batch,
        table(&heads, measured.iter().map(row))
    )
}

fn as_json(model: &Model, provider: Provider, args: &BenchArgs, measured: &[Measured]) -> Value {
    let row = |measured: &Measured| {
        let seconds: serde_json::Map<_, _> =
            measured.round.parts().iter().map(|(part, seconds)| ((*part).to_owned(), json!(seconds))).collect();
        json!({
            "tokens": measured.length,
            "texts_per_second": measured.texts_per_second(),
            "tokens_per_second": measured.tokens_per_second(),
            "seconds_per_text": seconds,
        })
    };
    json!({
        "model": &*model.name, "model_version": &*model.version, "passes": model.passes, "batch": args.batch,
        "execution_provider": provider.to_string(),
        "lengths": measured.iter().map(row).collect::<Vec<_>>(),
    })
}
