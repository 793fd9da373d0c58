//! The binary: settings, signals, what operators see, and what it bears.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use std::{fs, path::PathBuf, time::Duration};

use didit_api::{Limits, Scope};
use didit_sandbox::{DEFAULT_API_KEY, DEFAULT_WORKFLOW_ID, Fault, Faults, Rule, Sandbox, When};
use http::StatusCode;
use serde_json::{Value, json};
use support::*;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

fn output(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = binary(arguments).envs(environment.iter().copied()).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap())
}

fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path.into_os_string().into_string().unwrap()
}

#[test]
fn help_lists_every_flag() {
    let (code, text) = output(&["--help"], &[]);
    assert_eq!(code, Some(0));
    for flag in ["config", "listen", "upstream", "metrics", "allow-remote", "no-jitter", "seed", "log", "print-config"]
    {
        assert!(text.contains(&format!("--{flag}")), "{flag}");
    }
    assert!(output(&["-V"], &[]).1.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_preset() {
    let config = file("order.toml", "preset = 'seed'\nseed = 1\n[retry]\nmax_attempts = 4\nlongest_wait = '1m'");
    let environment = [("DIDIT_RETRY__MAX_ATTEMPTS", "3"), ("DIDIT_SEED", "2"), ("DIDIT_API_KEY", "canary-key")];
    let arguments = ["--config", &config, "--seed", "3", "--no-jitter", "--listen", "127.0.0.1:7070", "--print-config"];
    let (code, text) = output(&arguments, &environment);
    assert_eq!(code, Some(0), "{text}");
    let shown: Value = serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap();
    assert_eq!((&shown["seed"], &shown["jitter"]), (&json!(3), &json!(false)));
    assert_eq!((&shown["retry"]["max_attempts"], &shown["retry"]["longest_wait"]), (&json!(3), &json!("1m")));
    assert_eq!(shown["retry"]["budget"], "off", "the preset's");
    assert_eq!((&shown["gateway"]["listen"], &shown["api_key"]), (&json!("127.0.0.1:7070"), &json!("[redacted]")));
    assert!(!text.contains("canary"));
    // A key that is not shown is not there for whoever uses what was printed, and that is said.
    let again = file("again.toml", &text);
    let (code, text) = output(&["--config", &again, "--check-config"], &[]);
    assert_eq!(code, Some(2), "{text}");
    let line = fs::read_to_string(&again).unwrap().lines().position(|line| line.starts_with("api_key")).unwrap() + 1;
    assert!(
        text.contains(&format!("again.toml, line {line}, column 11: api_key: \"[redacted]\" is what is shown")),
        "{text}"
    );
}

#[test]
fn what_is_printed_names_the_files_of_secrets_and_can_be_used_again() {
    let (key, token) = (file("key", "canary-key\n"), file("token", "canary-0123456789\n"));
    let environment = [("DIDIT_API_KEY_FILE", key.as_str()), ("DIDIT_GATEWAY__ACCESS_TOKEN_FILE", token.as_str())];
    let (code, text) = output(&["--seed", "3", "--print-config"], &environment);
    assert_eq!(code, Some(0), "{text}");
    let shown: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!((shown["api_key_file"].as_str(), shown.get("api_key")), (Some(key.as_str()), None));
    assert_eq!(shown["gateway"]["access_token_file"].as_str(), Some(token.as_str()));
    assert!(!text.contains("canary") && !text.contains("redacted"), "{text}");
    let again = file("from-files.toml", &text);
    assert_eq!(output(&["--config", &again, "--print-config"], &[]), (Some(0), text));
}

#[test]
fn settings_are_checked_without_being_used() {
    assert_eq!(output(&["--check-config"], &[]), (Some(0), "the settings can be used\n".to_owned()));
    let config = file("bad.toml", "[retry]\nmax_attempts = 0");
    let (code, text) = output(&["--config", &config, "--check-config"], &[]);
    assert_eq!((code, text.contains("bad.toml, line 2, column 16: retry.max_attempts: ")), (Some(2), true), "{text}");
}

#[test]
fn what_cannot_be_used_is_named() {
    let same = file("same.toml", "[gateway]\nlisten = '127.0.0.1:7070'\nmetrics = '127.0.0.1:7070'");
    let taken = file("taken.toml", "[gateway]\nlisten = '127.0.0.1:9090'");
    let hosts = file("hosts.toml", "[gateway]\nhosts = ['x', 'http://x/']");
    let json = file("bad.json", "{\n  \"gateway\": { \"listen\": \"nowhere\" }\n}");
    for (arguments, environment, part) in [
        (vec!["--nothing"], None, "--nothing"),
        (vec!["--config", "/no/such/file"], None, "/no/such/file"),
        (vec!["--config", &json], None, "line 2, column 26: gateway.listen: "),
        (
            vec!["--config", &same],
            None,
            "same.toml, line 3, column 11: gateway.metrics: 127.0.0.1:7070 takes the place of gateway.listen; allowed is \
             another port, or \"off\"",
        ),
        (vec!["--config", &same, "--metrics", "[::ffff:127.0.0.1]:7070"], None, "--metrics: gateway.metrics: [::ffff:"),
        (
            vec!["--config", &taken],
            None,
            "taken.toml, line 2, column 10: gateway.listen: 127.0.0.1:9090 takes the place of gateway.metrics; allowed is \
             another port\n",
        ),
        (
            vec!["--config", &hosts],
            None,
            "hosts.toml, line 2, column 15: gateway.hosts[1]: \"http://x/\" is no host; allowed is a name or an address",
        ),
        (vec!["--listen", "nowhere"], None, "--listen: gateway.listen: \"nowhere\" does not fit; "),
        (vec!["--listen", "nowhere"], None, "; allowed is something such as \"127.0.0.1:8080\""),
        (vec!["--metrics", "soon"], None, "--metrics: gateway.metrics: \"soon\" does not fit; "),
        (vec!["--metrics", "soon"], None, "; allowed is something such as \"127.0.0.1:9090\", or \"off\""),
        (vec!["--log", "loud"], None, "--log: gateway.log: \"loud\" is not known; allowed is \"json\" or \"pretty\""),
        (
            vec![],
            Some(("DIDIT_GATEWAY", "5")),
            "DIDIT_GATEWAY: gateway: 5 is no table; allowed is a table of access_token",
        ),
        (
            vec![],
            Some(("DIDIT_GATEWAY__LISTEN", "8080")),
            "gateway.listen: \"8080\" does not fit; allowed is something",
        ),
        (vec![], Some(("DIDIT_GATEWAY__METRICS", "9090")), "gateway.metrics: 9090 is no text; allowed is something"),
        (vec![], Some(("DIDIT_GATEWAY__HOSTS", "x")), "gateway.hosts: \"x\" is no list; allowed is a list of texts"),
        (vec![], Some(("DIDIT_GATEWAY__ACCESS_TOKEN__X", "canary")), "gateway.access_token: it is no text; allowed is"),
        (vec![], Some(("DIDIT_GATWAY__LOG", "json")), "gatway: no such setting; known are api_key, "),
        (vec!["--seed", "abc"], None, "--seed: seed: \"abc\" is no whole number; allowed is 0 to 1844"),
        (vec!["--upstream", "ftp://host"], None, "--upstream: base_url: "),
        (vec!["--listen", "0.0.0.0:0"], None, "--allow-remote"),
        (vec!["--listen", "0.0.0.0:0", "--allow-remote"], None, "access token"),
        (vec![], Some(("DIDIT_GATEWAY__MAX_BODI", "1")), "environment variable DIDIT_GATEWAY__MAX_BODI: gateway"),
        (vec![], Some(("DIDIT_GATEWAY__GRACE", "2days")), "gateway.grace: 2days; allowed is 0ns to 86400s"),
        (vec![], Some(("DIDIT_GATEWAY__BODY_TIMEOUT", "1ms")), "gateway.body_timeout: 1ms; allowed is 100ms to 86400s"),
        (vec![], Some(("DIDIT_GATEWAY__HEADER_TIMEOUT", "1us")), "gateway.header_timeout: 1us; allowed is 100ms to"),
        (vec![], Some(("DIDIT_GATEWAY__IDLE_TIMEOUT", "99ms")), "gateway.idle_timeout: 99ms; allowed is 100ms to"),
        (vec![], Some(("DIDIT_GATEWAY__MAX_HEAD", "1")), "gateway.max_head: 1; allowed is 8192 to 1048576"),
        (vec![], Some(("DIDIT_GATEWAY__CA_FILE", "/no/such/file")), "gateway.ca_file: "),
        (vec![], Some(("DIDIT_GATEWAY__ACCESS_TOKEN", "canary")), "gateway.access_token: a token of 6 bytes"),
        (vec![], Some(("DIDIT_CORRELATION__HEADER", "host")), "correlation.header is \"host\", which HTTP uses"),
        (
            vec![],
            Some(("DIDIT_IDEMPOTENCY__HEADER", "X-Gateway-Token")),
            "DIDIT_IDEMPOTENCY__HEADER: idempotency.header: ",
        ),
        (vec![], Some(("DIDIT_API_KEY", "canary key")), "environment variable DIDIT_API_KEY: api_key: "),
    ] {
        let environment: Vec<_> = environment.into_iter().collect();
        let (code, text) = output(&[&arguments[..], &["--check-config"]].concat(), &environment);
        assert_eq!(code, Some(2), "{arguments:?} {environment:?}: {text}");
        assert!(text.contains(part) && !text.contains("canary"), "{arguments:?} {environment:?}: {text}");
    }
}

#[test]
fn the_schema_beside_the_manifest_is_current() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.schema.json");
    let current = format!("{:#}\n", didit_gateway::Settings::schema().to_value());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(file, &current).unwrap();
    }
    let checked_in = fs::read_to_string(file).unwrap_or_default();
    assert!(checked_in == current, "{file} is old; UPDATE_SCHEMA=1 cargo test writes it anew");
}

async fn served(sandbox: Sandbox) -> (Sandbox, didit_sandbox::Server, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = didit_sandbox::serve(listener, sandbox.clone()).unwrap();
    let url = format!("http://{}", server.local_addr());
    (sandbox, server, url)
}

/// The sum of all series of a metric, by a part of their labels.
fn sum(metrics: &str, name: &str, label: &str) -> u64 {
    let series = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_under_faults_and_a_low_limit_all_succeed_and_the_numbers_agree() {
    // A tenth of all requests fails, and 200 a second are let in.
    let limits = || {
        Limits::none()
            .with(Scope::methods("g", 200, ["GET", "POST"]).unwrap().with_window(Duration::from_secs(1)).unwrap())
    };
    let fault =
        Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(0)).when(When::Probability(0.1));
    let sandbox = Sandbox::builder().seed(7).limits(limits().unwrap()).faults(Faults::none().with(fault));
    let (sandbox, _server, url) = served(sandbox.build().unwrap()).await;
    let config = file(
        "thousand.toml",
        "deadline.total = '5m'\n[pacing]\nlimits = 'none'\nepsilon = '50ms'\n[[pacing.scopes]]\nname = 'g'\nlimit = 200\n\
         window = '1s'\nmethods = ['GET', 'POST']\n[retry]\nbackoff = { base = '10ms', cap = '100ms' }",
    );
    let arguments = ["--upstream", &url, "--config", &config, "--seed", "1"];
    let process = Process::start(&arguments, &[("DIDIT_API_KEY", DEFAULT_API_KEY)]);
    let address = process.address;
    let workers = (0..20).map(|worker| {
        tokio::spawn(async move {
            let client = client();
            for call in 0..50 {
                let id = format!("{worker}-{call}");
                let body = json!({
                    "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": id, "metadata": { "operation_id": id },
                });
                let reply = send_with(&client, address, post("/v3/session/", body.to_string())).await;
                assert_eq!(reply.status, StatusCode::CREATED, "{reply:?}");
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    let stats = sandbox.stats();
    assert_eq!((stats.sessions_made, stats.throttled), (1_000, 0), "{stats:?}");
    assert_eq!((stats.duplicates_by_vendor_data, stats.duplicates_by_operation_id), (0, 0), "{stats:?}");
    let arrivals = stats.arrivals["session-create"];
    assert!(arrivals > 1_000, "{stats:?}");
    let metrics = send(process.operations, get("/metrics")).await;
    let metrics = String::from_utf8(metrics.bytes.to_vec()).unwrap();
    assert_eq!(sum(&metrics, "didit_calls_total", "status_class=\"2xx\""), 1_000);
    assert_eq!(sum(&metrics, "didit_calls_total", ""), 1_000);
    assert_eq!(sum(&metrics, "didit_attempts_total", ""), arrivals);
    assert_eq!(sum(&metrics, "didit_attempts_total", "status_class=\"5xx\""), stats.faults["status"]);
    assert_eq!(sum(&metrics, "didit_retries_total", ""), arrivals - 1_000);
    let status = send(process.operations, get("/status")).await.json();
    assert_eq!(
        (&status["scopes"]["g"]["limit"], &status["circuits"]["core"]["state"]),
        (&json!(200), &json!("closed"))
    );
    assert_eq!((&status["phase"], &status["calls_in_flight"]), (&json!("serving"), &json!(0)));

    let log = process.stop();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |message: &str| lines.iter().filter(|line| line["message"] == message).count() as u64;
    assert_eq!((count("answered"), count("attempt ended")), (1_000, arrivals));
    assert!(lines.iter().filter(|line| line["message"] == "answered").all(|line| {
        line["url.template"] == "/v3/session/" && line["complete"] == true && line["correlation_id"].is_string()
    }));
    assert!(!log.contains(DEFAULT_API_KEY) && !log.contains("session_token"), "the log tells a secret");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_thousand_sessions_of_the_readme_are_counted_the_same_on_both_sides() {
    if !std::process::Command::new("python3").arg("--version").output().is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: there is no python3 on this machine");
        return;
    }
    let example = |name: &str| format!("{}/../../examples/gateway/{name}", env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(example(name)).unwrap();
    let (limits, faults) = (read("thousand/limits.json"), read("thousand/faults.json"));
    let sandbox = Sandbox::builder().limits(Limits::from_json(&limits).unwrap());
    let sandbox = sandbox.faults(Faults::from_json(&faults).unwrap()).build().unwrap();
    let (sandbox, _server, url) = served(sandbox).await;
    let arguments = ["--upstream", &url, "--config", &example("thousand/gateway.toml")];
    let process = Process::start(&arguments, &[("DIDIT_API_KEY", DEFAULT_API_KEY)]);
    let mut python = std::process::Command::new("python3");
    python.arg(example("thousand.py")).env("SANDBOX", &url);
    python.env("GATEWAY", format!("http://{}", process.address));
    python.env("OPERATORS", format!("http://{}", process.operations));
    let output = tokio::task::spawn_blocking(move || python.output()).await.unwrap().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && said.ends_with("\nthey agree\n"), "{said}");
    let stats = sandbox.stats();
    assert_eq!((stats.sessions_made, stats.throttled), (1_000, 0), "{stats:?}");
    assert!(stats.faults["status"] > 50, "{stats:?}");
}

#[tokio::test]
async fn operators_see_how_it_is() {
    let (_sandbox, _server, url) = served(Sandbox::builder().build().unwrap()).await;
    let process = Process::start(&["--upstream", &url], &[("DIDIT_GATEWAY__ACCESS_TOKEN", "0123456789abcdef")]);
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/status", 401), ("/else", 401)] {
        assert_eq!(send(process.operations, get(path)).await.status.as_u16(), status, "{path}");
    }
    let with = async |path: &str, name: &'static str, value: &'static str| {
        let mut request = get(path);
        request.headers_mut().insert(name, value.parse().unwrap());
        send(process.operations, request).await
    };
    let metrics = with("/metrics", "authorization", "Bearer 0123456789abcdef").await;
    assert_eq!(
        (metrics.status, metrics.header("content-type")),
        (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8")
    );
    let text = String::from_utf8(metrics.bytes.to_vec()).unwrap();
    assert!(text.contains("# TYPE didit_circuit_state gauge") && text.contains("didit_quota_limit{"), "{text}");
    let status = with("/status", "x-gateway-token", "0123456789abcdef").await.json();
    assert_eq!(status["circuits"]["aml"]["state"], "closed");
    assert_eq!(status["scopes"]["generic-write"]["limit"], 300);
    assert_eq!(with("/else", "x-gateway-token", "0123456789abcdef").await.status, StatusCode::NOT_FOUND);
    assert_eq!(send(process.operations, post("/healthz", "")).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_cannot_be_used_is_counted_and_logged_and_not_repeated() {
    let upstream = echo();
    let process = Process::start(&["--upstream", &base(&upstream)], &[]);
    let mut ids = Vec::new();
    for id in ["journey-7", "canary <script>", &"canary".repeat(100), ""] {
        let mut request = get("/v3/sessions/");
        request.headers_mut().insert("x-correlation-id", id.parse().unwrap());
        ids.push(send(process.address, request).await.header("x-correlation-id").to_owned());
    }
    assert_eq!(ids[0], "journey-7");
    let metrics = send(process.operations, get("/metrics")).await;
    let metrics = String::from_utf8(metrics.bytes.to_vec()).unwrap();
    assert!(metrics.contains("\ndidit_correlation_ids_replaced_total 3\n"), "{metrics}");
    let log = process.stop();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<_> = lines
        .filter(|line| line["level"] == "WARN")
        .map(|line| {
            assert!(line["message"].as_str().unwrap().ends_with("was replaced"), "{line}");
            line["correlation_id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(told, ids[1..]);
    assert!(!log.contains("canary"), "{log}");
}

#[test]
fn either_signal_ends_it() {
    for signal in ["-TERM", "-INT"] {
        let mut process = Process::start(&["--log", "pretty"], &[]);
        process.signal(signal);
        assert!(process.child.wait().unwrap().success(), "{signal}");
    }
}

/// How many descriptors this process may have open.
fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

#[tokio::test]
async fn ten_thousand_idle_connections_and_all_kinds_of_half_requests_do_no_harm() {
    let (_sandbox, _server, url) = served(Sandbox::builder().build().unwrap()).await;
    let environment = [
        ("DIDIT_API_KEY", DEFAULT_API_KEY),
        ("DIDIT_GATEWAY__IDLE_TIMEOUT", "3s"),
        ("DIDIT_GATEWAY__HEADER_TIMEOUT", "3s"),
        // The test's own connections have to find a place beside those that are idle.
        ("DIDIT_GATEWAY__MAX_CONNECTIONS", "20000"),
    ];
    let process = Process::start(&["--upstream", &url], &environment);
    assert_eq!(send(process.address, get("/v3/sessions/")).await.status, StatusCode::OK);
    let before = process.descriptors();
    let beginnings = [
        "",
        "G",
        "GET / HTTP/1.1\r\nhost: loc",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\0\x16\x03",
    ];
    // As many as are allowed here, less what else is open.
    let many = descriptors().saturating_sub(500).min(10_000);
    let mut idle = Vec::with_capacity(many);
    for (number, beginning) in (0..many).zip(beginnings.iter().cycle()) {
        let mut stream = TcpStream::connect(process.address).await.unwrap_or_else(|error| panic!("{number}: {error}"));
        stream.write_all(beginning.as_bytes()).await.unwrap();
        idle.push(stream);
    }
    // It serves in the midst of them.
    assert_eq!(send(process.address, get("/v3/sessions/")).await.status, StatusCode::OK);
    // Every one of them is let go of by the gateway.
    for stream in &mut idle {
        rest(stream).await;
    }
    let deadline = tokio::time::Instant::now() + LONG;
    while process.descriptors() > before + 2 {
        assert!(tokio::time::Instant::now() < deadline, "{} descriptors, {before} before", process.descriptors());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(send(process.address, get("/v3/sessions/")).await.status, StatusCode::OK);
    let log = process.stop();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn an_upstream_that_dies_and_comes_back_is_found_again() {
    let (sandbox, server, url) = served(Sandbox::builder().build().unwrap()).await;
    let at = server.local_addr();
    let config = "[retry]\nbackoff = { base = '1ms', cap = '5ms' }\nmax_attempts = 2\n[circuit_breaker]\nopen = '50ms'\nopen_cap = '50ms'";
    let config = file("comes-back.toml", config);
    let process = Process::start(&["--upstream", &url, "--config", &config], &[("DIDIT_API_KEY", DEFAULT_API_KEY)]);
    assert_eq!(send(process.address, get("/v3/sessions/")).await.status, StatusCode::OK);
    server.shutdown().await;
    for _ in 0..10 {
        let reply = send(process.address, get("/v3/sessions/")).await;
        assert!(["transport", "circuit-breaker"].contains(&reply.layer().as_str()), "{reply:?}");
    }
    let _back = didit_sandbox::serve(TcpListener::bind(at).await.unwrap(), sandbox).unwrap();
    let deadline = tokio::time::Instant::now() + LONG;
    while send(process.address, get("/v3/sessions/")).await.status != StatusCode::OK {
        assert!(tokio::time::Instant::now() < deadline, "the upstream is back, and is not found");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
