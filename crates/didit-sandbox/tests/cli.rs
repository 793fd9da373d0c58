//! The binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use didit_api::webhook::{Event, Secrets, sign};

fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_didit-sandbox"));
    command.args(arguments);
    command
}

fn output(arguments: &[&str]) -> (Output, String) {
    let output = binary(arguments).output().unwrap();
    let said = String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap();
    (output, said)
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn help_and_version_are_printed() {
    let (help, text) = output(&["--help"]);
    assert!(help.status.success() && text.contains("--latency") && text.contains("/_sandbox/stats"));
    let (version, text) = output(&["-V"]);
    assert!(version.status.success() && text.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_cannot_be_used_is_named() {
    let faults = file("faults.json", "{\n  \"rules\": [ { \"fault\": \"explode\" } ]\n}");
    let limits =
        file("limits.json", "{\"version\":\"mine\",\"scopes\":[{\"name\":\"g\",\"limit\":0,\"methods\":[\"GET\"]}]}");
    let misspelt = "{\"version\":\"mine\",\"scopes\":[{\"name\":\"g\",\"limit\":1,\"endpoints\":[\"session-creat\"]}]}";
    let misspelt = file("misspelt.json", misspelt);
    for (arguments, part) in [
        (vec!["--nothing"], "--nothing"),
        (vec!["--listen", "nowhere"], "\"nowhere\""),
        (vec!["--seed", "x"], "\"x\""),
        (vec!["--latency", "fast"], "\"fast\""),
        (vec!["--latency", "20..10"], "from 20ms to 10ms"),
        (vec!["--latency", "50/late"], "\"late\""),
        (vec!["--latency", "normal:1..2"], "\"normal:1..2\""),
        (vec!["--latency", "exponential:20..10"], "cannot be drawn"),
        (vec!["--list-delay", "log-normal:30,99..5000"], "sigma"),
        (vec!["--neighbour", "many"], "\"many\""),
        (vec!["--neighbour", "60:amll"], "\"amll\""),
        (vec!["--neighbour", "60@5"], "\"60@5\""),
        (vec!["--limits", "no-such-file"], "no-such-file"),
        (vec!["--clock-skew", "soon"], "\"soon\""),
        (vec!["--list-delay", "-1"], "\"-1\""),
        (vec!["--retry-after", "a\nb"], "cannot stand in a header"),
        (vec!["--faults", faults.to_str().unwrap()], "line 2"),
        (vec!["--limits", limits.to_str().unwrap()], "scope \"g\""),
        (vec!["--webhook-url", "https://example.org/"], "\"https://example.org/\""),
        (vec!["--webhook-version", "v9"], "\"v9\""),
        (vec!["--webhook-drop", "2"], "a probability of 2"),
        (vec!["--webhook-url", "http://127.0.0.1:1/", "--webhook-secret", " "], "white space"),
        (vec!["--finish-status", "approved"], "\"approved\""),
        (vec!["--listen", "0.0.0.0:0"], "--allow-remote"),
        (vec!["--limits", misspelt.to_str().unwrap()], "\"session-creat\""),
    ] {
        let (output, said) = output(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    let (_, said) = output(&["--seed", "x"]);
    assert_eq!(said.matches("invalid digit").count(), 1, "{said}");
}

#[test]
fn it_serves_with_limits_and_faults_from_files_until_interrupted() {
    let limits = "{\"version\":\"mine\",\"scopes\":[{\"name\":\"g\",\"limit\":1,\"methods\":[\"GET\"]}]}";
    let limits = file("one.json", limits);
    let faults = "{\"rules\":[{\"fault\":{\"status\":{\"code\":502}},\"when\":{\"first\":1}}]}";
    let faults = file("first.json", faults);
    let mut child =
        binary(&["--listen", "127.0.0.1:0", "--api-key", "my-own-key", "--latency", "0..2/log-normal:1,1.0..2"])
            .args(["--retry-after", "soon", "--reset", "none", "--clock-skew", "-9000000000", "--abandoned-arrive"])
            .args(["--neighbour", "60:aml@600..4200", "--neighbour", "1@5.."])
            .args([
                "--list-delay",
                "exponential:5..50",
                "--sandbox-quota",
                "500",
                "--phone-attempts",
                "4",
                "--import-time",
                "5",
            ])
            .args(["--limits".as_ref(), limits.as_os_str(), "--faults".as_ref(), faults.as_os_str()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let address = first.split_whitespace().nth(2).unwrap().strip_prefix("http://").unwrap();
    let hint = lines.next().unwrap();
    assert!(hint.starts_with("try: curl ") && !hint.contains("my-own-key"), "{hint}");

    let ask = || {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = "GET /v3/sessions/ HTTP/1.1\r\nhost: h\r\nx-api-key: my-own-key\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answers = [ask(), ask()].map(|answer| answer.to_ascii_lowercase());
    assert!(answers[0].starts_with("http/1.1 502") && answers[1].starts_with("http/1.1 429"), "{answers:?}");
    assert!(answers[1].contains("retry-after: soon\r\n") && !answers[1].contains("x-ratelimit-reset"), "{answers:?}");
    assert!(answers[1].contains("date: thu, 01 jan 1970"), "{answers:?}");

    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success() && child.wait().unwrap().success());
}

#[test]
fn it_sends_a_webhook_when_a_session_ends_by_itself() {
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", receiver.local_addr().unwrap());
    let mut child = binary(&["--listen", "127.0.0.1:0", "--webhook-url", &url, "--webhook-version", "v3"])
        .args(["--finish-after", "1", "--finish-status", "In Review", "--webhook-drop", "0"])
        .args(["--webhook-duplicate", "0", "--webhook-shuffle", "1"])
        .env("DIDIT_WEBHOOK_SECRET", "from-the-environment")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let address = first.split_whitespace().nth(2).unwrap().strip_prefix("http://").unwrap();
    let body = "{\"workflow_id\":\"99999999-2222-4333-8444-555555555555\",\"metadata\":{\"corr\":\"c-1\"}}";
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "POST /v3/session/ HTTP/1.1\r\nhost: h\r\nx-api-key: sandbox-key\r\nconnection: close";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");

    let (connection, _) = receiver.accept().unwrap();
    let mut hook = BufReader::new(&connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(hook.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    hook.read_exact(&mut body).unwrap();
    let signed = Secrets::new(["from-the-environment"]).unwrap();
    let event = Event::read(&body).unwrap();
    let expected = sign(&body, &signed).unwrap();
    assert!(head.contains(expected["x-signature-v2"].to_str().unwrap()), "{head}");
    assert_eq!(
        (event.status.as_deref(), event.metadata),
        (Some("In Review"), Some(serde_json::json!({ "corr": "c-1" })))
    );
    (&connection).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();

    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success() && child.wait().unwrap().success());
}
