//! How an evaluation is shown: tables for people, JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{
    evaluate::{Measured, MeasuredModel},
    groups::Group,
};
use crate::{
    commands::output::{Shown, number, table},
    domain::evaluation::{Bin, ClassFigures, Comparison, Estimate},
};

/// A difference that is this improbable by chance is called one.
const SIGNIFICANT: f64 = 0.05;

/// Tables of everything.
pub fn as_text(measured: &Measured) -> String {
    let Measured { name, models, left_out, bad, .. } = measured;
    let documents = models.first().map_or(0, |model| model.evaluation.documents);
    let mut text =
        format!("{name}: {documents} documents, {left_out} rows left out, {bad} rows that could not be used\n");
    for model in models {
        let _ = write!(text, "\n{}", model_text(measured, model));
    }
    if let Some(comparison) = &measured.comparison {
        let _ = write!(text, "\n{}\n", verdict(measured, comparison));
    }
    text
}

fn model_text(measured: &Measured, model: &MeasuredModel) -> String {
    let evaluation = &model.evaluation;
    let estimate = |name: &str, estimate: &Estimate| {
        vec![name.into(), share(estimate.value), Shown::Text(format!("{:.4} to {:.4}", estimate.low, estimate.high))]
    };
    let plain = |name: &str, value: f64| vec![name.into(), share(value), "".into()];
    let figures = table(
        &["figure", "value", "95% interval"],
        [
            estimate("accuracy", &evaluation.accuracy),
            estimate("macro-F1", &evaluation.macro_f1),
            plain("expected calibration error", evaluation.calibration.expected_error),
            plain("log loss", evaluation.calibration.log_loss),
            vec!["passes, mean".into(), Shown::Number(format!("{:.2}", model.mean_depth)), "".into()],
        ],
    );
    let groups = match &model.groups[..] {
        [] => String::new(),
        groups => format!("\nGroups\n{}", group_table(groups)),
    };
    format!(
        "Model {} {}, task {}\n{figures}{groups}\nClasses\n{}\nTrue labels in rows, given labels in columns\n{}\nConfidence against accuracy\n{}",
        model.name,
        model.version,
        model.task,
        class_table(measured, &evaluation.classes),
        confusion_table(measured, &evaluation.confusion),
        table(
            &["confidence", "documents", "mean confidence", "accuracy"],
            evaluation.calibration.bins.iter().map(bin_row)
        ),
    )
}

fn group_table(groups: &[Group]) -> String {
    let row = |group: &Group| {
        let evaluation = &group.evaluation;
        let Estimate { value: accuracy, low, high } = evaluation.accuracy;
        vec![
            Shown::Text(group.shown()),
            number(Some(evaluation.documents)),
            share(accuracy),
            Shown::Text(format!("{low:.4} to {high:.4}")),
            share(evaluation.macro_f1.value),
            share(evaluation.calibration.expected_error),
        ]
    };
    let heads = ["group", "documents", "accuracy", "95% interval", "macro-F1", "calibration error"];
    table(&heads, groups.iter().map(row))
}

fn class_table(measured: &Measured, classes: &[ClassFigures]) -> String {
    let row = |(name, class): (&std::sync::Arc<str>, &ClassFigures)| {
        let counts = [class.documents, class.called].map(|count| number(Some(count)));
        let shares = [class.precision, class.recall, class.f1].map(share);
        [Shown::from(&**name)].into_iter().chain(counts).chain(shares).collect()
    };
    let heads = ["label", "documents", "called so", "precision", "recall", "F1"];
    table(&heads, measured.classes.iter().zip(classes).map(row))
}

fn confusion_table(measured: &Measured, confusion: &[Vec<u64>]) -> String {
    let heads: Vec<&str> = [""].into_iter().chain(measured.classes.iter().map(|class| &**class)).collect();
    let row = |(name, counts): (&std::sync::Arc<str>, &Vec<u64>)| {
        [Shown::from(&**name)].into_iter().chain(counts.iter().map(|count| number(Some(count)))).collect()
    };
    table(&heads, measured.classes.iter().zip(confusion).map(row))
}

fn bin_row(bin: &Bin) -> Vec<Shown> {
    let range = Shown::Text(format!("{:.2} to {:.2}", bin.low, bin.high));
    vec![range, number(Some(bin.documents)), share(bin.mean_confidence), share(bin.accuracy)]
}

fn share(value: f64) -> Shown {
    Shown::Number(format!("{value:.4}"))
}

/// Whether the first model is better than the second, in a sentence.
pub fn verdict(measured: &Measured, comparison: &Comparison) -> String {
    let [first, second] = &measured.models[..] else { return String::new() };
    let Comparison { only_first_right, only_second_right, difference, p_value, .. } = comparison;
    let judgement = match (*p_value < SIGNIFICANT, difference.value > 0.0) {
        (false, _) => "the difference may be chance",
        (true, true) => "it is better",
        (true, false) => "it is worse",
    };
    format!(
        "{} against {}: accuracy {:+.4} (95% interval {:+.4} to {:+.4}); {only_second_right} documents only it gets right, {only_first_right} only the other; McNemar's exact test p = {p_value:.4}: {judgement}",
        first.name, second.name, difference.value, difference.low, difference.high,
    )
}

/// The same for programs.
pub fn as_json(measured: &Measured) -> Value {
    let estimate = |estimate: &Estimate| json!({"value": estimate.value, "low": estimate.low, "high": estimate.high});
    let model = |model: &MeasuredModel| {
        let evaluation = &model.evaluation;
        let class = |(name, class): (&std::sync::Arc<str>, &ClassFigures)| {
            json!({
                "label": &**name, "documents": class.documents, "called": class.called, "precision": class.precision,
                "recall": class.recall, "f1": class.f1,
            })
        };
        let bin = |bin: &Bin| {
            json!({
                "low": bin.low, "high": bin.high, "documents": bin.documents, "mean_confidence": bin.mean_confidence,
                "accuracy": bin.accuracy,
            })
        };
        let group = |Group { value, evaluation }: &Group| {
            json!({
                "value": value, "documents": evaluation.documents, "accuracy": estimate(&evaluation.accuracy),
                "macro_f1": estimate(&evaluation.macro_f1),
                "expected_calibration_error": evaluation.calibration.expected_error,
            })
        };
        json!({
            "model": &*model.name, "model_version": &*model.version, "task": &*model.task,
            "documents": evaluation.documents,
            "accuracy": estimate(&evaluation.accuracy),
            "macro_f1": estimate(&evaluation.macro_f1),
            "classes": measured.classes.iter().zip(&evaluation.classes).map(class).collect::<Vec<_>>(),
            "confusion": evaluation.confusion,
            "expected_calibration_error": evaluation.calibration.expected_error,
            "log_loss": evaluation.calibration.log_loss,
            "mean_depth": model.mean_depth,
            "calibration": evaluation.calibration.bins.iter().map(bin).collect::<Vec<_>>(),
            "groups": model.groups.iter().map(group).collect::<Vec<_>>(),
        })
    };
    json!({
        "name": measured.name,
        "labels": measured.classes.iter().map(|class| &**class).collect::<Vec<_>>(),
        "left_out": measured.left_out,
        "bad": measured.bad,
        "models": measured.models.iter().map(model).collect::<Vec<_>>(),
        "comparison": measured.comparison.map(|comparison| json!({
            "accuracy_difference": estimate(&comparison.difference),
            "only_first_right": comparison.only_second_right,
            "only_second_right": comparison.only_first_right,
            "mcnemar_p": comparison.p_value,
        })),
    })
}
