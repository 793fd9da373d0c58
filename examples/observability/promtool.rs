//! A recording as a test for `promtool test rules`.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    outages::{End, Outage},
    recording::Recording,
};

/// What Prometheus adds to each series: the job of `prometheus.yml`, and the process.
const TARGET: &str = r#"job="didit-client",instance="127.0.0.1:9464""#;

/// How long the process is looked for after its end, in minutes.
const AFTERWARDS: usize = 15;

/// The test: with these rules and what was scraped in this outage, exactly its alerts have fired in the end. Written as
/// JSON, which is YAML.
pub(crate) fn test(outage: &Outage, recording: &Recording, rules: &Path) -> Value {
    let per_minute = 60 / recording.step.as_secs().max(1) as usize;
    let after = if outage.end == End::LivesOn { 0 } else { AFTERWARDS * per_minute };
    let mut input: Vec<Value> = recording
        .all()
        .map(|(series, track)| {
            let values =
                track.values.iter().map(|value| value.map_or_else(|| "_".to_owned(), |value| value.to_string()));
            let mut values: Vec<_> = values.collect();
            // What is gone is stale from the next scrape on.
            values.extend(std::iter::repeat_n("stale".to_owned(), after.min(1)));
            json!({ "series": targeted(series), "values": values.join(" ") })
        })
        .collect();
    let up = if outage.end == End::Gone { "0" } else { "1" };
    let up = [vec!["1"; recording.scrapes], vec![up; after]].concat().join(" ");
    input.push(json!({ "series": format!("up{{{TARGET}}}"), "values": up }));
    let fired: Vec<_> =
        outage.fires.iter().map(|alert| json!({ "labels": format!("{{alertname={alert:?}}}"), "value": 1 })).collect();
    let interval = format!("{}s", recording.step.as_secs());
    json!({
        "rule_files": [rules],
        "evaluation_interval": interval,
        "tests": [{
            "name": outage.name,
            "interval": interval,
            "input_series": input,
            "promql_expr_test": [{
                "expr": "group by (alertname) (max_over_time(ALERTS{alertstate=\"firing\"}[2h]))",
                "eval_time": format!("{}s", (recording.scrapes + after - 1) as u64 * recording.step.as_secs()),
                "exp_samples": fired,
            }],
        }],
    })
}

/// A series with the labels of its target.
fn targeted(series: &str) -> String {
    match series.split_once('{') {
        Some((name, labels)) => format!("{name}{{{TARGET},{labels}"),
        None => format!("{series}{{{TARGET}}}"),
    }
}
