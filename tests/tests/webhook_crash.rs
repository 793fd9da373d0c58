//! A receiver is killed again and again, and every event that was answered with a 2xx is handled all the same.
//!
//! 12 kills by default, some seconds; `CRASH_KILLS=100 cargo test -p tests --test webhook_crash` takes about two minutes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use bytes::Bytes;
use didit_api::{
    Limits, SessionStatus,
    webhook::{Secrets, encode, sign},
};
use didit_sandbox::{Destination, Sandbox, WebhookFault, WebhookOutcome, When};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tests::{create_session, sandbox};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tower::{ServiceExt, service_fn};
use tower_didit::{
    Randomness,
    webhook::{
        Delivery, Failure, Receiver, Worker,
        inbox::{Capacity, Inbox, InboxError, RedbInbox},
    },
};

const SECRET: &str = "not-a-real-secret";

/// How many sessions come to their end during each run.
const SESSIONS_EACH_RUN: usize = 20;

/// A folder that is gone after the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tower-didit-webhook-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn inbox(&self) -> PathBuf {
        self.0.join("inbox.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn start(address: &str, folder: &Folder, effects: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webhook_run"));
    command.arg(address).arg(folder.inbox()).arg(effects).spawn().unwrap()
}

async fn finish_sessions(sandbox: &Sandbox, from: usize) {
    for user in from..from + SESSIONS_EACH_RUN {
        let mut request = create_session(Some(&format!("user-{user}")), "op");
        request.headers_mut().insert("x-api-key", "key".parse().unwrap());
        let response = sandbox.clone().oneshot(request).await.unwrap();
        let body: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        sandbox.set_session_status(body["session_id"].as_str().unwrap(), SessionStatus::Approved).unwrap();
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_killed_at_random_moments_handles_every_event() {
    let kills: usize = std::env::var("CRASH_KILLS").map_or(12, |kills| kills.parse().unwrap());
    let folder = Folder::new("kills");
    let effects = folder.0.join("effects");
    fs::create_dir(&effects).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    // Attempts as close and as many as it takes: what is put to the test is what happens after a 2xx.
    let sandbox = sandbox(31)
        .limits(Limits::none())
        .webhook(Destination::url(format!("http://{address}/"), SECRET))
        .webhook_fault(WebhookFault::Duplicate(1), When::Probability(0.3))
        .webhook_waits(std::iter::repeat_n(Duration::from_millis(20), 3_000))
        .build()
        .unwrap();
    let random = Randomness::seeded(31);
    let mut sent = 0;
    for _ in 0..kills {
        let mut run = start(&address, &folder, &effects);
        let sessions = finish_sessions(&sandbox, sent);
        let dies = sleep(Duration::from_millis(20) + Duration::from_millis(280).mul_f64(random.unit()));
        let ((), ()) = tokio::join!(sessions, async {
            dies.await;
            run.kill().unwrap();
            run.wait().unwrap();
        });
        sent += SESSIONS_EACH_RUN;
    }
    let mut last = start(&address, &folder, &effects);
    let handled = || fs::read_dir(&effects).unwrap().count() - 1;
    let all = timeout(Duration::from_secs(60), async {
        while sandbox.webhooks().iter().any(|record| record.outcome != WebhookOutcome::Delivered) || handled() < sent {
            sleep(Duration::from_millis(20)).await;
        }
    });
    let all = all.await;
    last.kill().unwrap();
    last.wait().unwrap();
    assert!(all.is_ok(), "{} of {sent} were handled", handled());
    let runs = fs::read(effects.join("runs")).unwrap().len();
    println!("{kills} kills, {sent} events, {runs} runs of the handler");
    // Those that a kill cut off, eight at once, and no others.
    assert!((sent..=sent + kills * 8).contains(&runs), "{runs} runs for {sent} events");
    assert!(runs > sent, "or no kill came in between");
}

/// An event of now, signed.
fn post(number: u32, status: &str) -> Request<Full<Bytes>> {
    // Real time, because the inbox writes on a thread of its own, which a paused clock does not wait for.
    #[expect(clippy::disallowed_methods, reason = "the receiver compares with the system's clock")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let event = json!({
        "event_id": format!("e-{number}"), "webhook_type": "status.updated", "timestamp": now,
        "session_id": format!("s-{number}"), "status": status, "decision": { "full_name": "canary" },
    });
    let body = encode(&event).unwrap();
    let mut request = Request::post("/").body(Full::from(body.clone())).unwrap();
    *request.headers_mut() = sign(body.as_bytes(), &Secrets::new([SECRET]).unwrap()).unwrap();
    request
}

#[tokio::test]
async fn an_inbox_that_is_opened_again_knows_what_it_knew() {
    let folder = Folder::new("again");
    let open = async || RedbInbox::open(folder.inbox(), Capacity::DEFAULT).await;
    let inbox = open().await.unwrap();
    let receiver =
        |inbox: &RedbInbox| Receiver::builder(Secrets::new([SECRET]).unwrap(), inbox.clone()).build().unwrap();
    for number in 0..4 {
        assert_eq!(receiver(&inbox).oneshot(post(number, "Approved")).await.unwrap().status(), 200);
    }
    let now = inbox.known_since().await.unwrap();
    assert_eq!(inbox.remember("s-0".into(), "first".parse().unwrap(), now).await.unwrap(), "first");
    assert!(matches!(open().await, Err(InboxError::Database(_))), "it has one owner");
    // One is handled, one fails for good, one is being handled when the process ends.
    let handler = service_fn(|delivery: Delivery| async move {
        match delivery.event.session_id.as_deref() {
            Some("s-1") => Err(Failure::for_good("broken")),
            Some("s-2") => std::future::pending().await,
            _ => Ok(()),
        }
    });
    let worker = tokio::spawn(Worker::builder(inbox.clone()).build(handler).unwrap().run());
    while inbox.counts().await.unwrap().pending > 1 {
        sleep(Duration::from_millis(1)).await;
    }
    let (known_since, counts) = (inbox.known_since().await.unwrap(), inbox.counts().await.unwrap());
    worker.abort();
    let _ = worker.await;
    drop(inbox);

    let inbox = open().await.unwrap();
    assert_eq!((inbox.known_since().await.unwrap(), inbox.counts().await.unwrap()), (known_since, counts));
    assert_eq!((counts.pending, counts.parked, counts.done), (1, 1, 2));
    assert_eq!(inbox.remember("s-0".into(), "second".parse().unwrap(), now).await.unwrap(), "first");
    assert!(!inbox.is_missing("status.updated/s-0".into(), "Approved".into()).await.unwrap());
    assert_eq!(inbox.parked(10).await.unwrap()[0].key, "id:e-1");
    for number in 0..4 {
        assert_eq!(receiver(&inbox).oneshot(post(number, "Approved")).await.unwrap().status(), 200);
    }
    assert_eq!(inbox.counts().await.unwrap(), counts, "all of them are known");
    // Long before its lease is over: nobody else can have the file.
    let handled = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = std::sync::Arc::clone(&handled);
    let handler = service_fn(move |delivery: Delivery| {
        notes.lock().unwrap().push((delivery.key().to_string(), delivery.attempt));
        std::future::ready(Ok::<_, Failure>(()))
    });
    tokio::spawn(Worker::builder(inbox.clone()).build(handler).unwrap().run());
    assert!(inbox.redrive("id:e-1".into(), known_since).await.unwrap());
    while inbox.counts().await.unwrap().done < 4 {
        sleep(Duration::from_millis(1)).await;
    }
    let mut handled = handled.lock().unwrap().clone();
    handled.sort_unstable();
    assert_eq!(handled, [("id:e-1".to_owned(), 1), ("id:e-2".to_owned(), 2)]);
    assert_eq!(inbox.counts().await.unwrap().bytes, 0);
}
