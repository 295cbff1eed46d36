//! Charts as SVG.

use std::path::Path;

use plotters::prelude::{
    BLACK, ChartBuilder, Circle, IntoDrawingArea, LineSeries, Palette, Palette99, PathElement, SVGBackend, WHITE,
};
use plotters::style::Color;

const SIZE: (u32, u32) = (640, 360);
/// Room above the highest point.
const HEADROOM: f64 = 1.1;

/// Points of a curve, by its name.
pub type Line = (String, Vec<(f64, f64)>);

/// Draws curves over one another; both axes begin at zero.
pub fn lines(path: &Path, (x, y): (&str, &str), lines: &[Line]) {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let [right, top] =
        [points().map(|point| point.0).fold(0.0, f64::max), points().map(|point| point.1).fold(0.0, f64::max)];
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..right, 0.0..top * HEADROOM)
        .unwrap();
    chart.configure_mesh().light_line_style(WHITE).x_desc(x).y_desc(y).draw().unwrap();
    for (index, (name, points)) in lines.iter().enumerate() {
        let style = Palette99::pick(index).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))
            .unwrap()
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        let dots = points.iter().map(|point| Circle::new(*point, 3, Palette99::pick(index).filled()));
        chart.draw_series(dots).unwrap();
    }
    chart.configure_series_labels().border_style(BLACK.mix(0.2)).background_style(WHITE).draw().unwrap();
    area.present().unwrap();
}
