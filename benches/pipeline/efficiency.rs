//! `albertine run` beside the bare ONNX Runtime: what all that is not the network costs.

use std::time::{Duration, Instant};

use albertine::model::folder::{GraphBytes, Model};
use chrono::{DateTime, Utc};
use ort::{
    environment::Environment,
    session::{Session, builder::GraphOptimizationLevel},
    value::Tensor,
};
use sqlx::Row;

use crate::{
    Arguments, corpus,
    measure::{Spread, now_ms, own_seconds, seconds, wait_for_count, wait_for_count_looking},
    support::{
        environment,
        pipeline::{Options, Stream},
        repository,
    },
};

/// A run takes some 20 s, so that its beginning and its end, when not all sessions have work, are a hundredth of it.
const DOCUMENTS: usize = 1_200;
/// Labelled before the clock starts.
const WARM: usize = 32;
/// How often the program is asked whether it is done. When it was, the database tells.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const PARTITIONS: i32 = 4;
const LIMIT: Duration = Duration::from_mins(20);

/// The graphs of a model folder, run by `ort` and nothing else: one window a call, no padding.
struct Bare {
    embed: Session,
    layers: Vec<Session>,
    head: Session,
    passes: usize,
}

impl Bare {
    fn open(environment: &Environment, model: &Model) -> Self {
        let open = |bytes: &[u8]| {
            Session::builder(environment)
                .unwrap()
                .with_intra_threads(1)
                .unwrap()
                .with_memory_pattern(false)
                .unwrap()
                .with_optimization_level(GraphOptimizationLevel::All)
                .unwrap()
                .commit_from_memory(bytes)
                .unwrap()
        };
        let GraphBytes::Stepped { embed, layers, head } = &model.graphs else {
            panic!("the model is one graph: it has no layer to step")
        };
        let layers = layers.iter().map(|layer| open(layer)).collect();
        Self { embed: open(embed), layers, head: open(head), passes: model.passes }
    }

    fn label(&mut self, ids: &[u32]) -> usize {
        let length = ids.len();
        let input: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        let input = Tensor::from_array(([1, length], input)).unwrap();
        let types = Tensor::from_array(([1, length], vec![0_i64; length])).unwrap();
        let lengths = Tensor::from_array(([1], vec![length as i32])).unwrap();
        let mut outputs = self.embed.run(ort::inputs!["input_ids" => input, "token_type_ids" => types]).unwrap();
        let mut hidden = outputs.remove("hidden").unwrap();
        drop(outputs);
        for pass in 0..self.passes {
            let layer = pass % self.layers.len();
            let mut outputs = self.layers[layer].run(ort::inputs!["hidden" => &hidden, "lengths" => &lengths]).unwrap();
            let next = outputs.remove("hidden_out").unwrap();
            drop(outputs);
            hidden = next;
        }
        let outputs = self.head.run(ort::inputs!["hidden" => &hidden]).unwrap();
        let (_, logits) = outputs["logits"].try_extract_tensor::<f32>().unwrap();
        (0..logits.len()).max_by(|one, other| logits[*one].total_cmp(&logits[*other])).unwrap()
    }
}

pub fn measure(arguments: &Arguments) {
    let model = Model::open(&repository(&arguments.model)).unwrap();
    let environment = ort::init_from(environment("ORT_DYLIB_PATH")).unwrap().build().unwrap();
    let texts = corpus::texts(arguments.corpus.as_deref(), WARM + DOCUMENTS);
    let windows: Vec<Vec<Vec<u32>>> = texts
        .iter()
        .map(|text| model.tokenizer.windows(text.as_str()).unwrap().into_iter().map(|window| window.ids).collect())
        .collect();
    let tokens: usize = windows[WARM..].iter().flatten().map(Vec::len).sum();
    println!(
        "{} documents of {} tokens on average, at full depth, {}",
        texts.len() - WARM,
        tokens / (texts.len() - WARM),
        arguments.model
    );
    println!(
        "\n| Sessions | Bare ONNX Runtime, documents/s | `albertine run` | Ratio | Bare, documents per core-second \
         | `albertine run` | Ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
    for sessions in [1, 2] {
        let rounds: Vec<[f64; 4]> = (0..arguments.rounds)
            .map(|_| {
                let (bare, bare_core) = bare(&environment, &model, &windows, sessions);
                let (ours, ours_core) = ours(arguments, &texts, sessions);
                [bare, ours, bare_core, ours_core]
            })
            .collect();
        let column = |index: usize| Spread::of(rounds.iter().map(|round| round[index]));
        let ratio = |over: usize, under: usize| Spread::of(rounds.iter().map(|round| round[over] / round[under]));
        println!(
            "| {sessions} | {:.1} | {:.1} | {:.3} | {:.1} | {:.1} | {:.3} |",
            column(0),
            column(1),
            ratio(1, 0),
            column(2),
            column(3),
            ratio(3, 2)
        );
    }
}

/// Documents a second, and a core-second: all threads compute all the time.
fn bare(environment: &Environment, model: &Model, windows: &[Vec<Vec<u32>>], sessions: usize) -> (f64, f64) {
    let mut sessions: Vec<Bare> = (0..sessions).map(|_| Bare::open(environment, model)).collect();
    for session in &mut sessions {
        for ids in windows[..WARM].iter().flatten() {
            session.label(ids);
        }
    }
    let count = sessions.len();
    let (began, before) = (Instant::now(), own_seconds());
    std::thread::scope(|scope| {
        for (thread, session) in sessions.iter_mut().enumerate() {
            scope.spawn(move || {
                for ids in windows[WARM..].iter().skip(thread).step_by(count).flatten() {
                    session.label(ids);
                }
            });
        }
    });
    let documents = (windows.len() - WARM) as f64;
    (documents / began.elapsed().as_secs_f64(), documents / (own_seconds() - before))
}

/// From when the records are sent until the last is stored.
fn ours(arguments: &Arguments, texts: &[String], sessions: usize) -> (f64, f64) {
    let stream = Stream::new(PARTITIONS);
    let options = Options {
        sessions: Some(sessions),
        model: Some(arguments.model.clone()),
        model_lines: "early_exit = false".into(),
        engine: "duplicate_cache_bytes = 0".into(),
        ..Options::default()
    };
    let process = stream.start_claimed(&options);
    let stored = "albertine_documents_stored_total";
    let numbered = |range: std::ops::Range<usize>| range.map(|number| (number, corpus::record(number, &texts[number])));
    corpus::produce(&stream.topic, PARTITIONS, numbered(0..WARM));
    wait_for_count(&process, stored, WARM, LIMIT);
    let before = seconds(&process);
    let began_ms = now_ms();
    corpus::produce(&stream.topic, PARTITIONS, numbered(WARM..texts.len()));
    wait_for_count_looking(LOOK_INTERVAL, &process, stored, texts.len(), LIMIT);
    let used = seconds(&process) - before;
    process.stop();
    let last: DateTime<Utc> = stream.database.rows("SELECT max(stored_at) FROM {s}.documents")[0].get(0);
    let elapsed = (last.timestamp_micros() as f64 / 1000.0 - began_ms) / 1000.0;
    let documents = (texts.len() - WARM) as f64;
    (documents / elapsed, documents / used)
}
