//! What the receiver answers to whatever comes in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use didit_api::webhook::{Secrets, Verifier, encode, sign};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tower::ServiceExt;
use tower_didit::{
    Randomness,
    call::CorrelationId,
    webhook::{
        Receiver, ReceiverBuilder,
        inbox::{
            Arrival, Capacity, Claim, Counts, Inbox, InboxError, InboxFuture, MemoryInbox, Parked, Receipt, Settlement,
            Terms, Ticket, Timestamp,
        },
    },
};

const SECRET: &str = "not-a-real-secret";

fn secrets() -> Secrets {
    Secrets::new([SECRET]).unwrap()
}

fn builder(inbox: impl Inbox) -> ReceiverBuilder {
    Receiver::builder(secrets(), inbox)
}

/// A receiver that takes events of the year 2026 for ever, so that the test needs no clock.
fn receiver(inbox: impl Inbox) -> Receiver {
    builder(inbox).verifier(Verifier::new().tolerance(Duration::from_secs(u64::from(u32::MAX)))).build().unwrap()
}

const SIGNED: u64 = 1_790_000_000;

fn event() -> Value {
    json!({
        "event_id": "e-1", "webhook_type": "status.updated", "timestamp": SIGNED, "session_id": "s-1",
        "status": "Approved", "metadata": { "correlation_id": "c-1" },
    })
}

fn signed(event: &Value) -> (HeaderMap, Bytes) {
    let body = encode(event).unwrap();
    (sign(body.as_bytes(), &secrets()).unwrap(), body.into())
}

async fn post(receiver: &Receiver, headers: HeaderMap, body: Bytes) -> u16 {
    let mut request = Request::post("/webhooks/didit").body(Full::new(body)).unwrap();
    *request.headers_mut() = headers;
    receiver.clone().oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn each_case_has_the_documented_answer() {
    let inbox = MemoryInbox::new();
    let receiver = receiver(inbox.clone());
    let (headers, body) = signed(&event());
    let with = |name: &'static str, value: &str| {
        let mut changed = headers.clone();
        changed.insert(name, HeaderValue::from_str(value).unwrap());
        changed
    };
    let mut doubled = headers.clone();
    doubled.append("x-signature-v2", headers["x-signature-v2"].clone());
    let forged = "0".repeat(64);
    let (simple, no_timestamp) = (json!({ "status": "Approved" }).to_string(), "{}");
    let only_simple = HeaderMap::from_iter([
        ("x-signature-simple".parse().unwrap(), headers["x-signature-simple"].clone()),
        ("x-timestamp".parse().unwrap(), headers["x-timestamp"].clone()),
    ]);
    let stale = signed(&json!({ "timestamp": 1, "event_id": "e-2" }));
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let other = Secrets::new(["another-secret"]).unwrap();
    let cases: Vec<(&str, HeaderMap, Bytes, u16)> = vec![
        ("an event", headers.clone(), body.clone(), 200),
        ("the same again", headers.clone(), body.clone(), 200),
        ("no signature", HeaderMap::new(), body.clone(), 401),
        ("another secret", sign(&body, &other).unwrap(), body.clone(), 401),
        ("a wrong signature", with("x-signature-v2", &forged), body.clone(), 401),
        ("contradicting signatures", with("x-signature", &forged), body.clone(), 401),
        ("the weakest signature alone", only_simple, body.clone(), 401),
        ("another time in the header", with("x-timestamp", "1790000001"), body.clone(), 401),
        ("a signature that is none", with("x-signature-v2", "sha256=abc"), body.clone(), 400),
        ("a header twice", doubled, body.clone(), 400),
        ("not JSON", headers.clone(), Bytes::from_static(b"hello"), 400),
        ("not UTF-8", headers.clone(), Bytes::from_static(b"\xff\xfe"), 400),
        ("nothing", headers.clone(), Bytes::new(), 400),
        ("no object", headers.clone(), Bytes::from_static(b"[]"), 400),
        ("another object", headers.clone(), simple.into(), 401),
        ("an empty object", headers.clone(), no_timestamp.into(), 401),
        ("signed in 1970", stale.0, stale.1, 200),
        ("10 000 levels", headers.clone(), deep.into(), 413),
        ("10 MiB", headers.clone(), vec![b' '; 10 * 1024 * 1024].into(), 413),
    ];
    for (case, headers, body, answer) in cases {
        assert_eq!(post(&receiver, headers, body).await, answer, "{case}");
    }
    let counts = inbox.counts().await.unwrap();
    assert_eq!((counts.pending, counts.done), (2, 0), "the rest left no trace");
    // Signed by Didit and too long ago, by the default tolerance.
    let strict = builder(inbox.clone()).build().unwrap();
    assert_eq!(post(&strict, headers.clone(), body.clone()).await, 400);
    for method in [Method::GET, Method::PUT, Method::HEAD, Method::OPTIONS] {
        let request = Request::builder().method(method).body(Full::new(body.clone())).unwrap();
        let response = strict.clone().oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, "POST"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_or_breaks_off_is_answered_in_time_and_repeated_by_didit() {
    type Frames = Pin<Box<dyn tokio_stream::Stream<Item = io::Result<Frame<Bytes>>> + Send>>;
    let receiver = receiver(MemoryInbox::new());
    let piece = || Ok(Frame::data(Bytes::from_static(b"{")));
    let drop_by_drop: Frames =
        Box::pin(tokio_stream::iter(std::iter::repeat_with(piece)).throttle(Duration::from_millis(500)));
    let silent: Frames = Box::pin(tokio_stream::pending());
    let broken: Frames = Box::pin(tokio_stream::iter([piece(), Err(io::ErrorKind::ConnectionReset.into())]));
    let endless: Frames =
        Box::pin(tokio_stream::iter(std::iter::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b'{'; 65_536]))))));
    for (case, frames, answer) in
        [("slow", drop_by_drop, 503), ("silent", silent, 503), ("broken", broken, 503), ("endless", endless, 413)]
    {
        let start = Instant::now();
        let mut request = Request::post("/").body(StreamBody::new(frames)).unwrap();
        *request.headers_mut() = signed(&event()).0;
        let status = receiver.clone().oneshot(request).await.unwrap().status().as_u16();
        assert_eq!(status, answer, "{case}");
        assert!(start.elapsed() <= Receiver::ANSWER_WITHIN + Duration::from_millis(1), "{case}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_announced_length_is_refused_before_a_byte_is_read() {
    let receiver = receiver(MemoryInbox::new());
    let never = StreamBody::new(tokio_stream::pending::<io::Result<Frame<Bytes>>>());
    let request = Request::post("/").header("content-length", "3000000").body(never).unwrap();
    let start = Instant::now();
    assert_eq!(receiver.oneshot(request).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// An inbox that fails, or is slow.
#[derive(Debug)]
struct Broken(Option<Duration>);

impl Broken {
    fn fails<T: Send + 'static>(&self) -> InboxFuture<T> {
        let wait = self.0;
        Box::pin(async move {
            sleep(wait.unwrap_or_default()).await;
            Err(InboxError::Closed)
        })
    }
}

impl Inbox for Broken {
    fn accept(&self, _: Arrival, _: Timestamp) -> InboxFuture<Receipt> {
        self.fails()
    }
    fn claim(&self, _: Terms, _: Timestamp) -> InboxFuture<Claim> {
        self.fails()
    }
    fn renew(&self, _: Ticket, _: Timestamp, _: Timestamp) -> InboxFuture<()> {
        self.fails()
    }
    fn settle(&self, _: Ticket, _: Settlement, _: Timestamp) -> InboxFuture<()> {
        self.fails()
    }
    fn is_missing(&self, _: String, _: String) -> InboxFuture<bool> {
        self.fails()
    }
    fn remember(&self, _: String, _: CorrelationId, _: Timestamp) -> InboxFuture<String> {
        self.fails()
    }
    fn parked(&self, _: usize) -> InboxFuture<Vec<Parked>> {
        self.fails()
    }
    fn redrive(&self, _: String, _: Timestamp) -> InboxFuture<bool> {
        self.fails()
    }
    fn counts(&self) -> InboxFuture<Counts> {
        self.fails()
    }
    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
    fn known_since(&self) -> InboxFuture<Timestamp> {
        self.fails()
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_repetition_may_cure_is_answered_with_503() {
    let (headers, body) = signed(&event());
    assert_eq!(post(&receiver(Broken(None)), headers.clone(), body.clone()).await, 503, "the inbox fails");
    let start = Instant::now();
    let slow = receiver(Broken(Some(Duration::from_secs(60))));
    assert_eq!(post(&slow, headers.clone(), body.clone()).await, 503, "the inbox is slow");
    assert!(start.elapsed() < Receiver::DIDIT_WAITS, "{:?}", start.elapsed());
    let full = receiver(MemoryInbox::with(Capacity::DEFAULT.size(1, 100_000).unwrap()));
    assert_eq!(post(&full, headers, body).await, 200);
    let mut second = event();
    second["event_id"] = "e-2".into();
    let (headers, body) = signed(&second);
    assert_eq!(post(&full, headers.clone(), body.clone()).await, 503, "the inbox is full");
    // And one that is at its limit.
    let busy = builder(MemoryInbox::new()).at_once(1).build().unwrap();
    let never = StreamBody::new(tokio_stream::pending::<io::Result<Frame<Bytes>>>());
    let waiting = tokio::spawn(busy.clone().oneshot(Request::post("/").body(never).unwrap()));
    tokio::task::yield_now().await;
    assert_eq!(post(&busy, headers.clone(), body.clone()).await, 503);
    assert_eq!(waiting.await.unwrap().unwrap().status(), 503);
    assert_eq!(post(&busy, headers, body).await, 400, "too old by the default tolerance, and no longer too many");
}

#[tokio::test(start_paused = true)]
async fn whatever_comes_in_something_documented_comes_out() {
    let (inbox, random) = (MemoryInbox::new(), Randomness::seeded(11));
    let receiver = receiver(inbox.clone());
    let (headers, body) = signed(&event());
    let below = |most: usize| usize::try_from(random.bits()).unwrap_or(usize::MAX) % most;
    let mut answers = std::collections::BTreeMap::<u16, u32>::new();
    for _ in 0..3_000 {
        let (mut headers, mut body) = (headers.clone(), body.to_vec());
        for _ in 0..=below(3) {
            match below(5) {
                0 => body[below(1 << 30) % 100] = u8::try_from(below(256)).unwrap(),
                1 => body.truncate(below(body.len()).max(100)),
                2 => body.extend([b'}', b' ', 0][..below(4)].iter()),
                3 => {
                    let names =
                        ["x-signature", "x-signature-v2", "x-signature-simple", "x-timestamp", "content-length"];
                    let junk: Vec<u8> = (0..below(70)).map(|_| 32 + u8::try_from(below(90)).unwrap()).collect();
                    headers.append(names[below(5)], HeaderValue::from_bytes(&junk).unwrap());
                }
                _ => drop(headers.remove(["x-signature", "x-signature-v2", "x-timestamp"][below(3)])),
            }
        }
        *answers.entry(post(&receiver, headers, body.into()).await).or_default() += 1;
    }
    assert!(answers.keys().all(|status| [200, 400, 401, 413].contains(status)), "{answers:?}");
    assert!([200, 400, 401].iter().all(|status| answers[status] > 10), "{answers:?}");
    // However many passed: they were all the one event.
    assert_eq!(inbox.counts().await.unwrap().pending, 1);
}

#[tokio::test]
async fn the_extractor_answers_as_the_receiver_does() {
    use axum::{Router, routing::post};
    use tower_didit::webhook::{Refusal, Webhook};

    async fn handler(webhook: Webhook) -> Result<&'static str, Refusal> {
        assert_eq!(webhook.event().status.as_deref(), Some("Approved"));
        webhook.accept().await?;
        Ok("taken")
    }

    let inbox = MemoryInbox::new();
    let app = Router::new()
        .route("/extractor", post(handler))
        .with_state(receiver(inbox.clone()))
        .route_service("/receiver", receiver(inbox.clone()));
    let (headers, body) = signed(&event());
    for path in ["/extractor", "/receiver"] {
        for (headers, answer) in [(headers.clone(), 200), (HeaderMap::new(), 401)] {
            let mut request = Request::post(path).body(axum::body::Body::from(body.clone())).unwrap();
            *request.headers_mut() = headers;
            let response: Result<_, Infallible> = app.clone().oneshot(request).await;
            let response = response.unwrap();
            assert_eq!(response.status().as_u16(), answer, "{path}");
            let said = response.into_body().collect().await.unwrap().to_bytes();
            assert!(said.is_empty() || said == "taken", "a forger learns nothing: {said:?}");
        }
    }
    assert_eq!(inbox.counts().await.unwrap().pending, 1);
}

#[tokio::test]
async fn nothing_personal_is_shown() {
    let canary = json!({
        "event_id": "e-1", "webhook_type": "status.updated", "timestamp": SIGNED, "session_id": "s-1", "status": "Approved",
        "vendor_data": "canary", "decision": { "session_id": "s-1", "status": "Approved", "full_name": "canary" },
    });
    let inbox = MemoryInbox::new();
    let receiver = receiver(inbox.clone());
    let (headers, body) = signed(&canary);
    let mut request = Request::post("/").body(Full::new(body.clone())).unwrap();
    *request.headers_mut() = headers;
    let webhook = receiver.verify(request).await.unwrap();
    let mut shown = format!("{webhook:?} {receiver:?} {inbox:?}");
    webhook.accept().await.unwrap();
    let terms = Terms { lease: Duration::from_secs(60), max_attempts: 3 };
    let soon = UNIX_EPOCH + Duration::from_secs(SIGNED * 2);
    let now = Timestamp::from_millis(u64::try_from(soon.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap());
    let Claim::Event(claimed) = inbox.claim(terms, now).await.unwrap() else { panic!("nothing to claim") };
    assert_eq!(claimed.payload, body);
    shown += &format!("{claimed:?} {inbox:?}");
    assert!(shown.contains("id:e-1") && !shown.contains("canary") && !shown.contains(SECRET), "{shown}");
}
