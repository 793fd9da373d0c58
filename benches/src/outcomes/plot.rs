//! Curves of calls served over time, as SVG.

use std::path::Path;

use plotters::prelude::{
    BLACK, ChartBuilder, IntoDrawingArea, IntoFont, LineSeries, PathElement, RGBColor, SVGBackend, SeriesLabelPosition,
    ShapeStyle, WHITE,
};

use super::{Curve, Problem};

/// Eight colours that can be told apart, by colour-blind people too (Okabe and Ito 2008); the first is ours.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
];

const SIZE: (u32, u32) = (860, 460);

/// How much higher than the highest curve the plot is: room for the names of the curves.
const HEADROOM: f64 = 1.7;

/// Draws curves into a file. `trouble` is when the trouble began and when it was over, in minutes.
///
/// # Errors
///
/// If the file cannot be written.
pub fn draw(file: &Path, title: &str, curves: &[Curve], trouble: (f64, f64)) -> Result<(), Problem> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let length = points().map(|point| point.0).fold(0.0, f64::max);
    let most = points().map(|point| point.1).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 17).into_font())
        .margin(12)
        .x_label_area_size(38)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..length, 0.0..most * HEADROOM)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("minute")
        .x_label_formatter(&|number| format!("{number:.0}"))
        .y_label_formatter(&|number| format!("{number:.0}"))
        .y_desc("calls served per minute")
        .draw()?;
    for end in [trouble.0, trouble.1] {
        let style = ShapeStyle::from(&BLACK).stroke_width(1);
        chart.draw_series(std::iter::once(PathElement::new(vec![(end, 0.0), (end, most * HEADROOM)], style)))?;
    }
    // Ours is drawn last, over the others.
    let coloured: Vec<_> = curves.iter().zip(COLOURS.iter().cycle()).collect();
    for (curve, colour) in coloured.into_iter().rev() {
        let width = if curve.strategy == "tower-didit" { 3 } else { 1 };
        let style = ShapeStyle::from(colour).stroke_width(width);
        let series = chart.draw_series(LineSeries::new(curve.points.iter().copied(), style))?;
        series.label(curve.strategy.as_str()).legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    let labels = &mut chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperRight).background_style(WHITE).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}
