//! What the gateway is shown with: the Python script, the README's curl lines, the files to deploy it with.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]
#![allow(clippy::print_stderr, reason = "a test that cannot be run says so")]

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    process::{Command, Output},
};

use didit_gateway::{Gateway, RunningGateway, Settings};
use didit_sandbox::{DEFAULT_API_KEY, Fault, Faults, Rule, Sandbox, Server, When};
use http::StatusCode;
use tokio::net::TcpListener;
use tower_didit::config::{Format, Sources};

/// A local Didit, and a gateway in front of it.
async fn gateway(sandbox: &Sandbox) -> (Server, RunningGateway) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = didit_sandbox::serve(listener, sandbox.clone()).unwrap();
    let sources = Sources::new()
        .with_section::<Settings>(Settings::SECTION)
        .given("--listen", "gateway.listen", "127.0.0.1:0")
        .given("--metrics", "gateway.metrics", "off")
        .given("--upstream", "base_url", format!("http://{}", server.local_addr()))
        .given("", "api_key", DEFAULT_API_KEY)
        .given("", "retry.throttled_backoff.base", "1ms")
        .given("", "retry.backoff.base", "1ms")
        .given("", "retry.backoff.cap", "10ms");
    let gateway = Gateway::new(&sources).unwrap().start().await.unwrap();
    (server, gateway)
}

/// Runs a program to its end, which must be a good one; what it said.
async fn said(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let Output { status, stdout, stderr } = output.unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_script_of_fifteen_lines_takes_a_user_through_kyc() {
    let script = root().join("gateway/kyc.py");
    let text = std::fs::read_to_string(&script).unwrap();
    assert!(text.lines().filter(|line| !line.trim().is_empty()).count() <= 15, "{text}");
    if !Command::new("python3").args(["-c", "import requests"]).output().is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: there is no python3 with requests on this machine");
        return;
    }
    let fault = Fault::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(0);
    let faults = Faults::none().with(Rule::new(fault).when(When::Nth(vec![1, 3, 6])));
    let sandbox = Sandbox::builder().faults(faults).build().unwrap();
    let (_server, gateway) = gateway(&sandbox).await;
    let url = format!("http://{}", gateway.local_addr());
    let mut python = Command::new("python3");
    python.arg(script).env("GATEWAY", url);
    let said = said(python).await;
    let lines: Vec<_> = said.lines().collect();
    assert!(matches!(lines[..], ["Approved", _, "Approved", "Not Started"]), "{lines:?}");
    let stats = sandbox.stats();
    assert_eq!((stats.billed_checks, stats.sessions_made, stats.faults["status"]), (3, 1, 3), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_curl_lines_of_the_readme_work_as_written() {
    if !Command::new("curl").arg("--version").output().is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: there is no curl on this machine");
        return;
    }
    let sandbox = Sandbox::builder().build().unwrap();
    let (_server, gateway) = gateway(&sandbox).await;
    let readme = std::fs::read_to_string(root().join("../README.md")).unwrap();
    let block = readme.split("<!-- gateway: curl -->\n```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let script = block.replace("127.0.0.1:8080", &gateway.local_addr().to_string());
    let mut bash = Command::new("bash");
    bash.args(["-euc", &script]);
    let said = said(bash).await;
    assert!(said.contains(r#""vendor_data":"user-7""#) && said.contains("x-didit-attempts: 1"), "{said}");
    assert_eq!(sandbox.stats().sessions_made, 1);
}

#[test]
fn the_files_to_deploy_it_with_fit_it() {
    let read = |name: &str| std::fs::read_to_string(root().join("deploy").join(name)).unwrap();
    let config = read("gateway.toml");
    let sources = || Sources::new().with_section::<Settings>(Settings::SECTION);
    let usable = |config: &str| Gateway::new(&sources().text("gateway.toml", config, Format::Toml).unwrap()).err();
    assert!(usable(&config).is_none(), "{:?}", usable(&config));
    // What is commented out as an example works too.
    let whole: Vec<_> =
        config.lines().map(|line| line.strip_prefix("# ").filter(|line| is_setting(line)).unwrap_or(line)).collect();
    assert!(usable(&whole.join("\n")).is_none(), "{:?}", usable(&whole.join("\n")));
    for name in ["didit-gateway.service", "Containerfile"] {
        let text = read(name);
        assert!(text.contains("DIDIT_API_KEY_FILE") && text.contains("/etc/didit/gateway.toml"), "{name}");
    }
}

fn is_setting(line: &str) -> bool {
    line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
}
