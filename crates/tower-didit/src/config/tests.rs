use std::fs;

use serde_json::{Value, json};

use super::*;

fn toml(text: &str) -> Result<Config, LoadError> {
    Sources::new().text("stack.toml", text, Format::Toml)?.config()
}

fn refused(text: &str) -> String {
    toml(text).unwrap_err().to_string()
}

fn with(variables: &[(&str, &str)]) -> Sources {
    Sources::new().environment(variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())))
}

#[test]
fn the_presets_are_the_layers_own_values() {
    let builder = |config: &Config| format!("{:?}", config.builder().unwrap().without_api_key());
    assert_eq!(builder(&Config::default()), format!("{:?}", DiditLayer::builder().without_api_key()));
    let seed = Config::preset(Preset::Seed);
    assert_eq!(seed.circuit_breaker.build().unwrap(), TripPolicy::SEED);
    let off = Config::preset(Preset::Off);
    assert_eq!(off.circuit_breaker.build().unwrap(), TripPolicy::NEVER);
    for preset in [Preset::Didit, Preset::Seed, Preset::Off] {
        DiditLayer::from_config(&Config::preset(preset)).unwrap();
    }
}

#[test]
fn what_is_written_out_is_read_back_the_same_in_both_languages() {
    let mut config = Config::preset(Preset::Seed);
    config.seed = Some(7);
    config.pacing.cold_start = ColdStartConfig(crate::pacing::ColdStart::Share(0.5));
    config.pacing.max_wait = OrOff::On(Duration::from_secs(9).into());
    config.routes = vec![RouteConfig {
        name: "report".to_owned(),
        method: Some("POST".to_owned()),
        path: Some("/v3/reports/{id}/".to_owned()),
        retry: Some(didit_api::RetryClass::BodyId),
        timeout: Some(Duration::from_secs(90).into()),
        group: Some("reports".to_owned()),
        unlimited: true,
    }];
    assert_eq!(Config::from_json(&serde_json::to_string_pretty(&config).unwrap()).unwrap(), config);
    assert_eq!(Config::from_toml(&toml::to_string_pretty(&config).unwrap()).unwrap(), config);
}

#[test]
fn a_later_source_changes_only_what_it_names() {
    let variables = [("DIDIT_RETRY__BACKOFF__CAP", "10s"), ("DIDIT_RETRY__MAX_ATTEMPTS", "3"), ("DIDIT_SEED", "1")];
    let sources = with(&variables)
        .text("stack.toml", "preset = 'seed'\nseed = 5\n[retry]\nmax_attempts = 4\nfail_fast = true", Format::Toml)
        .unwrap()
        .given("--seed", "seed", "9");
    let config = sources.config().unwrap();
    let mut expected = Config::preset(Preset::Seed);
    expected.seed = Some(9);
    expected.retry.max_attempts = 3;
    expected.retry.fail_fast = true;
    expected.retry.backoff.cap = Duration::from_secs(10).into();
    assert_eq!(config, expected);
}

#[test]
fn the_preset_comes_from_the_last_source_that_names_one() {
    let sources = with(&[("DIDIT_PRESET", "off")]).text("stack.toml", "preset = 'seed'", Format::Toml).unwrap();
    assert_eq!(sources.config().unwrap(), Config::preset(Preset::Off));
    let error = with(&[("DIDIT_PRESET", "none")]).config().unwrap_err().to_string();
    assert!(error.starts_with("environment variable DIDIT_PRESET: preset: \"none\" is not known; "), "{error}");
    assert!(error.ends_with("allowed is \"didit\", \"seed\" or \"off\""), "{error}");
}

#[test]
fn an_error_names_key_value_range_line_and_column() {
    for (text, expected) in [
        (
            "[retry]\nlongest_wait = \"2 days\"",
            "stack.toml, line 2, column 16: retry.longest_wait: longest_wait is 172800s; allowed is 0ns to 86400s",
        ),
        (
            "[circuit_breaker]\nwindow = '30s'\nfailure_ratio = 1.5",
            "stack.toml, line 3, column 17: circuit_breaker.failure_ratio: failure_ratio is 1.5; allowed is 0.01 to 1",
        ),
        (
            "[circuit_breaker]\nopen_cap = '1s'",
            "stack.toml, line 2, column 12: circuit_breaker.open_cap: open time cap is 1s; allowed is 10s to 3600s",
        ),
        (
            "[retry.throttled_backoff]\nfactor = 0.5",
            "stack.toml, line 2, column 10: retry.throttled_backoff.factor: the factor of a backoff is 0.5; allowed is 1 \
             to 10",
        ),
        (
            "deadline = { total = '0s' }",
            "stack.toml, line 1, column 22: deadline.total: deadline is 0ns; allowed is 1ms to 86400s",
        ),
        (
            "attempt_timeout.unknown = '0s'",
            "stack.toml, line 1, column 27: attempt_timeout.unknown: unknown_timeout is 0ns; allowed is 1ms to 86400s",
        ),
        (
            "base_url = 'https://host/v3/'",
            "stack.toml, line 1, column 12: base_url: base URL \"https://host/v3/\" has a path; allowed is http:// or \
             https:// with a host and no path",
        ),
        (
            "[pacing]\nlimits = '2025-01'",
            "stack.toml, line 2, column 10: pacing.limits: \"2025-01\" is not known; allowed are 2026-11, 2026-07 and none",
        ),
        (
            "[[pacing.scopes]]\nname = 'a'\nlimit = 1\nendpoints = ['aml']\n[[pacing.scopes]]\nname = 'b'\nlimit = 1",
            "stack.toml, line 5, column 1: pacing.scopes[1]: scope \"b\": exactly one of \"methods\" and \"endpoints\" is \
             needed",
        ),
        (
            "[correlation]\nheader = 'a b'",
            "stack.toml, line 2, column 10: correlation.header: correlation.header is \"a b\", which is no header's name; \
             allowed is a header that neither HTTP nor the stack uses, such as x-correlation-id",
        ),
        (
            "[correlation]\nheader = 'Content-Length'",
            "stack.toml, line 2, column 10: correlation.header: correlation.header is \"content-length\", which HTTP uses for \
             something else; allowed is a header that neither HTTP nor the stack uses, such as x-correlation-id",
        ),
        (
            "idempotency.header = 'x-api-key'",
            "stack.toml, line 1, column 22: idempotency.header: idempotency.header is \"x-api-key\", which the stack or \
             Didit uses for something else; allowed is a header that neither HTTP nor the stack uses, such as \
             idempotency-key",
        ),
        (
            "[[routes]]\nname = 'own'",
            "stack.toml, line 1, column 1: routes[0]: route \"own\": it is none of Didit's, so `method` and `path` are \
             needed",
        ),
        (
            "[[routes]]\nname = 'aml'\nmethod = 'PUT'",
            "stack.toml, line 1, column 1: routes[0]: route \"aml\": that is Didit's name for POST /v3/aml/; another route \
             needs another name",
        ),
    ] {
        assert_eq!(refused(text), expected);
    }
}

#[test]
fn an_error_names_the_item_of_a_list() {
    let scopes =
        "[[pacing.scopes]]\nname = 'a'\nlimit = 1\nmethods = ['GET']\n[[pacing.scopes]]\nname = 'b'\nlimit = 1\n";
    for (more, place, part) in [
        ("endpoints = ['aml', 'nope']", "line 8, column 21: pacing.scopes[1].endpoints[1]: ", "\"nope\""),
        (
            "window = '0s'\nmethods = ['GET']",
            "line 8, column 10: pacing.scopes[1].window: ",
            "0ns is outside 1 ms to 24 h",
        ),
        (
            "methods = ['GET', 'get']",
            "line 8, column 19: pacing.scopes[1].methods[1]: ",
            "\"get\" is not a method in capital",
        ),
        (
            "replacing = 3",
            "line 8, column 13: pacing.scopes[1].replacing: ",
            "3 does not fit; allowed is true or false",
        ),
    ] {
        let error = refused(&format!("{scopes}{more}"));
        assert!(error.contains(place) && error.contains(part), "{error}");
    }
    let routes = "[[routes]]\nname = 'aml'\n[[routes]]\nname = 'own'\n";
    for (more, place, part) in [
        ("method = 'a b'\npath = '/x'", "line 5, column 10: routes[1].method: ", "\"a b\" is no method; allowed is"),
        ("method = 'GET'\npath = 'x'", "line 6, column 8: routes[1].path: ", "\"x\" cannot be used: a path starts"),
        ("method = 'GET'\npath = '/x'\ntimeout = '0s'", "line 7, column 11: routes[1].timeout: ", "the least is 1 ns"),
        (
            "method = 'GET'\npath = '/x'\n[[routes]]\nname = 'own'\nmethod = 'GET'\npath = '/y'",
            "line 8, column 8: routes[2].name: ",
            "used twice",
        ),
    ] {
        let error = refused(&format!("{routes}{more}"));
        assert!(error.contains(place) && error.contains(part), "{error}");
    }
}

#[test]
fn a_value_that_does_not_fit_is_named_with_what_would() {
    for (text, parts) in [
        ("seed = 'abc'", ["line 1, column 8: seed: ", "\"abc\"", "allowed is 0 to 18446744073709551615"]),
        (
            "[retry]\nmax_attempts = 99999999999",
            ["line 2, column 16: retry.max_attempts: ", "99999999999 is", "allowed is 1 to 4294967295"],
        ),
        (
            "[retry]\nreplay_cap = 99999999999999999999",
            ["line 2, column 14: retry.replay_cap: ", "99999999999999999999 is", "allowed is 0 to 1073741824"],
        ),
        (
            "circuit_breaker.failure_ratio = 'x'",
            ["line 1, column 33: circuit_breaker.failure_ratio: ", "\"x\"", "allowed is 0.01 to 1, or \"off\""],
        ),
        (
            "attempt_timeout.at_least = '2days'",
            ["line 1, column 28: attempt_timeout.at_least: ", "172800s", "allowed is 0ns to 86400s"],
        ),
        ("pacing.burst = 0", ["line 1, column 16: pacing.burst: ", "0 is", "allowed is 1 to 4294967295, or \"off\""]),
        (
            "[[pacing.scopes]]\nname = 'a'\nlimit = -1",
            ["line 3, column 9: pacing.scopes[0].limit: ", "-1 is", "allowed is 1 to 4294967295"],
        ),
        (
            "[retry]\nmax_attempt = 3",
            ["line 2, column 1: retry.max_attempt: ", "no such setting; known are backoff, budget", ", max_attempts, "],
        ),
        (
            "[retri]\nmax_attempts = 3",
            ["line 1, column 2: retri: ", "no such setting; known are api_key, ", ", retry, "],
        ),
        (
            "[[pacing.scopes]]\nname = 'a'\n  limt = 1",
            ["line 3, column 3: pacing.scopes[0].limt: ", "no such setting; known are endpoints", "limit, "],
        ),
        (
            "[retry]\nmax_attempts = -1",
            ["line 2, column 16: retry.max_attempts: ", "-1 is out of range; ", "1 to 4294967295"],
        ),
        (
            "[retry]\nmax_attempts = 'x'",
            ["line 2, column 16: retry.max_attempts: ", "\"x\" is no whole number", "1 to 4294967295"],
        ),
        ("[pacing]\ncold_start = 'x'", ["line 2, column 14: pacing.cold_start", "\"x\"", "\"empty\""]),
        ("[pacing]\nreserved_share = 0.95", ["line 2, column 18: pacing.reserved_share", "0.95", "0 to 0.9"]),
        ("[pacing]\nmax_keys = 0", ["line 2, column 12: pacing.max_keys", "zero", "at least 1"]),
        ("[pacing]\nmax_wait = '2days'", ["line 2, column 12: pacing.max_wait", "172800s", "0ns to 86400s"]),
        ("[deadline]\ntotal = 30", ["line 2, column 9: deadline.total", "30 has no unit", "1m 30s"]),
        ("[retry]\nbudget = 'on'", ["line 2, column 10: retry.budget", "\"on\"", "or \"off\""]),
        (
            "[[routes]]\nname='aml'\nretry='never'",
            ["line 3, column 7: routes[0].retry", "\"never\" is not known", "\"vendor-data\""],
        ),
        (
            "[[pacing.scopes]]\nname='a'\nlimit=0",
            ["line 3, column 7: pacing.scopes[0].limit", "0 is out of range", "1 to 4294967295"],
        ),
        ("a = = 1", ["line 1, column 5", "", ""]),
    ] {
        let error = refused(text);
        assert!(parts.iter().all(|part| error.contains(part)), "{text}\n{error}");
    }
}

#[test]
fn a_value_of_another_kind_is_named_in_plain_words() {
    let retry = "backoff, budget, fail_fast, longest_wait, max_attempts, replay_cap and throttled_backoff";
    for (text, expected) in [
        ("retry = 5", format!("line 1, column 9: retry: 5 is no table; allowed is a table of {retry}")),
        ("retry = [1]", format!("line 1, column 9: retry: a list is no table; allowed is a table of {retry}")),
        (
            "[[retry]]\nmax_attempts = 1",
            format!("line 1, column 1: retry: a list is no table; allowed is a table of {retry}"),
        ),
        (
            "[retry]\nbackoff = '5s'",
            "line 2, column 11: retry.backoff: \"5s\" is no table; allowed is a table of base, cap and factor".to_owned(),
        ),
        (
            "pacing.scopes = 5",
            "line 1, column 17: pacing.scopes: 5 is no list; allowed is a list of tables of endpoints, limit, methods, name, \
             replacing and window"
                .to_owned(),
        ),
        (
            "[[pacing.scopes]]\nname = 'a'",
            "line 1, column 1: pacing.scopes[0]: limit is missing, and has no default".to_owned(),
        ),
        (
            "circuit_breaker.failure_ratio = nan",
            "line 1, column 33: circuit_breaker.failure_ratio: nan is no number; allowed is 0.01 to 1, or \"off\"".to_owned(),
        ),
        (
            "retry.max_attempts = 1979-05-27",
            "line 1, column 22: retry.max_attempts: 1979-05-27 is no whole number; allowed is 1 to 4294967295".to_owned(),
        ),
        (
            "deadline.total = '30'",
            "line 1, column 18: deadline.total: \"30\" has no unit; allowed is a duration with its unit, such as \"30s\" or \
             \"1m 30s\""
                .to_owned(),
        ),
        ("jitter = 'no'", "line 1, column 10: jitter: \"no\" does not fit; allowed is true or false".to_owned()),
        ("preset = 5", "line 1, column 10: preset: 5 does not fit; allowed is \"didit\", \"seed\" or \"off\"".to_owned()),
        ("seed = 1\nseed = 2", "line 2, column 1: key seed is given twice".to_owned()),
    ] {
        assert_eq!(refused(text), format!("stack.toml, {expected}"));
    }
    let json = |text| Config::from_json(text).unwrap_err().to_string();
    let error = json("{\n \"retry\": { \"max_attempts\": 1e400 } }");
    assert!(error.contains("line 2, column 29: retry.max_attempts: 1e400 is out of range; allowed is 1 to"), "{error}");
    assert!(!json("{ \"api_key\": 1e4711 }").contains("4711"));
    for (name, text, expected) in [
        (
            "DIDIT_RETRY",
            "5",
            format!(
                "retry: 5 is no table; allowed is a table of {retry}, each in a variable of its own, such as DIDIT_RETRY__BACKOFF"
            ),
        ),
        (
            "DIDIT_ROUTES",
            "x",
            "routes: \"x\" is no list; allowed is a list of tables of group, method, name, path, retry, timeout and \
             unlimited, written as JSON"
                .to_owned(),
        ),
        (
            "DIDIT_RETRY__MAX_ATTEMPTS",
            "-1",
            "retry.max_attempts: -1 is out of range; allowed is 1 to 4294967295".to_owned(),
        ),
    ] {
        let error = with(&[(name, text)]).config().unwrap_err().to_string();
        assert_eq!(error, format!("environment variable {name}: {expected}"));
    }
}

#[test]
fn no_error_speaks_of_more_than_settings() {
    fn keys(value: &Value, above: &str) -> Vec<String> {
        let Value::Object(fields) = value else { return Vec::new() };
        let inside = |(name, value)| {
            let key = format!("{above}{name}");
            [vec![key.clone()], keys(value, &format!("{key}."))].concat()
        };
        fields.iter().flat_map(inside).collect()
    }

    let mut refused = 0;
    for key in keys(&json!(Config::default()), "") {
        for wrong in [json!("?"), json!(-1), json!(0.5), json!(true), json!(null), json!(["?"]), json!({ "?": 1 })] {
            // Of a file that is not there the system says so.
            let wrong = if key.ends_with("_file") && wrong.is_string() { json!(1) } else { wrong };
            let value = key.rsplit('.').fold(wrong, |value, part| json!({ part: value }));
            let Err(error) = Config::from_json(&value.to_string()) else { continue };
            let text = error.to_string();
            assert!(error.key().is_some_and(|wrong| wrong.starts_with(&key)), "{value}: {text}");
            for word in ["invalid type", "invalid value", "expected", "struct", "variant", "field", "u32", "f64", "`"] {
                assert!(!text.contains(word), "{value}: {text}");
            }
            let says = ["allowed is", "allowed are", "known are", "at least"];
            assert!(says.iter().any(|says| text.contains(says)), "{value}: {text}");
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn an_error_names_the_variable_or_the_flag() {
    let error = with(&[("DIDIT_RETRY__MAX_ATTEMPTS", "0")]).config().unwrap_err();
    assert_eq!(error.key().as_deref(), Some("retry.max_attempts"));
    assert_eq!(
        error.to_string(),
        "environment variable DIDIT_RETRY__MAX_ATTEMPTS: retry.max_attempts: max_attempts is zero; it must be at least 1"
    );
    let error = with(&[("DIDIT_RETRY__MAX_ATEMPTS", "3")]).config().unwrap_err().to_string();
    assert!(error.starts_with("environment variable DIDIT_RETRY__MAX_ATEMPTS: retry"), "{error}");
    let error = with(&[("DIDIT_RETRY__MAX_ATTEMPTS", "3")]).given("--seed", "seed", "x").config().unwrap_err();
    assert!(error.to_string().starts_with("--seed: seed: "), "{error}");
}

#[test]
fn a_variable_that_is_no_setting_is_left_alone() {
    let variables = [("DIDIT_WORKFLOW_ID", "x"), ("DIDIT_RETRY", "1"), ("OTHER_RETRY__MAX_ATTEMPTS", "0")];
    assert_eq!(with(&variables[..1]).config().unwrap(), Config::default());
    assert_eq!(with(&variables[2..]).config().unwrap(), Config::default());
    assert!(with(&variables[1..2]).config().is_err(), "a section is not a number");
}

#[test]
fn a_variable_is_read_as_its_setting_is() {
    let config = with(&[
        ("DIDIT_API_KEY", "0123"),
        ("DIDIT_JITTER", "false"),
        ("DIDIT_RETRY__BUDGET", "off"),
        ("DIDIT_CIRCUIT_BREAKER__FAILURE_RATIO", "0.25"),
        ("DIDIT_PACING__SCOPES", r#"[{"name":"reports","limit":7,"window":"1s","endpoints":["aml"]}]"#),
    ]);
    let config = config.config().unwrap();
    assert_eq!(config.api_key.unwrap().expose(), "0123");
    assert_eq!((config.jitter, config.retry.budget), (false, OrOff::Off));
    assert_eq!(config.circuit_breaker.failure_ratio, OrOff::On(0.25));
    assert_eq!(config.pacing.scopes[0].window.0, Duration::from_secs(1));
}

#[test]
fn the_key_is_never_shown_and_may_lie_in_a_file() {
    let config = Config::from_toml("api_key = 'canary-key'").unwrap();
    assert!(!format!("{config:?}").contains("canary"));
    assert_eq!(serde_json::to_value(&config).unwrap()["api_key"], "[redacted]");
    for text in [
        "api_key = 99999999999999999999994711",
        "api_key = [99999999999999999999994711]",
        "api_key = { x = 99999999999999999999994711 }",
    ] {
        let error = refused(text);
        assert!(error.contains("line 1, column ") && !error.contains("4711"), "{error}");
    }
    for text in ["api_key = 4711", "api_key = \"canary\\nkey\"", "api_key = ['canary']"] {
        let error = refused(text);
        assert!(error.contains("line 1, column 11: api_key: ") && !error.contains("canary"), "{error}");
        assert!(!error.contains("4711"), "{error}");
    }
    let file = std::env::temp_dir().join(format!("tower-didit-key-{}", std::process::id()));
    fs::write(&file, "key-in-a-file\n").unwrap();
    let config = with(&[("DIDIT_API_KEY_FILE", file.to_str().unwrap())]).config().unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(config.api_key.as_ref().unwrap().expose(), "key-in-a-file");
    let shown = serde_json::to_value(&config).unwrap();
    assert_eq!((shown["api_key_file"].as_str(), shown.get("api_key")), (file.to_str(), None));
    fs::write(&file, "[redacted]\n").unwrap();
    let error = with(&[("DIDIT_API_KEY_FILE", file.to_str().unwrap())]).config().unwrap_err().to_string();
    fs::remove_file(&file).unwrap();
    assert!(error.contains("\"[redacted]\" is what is shown instead of a secret"), "{error}");
    let error = refused("\napi_key = '[redacted]'");
    assert!(error.starts_with("stack.toml, line 2, column 11: api_key: \"[redacted]\" is what is shown"), "{error}");
    assert!(refused("api_key_file = '/no/such/file'").contains("line 1, column 16: api_key_file: "));
}

#[test]
fn limits_are_changed_scope_by_scope() {
    let text = "[[pacing.scopes]]\nname = 'session-v2-create'\nlimit = 900\nendpoints = ['session-create']\n\
                replacing = true\n[[pacing.scopes]]\nname = 'new'\nlimit = 5\nwindow = '1s'\nmethods = ['GET']";
    let layer = DiditLayer::from_config(&toml(text).unwrap()).unwrap();
    let limits: Vec<_> = layer.pacing().usage().into_iter().map(|usage| (usage.scope, usage.limit)).collect();
    assert!(limits.contains(&("session-v2-create".to_owned(), 900)) && limits.contains(&("new".to_owned(), 5)));
    assert_eq!(limits.len(), didit_api::Limits::didit().scopes().len() + 1);
    let error = refused("[[pacing.scopes]]\nname = 'a'\nlimit = 1\nendpoints = ['aml-screening']");
    assert!(
        error.contains("line 4, column 14: pacing.scopes[0].endpoints[0]: ") && error.contains("aml-screening"),
        "{error}"
    );
}

#[test]
fn the_file_in_the_documentation_can_be_used() {
    let lines = include_str!("mod.rs").lines().map(|line| line.trim_start_matches("//!").trim_start());
    let file = lines.skip_while(|line| *line != "```toml").skip(1).take_while(|line| *line != "```");
    // The one line that needs something outside the file.
    let file: Vec<_> = file.filter(|line| !line.starts_with("api_key_file")).collect();
    let config = toml(&file.join("\n")).unwrap();
    assert_eq!((config.pacing.scopes.len(), config.routes.len()), (1, 1));
}

#[test]
fn routes_are_changed_and_added() {
    let text = "[[routes]]\nname = 'aml'\ntimeout = '7s'\n[[routes]]\nname = 'report'\nmethod = 'POST'\n\
                path = '/v3/reports/'\ngroup = 'reports'\n[attempt_timeout]\nat_least = '20s'";
    let config = toml(text).unwrap();
    let routes = routes::build(&config.routes, &config.attempt_timeout).unwrap();
    let named = |name| routes.get(routes.named(name).unwrap());
    assert_eq!(named("aml").attempt_timeout(), Duration::from_secs(20));
    assert_eq!(named("aml").retry_class(), didit_api::RetryClass::IdempotencyKey);
    assert_eq!(named("report").service_group().name(), "reports");
    let layer = DiditLayer::from_config(&config).unwrap();
    assert!(layer.circuit_breaker().handle().groups().any(|group| group.name() == "reports"));
}

/// The program's own settings, as a gateway has them.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Own {
    listen: String,
    threads: u32,
}

#[test]
fn a_program_keeps_its_own_settings_in_the_same_file() {
    let sources = with(&[("DIDIT_OWN__LISTEN", "8080")]).with_section::<Own>("own");
    let sources = sources.text("own.toml", "[own]\nthreads = 3\n[retry]\nmax_attempts = 2", Format::Toml).unwrap();
    assert_eq!(sources.section::<Own>("own").unwrap(), Own { listen: "8080".to_owned(), threads: 3 });
    assert_eq!(sources.config().unwrap().retry.max_attempts, 2);
    let sources = Sources::new().with_section::<Own>("own");
    let error = sources.text("own.toml", "[own]\nthreads = 'x'", Format::Toml).unwrap().section::<Own>("own");
    assert!(error.unwrap_err().to_string().starts_with("own.toml, line 2, column 11: own.threads: "));
}

#[test]
fn without_jitter_every_wait_is_its_longest() {
    let config = Config::from_toml("jitter = false").unwrap();
    let shown = format!("{:?}", DiditLayer::from_config(&config).unwrap());
    assert!(shown.contains("still: true"), "{shown}");
}

#[test]
fn the_schema_beside_the_manifest_is_current() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config.schema.json");
    let current = format!("{:#}\n", Config::schema().to_value());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(file, &current).unwrap();
    }
    let checked_in = fs::read_to_string(file).unwrap_or_default();
    assert!(checked_in == current, "{file} is old; UPDATE_SCHEMA=1 cargo test writes it anew");
}

#[test]
fn every_key_is_in_the_schema_with_its_meaning() {
    fn walk(schema: &Value, value: &Value, path: &str) {
        let Value::Object(fields) = value else { return };
        for (name, value) in fields {
            let described = &schema["properties"][name];
            assert!(described["description"].is_string(), "{path}{name} has no description");
            walk(described, value, &format!("{path}{name}."));
        }
    }
    walk(&schema::inlined::<Config>(), &json!(Config::default()), "");
}

#[test]
fn of_a_secret_and_its_file_the_stronger_source_counts() {
    let file = std::env::temp_dir().join(format!("didit-key-{}", std::process::id()));
    fs::write(&file, "from-its-file\n").unwrap();
    let path = file.to_str().unwrap();
    let key = |text: &str, variable: (&str, &str)| {
        let sources = Sources::new().text("t.toml", text, Format::Toml).unwrap();
        let config = sources.environment([(variable.0.to_owned(), variable.1.to_owned())]).config().unwrap();
        config.api_key.unwrap().expose().to_owned()
    };
    assert_eq!(key("api_key = 'in-the-text'", ("DIDIT_API_KEY_FILE", path)), "from-its-file");
    assert_eq!(key(&format!("api_key_file = '{path}'"), ("DIDIT_API_KEY", "given")), "given");
    fs::remove_file(file).unwrap();
}
