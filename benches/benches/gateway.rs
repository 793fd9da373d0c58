//! What the gateway costs beside a bare reverse proxy of hyper's, both in one run:
//! `cargo bench -p benches --bench gateway`.
//!
//! All run on one machine and in one process, so the CPU time of a request is that of client, proxy and upstream
//! together; what a proxy adds is the difference to the row without one.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::error::Error;

use benches::relay::{Asked, ask, bare_proxy, upstream};
use didit_gateway::{Gateway, Settings};
use tower_didit::config::Sources;

/// Requests of one row in one round, and rounds; a row is the best of its rounds, since noise only adds.
const REQUESTS: usize = 10_000;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let upstream = upstream().await?;
    let bare = bare_proxy(upstream).await?;
    let sources = Sources::new()
        .with_section::<Settings>(Settings::SECTION)
        .given("", "gateway.listen", "127.0.0.1:0")
        .given("", "gateway.metrics", "off")
        .given("", "base_url", format!("http://{upstream}"))
        .given("", "api_key", "key")
        // The layer counts and queues as ever, it has only room enough.
        .given("", "pacing.limits", "none")
        .given("", "pacing.scopes", r#"[{"name":"wide","limit":4000000,"window":"1s","methods":["POST"]}]"#);
    let gateway = Gateway::new(&sources)?.start().await?;
    let rows = [("no proxy", upstream), ("bare hyper", bare), ("didit-gateway", gateway.local_addr())];
    for connections in [1, 64] {
        let mut best: [Option<Asked>; 3] = [None; 3];
        for _ in 0..ROUNDS {
            // Interleaved, so that what the machine does meanwhile is done to all.
            for ((_, address), best) in rows.iter().zip(&mut best) {
                let asked = ask(*address, REQUESTS, connections).await?;
                if best.is_none_or(|best| asked.cpu < best.cpu) {
                    *best = Some(asked);
                }
            }
        }
        println!("{connections:3} connections      requests/s   median      p99    CPU/request  over no proxy");
        let none = best[0].map(|asked| asked.cpu).unwrap_or_default();
        for ((name, _), asked) in rows.iter().zip(best.into_iter().flatten()) {
            let Asked { rate, median, p99, cpu } = asked;
            let over = cpu.saturating_sub(none);
            println!("  {name:18} {rate:10.0} {median:>8.0?} {p99:>8.0?} {cpu:>14.1?} {over:>14.1?}");
        }
    }
    gateway.shutdown().await;
    Ok(())
}
