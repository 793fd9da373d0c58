//! Curves as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::{Failure, growth::Curve};

const SIZE: (u32, u32) = (720, 400);
const COLOURS: [RGBColor; 3] = [RGBColor(31, 119, 180), RGBColor(255, 127, 14), RGBColor(44, 160, 44)];

/// Draws each curve into a file of its own.
pub(crate) fn draw(folder: &Path, curves: &[Curve]) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    for curve in curves {
        let name = format!("overhead-{}.svg", curve.title.to_lowercase().replace(' ', "-"));
        one(&folder.join(name), curve)?;
    }
    Ok(())
}

fn one(path: &Path, curve: &Curve) -> Result<(), Failure> {
    let points = || curve.series.iter().flat_map(|series| &series.points);
    let (least, most) = (points().map(|point| point.0).min(), points().map(|point| point.0).max());
    let (Some(least), Some(most)) = (least, most) else { return Ok(()) };
    let top = points().map(|point| point.1).fold(1.0, f64::max) * 1.1;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(curve.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(72)
        .build_cartesian_2d((least as f64..most as f64).log_scale(), 0.0..top)?;
    chart.configure_mesh().x_desc(curve.of).y_desc(curve.what).draw()?;
    for (series, colour) in curve.series.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(series.points.iter().map(|(x, y)| (*x as f64, *y)), colour.stroke_width(2));
        let key = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2));
        chart.draw_series(line.point_size(3))?.label(series.name).legend(key);
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}
