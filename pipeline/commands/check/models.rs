//! ONNX Runtime and the models: each folder is opened, and each model asked once.

use std::collections::BTreeMap;

use anyhow::anyhow;

use crate::{
    commands::report::Report,
    config::resolved::Config,
    engine::{runtime::OnnxRuntime, session::ModelSession},
    model::folder::{Model, WindowLogits},
    text::tokenize::Texts,
    topology,
};

/// Returns the models whose folders are in order, by name.
pub fn check(config: &Config, report: &mut Report) -> std::io::Result<BTreeMap<String, Model>> {
    let runtime = topology::load_runtime(config);
    let library = config.onnxruntime_library.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
    let runtime = match runtime {
        Ok(runtime) => {
            report.line("ONNX Runtime", Ok(format!("{library}, computes on `{}`", runtime.provider())))?;
            Some(runtime)
        }
        Err(error) => {
            report.line("ONNX Runtime", Err(error))?;
            None
        }
    };
    let mut models = BTreeMap::new();
    for name in config.models.keys() {
        let what = format!("model `{name}`");
        match topology::open_model(config, name) {
            Ok(model) => {
                report.line(what, ask(&model, runtime.as_ref()))?;
                models.insert(name.clone(), model);
            }
            Err(error) => {
                report.line(what, Err(error))?;
            }
        }
    }
    Ok(models)
}

/// Lets the model answer once, where there is a runtime.
fn ask(model: &Model, runtime: Option<&OnnxRuntime>) -> anyhow::Result<String> {
    let labels: Vec<&str> = model.labels.iter().map(|label| &**label).collect();
    let detail = format!("version {}, task `{}`, labels {}", model.version, model.task, labels.join(", "));
    let Some(runtime) = runtime else { return Ok(format!("{detail}; not run, for want of ONNX Runtime")) };
    let mut session = ModelSession::open(runtime, model)?;
    let windows = model.tokenizer.windows(Texts { text: "Does it answer?", pair: Some("It does.") })?;
    let logits = session.infer(&[windows[0].tokens()])?.remove(0);
    model
        .label(&[(windows[0].fresh, WindowLogits { logits, depth: model.passes })])
        .ok_or_else(|| anyhow!("the model gave logits that are not numbers"))?;
    Ok(detail)
}
