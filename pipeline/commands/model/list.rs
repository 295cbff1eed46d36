//! `albertine model list`: the models of the configuration, each with what its folder says, or what is wrong with it.

use std::{io::Write, path::Path};

use anyhow::bail;
use serde_json::{Value, json};

use crate::{
    commands::{
        GlobalOptions,
        output::{Shown, number, print_json, size, table},
    },
    model::{files::ModelFolder, folder::Model, manifest::Manifest},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  albertine model list
  albertine model list --json

A folder that cannot be served is shown with its problem, and the exit code is 1.")]
pub struct ListArgs {
    /// Show the models for programs
    #[arg(long, env = "ALBERTINE_MODEL_LIST_JSON")]
    json: bool,
}

/// A configured model: its manifest and size in bytes, or why it cannot be served.
struct Listed<'a> {
    name: &'a str,
    path: &'a Path,
    folder: Result<(Manifest, u64), String>,
}

pub fn run(global: &GlobalOptions, args: &ListArgs) -> anyhow::Result<()> {
    let config = global.load_config()?;
    let listed: Vec<Listed<'_>> = config
        .models
        .iter()
        .map(|(name, model)| Listed { name, path: &model.path, folder: open(&model.path) })
        .collect();
    if args.json {
        print_json(&Value::Array(listed.iter().map(as_json).collect()))?;
    } else {
        std::io::stdout().lock().write_all(as_text(&listed).as_bytes())?;
    }
    let broken = listed.iter().filter(|model| model.folder.is_err()).count();
    if broken > 0 {
        bail!("{broken} of {} model(s) cannot be served", listed.len());
    }
    Ok(())
}

/// As serving opens it, so that what is listed can be served.
fn open(path: &Path) -> Result<(Manifest, u64), String> {
    Model::open(path).map_err(|error| error.problem.to_string())?;
    let folder = ModelFolder::open(path).map_err(|problem| problem.to_string())?;
    let size = folder.size();
    Ok((folder.manifest, size))
}

fn as_text(listed: &[Listed<'_>]) -> String {
    let heads = [
        "model",
        "version",
        "task",
        "labels",
        "languages",
        "input",
        "graphs",
        "precision",
        "passes",
        "size",
        "problem",
    ];
    table(&heads, listed.iter().map(row))
}

fn row(model: &Listed<'_>) -> Vec<Shown> {
    let Listed { name, folder, .. } = model;
    let (manifest, bytes) = match folder {
        Ok(folder) => folder,
        Err(problem) => {
            let mut row: Vec<Shown> = vec![(*name).into()];
            row.extend((0..9).map(|_| "-".into()));
            row.push(problem.as_str().into());
            return row;
        }
    };
    let languages = if manifest.languages.is_empty() { "any".into() } else { manifest.languages.join(", ") };
    vec![
        (*name).into(),
        manifest.version.as_str().into(),
        manifest.task.as_str().into(),
        manifest.labels.join(", ").into(),
        languages.into(),
        if manifest.input.pair { "pair" } else { "single" }.into(),
        manifest.graphs.kind().into(),
        manifest.graphs.precision().as_str().into(),
        number(Some(manifest.architecture.passes)),
        size(*bytes),
        "".into(),
    ]
}

fn as_json(model: &Listed<'_>) -> Value {
    let Listed { name, path, folder } = model;
    match folder {
        Ok((manifest, bytes)) => json!({
            "model": name,
            "folder": path,
            "version": manifest.version,
            "task": manifest.task,
            "labels": manifest.labels,
            "languages": manifest.languages,
            "pair": manifest.input.pair,
            "graphs": manifest.graphs.kind(),
            "precision": manifest.graphs.precision().as_str(),
            "passes": manifest.architecture.passes,
            "max_length": manifest.input.max_length,
            "bytes": bytes,
        }),
        Err(problem) => json!({"model": name, "folder": path, "problem": problem}),
    }
}
