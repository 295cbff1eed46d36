//! An evaluation as one HTML page with charts: no script, nothing fetched, every text escaped.

use anyhow::anyhow;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::{
    chart::ChartBuilder,
    element::Rectangle,
    prelude::{IntoDrawingArea, LineSeries, SVGBackend},
    style::{Color, RGBColor, WHITE},
};

use super::{
    evaluate::{Measured, MeasuredModel},
    evaluation_text::verdict,
    groups::Group,
};
use crate::domain::evaluation::{Bin, Estimate};

/// Width and height of a chart in pixels: two stand beside each other on a page.
const CHART_SIZE: (u32, u32) = (460, 300);
const BLUE: RGBColor = RGBColor(49, 106, 163);
const GREY: RGBColor = RGBColor(120, 120, 120);

const STYLE: &str = "\
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c }
table { border-collapse: collapse; margin: .6rem 0 1.4rem }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: left }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.charts { display: flex; flex-wrap: wrap; gap: 1rem }
footer { color: #777; margin-top: 3rem }";

/// The whole page.
///
/// # Errors
/// Where a chart cannot be drawn.
pub fn page(measured: &Measured) -> anyhow::Result<String> {
    let models = measured.models.iter().map(|model| section(measured, model)).collect::<anyhow::Result<Vec<_>>>()?;
    let documents = measured.models.first().map_or(0, |model| model.evaluation.documents);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "Evaluation of " (measured.name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Evaluation of " (measured.name) }
                p { (documents) " documents; " (measured.left_out) " rows left out, " (measured.bad) " rows that could not be used." }
                @if let Some(comparison) = &measured.comparison { p { strong { (verdict(measured, comparison)) } } }
                @for model in &models { (model) }
                (mistakes(measured))
                footer { "albertine " (env!("CARGO_PKG_VERSION")) ", intervals of 95%" }
            }
        }
    };
    Ok(page.into_string())
}

fn section(measured: &Measured, model: &MeasuredModel) -> anyhow::Result<Markup> {
    let evaluation = &model.evaluation;
    let bins = &evaluation.calibration.bins;
    Ok(html! {
        h2 { (model.name) " " (model.version) ", task " (model.task) }
        table {
            tr { th { "figure" } th.number { "value" } th { "95% interval" } }
            (figure("accuracy", &evaluation.accuracy))
            (figure("macro-F1", &evaluation.macro_f1))
            tr { td { "expected calibration error" } (share(evaluation.calibration.expected_error)) td {} }
            tr { td { "log loss" } (share(evaluation.calibration.log_loss)) td {} }
            tr { td { "passes, mean" } td.number { (format!("{:.2}", model.mean_depth)) } td {} }
        }
        (groups(&model.groups))
        h3 { "Classes" }
        table {
            tr { th { "label" } @for head in ["documents", "called so", "precision", "recall", "F1"] { th.number { (head) } } }
            @for (name, class) in measured.classes.iter().zip(&evaluation.classes) {
                tr {
                    td { (name) } (count(class.documents)) (count(class.called))
                    (share(class.precision)) (share(class.recall)) (share(class.f1))
                }
            }
        }
        h3 { "True labels in rows, given labels in columns" }
        table {
            tr { th {} @for name in &measured.classes { th.number { (name) } } }
            @for (name, row) in measured.classes.iter().zip(&evaluation.confusion) {
                tr { th { (name) } @for value in row { (shaded(*value, row.iter().sum())) } }
            }
        }
        h3 { "Confidence" }
        div.charts {
            (PreEscaped(reliability(bins)?))
            (PreEscaped(histogram(bins)?))
        }
    })
}

fn groups(groups: &[Group]) -> Markup {
    html! {
        @if !groups.is_empty() {
            h3 { "Groups" }
            table {
                tr { th { "group" } @for head in ["documents", "accuracy", "macro-F1"] { th.number { (head) } } }
                @for group in groups {
                    tr {
                        td { (group.shown()) } (count(group.evaluation.documents))
                        (share(group.evaluation.accuracy.value)) (share(group.evaluation.macro_f1.value))
                    }
                }
            }
        }
    }
}

fn figure(name: &str, estimate: &Estimate) -> Markup {
    html! {
        tr { td { (name) } (share(estimate.value)) td { (format!("{:.4} to {:.4}", estimate.low, estimate.high)) } }
    }
}

fn share(value: f64) -> Markup {
    html! { td.number { (format!("{value:.4}")) } }
}

fn count(value: u64) -> Markup {
    html! { td.number { (value) } }
}

/// The darker, the larger its share of the row.
fn shaded(value: u64, total: u64) -> Markup {
    let alpha = if total == 0 { 0.0 } else { value as f64 / total as f64 * 0.6 };
    html! { td.number style=(format!("background: rgba(49, 106, 163, {alpha:.2})")) { (value) } }
}

fn mistakes(measured: &Measured) -> Markup {
    html! {
        @if let Some(model) = measured.models.first() {
            @if !measured.mistakes.is_empty() {
                h2 { "The surest mistakes of " (model.name) }
                table {
                    tr { th { "place" } th { "true" } th { "given" } th.number { "confidence" } th { "text" } }
                    @for mistake in &measured.mistakes {
                        tr {
                            td { (mistake.place) }
                            td { (measured.classes[mistake.judged.truth]) }
                            td { (measured.classes[mistake.judged.label]) }
                            (share(mistake.judged.confidence))
                            td { (mistake.text) }
                        }
                    }
                }
            }
        }
    }
}

/// Accuracy of each bin as a bar, against the diagonal on which confidence is right.
fn reliability(bins: &[Bin]) -> anyhow::Result<String> {
    let bars = bins.iter().map(|bin| (bin.low, bin.high, bin.accuracy)).collect();
    chart("accuracy", 1.0, bars, Some([(0.0, 0.0), (1.0, 1.0)]))
}

/// Documents of each bin.
fn histogram(bins: &[Bin]) -> anyhow::Result<String> {
    let highest = bins.iter().map(|bin| bin.documents).max().unwrap_or(1);
    let bars = bins.iter().map(|bin| (bin.low, bin.high, bin.documents as f64)).collect();
    chart("documents", highest as f64, bars, None)
}

/// Bars `(left, right, height)` over a confidence from 0 to 1, as SVG.
fn chart(
    title: &str,
    highest: f64,
    bars: Vec<(f64, f64, f64)>,
    line: Option<[(f64, f64); 2]>,
) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw(&mut svg, title, highest, bars, line).map_err(|error| anyhow!("cannot draw the chart of {title}: {error}"))?;
    Ok(svg)
}

fn draw(
    svg: &mut String,
    title: &str,
    highest: f64,
    bars: Vec<(f64, f64, f64)>,
    line: Option<[(f64, f64); 2]>,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, CHART_SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..1.0, 0.0..highest * 1.02)?;
    chart.configure_mesh().light_line_style(WHITE).x_desc("confidence").y_desc(title).draw()?;
    let bar = |(left, right, height)| Rectangle::new([(left, 0.0), (right, height)], BLUE.mix(0.75).filled());
    chart.draw_series(bars.into_iter().map(bar))?;
    if let Some(line) = line {
        chart.draw_series(LineSeries::new(line, &GREY))?;
    }
    area.present()?;
    Ok(())
}
