//! How a dry run is shown: what became of the records, what each model said, and how far that agrees with ratings.

use std::{io::Write, sync::Arc};

use serde_json::{Value, json};

use super::{
    output::{OutputFormat, Shown, number, print_json, table},
    terminal::{excerpt, printable},
};
use crate::{
    domain::agreement::{AgreementRow, AgreementTable, Correlation},
    stream::dry_run::{Example, ModelSummary, Rejected, Summary},
};

/// Writes the summary of what `name` read, on the standard output.
pub fn show(name: &str, summary: &Summary, format: OutputFormat) -> anyhow::Result<()> {
    match format {
        OutputFormat::Json => print_json(&as_json(name, summary)),
        OutputFormat::Table => Ok(std::io::stdout().lock().write_all(as_text(name, summary).as_bytes())?),
    }
}

fn as_text(name: &str, summary: &Summary) -> String {
    let Summary { records, labelled, deletions, rejected, languages, models, examples } = summary;
    let rejections: u64 = rejected.values().map(|rejected| rejected.count).sum();
    let mut parts = vec![format!(
        "{name}: {records} records: {labelled} labelled, {rejections} rejected, {deletions} deletions; nothing was stored\n"
    )];
    if !rejected.is_empty() {
        let row = |(reason, rejected): (&&str, &Rejected)| {
            vec![number(Some(rejected.count)), (*reason).into(), printable(&rejected.first).into()]
        };
        parts.push(format!("Rejected\n{}", table(&["records", "reason", "first"], rejected.iter().map(row))));
    }
    if *labelled > 0 {
        let row = |(language, count): (&String, &u64)| vec![language.as_str().into(), number(Some(count))];
        parts.push(format!("Languages\n{}", table(&["language", "documents"], languages.iter().map(row))));
        parts.extend(models.iter().map(|model| model_text(model, *labelled)));
        let heads = ["place", "id", "label", "confidence", "rating", "text"];
        parts.push(format!("The first documents\n{}", table(&heads, examples.iter().flat_map(example_rows))));
    }
    parts.join("\n")
}

fn model_text(model: &ModelSummary, labelled: u64) -> String {
    let row = |(label, count): &(Arc<str>, u64)| {
        let share = *count as f64 / labelled as f64 * 100.0;
        vec![(&**label).into(), number(Some(count)), Shown::Number(format!("{share:.1}%"))]
    };
    let agreement = model.agreement().map_or_else(
        || "No record carries a rating: whether the model suits them is for you to read.\n".to_owned(),
        |agreement| agreement_text(&agreement),
    );
    format!(
        "Model {} {}, task {}, mean confidence {:.3}\n{}\n{agreement}",
        model.model,
        model.version,
        model.task,
        model.mean_confidence().unwrap_or_default(),
        table(&["label", "documents", "share"], model.labels.iter().map(row)),
    )
}

fn agreement_text(agreement: &AgreementTable) -> String {
    let heads: Vec<&str> =
        ["rating"].into_iter().chain(agreement.labels.iter().map(String::as_str)).chain(["mean score"]).collect();
    let row = |row: &AgreementRow| {
        let rating = Shown::Number(if row.ratings.0.total_cmp(&row.ratings.1).is_eq() {
            row.ratings.0.to_string()
        } else {
            format!("{} to {}", row.ratings.0, row.ratings.1)
        });
        let score = number(row.mean_score.map(|score| format!("{score:+.3}")));
        [rating].into_iter().chain(row.counts.iter().map(|count| number(Some(count)))).chain([score]).collect()
    };
    let verdict = match agreement.correlation {
        Some(Correlation { pairs, coefficient, low, high }) => format!(
            "Rank correlation of rating and score over {pairs} documents: {coefficient:.3}, 95% interval {low:.3} to {high:.3}: {}.\n",
            verdict(low, high)
        ),
        None => "Too few ratings, or all equal, for a rank correlation.\n".into(),
    };
    format!("Ratings against labels\n{}{verdict}", table(&heads, agreement.rows.iter().map(row)))
}

/// In words what the interval allows to say.
fn verdict(low: f64, high: f64) -> &'static str {
    if low >= 0.5 {
        "the labels follow the ratings"
    } else if low > 0.0 {
        "the labels follow the ratings loosely"
    } else if high < 0.0 {
        "the labels go against the ratings: is a high rating a bad one here?"
    } else {
        "no agreement can be told; more records narrow the interval"
    }
}

fn example_rows(example: &Example) -> impl Iterator<Item = Vec<Shown>> + '_ {
    example.labels.iter().map(|label| {
        vec![
            example.place.as_str().into(),
            printable(&example.attributes.id).into(),
            (&*label.label).into(),
            Shown::Number(format!("{:.3}", label.confidence)),
            number(example.attributes.rating),
            excerpt(&example.text).into(),
        ]
    })
}

fn as_json(name: &str, summary: &Summary) -> Value {
    let model = |model: &ModelSummary| {
        json!({
            "model": &*model.model,
            "model_version": &*model.version,
            "task": &*model.task,
            "labels": model.labels.iter().map(|(label, count)| (label.to_string(), json!(count))).collect::<serde_json::Map<_, _>>(),
            "mean_confidence": model.mean_confidence(),
            "agreement": model.agreement().map(|agreement| json!({
                "labels": agreement.labels,
                "rows": agreement.rows.iter().map(|row| json!({
                    "rating_low": row.ratings.0, "rating_high": row.ratings.1, "documents": row.counts, "mean_score": row.mean_score,
                })).collect::<Vec<_>>(),
                "rank_correlation": agreement.correlation.map(|correlation| json!({
                    "pairs": correlation.pairs, "coefficient": correlation.coefficient, "low": correlation.low, "high": correlation.high,
                })),
            })),
        })
    };
    json!({
        "name": name,
        "records": summary.records,
        "labelled": summary.labelled,
        "deletions": summary.deletions,
        "rejected": summary.rejected.iter().map(|(reason, rejected)| json!({"reason": reason, "records": rejected.count, "first": rejected.first})).collect::<Vec<_>>(),
        "languages": summary.languages,
        "models": summary.models.iter().map(model).collect::<Vec<_>>(),
        "examples": summary.examples.iter().flat_map(|example| example.labels.iter().map(move |label| json!({
            "place": example.place, "document_id": example.attributes.id, "label": &*label.label, "confidence": label.confidence,
            "rating": example.attributes.rating, "text": example.text,
        }))).collect::<Vec<_>>(),
    })
}
