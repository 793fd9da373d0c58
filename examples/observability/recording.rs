//! What a Prometheus beside the process would have stored, and the few questions that the picture asks of it.

use std::{collections::BTreeMap, time::Duration};

/// Scrapes at equal distances.
pub(crate) struct Recording {
    pub(crate) step: Duration,
    pub(crate) scrapes: usize,
    series: BTreeMap<String, Track>,
}

/// One series.
pub(crate) struct Track {
    name: String,
    labels: BTreeMap<String, String>,
    /// A value for each scrape; `None` before the series began.
    pub(crate) values: Vec<Option<f64>>,
}

// ===== impl Recording =====

impl Recording {
    pub(crate) fn new(step: Duration) -> Self {
        Self { step, scrapes: 0, series: BTreeMap::new() }
    }

    /// Adds a scrape, as the exporter wrote it.
    pub(crate) fn add(&mut self, exposition: &str) {
        for line in exposition.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let track = self.series.entry(series.to_owned()).or_insert_with(|| Track::new(series));
            track.values.resize(self.scrapes, None);
            track.values.push(Some(value));
        }
        self.scrapes += 1;
    }

    /// Every series, as the exporter writes its name and labels.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Track)> {
        self.series.iter().map(|(series, track)| (series.as_str(), track))
    }

    /// The series of a metric with all of these labels.
    pub(crate) fn select(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Track> {
        let has = |track: &Track| labels.iter().all(|(label, value)| track.label(label) == *value);
        self.series.values().filter(|track| track.name == name && has(track)).collect()
    }

    /// The gauge of one series; `None` where there is none.
    pub(crate) fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Vec<Option<f64>> {
        let tracks = self.select(name, labels);
        (0..self.scrapes).map(|at| tracks.iter().find_map(|track| track.at(at))).collect()
    }

    /// How fast counters grow together, per second, over the window before each scrape.
    pub(crate) fn rate(&self, tracks: &[&Track], window: Duration) -> Vec<Option<f64>> {
        let scrapes = (window.as_secs_f64() / self.step.as_secs_f64()).round().max(1.0) as usize;
        let grown = |at: usize| -> f64 {
            let since = at.saturating_sub(scrapes);
            // A counter that is not there yet has counted nothing.
            tracks.iter().map(|track| track.at(at).unwrap_or(0.0) - track.at(since).unwrap_or(0.0)).sum()
        };
        let seconds = |at: usize| at.min(scrapes) as f64 * self.step.as_secs_f64();
        (0..self.scrapes).map(|at| (at > 0).then(|| grown(at) / seconds(at))).collect()
    }

    /// A quantile over the window before each scrape, as `histogram_quantile` works it out of buckets.
    pub(crate) fn quantile(&self, name: &str, quantile: f64, window: Duration) -> Vec<Option<f64>> {
        let mut buckets: BTreeMap<String, Vec<&Track>> = BTreeMap::new();
        for track in self.select(&format!("{name}_bucket"), &[]) {
            buckets.entry(track.label("le").to_owned()).or_default().push(track);
        }
        let mut buckets: Vec<(f64, Vec<Option<f64>>)> = buckets
            .into_iter()
            .filter_map(|(bound, tracks)| Some((bound.parse().ok()?, self.rate(&tracks, window))))
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        (0..self.scrapes).map(|at| quantile_at(&buckets, quantile, at)).collect()
    }
}

fn quantile_at(buckets: &[(f64, Vec<Option<f64>>)], quantile: f64, at: usize) -> Option<f64> {
    let all = buckets.last()?.1[at].filter(|rate| *rate > 0.0)?;
    let rank = quantile * all;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, rates) in buckets {
        let rate = rates[at]?;
        if rate >= rank {
            // Beyond the last bound nothing is known but that.
            let upper = if bound.is_finite() { *bound } else { return Some(lower) };
            return Some(lower + (upper - lower) * ((rank - below) / (rate - below).max(f64::MIN_POSITIVE)));
        }
        (lower, below) = (*bound, rate);
    }
    None
}

// ===== impl Track =====

impl Track {
    fn new(series: &str) -> Self {
        let (name, rest) = series.split_once('{').unwrap_or((series, ""));
        Self { name: name.to_owned(), labels: labels(rest), values: Vec::new() }
    }

    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    fn at(&self, scrape: usize) -> Option<f64> {
        self.values.get(scrape).copied().flatten()
    }
}

/// Reads `name="value",…}`. No value of ours has a quote in it.
fn labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let Some((value, after)) = after.split_once('"') else { break };
        labels.insert(name.to_owned(), value.to_owned());
        rest = after.trim_start_matches(',');
    }
    labels
}
