//! The events that were made, and how far they have got: synchronous, with the time as an argument.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use didit_api::{
    SessionStatus,
    webhook::{HEADER_TIMESTAMP, Secrets, SecretsError, WebhookType, encode, sign},
};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;

use super::{
    RetryStamp, WebhookAttempt, WebhookFault, WebhookOutcome, WebhookRecord, Webhooks,
    destination::{NoAnswer, Sender},
    payload::status_updated,
};
use crate::{faults::When, ids::Ids, sessions::Session};

/// The user agent of Didit's webhooks (Didit's webhooks page).
const USER_AGENT: HeaderValue = HeaderValue::from_static("DiditWebhook/2.0 +https://didit.me");

/// Every event, and what is still to be sent.
#[derive(Debug)]
pub(crate) struct Outbox {
    webhooks: Webhooks,
    /// The current secret of each destination; `None` for one that was never checked by a builder.
    secrets: Vec<Option<Secrets>>,
    letters: Vec<Letter>,
    jobs: VecDeque<Job>,
    /// How often the sandbox was reset: what was begun before finds nothing any more.
    age: u64,
    armed: Vec<Armed>,
    ids: Ids,
    sent: u64,
    started: Duration,
}

/// An event on its way to one destination.
#[derive(Debug)]
struct Letter {
    record: WebhookRecord,
    payload: Value,
    /// How many copies are under way.
    copies: usize,
}

#[derive(Debug)]
struct Armed {
    fault: WebhookFault,
    when: When,
    seen: u64,
    rng: StdRng,
}

/// Something to be done by a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// A copy of an event.
    Deliver { letter: usize, age: u64, due: Duration },
    /// Something in the agenda that nobody may be looking for.
    Wake { due: Duration },
}

/// One attempt, ready to be sent.
pub(crate) struct Attempt {
    pub(super) request: Request<Full<Bytes>>,
    pub(super) sender: Sender,
    /// Its number among the letter's.
    pub(super) number: usize,
}

impl Outbox {
    pub(crate) fn new(webhooks: &Webhooks, seed: u64, started: Duration) -> Self {
        // A sequence of its own, so that events do not shift the ids of sessions.
        let seed = seed ^ 0x77eb_8b00_c5a1_0e57;
        let armed = |((fault, when), stream): (&(WebhookFault, When), u64)| Armed {
            fault: *fault,
            when: when.clone(),
            seen: 0,
            rng: StdRng::seed_from_u64(seed.wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        };
        Self {
            secrets: webhooks.destinations.iter().map(|destination| destination.secrets().ok()).collect(),
            letters: Vec::new(),
            jobs: VecDeque::new(),
            age: 0,
            armed: webhooks.faults.iter().zip(1..).map(armed).collect(),
            ids: Ids::seeded(seed),
            sent: 0,
            started,
            webhooks: webhooks.clone(),
        }
    }

    /// Back to the beginning. Secrets are those of the builder again.
    pub(crate) fn cleared(&self, seed: u64, started: Duration) -> Self {
        Self { age: self.age + 1, ..Self::new(&self.webhooks, seed, started) }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.webhooks.destinations.is_empty()
    }

    /// A session has another status.
    pub(crate) fn status_updated(&mut self, now: Duration, session: &Session, status: &SessionStatus) {
        if self.is_idle() {
            return;
        }
        let event_id = self.ids.uuid().to_string();
        let webhooks = self.webhooks.clone();
        let kind = WebhookType::StatusUpdated;
        for (number, destination) in webhooks.destinations.iter().enumerate() {
            if !destination.subscribes(&kind) {
                continue;
            }
            let record = WebhookRecord {
                event_id: event_id.clone(),
                webhook_type: kind.as_str().to_owned(),
                session_id: session.id.to_string(),
                status: status.as_str().to_owned(),
                destination: number,
                attempts: Vec::new(),
                outcome: WebhookOutcome::Pending,
            };
            let payload = status_updated(session, status, &event_id, &destination.version, now);
            self.post(now, record, payload);
        }
    }

    fn post(&mut self, now: Duration, mut record: WebhookRecord, payload: Value) {
        let (mut copies, mut due, mut dropped) = (1, now, false);
        let since_start = now.saturating_sub(self.started);
        for fault in self.armed.iter_mut().filter_map(|armed| armed.next(since_start)) {
            match fault {
                WebhookFault::Drop => dropped = true,
                WebhookFault::Duplicate(more) => copies += usize::try_from(more).unwrap_or(usize::MAX),
                WebhookFault::Delay(by) | WebhookFault::Shuffle(by) => due = due.saturating_add(by),
            }
        }
        if dropped {
            record.outcome = WebhookOutcome::Dropped;
            copies = 0;
        }
        let letter = self.letters.len();
        self.letters.push(Letter { record, payload, copies });
        let job = Job::Deliver { letter, age: self.age, due };
        self.jobs.extend(std::iter::repeat_n(job, copies));
    }

    /// Sends an event again to all its destinations, as by hand: with a new time, the current secret and the same id.
    /// `false` if there is no such event.
    pub(crate) fn resend(&mut self, now: Duration, event_id: &str) -> bool {
        let mut known = false;
        for (number, letter) in self.letters.iter_mut().enumerate() {
            if letter.record.event_id != event_id {
                continue;
            }
            known = true;
            letter.payload["timestamp"] = now.as_secs().into();
            letter.record.outcome = WebhookOutcome::Pending;
            letter.copies += 1;
            self.jobs.push_back(Job::Deliver { letter: number, age: self.age, due: now });
        }
        known
    }

    /// Sets the secret of a destination; the old one is gone at once. `false` if there is no such destination.
    pub(crate) fn set_secret(&mut self, destination: usize, secret: &str) -> Result<bool, SecretsError> {
        let new = Secrets::new([secret])?;
        let Some(place) = self.secrets.get_mut(destination) else { return Ok(false) };
        *place = Some(new);
        Ok(true)
    }

    /// Has somebody look at the sandbox at a time.
    pub(crate) fn wake(&mut self, due: Duration) {
        self.jobs.push_back(Job::Wake { due });
    }

    /// The next job for a task.
    pub(crate) fn next_job(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    pub(crate) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Begins an attempt, the first one of its copy or a later one. `None` if there is nothing to send any more.
    pub(crate) fn attempt(
        &mut self,
        (letter, age): (usize, u64),
        first: bool,
        now: Duration,
        at_ms: u64,
    ) -> Option<Attempt> {
        if age != self.age {
            return None;
        }
        let letter = self.letters.get_mut(letter)?;
        let number = letter.record.destination;
        let stamp = if first { RetryStamp::Kept } else { self.webhooks.retry_stamp };
        if stamp == RetryStamp::Fresh {
            letter.payload["timestamp"] = now.as_secs().into();
        }
        let sender = self.webhooks.destinations.get(number)?.sender().ok()?;
        let Some(mut request) = signed(&letter.payload, self.secrets.get(number)?.as_ref()?) else {
            letter.record.outcome = WebhookOutcome::GivenUp;
            return None;
        };
        if stamp == RetryStamp::FreshHeader {
            request.headers_mut().insert(HEADER_TIMESTAMP, now.as_secs().into());
        }
        letter.record.attempts.push(WebhookAttempt { at_ms, status: None });
        self.sent += 1;
        Some(Attempt { request, sender, number: letter.record.attempts.len() - 1 })
    }

    /// Ends an attempt. How long to wait before the next one; `None` if there is none.
    pub(super) fn ended(
        &mut self,
        (letter, age): (usize, u64),
        number: usize,
        made: usize,
        answer: Result<StatusCode, NoAnswer>,
    ) -> Option<Duration> {
        if age != self.age {
            return None;
        }
        let letter = self.letters.get_mut(letter)?;
        let record = &mut letter.record;
        if let (Some(attempt), Ok(status)) = (record.attempts.get_mut(number), &answer) {
            attempt.status = Some(status.as_u16());
        }
        let again = match answer {
            Ok(status) if status.is_success() => {
                record.outcome = WebhookOutcome::Delivered;
                None
            }
            // Didit's webhooks page: 5xx, 404 and time-outs; a broken connection presumably counts as one of them.
            Ok(status) if !status.is_server_error() && status != StatusCode::NOT_FOUND => None,
            Ok(_) | Err(NoAnswer) => self.webhooks.waits.get(made - 1).copied(),
        };
        if again.is_none() {
            letter.copies -= 1;
            if letter.copies == 0 && record.outcome == WebhookOutcome::Pending {
                record.outcome = WebhookOutcome::GivenUp;
            }
        }
        again
    }

    pub(crate) fn records(&self) -> Vec<WebhookRecord> {
        self.letters.iter().map(|letter| letter.record.clone()).collect()
    }

    /// Attempts, and letters by what came of them: delivered, given up, dropped.
    pub(crate) fn counts(&self) -> [u64; 4] {
        let of = |outcome| {
            let matching = self.letters.iter().filter(|letter| letter.record.outcome == outcome).count();
            u64::try_from(matching).unwrap_or(u64::MAX)
        };
        [self.sent, of(WebhookOutcome::Delivered), of(WebhookOutcome::GivenUp), of(WebhookOutcome::Dropped)]
    }
}

impl Armed {
    /// What goes wrong with the next copy, the time drawn.
    fn next(&mut self, since_start: Duration) -> Option<WebhookFault> {
        self.seen += 1;
        let fires = self.when.fires(self.seen, since_start, &mut self.rng);
        let fault = match self.fault {
            WebhookFault::Shuffle(most) => WebhookFault::Shuffle(self.rng.random_range(Duration::ZERO..=most)),
            other => other,
        };
        fires.then_some(fault)
    }
}

/// The request that tells an event. `None` if it nests too deep to be signed.
fn signed(payload: &Value, secrets: &Secrets) -> Option<Request<Full<Bytes>>> {
    let body = encode(payload).ok()?;
    let mut request = Request::new(Full::default());
    *request.headers_mut() = sign(body.as_bytes(), secrets).ok()?;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
    *request.method_mut() = http::Method::POST;
    *request.body_mut() = Full::from(body);
    Some(request)
}
