//! Windows that leave before the last pass, and others that take their place: each is answered as if alone.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc, sync::mpsc};

use albertine::{
    domain::early_exit::{EarlyExit, EarlyExits, ExitRule, Trail},
    engine::{
        Engine, EngineConfig, Job, JobResult, Priority,
        job::JobInput,
        runtime::OnnxRuntime,
        scheduler::GroupLimits,
        session::{Batch, ModelSession},
    },
    model::folder::{Model, WindowLogits},
    text::tokenize::{TokenWindow, Tokens},
};

use super::{ROUNDING_TOLERANCE, distance, goldens, model_folder, runtime};
use crate::support::{DEADLINE, models::small_model};

/// So low that most texts leave early, and not all of them after the same pass.
const RULE: ExitRule = ExitRule::Confidence { threshold: 0.7 };

fn early_exit(passes: usize, temperature: f32) -> EarlyExit {
    EarlyExit { rule: RULE, rule_temperatures: vec![temperature; passes - 1], temperatures: vec![temperature; passes] }
}

/// Of documents of one window. Others go all the way.
fn of_one_window(exit: EarlyExit) -> Arc<EarlyExits> {
    Arc::new(EarlyExits { one_window: Some(exit), several_windows: None })
}

fn exit_of(model: &Model) -> EarlyExit {
    model.early_exit.as_ref().unwrap().one_window.clone().unwrap()
}

fn model() -> Model {
    let mut model = Model::open(&model_folder()).unwrap();
    model.early_exit = Some(of_one_window(early_exit(model.passes, 1.3)));
    model
}

/// The pass after which a window with these logits leaves.
fn depth(exit: &EarlyExit, passes: &[Vec<f32>]) -> usize {
    let mut trail = Trail::default();
    (1..passes.len()).find(|depth| exit.leaves(&mut trail, *depth, &passes[depth - 1])).unwrap_or(passes.len())
}

/// What the rule makes of the logits after every pass. None where a confidence is so near the threshold that rounding may
/// decide.
fn expected(exit: &EarlyExit, passes: &[Vec<f32>]) -> Option<WindowLogits> {
    let margin = |threshold| EarlyExit { rule: ExitRule::Confidence { threshold }, ..exit.clone() };
    let found = depth(exit, passes);
    let is_clear = depth(&margin(0.68), passes) == found && depth(&margin(0.72), passes) == found;
    is_clear.then(|| WindowLogits { logits: passes[found - 1].clone(), depth: found })
}

fn check(found: &WindowLogits, wanted: &WindowLogits, what: &str) {
    assert_eq!(found.depth, wanted.depth, "{what} left after another pass");
    let moved = distance(&found.logits, &wanted.logits);
    assert!(moved <= ROUNDING_TOLERANCE, "{what} was given logits that are {moved} off");
}

#[test]
fn the_logits_after_the_last_pass_are_those_of_full_depth() {
    let mut session = ModelSession::open(runtime(), &model()).unwrap();
    for golden in goldens().iter().take(10) {
        let every = session.infer_every_depth(Tokens::single(&golden.input_ids)).unwrap();
        let full = session.infer(&[Tokens::single(&golden.input_ids)]).unwrap();
        assert_eq!(every.len(), session.passes());
        assert_eq!(every.last(), full.first());
        assert!(distance(&every[0], every.last().unwrap()) > 0.0, "a pass changes something");
    }
}

#[test]
fn windows_that_enter_at_any_step_are_answered_as_if_alone() {
    let goldens: Vec<_> = goldens().into_iter().map(|golden| golden.input_ids).collect();
    check_windows_that_enter(runtime(), &model(), &goldens, 4);
}

#[test]
fn windows_that_enter_between_layers_called_in_turn_are_answered_as_if_alone() {
    let folder = small_model("in-turn-float32");
    let mut model = Model::open(&folder).unwrap();
    assert_eq!(model.passes, 4);
    // Its random weights give large logits: most would leave after the first pass.
    model.early_exit = Some(of_one_window(early_exit(model.passes, 5.0)));
    let corpus = std::fs::read_to_string(folder.join("verification.jsonl")).unwrap();
    let ids = |line: &str| -> Vec<u32> {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        serde_json::from_value(row["input_ids"].clone()).unwrap()
    };
    let texts: Vec<Vec<u32>> = corpus.lines().map(ids).filter(|ids| ids.len() <= 32).collect();
    check_windows_that_enter(runtime(), &model, &texts, 3);

    let mut session = ModelSession::open(runtime(), &model).unwrap();
    let mut batch = Batch::at_full_depth();
    session.enter(&mut batch, vec![Tokens::single(&texts[0])]).map_err(|(_, error)| error).unwrap();
    session.step(&mut batch).unwrap();
    let (given_back, error) = session.enter(&mut batch, vec![Tokens::single(&texts[1])]).unwrap_err();
    assert_eq!((given_back.len(), batch.len()), (1, 1));
    assert!(error.to_string().contains("only before the first layer"), "{error}");
}

#[test]
fn windows_whose_states_stay_on_a_device_leave_it_as_the_rule_says() {
    let goldens: Vec<Vec<u32>> = goldens().into_iter().map(|golden| golden.input_ids).collect();
    check_windows_that_enter(&runtime().clone().handing_on_states(), &model(), &goldens, 8);
}

/// So many come at once whenever they may.
fn check_windows_that_enter(runtime: &OnnxRuntime, model: &Model, texts: &[Vec<u32>], at_once: usize) {
    let mut session = ModelSession::open(runtime, model).unwrap();
    let exit = exit_of(model);
    let every: Vec<_> = texts.iter().map(|ids| session.infer_every_depth(Tokens::single(ids)).unwrap()).collect();
    let mut batch = Batch::new();
    let mut answered = BTreeMap::new();
    let mut waiting = texts.iter().enumerate();
    let mut depths_together = 0;
    loop {
        // Whatever their lengths, so that rows of all depths lie beside each other.
        let room = if session.is_open(&batch) { at_once } else { 0 };
        let entering: Vec<Numbered<'_>> =
            waiting.by_ref().take(room).map(|(index, ids)| Numbered(index, Tokens::single(ids))).collect();
        if entering.is_empty() && batch.is_empty() {
            break;
        }
        if !entering.is_empty() {
            session.enter(&mut batch, entering).map_err(|(_, error)| error).unwrap();
        }
        depths_together = depths_together.max(batch.len());
        for (Numbered(index, _), logits) in session.step(&mut batch).unwrap() {
            assert!(answered.insert(index, logits).is_none(), "text {index} was answered twice");
        }
    }
    assert!(depths_together > 4, "at most {depths_together} rows were together");
    assert_eq!(answered.len(), texts.len());
    let mut depths = BTreeMap::new();
    for (index, found) in &answered {
        *depths.entry(found.depth).or_insert(0) += 1;
        if let Some(wanted) = expected(&exit, &every[*index]) {
            check(found, &wanted, &format!("text {index}"));
        }
    }
    assert!(depths.len() >= 3, "texts leave after different passes: {depths:?}");
}

struct Numbered<'a>(usize, Tokens<'a>);

impl albertine::engine::session::Tokenized for Numbered<'_> {
    fn tokens(&self) -> Tokens<'_> {
        self.1
    }

    fn windows(&self) -> usize {
        1
    }
}

#[test]
fn the_engine_answers_every_window_as_the_rule_says() {
    let (goldens, model) = (goldens(), model());
    let exit = exit_of(&model);
    let mut session = ModelSession::open(runtime(), &model).unwrap();
    let engine = start_engine(model);
    let (sender, answers) = mpsc::channel();
    for round in 0..4 {
        for (index, golden) in goldens.iter().enumerate() {
            let sender = sender.clone();
            // A backfill's windows are put aside for live ones between two passes.
            let priority = if (round + index) % 3 == 0 { Priority::Backfill } else { Priority::Live };
            let answer = Box::new(move |result| sender.send((index, result)).unwrap());
            let inputs = vec![JobInput { model: 0, windows: vec![window(&golden.input_ids)] }];
            engine.submit(Job { priority, flow: round as u64, inputs, answer });
        }
    }
    drop(sender);
    let mut clear = 0;
    for _ in 0..4 * goldens.len() {
        let (index, result): (usize, JobResult) = answers.recv_timeout(DEADLINE).unwrap();
        let found = result.unwrap().remove(0).remove(0).1;
        let every = session.infer_every_depth(Tokens::single(&goldens[index].input_ids)).unwrap();
        if let Some(wanted) = expected(&exit, &every) {
            check(&found, &wanted, &format!("text {index}"));
            clear += 1;
        }
    }
    assert!(clear > 2 * goldens.len(), "only {clear} answers could be compared");
}

#[test]
fn windows_of_longer_documents_leave_by_an_exit_of_their_own() {
    let mut model = model();
    let waiting = |repeats| EarlyExit { rule: ExitRule::Patience { repeats }, ..exit_of(&model) };
    // Nothing has had the same label four times before the fifth pass.
    let exits = Arc::new(EarlyExits { one_window: Some(waiting(1)), several_windows: Some(waiting(4)) });
    model.early_exit = Some(Arc::clone(&exits));
    let passes = model.passes;
    let mut session = ModelSession::open(runtime(), &model).unwrap();
    let engine = start_engine(model);
    for (index, golden) in goldens().iter().take(20).enumerate() {
        let every = session.infer_every_depth(Tokens::single(&golden.input_ids)).unwrap();
        for (windows, depths) in [(1, 2..passes), (3, 5..passes + 1)] {
            let (sender, answers) = mpsc::channel();
            let answer = Box::new(move |result: JobResult| sender.send(result).unwrap());
            let inputs = vec![JobInput { model: 0, windows: vec![window(&golden.input_ids); windows] }];
            engine.submit(Job { priority: Priority::Live, flow: 1, inputs, answer });
            let found = answers.recv_timeout(DEADLINE).unwrap().unwrap().remove(0);
            assert_eq!(found.len(), windows);
            let depth = depth(exits.of(windows).unwrap(), &every);
            assert!(depths.contains(&depth), "text {index} leaves after pass {depth}");
            for (_, found) in found {
                check(&found, &WindowLogits { logits: every[depth - 1].clone(), depth }, &format!("text {index}"));
            }
        }
    }
}

fn window(ids: &[u32]) -> TokenWindow {
    TokenWindow { second_from: ids.len(), fresh: ids.len(), ids: ids.to_vec() }
}

fn start_engine(model: Model) -> Engine {
    let config = EngineConfig {
        sessions: NonZeroUsize::new(2).unwrap(),
        pin_threads: true,
        group: GroupLimits { tokens_max: 256, length_part: 32 },
        queue_tokens_max: 2000,
        backfill_queue_tokens_max: 2000,
    };
    Engine::start(runtime(), &[Arc::new(model)], config).unwrap()
}

#[test]
fn a_label_carries_its_depth_and_the_temperature_of_its_exit() {
    let mut model = model();
    let last = model.passes;
    let temperatures = [vec![10.0; last - 1], vec![0.5]].concat();
    let one_window = Some(EarlyExit { temperatures, ..early_exit(last, 1.0) });
    let several_windows = Some(early_exit(last, 0.5));
    model.early_exit = Some(Arc::new(EarlyExits { one_window, several_windows }));
    let window = |depth| (1, WindowLogits { logits: vec![0.0, 0.0, 3.0], depth });
    let (early, late) = (model.label(&[window(2)]).unwrap(), model.label(&[window(last)]).unwrap());
    assert_eq!((early.depth, usize::from(late.depth)), (2, last));
    assert!(early.confidence < 0.5 && late.confidence > 0.99, "{} and {}", early.confidence, late.confidence);
    let several = model.label(&[window(2), window(4)]).unwrap();
    assert_eq!(several.depth, 4);
    assert!(several.confidence > 0.99, "{}", several.confidence);
    let full = model.at_full_depth();
    assert_eq!(full.early_exit, None);
    // By the temperature of the whole network.
    assert!((0.8..0.95).contains(&full.label(&[window(last)]).unwrap().confidence));
}
