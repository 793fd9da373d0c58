//! Draws panels of the dashboard from a recording, as SVG. Their titles are those of `dashboard.json`.

use std::{path::Path, time::Duration};

use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, DrawingArea, IntoDrawingArea, IntoFont, LineSeries, PathElement, Polygon, RGBColor, Rectangle,
        SVGBackend, ShapeStyle, Text, WHITE,
    },
    style::Color,
};
use tower::BoxError;
use tower_didit::telemetry::names;

use crate::{
    outages::Act,
    recording::{Recording, Track},
};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Colours that can be told apart, by colour-blind people too (Okabe and Ito 2008).
const BLUE: RGBColor = RGBColor(0, 114, 178);
const SKY: RGBColor = RGBColor(86, 180, 233);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const RED: RGBColor = RGBColor(213, 94, 0);
const PINK: RGBColor = RGBColor(204, 121, 167);
const GREY: RGBColor = RGBColor(110, 110, 110);
const TROUBLE: RGBColor = RGBColor(252, 240, 226);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// Panels side by side, and the size of each.
const COLUMNS: usize = 2;
const PANEL: (u32, u32) = (600, 236);
/// The strip that says what happens.
const STRIP: u32 = 44;

/// Over which time rates are taken: the dashboard's `$__rate_interval`, as short as it becomes.
const WINDOW: Duration = Duration::from_secs(60);

/// The scope that is shown where there is room for one: the one that this load fills.
const SCOPE: &str = "generic-write";

/// What a panel shows.
struct Panel {
    title: &'static str,
    shows: Shows,
}

enum Shows {
    Lines {
        unit: Unit,
        lines: Vec<Line>,
        stacked: bool,
    },
    /// A bar for each service group, coloured by its circuit's state.
    States(Vec<(&'static str, Vec<Option<RGBColor>>)>, &'static [(&'static str, RGBColor)]),
}

struct Line {
    name: &'static str,
    colour: RGBColor,
    values: Vec<Option<f64>>,
}

#[derive(Clone, Copy)]
enum Unit {
    Percent,
    Seconds,
    PerSecond,
    Count,
}

const STATES: &[(&str, RGBColor)] = &[("closed", GREEN), ("half_open", ORANGE), ("open", RED)];

/// Draws the picture into a file.
///
/// # Errors
///
/// If the file cannot be written.
pub(crate) fn draw(file: &Path, recording: &Recording, acts: &[Act]) -> Result<(), BoxError> {
    let panels = panels(recording);
    let rows = panels.len().div_ceil(COLUMNS);
    let size = (PANEL.0 * COLUMNS as u32, PANEL.1 * rows as u32 + STRIP);
    let area = SVGBackend::new(file, size).into_drawing_area();
    area.fill(&WHITE).map_err(text)?;
    let (strip, below) = area.split_vertically(STRIP);
    let minutes = recording.scrapes.saturating_sub(1) as f64 * recording.step.as_secs_f64() / 60.0;
    let troubles = troubles(acts);
    caption(&strip, &troubles, minutes).map_err(text)?;
    for (panel, area) in panels.iter().zip(below.split_evenly((rows, COLUMNS))) {
        panel.draw(&area, recording, &troubles, minutes).map_err(text)?;
    }
    area.present().map_err(text)?;
    Ok(())
}

/// The drawing library's errors borrow what they are about.
fn text(error: impl std::fmt::Display) -> BoxError {
    error.to_string().into()
}

/// The acts in which something is wrong, from one minute to another.
fn troubles(acts: &[Act]) -> Vec<(&'static str, f64, f64)> {
    let mut begin = 0.0;
    let mut troubles = Vec::new();
    for act in acts {
        let end = begin + act.length.as_secs_f64() / 60.0;
        if act.is_trouble() {
            troubles.push((act.title, begin, end));
        }
        begin = end;
    }
    troubles
}

/// What there is to see, in the dashboard's order.
fn panels(recording: &Recording) -> Vec<Panel> {
    let lines = |title, unit, lines| Panel { title, shows: Shows::Lines { unit, lines, stacked: false } };
    let rate = |tracks: &[&Track]| recording.rate(tracks, WINDOW);
    let calls = |outcome: &[&str]| {
        let all = recording.select(names::CALLS.name, &[]);
        rate(&all.into_iter().filter(|track| outcome.contains(&track.label(names::OUTCOME))).collect::<Vec<_>>())
    };
    let failures = ["throttled", "unavailable", "ambiguous", "not_sent", "held_back"];
    let (answered, failed) = (calls(&["answered"]), calls(&failures));
    let attempts = |outcomes: &[&str]| {
        let all = recording.select(names::ATTEMPTS.name, &[]);
        rate(&all.into_iter().filter(|track| outcomes.contains(&track.label(names::OUTCOME))).collect::<Vec<_>>())
    };
    let (attempted, attempts_failed) = (attempts(&["answered"]), attempts(&failures));
    let share = |part: &[Option<f64>], rest: &[Option<f64>]| combine(part, rest, |part, rest| part / (part + rest));
    let latency = |quantile| recording.quantile(names::CALL_DURATION.name, quantile, WINDOW);
    let total = rate(&recording.select(&format!("{}_count", names::CALL_DURATION.name), &[]));
    let phase = |phase| {
        let sum = format!("{}_sum", names::CALL_PHASE_DURATION.name);
        combine(&rate(&recording.select(&sum, &[(names::PHASE, phase)])), &total, |time, calls| time / calls)
    };
    let of = |metric: names::Metric| recording.gauge(metric.name, &[(names::SCOPE, SCOPE)]);
    let line = |name, colour, values| Line { name, colour, values };
    let waiting = |scope| recording.gauge(names::QUOTA_WAITING.name, &[(names::SCOPE, scope)]);
    let state = |group: &'static str| {
        let hot = |state| recording.gauge(names::CIRCUIT_STATE.name, &[(names::GROUP, group), (names::STATE, state)]);
        let states: Vec<_> = STATES.iter().map(|(state, colour)| (hot(state), *colour)).collect();
        let colour = |at: usize| states.iter().find(|(hot, _)| hot[at] == Some(1.0)).map(|(_, colour)| *colour);
        (group, (0..recording.scrapes).map(colour).collect())
    };
    let percent = |values: Vec<Option<f64>>| values.into_iter().map(|value| value.map(|value| value * 100.0)).collect();
    vec![
        lines("Success rate", Unit::Percent, vec![line("calls", GREEN, percent(share(&answered, &failed)))]),
        lines(
            "Error rate",
            Unit::Percent,
            vec![
                line("attempts", SKY, percent(share(&attempts_failed, &attempted))),
                line("calls", RED, percent(share(&failed, &answered))),
            ],
        ),
        lines(
            "Latency of calls",
            Unit::Seconds,
            vec![line("p99", RED, latency(0.99)), line("p95", ORANGE, latency(0.95)), line("p50", BLUE, latency(0.5))],
        ),
        Panel {
            title: "Where the time of a call goes",
            shows: Shows::Lines {
                unit: Unit::Seconds,
                stacked: true,
                lines: vec![
                    line("wire", BLUE, phase("wire")),
                    line("backoff", ORANGE, phase("backoff")),
                    line("queue", PINK, phase("queue")),
                ],
            },
        },
        lines(
            "Calls waiting for quota",
            Unit::Count,
            vec![line(SCOPE, BLUE, waiting(SCOPE)), line("generic-get", ORANGE, waiting("generic-get"))],
        ),
        lines(
            "Oldest and predicted wait",
            Unit::Seconds,
            vec![
                line("predicted for a newcomer", BLUE, of(names::QUOTA_PREDICTED_WAIT)),
                line("oldest in the queue", ORANGE, of(names::QUOTA_OLDEST_WAIT)),
            ],
        ),
        lines(
            "Quota used and limits",
            Unit::Count,
            vec![
                line("limit", GREY, of(names::QUOTA_LIMIT)),
                line("used", BLUE, of(names::QUOTA_USED)),
                line("learned limit", RED, of(names::QUOTA_EFFECTIVE_LIMIT)),
            ],
        ),
        lines(
            "Attempts refused with 429, and pauses",
            Unit::PerSecond,
            vec![
                line("429s per second", RED, attempts(&["throttled"])),
                line("1 while paused", GREY, of(names::QUOTA_PAUSED)),
            ],
        ),
        Panel { title: "Circuits", shows: Shows::States(["aml", "core"].into_iter().map(state).collect(), STATES) },
        lines(
            "Retry budget",
            Unit::Count,
            vec![
                line("capacity", GREY, recording.gauge(names::BUDGET_CAPACITY.name, &[])),
                line("tokens left", BLUE, recording.gauge(names::BUDGET_TOKENS.name, &[])),
            ],
        ),
    ]
}

/// Where both are known and the result is a number.
fn combine(one: &[Option<f64>], other: &[Option<f64>], f: impl Fn(f64, f64) -> f64) -> Vec<Option<f64>> {
    let pairs = one.iter().zip(other);
    pairs.map(|(one, other)| Some(f((*one)?, (*other)?)).filter(|result| result.is_finite())).collect()
}

type Drawn<'a> = Result<
    (),
    plotters::drawing::DrawingAreaErrorKind<<SVGBackend<'a> as plotters::prelude::DrawingBackend>::ErrorType>,
>;

/// Left and right of every plot, so that the strip and all panels share one time axis.
const LEFT: u32 = 52;
const RIGHT: u32 = 26;

/// Says what happens when. Each column of panels gets its own.
fn caption<'a>(strip: &Area<'a>, troubles: &[(&str, f64, f64)], minutes: f64) -> Drawn<'a> {
    for column in strip.split_evenly((1, COLUMNS)) {
        let width = f64::from(PANEL.0 - LEFT - RIGHT);
        let x = |minute: f64| (f64::from(LEFT) + width * minute / minutes) as i32;
        for (title, begin, end) in troubles {
            column.draw(&Rectangle::new([(x(*begin), 22), (x(*end), STRIP as i32)], TROUBLE.filled()))?;
            let words: Vec<_> = title.split(' ').collect();
            let (first, second) = words.split_at(words.len().div_ceil(2));
            for (row, words) in [first, second].into_iter().enumerate() {
                let font = ("sans-serif", 11).into_font().color(&GREY);
                column.draw(&Text::new(words.join(" "), (x(*begin) + 3, 22 + 10 * row as i32), font))?;
            }
        }
    }
    Ok(())
}

// ===== impl Panel =====

impl Panel {
    fn draw<'a>(
        &self,
        area: &Area<'a>,
        recording: &Recording,
        troubles: &[(&str, f64, f64)],
        minutes: f64,
    ) -> Drawn<'a> {
        let top = self.top();
        area.draw(&Text::new(self.title, (LEFT as i32, 8), ("sans-serif", 15).into_font()))?;
        let legend: Vec<(&str, RGBColor)> = match &self.shows {
            Shows::Lines { lines, .. } => lines.iter().map(|line| (line.name, line.colour)).collect(),
            Shows::States(_, states) => states.to_vec(),
        };
        // From the right, since titles stand on the left.
        let mut x = (PANEL.0 - RIGHT) as i32;
        for (name, colour) in legend.iter().rev() {
            x -= 6 * name.chars().count() as i32 + 26;
            area.draw(&Rectangle::new([(x, 13), (x + 14, 17)], colour.filled()))?;
            area.draw(&Text::new(*name, (x + 18, 10), ("sans-serif", 11).into_font()))?;
        }
        let mut chart = ChartBuilder::on(area)
            .margin_top(30)
            .margin_right(RIGHT)
            .margin_bottom(4)
            .x_label_area_size(26)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(0.0..minutes, 0.0..top)?;
        for (_, begin, end) in troubles {
            chart.draw_series([Rectangle::new([(*begin, 0.0), (*end, top)], TROUBLE.filled())])?;
        }
        let unit = match &self.shows {
            Shows::Lines { unit, .. } => *unit,
            Shows::States(..) => Unit::Count,
        };
        let has_values = matches!(self.shows, Shows::Lines { .. });
        chart
            .configure_mesh()
            .light_line_style(TROUBLE.mix(0.0))
            .bold_line_style(GRID)
            .axis_style(GREY)
            .x_labels(12)
            .y_labels(if has_values { 6 } else { 0 })
            .x_label_formatter(&|minute| format!("{minute:.0} min"))
            .y_label_formatter(&|value| unit.show(*value))
            .label_style(("sans-serif", 11).into_font())
            .draw()?;
        let minute = |at: usize| at as f64 * recording.step.as_secs_f64() / 60.0;
        match &self.shows {
            Shows::Lines { lines, stacked: false, .. } => {
                for line in lines {
                    for points in runs(&line.values) {
                        let points = points.into_iter().map(|(at, value)| (minute(at), value));
                        chart.draw_series(LineSeries::new(points, ShapeStyle::from(line.colour).stroke_width(2)))?;
                    }
                }
            }
            Shows::Lines { lines, stacked: true, .. } => {
                let mut below = vec![0.0; recording.scrapes];
                for line in lines {
                    let above: Vec<f64> =
                        below.iter().zip(&line.values).map(|(below, value)| below + value.unwrap_or(0.0)).collect();
                    let edge = above.iter().enumerate().map(|(at, value)| (minute(at), *value));
                    let back = below.iter().enumerate().rev().map(|(at, value)| (minute(at), *value));
                    chart.draw_series([Polygon::new(edge.chain(back).collect::<Vec<_>>(), line.colour.mix(0.8))])?;
                    below = above;
                }
            }
            Shows::States(groups, _) => {
                for (row, (group, colours)) in groups.iter().enumerate() {
                    let bottom = row as f64 + 0.2;
                    for run in colours.iter().copied().enumerate().collect::<Vec<_>>().chunk_by(|a, b| a.1 == b.1) {
                        let (Some((first, Some(colour))), Some((last, _))) = (run.first(), run.last()) else {
                            continue;
                        };
                        let corners = [(minute(*first), bottom), (minute(last + 1).min(minutes), bottom + 0.6)];
                        chart.draw_series([Rectangle::new(corners, colour.filled())])?;
                    }
                    chart.draw_series([Text::new(
                        (*group).to_owned(),
                        (minutes * 0.005, bottom + 0.38),
                        ("sans-serif", 13).into_font().color(&WHITE),
                    )])?;
                }
            }
        }
        let frame = ShapeStyle::from(GREY).stroke_width(1);
        chart.draw_series([PathElement::new(vec![(0.0, 0.0), (minutes, 0.0)], frame)])?;
        Ok(())
    }

    /// Where the vertical axis ends.
    fn top(&self) -> f64 {
        let (lines, stacked, unit) = match &self.shows {
            Shows::States(groups, _) => return groups.len() as f64,
            Shows::Lines { lines, stacked, unit } => (lines, *stacked, *unit),
        };
        if let Unit::Percent = unit {
            return 105.0;
        }
        let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        let scrapes = lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
        let highest = match stacked {
            true => most(&mut (0..scrapes).map(|at| lines.iter().filter_map(|line| line.values[at]).sum())),
            false => most(&mut lines.iter().flat_map(|line| line.values.iter().copied().flatten())),
        };
        if highest > 0.0 { highest * 1.1 } else { 1.0 }
    }
}

/// The pieces of a line between its gaps.
fn runs(values: &[Option<f64>]) -> Vec<Vec<(usize, f64)>> {
    let known = values.iter().enumerate().map(|(at, value)| value.map(|value| (at, value))).collect::<Vec<_>>();
    known.split(Option::is_none).map(|run| run.iter().copied().flatten().collect()).collect()
}

// ===== impl Unit =====

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Percent => format!("{value:.0} %"),
            Self::Seconds if value > 0.0 && value < 9.5 => format!("{value:.1} s"),
            Self::Seconds => format!("{value:.0} s"),
            Self::PerSecond => format!("{value:.1}"),
            Self::Count => format!("{value:.0}"),
        }
    }
}
