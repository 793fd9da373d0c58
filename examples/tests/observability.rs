//! The operations kit: rules, dashboard and picture keep to the names that go out, and each alert fires in its outage.

#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use support::{example, run};
use tower_didit::{
    retry::Budget,
    telemetry::names::{self, Kind, Metric},
};

/// Labels that Prometheus adds, and those of its own alerts.
const PROMETHEUS: [&str; 5] = ["job", "instance", "le", "alertname", "alertstate"];

fn kit(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("observability").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(kit(file)).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("dashboard.json")).unwrap()
}

/// The panels, without the rows that they stand in.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
}

/// Every expression of the dashboard.
fn queries(dashboard: &Value) -> Vec<&str> {
    let of = |panel: &'_ Value| panel["targets"].as_array().unwrap().len();
    assert!(panels(dashboard).all(|panel| of(panel) > 0));
    let targets = panels(dashboard).flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap()).collect()
}

/// The values of a key in a file of rules.
fn values<'a>(rules: &'a str, key: &str) -> Vec<&'a str> {
    let key = format!("{key}: ");
    rules.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(key.as_str())).collect()
}

/// The rules without comments and without what is said to people.
fn expressions(rules: &str) -> String {
    let lines = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut kept = String::new();
    let mut said_within = None;
    for line in lines {
        let indent = line.len() - line.trim_start().len();
        if said_within.is_some_and(|within| indent > within) {
            continue;
        }
        said_within = line.trim_start().starts_with("annotations:").then_some(indent);
        if said_within.is_none() {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The metric of a series: histograms are scraped as three.
fn metric(series: &str) -> Option<&'static Metric> {
    names::METRICS.iter().find(|metric| {
        let parts = ["_bucket", "_sum", "_count"];
        let is_part = || parts.iter().any(|part| series.strip_suffix(part) == Some(metric.name));
        if metric.kind == Kind::Histogram { is_part() } else { series == metric.name }
    })
}

/// Names of metrics in a text, each with its matchers, if it has any.
fn selectors(text: &str) -> Vec<(&str, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find("didit_") {
        let from = rest[..begin].rfind(|c| !is_name(c)).map_or(0, |before| before + 1);
        let word = &rest[from..];
        let end = word.find(|c| !is_name(c)).unwrap_or(word.len());
        let matchers =
            word[end..].strip_prefix('{').and_then(|inside| inside.split_once('}')).map_or("", |both| both.0);
        found.push((&word[..end], matchers));
        rest = &word[end..];
    }
    found
}

/// The labels by which matchers select.
fn matched(matchers: &str) -> impl Iterator<Item = &str> {
    let matchers = matchers.split(',').filter(|matcher| !matcher.trim().is_empty());
    matchers.map(|matcher| matcher.trim().split(['=', '!']).next().unwrap())
}

/// The labels in the lists after `by`, `on` and the like.
fn grouped(text: &str) -> Vec<&str> {
    let lists = ["by (", "on (", "without (", "group_left ("].into_iter().flat_map(|word| text.split(word).skip(1));
    let labels = lists.flat_map(|list| list.split(')').next().unwrap().split(','));
    labels.map(str::trim).filter(|label| !label.is_empty()).collect()
}

fn known_labels() -> BTreeSet<&'static str> {
    names::METRICS.iter().flat_map(|metric| metric.labels).copied().chain(PROMETHEUS).collect()
}

#[test]
fn rules_and_dashboard_name_only_metrics_and_labels_that_exist() {
    let (rules, dashboard) = (read("alerts.yml"), dashboard());
    let rules = expressions(&rules);
    let recorded: BTreeSet<_> = values(&rules, "record").into_iter().collect();
    let legends = panels(&dashboard).flat_map(|panel| panel["targets"].as_array().unwrap());
    let legends: Vec<_> = legends.map(|target| target["legendFormat"].as_str().unwrap()).collect();
    let mut count = 0;
    for text in queries(&dashboard).into_iter().chain([rules.as_str()]) {
        for (name, matchers) in selectors(text) {
            count += 1;
            // What is recorded has the labels that its name begins with.
            if let Some((labels, _)) = name.split_once(':') {
                assert!(recorded.contains(name), "{name} is recorded nowhere");
                assert!(matched(matchers).all(|label| labels.contains(label)), "{name}{{{matchers}}}");
                continue;
            }
            let metric = metric(name).unwrap_or_else(|| panic!("there is no metric {name}"));
            let has = |label: &str| metric.labels.contains(&label) || PROMETHEUS.contains(&label);
            assert!(matched(matchers).all(has), "{name}{{{matchers}}}");
        }
        for label in grouped(text) {
            assert!(known_labels().contains(label), "there is no label {label}");
        }
    }
    assert!(count > 60, "only {count} names were found");
    for legend in legends {
        for label in legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
            assert!(known_labels().contains(label), "there is no label {label}");
        }
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let dashboard = dashboard();
    let shown: BTreeSet<_> = queries(&dashboard)
        .into_iter()
        .flat_map(selectors)
        .filter_map(|(name, _)| metric(name))
        .map(|metric| metric.name)
        .collect();
    let all: BTreeSet<_> = names::METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(shown, all);
    // And every label tells something apart there.
    let queries = queries(&dashboard).join("\n");
    for label in names::METRICS.iter().flat_map(|metric| metric.labels) {
        assert!(queries.contains(label), "{label} is used nowhere");
    }
}

#[test]
fn values_of_labels_are_those_that_go_out() {
    let text = [expressions(&read("alerts.yml")), queries(&dashboard()).join("\n")].concat();
    let outcomes = ["answered", "throttled", "unavailable", "ambiguous", "not_sent", "held_back", names::CANCELLED];
    let states = ["closed", "half_open", "open", "forced_open", "forced_closed"];
    for (label, known) in [(names::OUTCOME, &outcomes[..]), (names::STATE, &states)] {
        let matched = selectors(&text).into_iter().flat_map(|(_, matchers)| matchers.split(','));
        let mut count = 0;
        for matcher in matched.filter(|matcher| matcher.trim().trim_end_matches(|c| c != '=').starts_with(label)) {
            let values = matcher.split('"').nth(1).unwrap();
            assert!(values.split('|').all(|value| known.contains(&value)), "{matcher}");
            count += 1;
        }
        assert!(count > 1, "{label}");
    }
    // What an ambiguous failure costs is the least that repeats every kind.
    assert!(text.contains(&format!("didit_retry_budget_tokens < {} ", Budget::DEAR)));
}

#[test]
fn the_dashboard_is_one_that_grafana_takes() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39 && dashboard["id"].is_null());
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|variable| variable["name"] == "datasource" && variable["type"] == "datasource"));
    let (mut ids, mut titles, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()) && titles.insert(title), "{title} is there twice");
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} leaves the grid");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "{title} lies over another panel");
            }
        }
    }
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(["timeseries", "state-timeline"].contains(&panel["type"].as_str().unwrap()), "{title}");
        assert!(panel["description"].as_str().unwrap().ends_with('.'), "{title} lacks a description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} lacks a unit");
        let mut references = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            assert!(references.insert(target["refId"].as_str().unwrap()), "{title}");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(target["expr"].as_str().unwrap().contains("job=~\"$job\""), "{title} mixes jobs");
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
    }
}

#[test]
fn the_picture_shows_panels_of_the_dashboard() {
    let (picture, dashboard) = (read("dashboard.svg"), dashboard());
    let shown = panels(&dashboard).filter(|panel| {
        let title = panel["title"].as_str().unwrap();
        picture.lines().any(|line| line.trim() == title)
    });
    // Each has an axis that begins with 0.
    let axes = picture.lines().filter(|line| line.trim() == "0 min").count();
    assert!(axes > 0);
    assert_eq!(shown.count(), axes);
}

#[test]
fn each_alert_says_what_to_do_and_is_set_off_by_a_story() {
    let (rules, readme) = (read("alerts.yml"), read("README.md"));
    let alerts = values(&rules, "alert");
    for (key, count) in [("severity", alerts.len()), ("summary", alerts.len()), ("description", alerts.len())] {
        assert_eq!(values(&rules, key).len(), count, "{key}");
    }
    assert!(values(&rules, "severity").iter().all(|severity| ["critical", "warning"].contains(severity)));
    for alert in &alerts {
        assert!(readme.contains(&format!("\n### {alert}\n")), "{alert} is not explained");
    }
    let said = run(example("observability").arg("--list"));
    let fired: BTreeSet<_> = said
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .flat_map(|story| story["fires"].as_array().unwrap().clone())
        .map(|alert| alert.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(fired, alerts.into_iter().map(str::to_owned).collect());
}

/// Runs promtool; false if there is none.
fn promtool(arguments: &[&str], input: &str) -> bool {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(kit("")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else {
        println!("promtool is not installed (Debian's package `prometheus` has it): {arguments:?} was not run");
        return false;
    };
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = [said.stdout, said.stderr].concat();
    assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&text));
    true
}

#[test]
fn promtool_takes_configuration_and_rules_and_their_tests() {
    promtool(&["check", "config", "prometheus.yml"], "");
    promtool(&["check", "rules", "alerts.yml"], "");
    promtool(&["test", "rules", "alerts_test.yml"], "");
}

/// Every story is played in virtual time, and what a Prometheus would have scraped is given to the rules.
#[test]
fn every_outage_sets_off_its_alerts_and_no_others() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outages");
    fs::create_dir_all(&folder).unwrap();
    let said = run(example("observability").arg("--list"));
    let stories: Vec<Value> = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(stories.len() > 10);
    for story in stories {
        let name = story["story"].as_str().unwrap();
        let test = folder.join(format!("{name}.yml"));
        let said = run(example("observability")
            .args(["--simulate", name, "--test"])
            .arg(&test)
            .arg("--rules")
            .arg(kit("alerts.yml")));
        assert_eq!(said.code, Some(0), "{name}: {}", said.stderr);
        if !promtool(&["test", "rules", test.to_str().unwrap()], "") {
            return;
        }
    }
}

#[tokio::test]
async fn a_live_scrape_is_clean() {
    let mut command = example("observability");
    let mut program = command.args(["--port", "0", "--seconds", "30"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    // Every line is JSON; the first tells the address, and calls follow it.
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let address = first["address"].as_str().unwrap().parse().unwrap();
    let ended = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert!(ended.filter(|line| line["message"] == "call ended").take(3).count() == 3);
    let scrape = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>().get(address).await.unwrap();
    let text = String::from_utf8(scrape.into_body().collect().await.unwrap().to_bytes().into()).unwrap();
    program.kill().unwrap();
    program.wait().unwrap();
    for metric in [names::CALLS, names::QUOTA_EFFECTIVE_LIMIT, names::CIRCUIT_STATE, names::BUDGET_TOKENS] {
        assert!(text.contains(&format!("# HELP {} ", metric.name)), "{} in {text}", metric.name);
    }
    promtool(&["check", "metrics"], &text);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let said = example("observability").arg("--list").stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let said = said.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn what_the_command_line_gets_wrong_is_named() {
    for (arguments, named) in [
        (&["--sede", "1"][..], "--sede"),
        (&["--picture", "file"], "--simulate"),
        (&["--simulate", "tour", "--test", "file"], "--rules"),
    ] {
        let said = run(example("observability").args(arguments));
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(said.stderr.contains(named), "{arguments:?}: {}", said.stderr);
    }
    let said = run(example("observability").args(["--simulate", "nothing"]));
    assert!(said.code == Some(1) && said.stderr.contains("--list"), "{}", said.stderr);
}
