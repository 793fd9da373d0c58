//! Webhooks: what is sent, when, how often, and what becomes of it.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use didit_api::{
    SessionStatus,
    webhook::{Event, EventOrder, PayloadVersion, Rejected, Secrets, Verifier, WebhookType},
};
use didit_sandbox::{Destination, RetryStamp, Sandbox, SandboxBuilder, WebhookFault, WebhookOutcome, When};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use support::{EPOCH, create, epoch, get, made, request, send};
use tokio::time::{Instant, advance, sleep};

const SECRET: &str = "not-a-real-secret";

/// One request that arrived.
#[derive(Clone, Debug)]
struct Arrival {
    after: Duration,
    headers: HeaderMap,
    body: Bytes,
}

impl Arrival {
    fn event(&self) -> Event {
        Event::read(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// By the settings, at the time of its arrival.
    fn verify(&self, verifier: Verifier, secret: &str) -> Result<Event, Rejected> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH) + self.after;
        let verified = verifier.verify(&self.body, &self.headers, &Secrets::new([secret]).unwrap(), now);
        verified.map(|verified| verified.event)
    }
}

/// A receiver that answers what it is told to, then 200; 0 is silence.
#[derive(Clone)]
struct Receiver {
    start: Instant,
    answers: Arc<Mutex<VecDeque<u16>>>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

impl Receiver {
    fn answering(answers: &[u16]) -> Self {
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect()));
        Self { start: Instant::now(), answers, arrivals: Arc::default() }
    }

    fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }

    /// Seconds from the start to each arrival.
    fn seconds(&self) -> Vec<u64> {
        self.arrivals().iter().map(|arrival| arrival.after.as_secs()).collect()
    }

    fn destination(&self) -> Destination {
        let this = self.clone();
        let receive = move |request: Request<Full<Bytes>>| {
            let this = this.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                this.arrivals.lock().unwrap().push(Arrival {
                    after: this.start.elapsed(),
                    headers: head.headers,
                    body,
                });
                let answer = this.answers.lock().unwrap().pop_front().unwrap_or(200);
                if answer == 0 {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::builder().status(answer).body(()).unwrap())
            }
        };
        Destination::service(tower::service_fn(receive), SECRET)
    }
}

fn sending_to(receiver: &Receiver) -> SandboxBuilder {
    Sandbox::builder().seed(1).epoch(epoch()).webhook(receiver.destination())
}

/// Makes a session with metadata, and gives it these statuses.
async fn with_statuses(sandbox: &Sandbox, statuses: &[SessionStatus]) -> String {
    let mut body: Value = json!({ "workflow_id": didit_sandbox::DEFAULT_WORKFLOW_ID, "vendor_data": "user-7" });
    body["metadata"] = json!({ "corr": "c-1", "name": "Zoë 😀", "score": 98.0 });
    let id = send(sandbox, request("POST", "/v3/session/", &body)).await.text("session_id");
    for status in statuses {
        sandbox.set_session_status(&id, status.clone()).unwrap();
    }
    id
}

fn outcomes(sandbox: &Sandbox) -> Vec<WebhookOutcome> {
    sandbox.webhooks().iter().map(|webhook| webhook.outcome).collect()
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_told_with_what_the_creation_gave() {
    let receiver = Receiver::answering(&[]);
    let sandbox = sending_to(&receiver).build().unwrap();
    let id = with_statuses(&sandbox, &[SessionStatus::InProgress, SessionStatus::Approved]).await;
    sleep(Duration::from_millis(1)).await;

    let arrivals = receiver.arrivals();
    let events: Vec<_> = arrivals.iter().map(|arrival| arrival.verify(Verifier::new(), SECRET).unwrap()).collect();
    let statuses: Vec<_> = events.iter().map(|event| event.session_status().unwrap()).collect();
    assert_eq!(statuses, [SessionStatus::InProgress, SessionStatus::Approved]);
    let event = &events[1];
    assert_eq!((event.session_id.as_deref(), event.vendor_data.as_deref()), (Some(&*id), Some("user-7")));
    assert_eq!(event.metadata, Some(json!({ "corr": "c-1", "name": "Zoë 😀", "score": 98.0 })));
    assert_eq!((event.timestamp, event.created_at), (EPOCH, Some(EPOCH)));
    assert!(events[0].decision.is_none());
    let fetched = send(&sandbox, get(&format!("/v3/session/{id}/decision/"))).await.json();
    assert_eq!(Value::Object(event.decision.clone().unwrap()), fetched);
    assert_eq!(arrivals[1].headers["user-agent"], "DiditWebhook/2.0 +https://didit.me");
    // As Didit sends it: sorted, and nothing outside ASCII.
    let text = std::str::from_utf8(&arrivals[1].body).unwrap();
    assert!(text.is_ascii() && text.starts_with("{\"created_at\":") && text.contains("\"score\":98.0"), "{text}");

    let stats = sandbox.stats();
    assert_eq!((stats.webhooks_sent, stats.webhooks_delivered, stats.webhooks_given_up), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_same_status_again_or_a_new_session_tells_nothing() {
    let receiver = Receiver::answering(&[]);
    let sandbox = sending_to(&receiver).build().unwrap();
    with_statuses(&sandbox, &[SessionStatus::NotStarted, SessionStatus::InReview, SessionStatus::InReview]).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(receiver.arrivals().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_override_by_the_api_is_told_and_one_for_resubmission_has_no_decision() {
    let receiver = Receiver::answering(&[]);
    let sandbox = sending_to(&receiver).build().unwrap();
    let id = with_statuses(&sandbox, &[SessionStatus::InReview]).await;
    let path = format!("/v3/session/{id}/update-status/");
    send(&sandbox, request("PATCH", &path, &json!({ "new_status": "Resubmitted" }))).await;
    sleep(Duration::from_millis(1)).await;
    let event = receiver.arrivals()[1].event();
    assert_eq!(event.session_status(), Some(SessionStatus::Resubmitted));
    assert!(event.decision.is_none() && event.resubmit_info.is_some());
}

#[tokio::test(start_paused = true)]
async fn server_errors_and_404_are_tried_again_after_one_minute_and_four() {
    for answers in [[500, 503, 200], [404, 404, 404]] {
        let receiver = Receiver::answering(&answers);
        let sandbox = sending_to(&receiver).build().unwrap();
        with_statuses(&sandbox, &[SessionStatus::Approved]).await;
        sleep(Duration::from_secs(600)).await;
        assert_eq!(receiver.seconds(), [0, 60, 300]);
        let webhook = &sandbox.webhooks()[0];
        let statuses: Vec<_> = webhook.attempts.iter().map(|attempt| attempt.status).collect();
        assert_eq!(statuses, answers.map(Some));
        let delivered = answers[2] == 200;
        let expected = if delivered { WebhookOutcome::Delivered } else { WebhookOutcome::GivenUp };
        assert_eq!(webhook.outcome, expected);
        assert_eq!(sandbox.stats().webhooks_given_up, u64::from(!delivered));
        let bodies: Vec<_> = receiver.arrivals().into_iter().map(|arrival| arrival.body).collect();
        assert!(bodies.iter().all(|body| *body == bodies[0]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_has_five_seconds() {
    let receiver = Receiver::answering(&[0, 200]);
    let sandbox = sending_to(&receiver).build().unwrap();
    with_statuses(&sandbox, &[SessionStatus::Approved]).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(receiver.seconds(), [0, 65]);
    let statuses: Vec<_> = sandbox.webhooks()[0].attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [None, Some(200)]);
}

#[tokio::test(start_paused = true)]
async fn any_other_answer_loses_the_event() {
    for answer in [301, 400, 401, 409, 413, 429] {
        let receiver = Receiver::answering(&[answer]);
        let sandbox = sending_to(&receiver).build().unwrap();
        with_statuses(&sandbox, &[SessionStatus::Approved]).await;
        sleep(Duration::from_secs(600)).await;
        assert_eq!((receiver.arrivals().len(), outcomes(&sandbox)), (1, vec![WebhookOutcome::GivenUp]), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_attempt_has_the_time_it_is_told_to_have() {
    for (stamp, body, header) in
        [(RetryStamp::Kept, 0, 0), (RetryStamp::Fresh, 60, 60), (RetryStamp::FreshHeader, 0, 60)]
    {
        let receiver = Receiver::answering(&[500]);
        let sandbox = sending_to(&receiver).webhook_retry_stamp(stamp).build().unwrap();
        with_statuses(&sandbox, &[SessionStatus::Approved]).await;
        sleep(Duration::from_secs(100)).await;
        let second = &receiver.arrivals()[1];
        assert_eq!(second.event().timestamp, EPOCH + body);
        assert_eq!(second.headers["x-timestamp"], (EPOCH + header).to_string());
        assert_eq!(second.verify(Verifier::new(), SECRET).is_ok(), body == header);
        assert!(second.verify(Verifier::new().timestamp_header(false), SECRET).is_ok());
        assert_eq!(second.event().key(), receiver.arrivals()[0].event().key());
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_sent_again_by_hand_keeps_its_id_and_has_a_new_time() {
    let receiver = Receiver::answering(&[400]);
    let sandbox = sending_to(&receiver).build().unwrap();
    with_statuses(&sandbox, &[SessionStatus::Approved]).await;
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(outcomes(&sandbox), [WebhookOutcome::GivenUp]);
    let event_id = sandbox.webhooks()[0].event_id.clone();
    sandbox.resend_webhook(&event_id).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(outcomes(&sandbox), [WebhookOutcome::Delivered]);
    let [first, again] = <[_; 2]>::try_from(receiver.arrivals()).unwrap();
    assert_eq!(again.event().key(), first.event().key());
    assert_eq!(again.verify(Verifier::new(), SECRET).unwrap().timestamp, EPOCH + 3_600);
    assert!(sandbox.resend_webhook("nobody's").unwrap_err().to_string().contains("nobody's"));
}

#[tokio::test(start_paused = true)]
async fn a_new_secret_signs_what_comes_after_it() {
    let receiver = Receiver::answering(&[500]);
    let sandbox = sending_to(&receiver).build().unwrap();
    with_statuses(&sandbox, &[SessionStatus::Approved]).await;
    sleep(Duration::from_secs(1)).await;
    sandbox.set_webhook_secret(0, "a-new-secret").unwrap();
    sleep(Duration::from_secs(100)).await;
    let [before, after] = <[_; 2]>::try_from(receiver.arrivals()).unwrap();
    assert!(before.verify(Verifier::new(), SECRET).is_ok() && before.verify(Verifier::new(), "a-new-secret").is_err());
    assert!(after.verify(Verifier::new(), SECRET).is_err() && after.verify(Verifier::new(), "a-new-secret").is_ok());
    for (destination, secret) in [(1, "x"), (0, "")] {
        assert!(sandbox.set_webhook_secret(destination, secret).is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_event_never_comes_until_it_is_sent_again() {
    let receiver = Receiver::answering(&[]);
    let sandbox = sending_to(&receiver).webhook_fault(WebhookFault::Drop, When::Nth(vec![1])).build().unwrap();
    with_statuses(&sandbox, &[SessionStatus::InProgress, SessionStatus::Approved]).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(outcomes(&sandbox), [WebhookOutcome::Dropped, WebhookOutcome::Delivered]);
    assert_eq!((receiver.arrivals().len(), sandbox.stats().webhooks_dropped), (1, 1));
    sandbox.resend_webhook(&sandbox.webhooks()[0].event_id).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(outcomes(&sandbox), [WebhookOutcome::Delivered, WebhookOutcome::Delivered]);
}

#[tokio::test(start_paused = true)]
async fn duplicates_come_at_the_same_time_under_the_same_id() {
    // Each copy has attempts of its own; one of them comes through.
    let receiver = Receiver::answering(&[400, 500, 200]);
    let sandbox = sending_to(&receiver).webhook_fault(WebhookFault::Duplicate(2), When::Always).build().unwrap();
    with_statuses(&sandbox, &[SessionStatus::Approved]).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(receiver.seconds(), [0, 0, 0, 60]);
    let keys: std::collections::BTreeSet<_> = receiver.arrivals().iter().map(|arrival| arrival.event().key()).collect();
    assert_eq!((keys.len(), outcomes(&sandbox)), (1, vec![WebhookOutcome::Delivered]));
}

#[tokio::test(start_paused = true)]
async fn a_late_event_is_overtaken_and_known_to_be_stale() {
    let receiver = Receiver::answering(&[]);
    let late = WebhookFault::Delay(Duration::from_secs(30));
    let sandbox = sending_to(&receiver).webhook_fault(late, When::First(1)).build().unwrap();
    let id = with_statuses(&sandbox, &[SessionStatus::InProgress]).await;
    advance(Duration::from_secs(5)).await;
    sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();
    sleep(Duration::from_secs(60)).await;
    let events: Vec<_> = receiver.arrivals().iter().map(Arrival::event).collect();
    let statuses: Vec<_> = events.iter().map(|event| event.status.as_deref().unwrap()).collect();
    assert_eq!(statuses, ["Approved", "In Progress"]);
    assert_eq!(events[1].order(Some(events[0].timestamp)), EventOrder::Stale);
    assert!(events[0].supersedes(&events[1]));
}

#[tokio::test(start_paused = true)]
async fn shuffled_events_come_in_another_order_and_all_of_them_do() {
    let receiver = Receiver::answering(&[]);
    let shuffle = WebhookFault::Shuffle(Duration::from_secs(100));
    let sandbox = sending_to(&receiver).webhook_fault(shuffle, When::Always).build().unwrap();
    for number in 0..20 {
        let id = made(&sandbox, Some(&format!("user-{number}"))).await;
        sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();
    }
    sleep(Duration::from_secs(101)).await;
    let order: Vec<_> = receiver.arrivals().iter().map(|arrival| arrival.event().vendor_data.unwrap()).collect();
    let mut sorted = order.clone();
    sorted.sort_by_key(|vendor| vendor[5..].parse::<u32>().unwrap());
    assert_eq!(sorted, (0..20).map(|number| format!("user-{number}")).collect::<Vec<_>>());
    assert_ne!(order, sorted);
}

#[tokio::test(start_paused = true)]
async fn sessions_end_by_themselves_though_nobody_looks() {
    let receiver = Receiver::answering(&[]);
    let hour = Duration::from_secs(3_600);
    let sandbox = sending_to(&receiver).finish_sessions(hour, SessionStatus::Declined).build().unwrap();
    let id = made(&sandbox, None).await;
    sandbox.finish_session_after(&id, 2 * hour, SessionStatus::Approved).unwrap();
    sleep(3 * hour).await;
    assert_eq!(receiver.seconds(), [3_600, 7_200]);
    let told: Vec<_> = receiver.arrivals().iter().map(|arrival| arrival.event().status.unwrap()).collect();
    assert_eq!(told, ["Declined", "Approved"]);
    assert!(sandbox.finish_session_after("nobody's", hour, SessionStatus::Approved).is_err());
    // Every event was verified when it arrived, an hour and more after the sandbox began.
    assert!(receiver.arrivals().iter().all(|arrival| arrival.verify(Verifier::new(), SECRET).is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_session_used_again_tells_the_metadata_of_the_latest_creation() {
    let receiver = Receiver::answering(&[]);
    let sandbox = sending_to(&receiver).build().unwrap();
    let id = with_statuses(&sandbox, &[]).await;
    assert_eq!(send(&sandbox, create(Some("user-7"))).await.text("session_id"), id);
    sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.arrivals()[0].json()["metadata"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn every_destination_gets_its_own_copy_in_its_own_version() {
    let [one, two, three] = [(); 3].map(|()| Receiver::answering(&[]));
    let sandbox = sending_to(&one)
        .webhook(two.destination().version(PayloadVersion::V2))
        .webhook(three.destination().subscribe(WebhookType::DataUpdated))
        .build()
        .unwrap();
    with_statuses(&sandbox, &[SessionStatus::Approved]).await;
    sleep(Duration::from_secs(1)).await;
    let [newer, older] = [&one, &two].map(|receiver| receiver.arrivals()[0].json());
    assert_eq!(newer["event_id"], older["event_id"]);
    assert_eq!(newer["decision"]["id_verifications"][0], older["decision"]["id_verification"]);
    assert!(older["decision"].get("id_verifications").is_none());
    assert!(three.arrivals().is_empty());
    let destinations: Vec<_> = sandbox.webhooks().iter().map(|webhook| webhook.destination).collect();
    assert_eq!(destinations, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_or_the_end_of_the_sandbox_ends_what_is_under_way() {
    let receiver = Receiver::answering(&[500, 500]);
    let sandbox = sending_to(&receiver).build().unwrap();
    with_statuses(&sandbox, &[SessionStatus::Approved]).await;
    sleep(Duration::from_secs(1)).await;
    sandbox.reset();
    sleep(Duration::from_secs(600)).await;
    assert_eq!((receiver.arrivals().len(), sandbox.webhooks().len()), (1, 0));
    with_statuses(&sandbox, &[SessionStatus::Approved]).await;
    sleep(Duration::from_secs(1)).await;
    drop(sandbox);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(receiver.arrivals().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_same_is_done_over_http() {
    let receiver = Receiver::answering(&[]);
    let sandbox = sending_to(&receiver).build().unwrap();
    let id = made(&sandbox, None).await;
    let path = format!("/_sandbox/session/{id}/status");
    let later = json!({ "status": "Approved", "after_ms": 5_000 });
    assert_eq!(send(&sandbox, request("POST", &path, &later)).await.status, StatusCode::OK);
    sleep(Duration::from_secs(6)).await;
    let list = send(&sandbox, get("/_sandbox/webhooks")).await.json();
    assert_eq!(
        (&list[0]["outcome"], &list[0]["attempts"]),
        (&json!("delivered"), &json!([{ "at_ms": 5_000, "status": 200 }]))
    );
    let resend = |event: &str| request("POST", &format!("/_sandbox/webhooks/{event}/resend"), &Value::Null);
    let event_id = list[0]["event_id"].as_str().unwrap();
    assert_eq!(send(&sandbox, resend(event_id)).await.status, StatusCode::ACCEPTED);
    assert_eq!(send(&sandbox, resend("nobody's")).await.status, StatusCode::NOT_FOUND);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.arrivals().len(), 2);
}

#[test]
fn what_cannot_be_sent_to_is_refused() {
    let build = |builder: SandboxBuilder| builder.build().unwrap_err().to_string();
    let to = |url: &str, secret: &str| build(Sandbox::builder().webhook(Destination::url(url, secret)));
    for url in ["https://127.0.0.1/x", "127.0.0.1:1", "/x", "ftp://h/", "", "http://"] {
        assert!(to(url, SECRET).contains(&format!("1: {url:?} is not a URL")), "{url}");
    }
    assert!(to("http://127.0.0.1:1/", "").contains("secret number 1 is empty"));
    let never = build(Sandbox::builder().webhook_fault(WebhookFault::Drop, When::Probability(2.0)));
    assert!(never.contains("a probability of 2"), "{never}");
    let shown = format!("{:?}", Sandbox::builder().webhook(Destination::url("http://h/", SECRET)));
    assert!(shown.contains("http://h/") && !shown.contains(SECRET), "{shown}");
}
