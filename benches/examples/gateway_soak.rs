//! The gateway's memory, over many requests and under large uploads:
//! `cargo build --release -p didit-gateway && cargo run --release -p benches --example gateway_soak`.
//!
//! The gateway runs as a process of its own, so what is measured is its memory and nobody else's.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use benches::relay::{ask, upstream};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

/// Requests in all, and how many between two looks.
const REQUESTS: usize = 1_000_000;
const LOOKS: usize = 10;

/// Uploads at once, and how large each is.
const UPLOADS: usize = 100;
const UPLOAD: usize = 10 * 1024 * 1024;

/// What is recorded of a body by default.
const REPLAY_CAP: usize = 16 * 1024 * 1024;

/// What the files in `examples/deploy` tell glibc: give large pieces back to the system once they are free.
const DEPLOYED: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// The gateway, stopped when dropped.
struct Gateway {
    child: Child,
    address: SocketAddr,
}

type Failure = Box<dyn Error + Send + Sync>;

impl Gateway {
    fn start(upstream: SocketAddr, replay_cap: usize, environment: &[(&str, &str)]) -> Result<Self, Failure> {
        // target/release/examples/<this> and target/release/didit-gateway
        let here = std::env::current_exe()?;
        let binary = here.parent().and_then(Path::parent).ok_or("no target folder")?.join("didit-gateway");
        let mut child = Command::new(binary)
            .args(["--listen", "127.0.0.1:0", "--metrics", "off", "--upstream", &format!("http://{upstream}")])
            .env("RUST_LOG", "warn")
            .env("DIDIT_RETRY__REPLAY_CAP", replay_cap.to_string())
            .env("DIDIT_PACING__LIMITS", "none")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut first = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut first)?;
        let address = first.split_whitespace().find_map(|word| word.strip_prefix("http://")).ok_or("no address")?;
        Ok(Self { address: address.parse()?, child })
    }

    /// Memory in MiB by a name of proc(5)'s `status`: `VmRSS` now, `VmHWM` at its highest.
    fn memory(&self, name: &str) -> Result<f64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let upstream = upstream().await?;
    let gateway = Gateway::start(upstream, REPLAY_CAP, &[])?;
    println!("{REQUESTS} requests over 64 connections, resident memory in MiB:");
    println!("  {:>7} requests {:6.1}", 0, gateway.memory("VmRSS")?);
    for look in 1..=LOOKS {
        ask(gateway.address, REQUESTS / LOOKS, 64).await?;
        println!("  {:>7} requests {:6.1}", look * REQUESTS / LOOKS, gateway.memory("VmRSS")?);
    }
    drop(gateway);
    for (replay_cap, environment, says) in [
        (REPLAY_CAP, &[][..], "kept for a repetition"),
        (REPLAY_CAP, &DEPLOYED, "kept for a repetition, memory given back as in examples/deploy"),
        (0, &[], "kept for nothing"),
    ] {
        let gateway = Gateway::start(upstream, replay_cap, environment)?;
        println!("{UPLOADS} uploads of {} MiB at once, {says}:", UPLOAD / 1024 / 1024);
        for round in 1..=4 {
            upload(gateway.address).await?;
            let (now, highest) = (gateway.memory("VmRSS")?, gateway.memory("VmHWM")?);
            println!("  round {round}: {now:7.1} after, {highest:7.1} at the highest");
        }
    }
    Ok(())
}

async fn upload(to: SocketAddr) -> Result<(), Failure> {
    let body = Bytes::from(vec![b'x'; UPLOAD]);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let uploads = (0..UPLOADS).map(|_| {
        let (client, body) = (client.clone(), body.clone());
        tokio::spawn(async move {
            let request = Request::post(format!("http://{to}/v3/id-verification/")).body(Full::new(body))?;
            let response = client.request(request).await?;
            let status = response.status();
            let answer = response.into_body().collect().await?.to_bytes();
            match status {
                StatusCode::OK => Ok::<_, Failure>(()),
                status => Err(format!("answered with {status}: {}", String::from_utf8_lossy(&answer)).into()),
            }
        })
    });
    for upload in uploads.collect::<Vec<_>>() {
        upload.await??;
    }
    Ok(())
}
