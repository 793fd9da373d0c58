//! Webhooks from the local Didit to a handler: once, in order, in time, and under one id.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use didit_api::{Limits, SessionStatus, webhook::Secrets};
use didit_sandbox::{
    Destination, Fault, Faults, RetryStamp, Rule, Sandbox, SandboxBuilder, WebhookFault, WebhookOutcome, When,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tests::{Body, create_session, sandbox};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_didit::{
    DiditLayer, DiditService,
    call::CallOptions,
    correlation,
    webhook::{
        Delivery, Failure, Receiver, Worker,
        inbox::{Capacity, Inbox, MemoryInbox, Origin},
        journey::JourneyLayer,
        sweep::Sweep,
    },
};

const SECRET: &str = "not-a-real-secret";
const HOUR: Duration = Duration::from_secs(3_600);

fn secrets() -> Secrets {
    Secrets::new([SECRET]).unwrap()
}

fn receiver(inbox: &MemoryInbox) -> Receiver {
    Receiver::builder(secrets(), inbox.clone()).build().unwrap()
}

/// A local Didit that sends its webhooks into the inbox.
fn didit(inbox: &MemoryInbox) -> SandboxBuilder {
    sandbox(7).limits(Limits::none()).webhook(Destination::service(receiver(inbox), SECRET))
}

/// What a handler has done.
#[derive(Clone, Default)]
struct Effects(Arc<Mutex<Vec<Effect>>>);

#[derive(Clone, Debug, PartialEq)]
struct Effect {
    key: String,
    status: String,
    attempt: u32,
    origin: Origin,
}

impl Effects {
    fn take(&self, delivery: &Delivery) {
        self.0.lock().unwrap().push(Effect {
            key: delivery.key().to_string(),
            status: delivery.event.status.clone().unwrap_or_default(),
            attempt: delivery.attempt,
            origin: delivery.origin,
        });
    }

    fn all(&self) -> Vec<Effect> {
        self.0.lock().unwrap().clone()
    }

    fn statuses(&self) -> Vec<String> {
        self.all().into_iter().map(|effect| effect.status).collect()
    }
}

/// Handles events after so long, and notes them.
fn handler(
    effects: &Effects,
    takes: Duration,
) -> impl Service<Delivery, Response = (), Error = Failure, Future: Send> + Clone + Send + 'static {
    let effects = effects.clone();
    service_fn(move |delivery: Delivery| {
        let effects = effects.clone();
        async move {
            sleep(takes).await;
            effects.take(&delivery);
            Ok(())
        }
    })
}

fn work(inbox: &MemoryInbox, effects: &Effects, takes: Duration) -> tokio::task::JoinHandle<()> {
    tokio::spawn(Worker::builder(inbox.clone()).build(handler(effects, takes)).unwrap().run())
}

/// Makes a session at the local Didit itself.
async fn session(sandbox: &Sandbox, vendor_data: &str) -> String {
    let mut request = create_session(Some(vendor_data), "op");
    request.headers_mut().insert("x-api-key", "key".parse().unwrap());
    let response = sandbox.clone().oneshot(request).await.unwrap();
    let body: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    body["session_id"].as_str().unwrap().to_owned()
}

// ===== the journey =====

/// Who asked for the session, whether ids are stamped and kept, and whose webhook it becomes.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_handed_out_again_belongs_to_the_journey_that_began_it() {
    async fn webhook_of(kept: bool, stamped: bool, asked_by: &[&'static str]) -> String {
        let inbox = MemoryInbox::new();
        let sandbox = didit(&inbox).finish_sessions(HOUR, SessionStatus::Approved).build().unwrap();
        let stack = DiditLayer::builder().api_key("key").build().unwrap();
        // Kept elsewhere is as good as not at all.
        let keeps = if kept { inbox.clone() } else { MemoryInbox::new() };
        let client =
            ServiceBuilder::new().layer(JourneyLayer::new(keeps).stamp(stamped)).layer(stack).service(sandbox.clone());
        for id in asked_by {
            let mut request = create_session(Some("user-7"), "op-7");
            request.extensions_mut().insert(CallOptions::new().correlation_id(id.parse().unwrap()));
            client.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap();
        }
        assert_eq!(sandbox.stats().sessions_made, 1);
        let seen = Arc::new(Mutex::new(String::new()));
        let sees = Arc::clone(&seen);
        let handler = service_fn(move |delivery: Delivery| {
            *sees.lock().unwrap() = delivery.correlation_id.to_string();
            assert_eq!(correlation::current().unwrap(), delivery.correlation_id);
            std::future::ready(Ok::<_, Failure>(()))
        });
        tokio::spawn(Worker::builder(inbox).build(handler).unwrap().run());
        sleep(2 * HOUR).await;
        let seen = seen.lock().unwrap().clone();
        assert!(!seen.is_empty(), "it was handled");
        seen
    }
    assert_eq!(webhook_of(true, true, &["first", "second"]).await, "first");
    assert_eq!(webhook_of(true, false, &["first", "second"]).await, "first");
    assert_eq!(webhook_of(false, true, &["first"]).await, "first");
    // The stamp of the first was overwritten, and nothing else knows of it.
    assert_eq!(webhook_of(false, true, &["first", "second"]).await, "second");
    let unknown = webhook_of(false, false, &["first"]).await;
    assert!(unknown != "first" && unknown.len() == 36, "a new one: {unknown}");
}

#[tokio::test(start_paused = true)]
async fn a_named_call_is_stamped_with_what_stays_the_same() {
    let sent = Arc::new(Mutex::new(Value::Null));
    let sees = Arc::clone(&sent);
    let client = ServiceBuilder::new().layer(JourneyLayer::new(MemoryInbox::new()).stamp(true)).service_fn(
        move |request: Request<Body>| {
            let sees = Arc::clone(&sees);
            async move {
                *sees.lock().unwrap() =
                    serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            }
        },
    );
    let mut request = Request::post("/v3/session/").body(Full::from(r#"{"workflow_id":"w"}"#)).unwrap();
    let options = CallOptions::new().operation_id("order-7".parse().unwrap()).correlation_id("c-1".parse().unwrap());
    request.extensions_mut().insert(options);
    client.clone().oneshot(request).await.unwrap();
    assert_eq!(sent.lock().unwrap()["metadata"], serde_json::json!({ "operation_id": "order-7" }));
    // Any other call is left alone.
    let request = Request::post("/v3/aml/").body(Full::from(r#"{"full_name":"Ada Example"}"#)).unwrap();
    client.oneshot(request).await.unwrap();
    assert_eq!(sent.lock().unwrap().get("metadata"), None);
}

// ===== once, and never lost =====

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_three_times_at_once_and_after_a_crash_has_one_effect() {
    let (inbox, effects) = (MemoryInbox::new(), Effects::default());
    let sandbox = didit(&inbox).webhook_fault(WebhookFault::Duplicate(2), When::Always).build().unwrap();
    let id = session(&sandbox, "user-7").await;
    // Dies while the event is reserved, before it has any effect.
    let dies = work(&inbox, &effects, Duration::from_secs(30));
    sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();
    sleep(Duration::from_secs(10)).await;
    dies.abort();
    assert!(effects.all().is_empty());
    let _lives = work(&inbox, &effects, Duration::from_secs(1));
    sleep(Duration::from_secs(120)).await;
    let event = sandbox.webhooks()[0].event_id.clone();
    assert_eq!(
        effects.all(),
        [Effect { key: format!("id:{event}"), status: "Approved".into(), attempt: 2, origin: Origin::Delivered }]
    );
    // And days later, by hand.
    sleep(48 * HOUR).await;
    sandbox.resend_webhook(&event).unwrap();
    sleep(HOUR).await;
    assert_eq!(effects.all().len(), 1);
    assert_eq!(sandbox.webhooks()[0].attempts.iter().filter(|attempt| attempt.status == Some(200)).count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_handler_slower_than_didit_waits_is_no_reason_to_keep_didit_waiting() {
    let (inbox, effects) = (MemoryInbox::new(), Effects::default());
    let sandbox = didit(&inbox).build().unwrap();
    let id = session(&sandbox, "user-7").await;
    let _working = work(&inbox, &effects, Duration::from_secs(300));
    sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();
    sleep(Duration::from_secs(1)).await;
    let record = &sandbox.webhooks()[0];
    assert_eq!((record.outcome, record.attempts.len(), effects.all().len()), (WebhookOutcome::Delivered, 1, 0));
    // Longer than its lease, which is renewed.
    sleep(Duration::from_secs(310)).await;
    assert_eq!(effects.all().len(), 1);
    sleep(HOUR).await;
    assert_eq!((effects.all().len(), effects.all()[0].attempt), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn events_in_any_order_leave_the_handler_with_the_latest() {
    let (inbox, effects) = (MemoryInbox::new(), Effects::default());
    let sandbox = didit(&inbox)
        .webhook_fault(WebhookFault::Shuffle(Duration::from_secs(300)), When::Always)
        .webhook_fault(WebhookFault::Duplicate(1), When::Nth(vec![2]))
        .build()
        .unwrap();
    let id = session(&sandbox, "user-7").await;
    let _working = work(&inbox, &effects, Duration::ZERO);
    for status in [SessionStatus::InProgress, SessionStatus::InReview, SessionStatus::Declined, SessionStatus::Approved]
    {
        sandbox.set_session_status(&id, status).unwrap();
        sleep(Duration::from_secs(10)).await;
    }
    sleep(HOUR).await;
    assert!(sandbox.webhooks().iter().all(|record| record.outcome == WebhookOutcome::Delivered));
    let (seen, counts) = (effects.statuses(), inbox.counts().await.unwrap());
    assert_eq!(seen.last().map(String::as_str), Some("Approved"), "{seen:?}");
    assert_eq!((seen.len() + usize::try_from(counts.passed_over).unwrap(), counts.pending), (4, 0), "{seen:?}");
    assert!(counts.passed_over > 0, "or nothing was out of order: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_poison_event_is_parked_and_can_be_handled_again_later() {
    let inbox = MemoryInbox::new();
    let sandbox = didit(&inbox).build().unwrap();
    let (poison, healthy) = (session(&sandbox, "user-7").await, session(&sandbox, "user-8").await);
    let (attempts, cured) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (tries, cure, poisoned) = (Arc::clone(&attempts), Arc::clone(&cured), poison.clone());
    let handler = service_fn(move |delivery: Delivery| {
        let (tries, cure, is_poison) =
            (Arc::clone(&tries), Arc::clone(&cure), delivery.event.session_id.as_deref() == Some(poisoned.as_str()));
        async move {
            if !is_poison || cure.load(Ordering::SeqCst) > 0 {
                return Ok(());
            }
            let attempt = tries.fetch_add(1, Ordering::SeqCst);
            assert!(attempt % 2 == 0, "panics every second time");
            Err(Failure::for_now("the ledger is broken"))
        }
    });
    tokio::spawn(Worker::builder(inbox.clone()).max_attempts(5).build(handler).unwrap().run());
    sandbox.set_session_status(&poison, SessionStatus::Approved).unwrap();
    sandbox.set_session_status(&healthy, SessionStatus::Approved).unwrap();
    sleep(6 * HOUR).await;
    let parked = inbox.parked(10).await.unwrap();
    assert_eq!((parked.len(), parked[0].session_id.as_deref(), parked[0].attempts), (1, Some(poison.as_str()), 5));
    assert_eq!(attempts.load(Ordering::SeqCst), 5);
    assert_eq!(inbox.counts().await.unwrap().done, 1);
    cured.store(1, Ordering::SeqCst);
    let now = tower_didit::webhook::inbox::Timestamp::from_millis(u64::MAX);
    assert!(!inbox.redrive("id:unknown".to_owned(), now).await.unwrap());
    assert!(inbox.redrive(parked[0].key.clone(), parked[0].since).await.unwrap());
    sleep(HOUR).await;
    let counts = inbox.counts().await.unwrap();
    assert_eq!((counts.parked, counts.done, counts.bytes), (0, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_says_it_is_for_good_is_asked_once_and_a_hung_one_is_given_up() {
    let inbox = MemoryInbox::new();
    let sandbox = didit(&inbox).build().unwrap();
    let attempts = Arc::new(AtomicUsize::new(0));
    let tries = Arc::clone(&attempts);
    let handler = service_fn(move |delivery: Delivery| {
        tries.fetch_add(1, Ordering::SeqCst);
        async move {
            if delivery.event.status.as_deref() == Some("Declined") {
                std::future::pending::<()>().await;
            }
            Err::<(), _>(Failure::for_good("there is no such user"))
        }
    });
    let worker =
        Worker::builder(inbox.clone()).max_attempts(2).patience(Duration::from_secs(20)).build(handler).unwrap();
    tokio::spawn(worker.run());
    for (user, status) in [("user-7", SessionStatus::Approved), ("user-8", SessionStatus::Declined)] {
        let id = session(&sandbox, user).await;
        sandbox.set_session_status(&id, status).unwrap();
    }
    sleep(HOUR).await;
    let attempts_of = |parked: &tower_didit::webhook::inbox::Parked| parked.attempts;
    let mut parked: Vec<_> = inbox.parked(10).await.unwrap().iter().map(attempts_of).collect();
    parked.sort_unstable();
    assert_eq!((parked, attempts.load(Ordering::SeqCst)), (vec![1, 2], 3));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_told_to_stop_finishes_what_it_has_begun() {
    let (inbox, effects) = (MemoryInbox::new(), Effects::default());
    let sandbox = didit(&inbox).build().unwrap();
    let worker = Worker::builder(inbox.clone()).build(handler(&effects, Duration::from_secs(60))).unwrap();
    let stopped = tokio::spawn(worker.run_until(sleep(Duration::from_secs(30))));
    let ids = [session(&sandbox, "user-7").await, session(&sandbox, "user-8").await];
    sandbox.set_session_status(&ids[0], SessionStatus::Approved).unwrap();
    sleep(Duration::from_secs(40)).await;
    sandbox.set_session_status(&ids[1], SessionStatus::Approved).unwrap();
    stopped.await.unwrap();
    sleep(HOUR).await;
    let counts = inbox.counts().await.unwrap();
    assert_eq!((effects.all().len(), counts.done, counts.pending), (1, 1, 1));
}

// ===== the sweep =====

/// A sweep through the stack, and the local Didit whose webhooks it looks for.
fn sweeping(inbox: &MemoryInbox, sandbox: &Sandbox) -> Sweep<DiditService<Sandbox>> {
    let stack = DiditLayer::builder().api_key("key").build().unwrap();
    Sweep::builder(inbox.clone()).build(stack.layer(sandbox.clone())).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_never_came_is_found_and_handled_once() {
    let (inbox, effects) = (MemoryInbox::new(), Effects::default());
    // Of 60 sessions every tenth loses its event.
    let lost: Vec<u64> = (1..=6).map(|tenth| tenth * 10).collect();
    let sandbox = didit(&inbox).webhook_fault(WebhookFault::Drop, When::Nth(lost)).build().unwrap();
    let _working = work(&inbox, &effects, Duration::ZERO);
    for user in 0..60 {
        let id = session(&sandbox, &format!("user-{user}")).await;
        sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();
    }
    let open = session(&sandbox, "undecided").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(effects.all().len(), 54);

    let mut sweep = sweeping(&inbox, &sandbox);
    let progress = sweep.pass().await.unwrap();
    assert_eq!((progress.found, progress.noted, progress.rounds, progress.looked_at), (0, 6, 1, 60));
    assert_eq!(progress.next_in, Duration::from_secs(900));
    sleep(progress.next_in).await;
    assert_eq!(sweep.pass().await.unwrap().found, 6);
    sleep(Duration::from_secs(10)).await;
    let found = effects.all().into_iter().filter(|effect| effect.origin == Origin::Swept).count();
    assert_eq!((effects.all().len(), found), (60, 6));

    // The real ones, sent by hand with a new time, and more passes: nothing happens twice.
    for record in sandbox.webhooks().iter().filter(|record| record.outcome != WebhookOutcome::Delivered) {
        sandbox.resend_webhook(&record.event_id).unwrap();
    }
    for _ in 0..3 {
        sleep(Duration::from_secs(900)).await;
        sweep.pass().await.unwrap();
    }
    assert_eq!((effects.all().len(), inbox.counts().await.unwrap().passed_over), (60, 6));
    // What happens next is news.
    sandbox.set_session_status(&open, SessionStatus::Declined).unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(effects.statuses().last().map(String::as_str), Some("Declined"));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_only_late_overtakes_the_sweep() {
    for stamp in [RetryStamp::Kept, RetryStamp::Fresh] {
        let (inbox, effects) = (MemoryInbox::new(), Effects::default());
        // Comes after the grace has ended and the sweep has found it; then it is one too many.
        let late = WebhookFault::Delay(Duration::from_secs(2_000));
        let verifier = didit_api::webhook::Verifier::new().tolerance(HOUR);
        let receiver = Receiver::builder(secrets(), inbox.clone()).verifier(verifier).build().unwrap();
        let sandbox = sandbox(8)
            .limits(Limits::none())
            .webhook(Destination::service(receiver, SECRET))
            .webhook_fault(late, When::First(1))
            .webhook_fault(WebhookFault::Delay(Duration::from_secs(300)), When::Nth(vec![2]))
            .webhook_retry_stamp(stamp)
            .build()
            .unwrap();
        let _working = work(&inbox, &effects, Duration::ZERO);
        for user in ["late", "later than most"] {
            let id = session(&sandbox, user).await;
            sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        tokio::spawn(sweeping(&inbox, &sandbox).run());
        sleep(2 * HOUR).await;
        let mut origins: Vec<_> = effects.all().into_iter().map(|effect| format!("{:?}", effect.origin)).collect();
        origins.sort_unstable();
        assert_eq!(origins, ["Delivered", "Swept"], "{stamp:?}");
        assert_eq!(inbox.counts().await.unwrap().passed_over, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_goes_on_where_it_was_stopped_and_reads_no_faster_than_it_may() {
    let (inbox, effects) = (MemoryInbox::new(), Effects::default());
    let broken = Rule::new(Fault::status(StatusCode::FORBIDDEN)).on_route("session-list").when(When::Nth(vec![2]));
    let sandbox = didit(&inbox)
        .webhook_fault(WebhookFault::Drop, When::Always)
        .faults(Faults::none().with(broken))
        .build()
        .unwrap();
    let _working = work(&inbox, &effects, Duration::ZERO);
    for user in 0..120 {
        let id = session(&sandbox, &format!("user-{user}")).await;
        sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();
    }
    let stack = DiditLayer::builder().api_key("key").build().unwrap().layer(sandbox.clone());
    let builder = Sweep::builder(inbox.clone()).grace(Duration::from_secs(60)).reads_per_pass(20).reads_per_minute(60);
    let mut sweep = builder.build(stack).unwrap();
    let start = Instant::now();
    assert!(sweep.pass().await.is_err(), "the second page");
    assert_eq!(sweep.progress().borrow().looked_at, 50);
    let mut passes = 1;
    while sweep.progress().borrow().found < 120 {
        sleep(Duration::from_secs(60)).await;
        sweep.pass().await.unwrap();
        passes += 1;
        assert!(passes < 30, "{:?}", sweep.progress().borrow());
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(effects.all().len(), 120);
    let progress = sweep.progress().borrow().clone();
    assert_eq!(progress.failed, 1);
    assert!(progress.reads <= start.elapsed().as_secs() + 1, "{progress:?}");
    assert!(progress.reads < 120 + 40, "no page is read in vain: {progress:?}");
}

#[tokio::test(start_paused = true)]
async fn sessions_from_before_the_inbox_are_left_alone_unless_asked_for() {
    let sandbox = sandbox(9).limits(Limits::none()).clock_behind(HOUR).build().unwrap();
    let id = session(&sandbox, "user-7").await;
    sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();
    for (too, found) in [(false, 0), (true, 1)] {
        let inbox = MemoryInbox::with(Capacity::DEFAULT);
        let stack = DiditLayer::builder().api_key("key").build().unwrap().layer(sandbox.clone());
        let mut sweep = Sweep::builder(inbox).grace(Duration::ZERO).unknown_too(too).build(stack).unwrap();
        assert_eq!(sweep.pass().await.unwrap().found, found);
    }
}
