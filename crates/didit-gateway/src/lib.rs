//! The side-car: any HTTP client, in any language, calls a loopback address instead of Didit, and its calls go through
//! all layers of [`tower_didit`].
//!
//! The binary is a thin shell around [`Gateway`]; its `--help` lists the flags, and [`Settings`] the section `gateway` of
//! its file. All other settings are those of [`tower_didit::config`].
//!
//! # What passes
//!
//! Requests and answers pass as streams in both directions. Nothing is kept but what a repetition may need, up to
//! `retry.replay_cap` bytes a call. Didit's answers come back as they are, with two headers added: `x-correlation-id`,
//! which names the call in every log, and `x-didit-attempts`, how often it was sent. A caller may name the call itself
//! with `x-correlation-id`, and the business operation it belongs to with `x-operation-id`; `x-didit-priority` (`high`,
//! `normal`, `low`) says who goes first while calls wait for quota.
//!
//! # What the gateway answers itself
//!
//! Problem documents (RFC 9457) whose `layer` says who decided:
//!
//! | status | `layer` | when |
//! |---|---|---|
//! | 429, `Retry-After` | `pacing` | the quota has no room before the call's deadline |
//! | 503, `Retry-After` | `circuit-breaker` | this part of Didit fails, and is left alone |
//! | 504 | `deadline` | the call's total time ran out |
//! | 504 | `attempt-timeout` | the last attempt was not answered in time |
//! | 502 | `transport` | the connection to Didit failed |
//! | 409 | `idempotency` | another call has this one's name |
//! | 503, `Retry-After` | `gateway` | the gateway is being stopped, and the call waited: `stopping` if none of its attempts was carried out, `cut-off` if one may have been |
//! | 503 | `gateway` | the gateway was stopped while an attempt was under way: `cut-off` |
//! | 4xx, 501, 508 | `gateway` | the request is not taken: its form, its size, whom it names, who sends it |
//!
//! # What it does not take
//!
//! It listens on the loopback unless told otherwise, and then only behind an access token. It sends to one upstream and
//! nowhere else: `CONNECT` and requests to a proxy are refused, and so is a `Host` that is not its own, which is how a
//! page in a browser would get at the key it holds. A request whose length can be read in two ways is refused and its
//! connection closed.
//!
//! # Example
//!
//! ```
//! use didit_gateway::{Gateway, Settings};
//! use tower_didit::config::Sources;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sources = Sources::new()
//!     .with_section::<Settings>(Settings::SECTION)
//!     .given("--listen", "gateway.listen", "127.0.0.1:0")
//!     .given("--metrics", "gateway.metrics", "off");
//! let gateway = Gateway::new(&sources)?.start().await?;
//! println!("calls to Didit go to http://{}", gateway.local_addr());
//! gateway.shutdown().await;
//! # Ok(())
//! # }
//! ```
#![doc = include_str!("log.md")]

mod attempts;
mod body;
mod conversation;
mod frames;
mod framing;
mod gateway;
mod hop;
mod linger;
mod log;
mod operations;
mod problem;
mod proxy;
mod refuse;
mod server;
mod settings;
mod socket;
mod upstream;

pub use self::{
    gateway::{Gateway, RunningGateway},
    settings::{LogFormat, Settings},
};
