//! What an inbox decides: which event comes next, what is a repetition, what is out of date. No I/O; the time is an
//! argument.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::{
    Accepted, Arrival, Capacity, Claim, Claimed, Counts, InboxError, Origin, Parked, Receipt, Settlement, Terms,
    Ticket,
    entry::{Entry, Journey, Line, State, Stream},
};
use crate::timestamp::Timestamp;

/// Everything an inbox knows.
#[derive(Debug)]
pub(super) struct Book {
    capacity: Capacity,
    entries: HashMap<String, Entry>,
    streams: HashMap<String, Stream>,
    journeys: HashMap<String, Journey>,
    // Streams by when their next event is due.
    stage: BTreeSet<(Timestamp, u64, String)>,
    // What may be forgotten, the oldest first.
    done: BTreeSet<(Timestamp, String)>,
    parked: BTreeSet<(Timestamp, String)>,
    idle: BTreeSet<(Timestamp, String)>,
    begun: BTreeSet<(Timestamp, String)>,
    // What payloads take.
    bytes: usize,
    number: u64,
    epoch: u64,
    passed_over: u64,
    // No stream that something happened in after this was forgotten.
    known_since: Timestamp,
    changed: Vec<Changed>,
}

/// What has to be written anew, or is gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Changed {
    Event(String),
    Payload(String),
    Stream(String),
    Journey(String),
    KnownSince,
}

/// How much is thrown away at a time.
const SWEEP: usize = 32;

// ===== impl Book =====

impl Book {
    pub(super) fn new(capacity: Capacity, now: Timestamp) -> Self {
        Self {
            capacity,
            entries: HashMap::new(),
            streams: HashMap::new(),
            journeys: HashMap::new(),
            stage: BTreeSet::new(),
            done: BTreeSet::new(),
            parked: BTreeSet::new(),
            idle: BTreeSet::new(),
            begun: BTreeSet::new(),
            bytes: 0,
            number: 0,
            epoch: 0,
            passed_over: 0,
            known_since: now,
            changed: vec![Changed::KnownSince],
        }
    }

    /// What was changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> Vec<Changed> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// Takes an event in, once.
    pub(super) fn accept(&mut self, arrival: Arrival, now: Timestamp) -> Result<Receipt, InboxError> {
        self.forget(now);
        let session = arrival.session_id.as_deref();
        let known =
            self.entries.get(&arrival.key).map(|entry| (entry.correlation_id.clone(), entry.session.as_deref()));
        let (own, session) = known.as_ref().map_or((&arrival.correlation_id, session), |(id, session)| (id, *session));
        let correlation_id = self.journey(session).unwrap_or(own).to_owned();
        let receipt = |accepted| Receipt { accepted, correlation_id };
        if known.is_some() {
            return Ok(receipt(Accepted::Repeated));
        }
        if arrival.origin == Origin::Swept && !self.is_missing(arrival.stream.as_deref(), arrival.status.as_deref()) {
            return Ok(receipt(Accepted::NotMissing));
        }
        self.make_room(arrival.payload.len())?;
        self.bytes += arrival.payload.len();
        self.number += 1;
        let (key, entry) = (arrival.key.clone(), Entry::new(arrival, self.number, now));
        self.changed.push(Changed::Payload(key.clone()));
        self.queue(&key, &entry);
        let line = entry.line.clone();
        self.put(key, entry);
        self.restage(&line, now);
        Ok(receipt(Accepted::New))
    }

    /// Whether no event of the stream waits, and none with this status came last.
    pub(super) fn is_missing(&self, stream: Option<&str>, status: Option<&str>) -> bool {
        let stream = stream.and_then(|stream| self.streams.get(stream));
        stream.is_none_or(|stream| stream.queue.is_empty() && stream.status.as_deref() != status)
    }

    /// Hands out the next event, if one is due.
    pub(super) fn claim(&mut self, terms: Terms, now: Timestamp) -> Claim {
        self.forget(now);
        loop {
            let Some((due, _, name)) = self.stage.first().cloned() else { return Claim::Idle { next: None } };
            if due > now {
                return Claim::Idle { next: Some(due) };
            }
            let Some(key) = self.streams.get(&name).and_then(Stream::head) else {
                self.stage.pop_first();
                continue;
            };
            let Some(mut entry) = self.entries.get(&key).cloned() else {
                self.stage.pop_first();
                continue;
            };
            if self.is_overtaken(&entry) {
                self.passed_over += 1;
                tracing::debug!(event = key, "a webhook was overtaken, and is passed over");
                self.end(key, entry, State::Done { at: now }, now);
                continue;
            }
            if entry.attempts >= terms.max_attempts {
                // Whoever had it died with it, each time.
                tracing::error!(
                    event = key,
                    attempts = entry.attempts,
                    "a webhook was never handled to an end; parked"
                );
                self.park(key, entry, now);
                continue;
            }
            self.epoch += 1;
            entry.attempts += 1;
            entry.state = State::Claimed { until: now.plus(terms.lease), epoch: self.epoch };
            let claimed = Claimed {
                ticket: Ticket { key: key.clone(), epoch: self.epoch },
                payload: entry.payload.clone(),
                correlation_id: self.journey(entry.session.as_deref()).unwrap_or(&entry.correlation_id).to_owned(),
                attempt: entry.attempts,
                received: entry.received,
                origin: entry.origin,
                test: entry.test,
            };
            let line = entry.line.clone();
            if let Some(stream) = self.streams.get_mut(line.name()) {
                stream.claimed = Some(key.clone());
            }
            self.put(key, entry);
            self.restage(&line, now);
            return Claim::Event(claimed);
        }
    }

    /// Lets a claim last longer.
    pub(super) fn renew(&mut self, ticket: &Ticket, until: Timestamp, now: Timestamp) -> Result<(), InboxError> {
        let mut entry = self.claimed(ticket)?;
        entry.state = State::Claimed { until, epoch: ticket.epoch };
        let line = entry.line.clone();
        self.put(ticket.key.clone(), entry);
        self.restage(&line, now);
        Ok(())
    }

    /// Writes down what became of a claimed event.
    pub(super) fn settle(&mut self, ticket: Ticket, settlement: Settlement, now: Timestamp) -> Result<(), InboxError> {
        let mut entry = self.claimed(&ticket)?;
        match settlement {
            Settlement::Done => {
                if let Some(stream) = self.streams.get_mut(entry.line.name()) {
                    stream.applied = stream.applied.max(Some(entry.signed));
                    stream.status.clone_from(&entry.status);
                    stream.swept = entry.origin == Origin::Swept;
                }
                self.end(ticket.key, entry, State::Done { at: now }, now);
            }
            Settlement::Again { at } => {
                entry.state = State::Waiting { due: at };
                let line = entry.line.clone();
                if let Some(stream) = self.streams.get_mut(line.name()) {
                    stream.claimed = None;
                }
                self.put(ticket.key, entry);
                self.restage(&line, now);
            }
            Settlement::Park => self.park(ticket.key, entry, now),
        }
        Ok(())
    }

    /// Lets a parked event be handled again.
    pub(super) fn redrive(&mut self, key: &str, now: Timestamp) -> bool {
        let Some(mut entry) = self.entries.get(key).cloned() else { return false };
        let State::Parked { at } = entry.state else { return false };
        self.parked.remove(&(at, key.to_owned()));
        (entry.state, entry.attempts) = (State::Waiting { due: now }, 0);
        let line = entry.line.clone();
        self.queue(key, &entry);
        self.put(key.to_owned(), entry);
        self.restage(&line, now);
        true
    }

    /// The parked events, the oldest first.
    pub(super) fn parked(&self, most: usize) -> Vec<Parked> {
        let of = |(at, key): &(Timestamp, String)| {
            let entry = self.entries.get(key)?;
            Some(Parked {
                key: key.clone(),
                stream: Some(&entry.line).filter(|line| matches!(line, Line::Stream(_))).map(ToString::to_string),
                session_id: entry.session.clone(),
                correlation_id: entry.correlation_id.clone(),
                attempts: entry.attempts,
                since: *at,
            })
        };
        self.parked.iter().filter_map(of).take(most).collect()
    }

    /// Keeps a session's correlation id. The first one counts: whoever gets an unfinished session again has not begun it.
    pub(super) fn remember(&mut self, session: String, correlation_id: String, now: Timestamp) -> String {
        self.forget(now);
        if let Some(journey) = self.journeys.get(&session) {
            return journey.correlation_id.clone();
        }
        if self.journeys.len() >= self.capacity.journeys
            && let Some((_, oldest)) = self.begun.pop_first()
        {
            self.journeys.remove(&oldest);
            self.changed.push(Changed::Journey(oldest));
        }
        self.begun.insert((now, session.clone()));
        self.changed.push(Changed::Journey(session.clone()));
        self.journeys.insert(session, Journey { correlation_id: correlation_id.clone(), since: now });
        correlation_id
    }

    /// Since when nothing was forgotten.
    pub(super) fn known_since(&self) -> Timestamp {
        self.known_since
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            pending: self.entries.len() - self.done.len() - self.parked.len(),
            parked: self.parked.len(),
            done: self.done.len(),
            bytes: self.bytes,
            passed_over: self.passed_over,
        }
    }

    fn journey(&self, session: Option<&str>) -> Option<&str> {
        self.journeys.get(session?).map(|journey| journey.correlation_id.as_str())
    }

    fn claimed(&self, ticket: &Ticket) -> Result<Entry, InboxError> {
        let entry = self.entries.get(&ticket.key).filter(|entry| {
            let State::Claimed { epoch, .. } = entry.state else { return false };
            epoch == ticket.epoch
        });
        entry.cloned().ok_or(InboxError::Fenced)
    }

    /// Whether what the event says is not news: a later one of its stream was applied, or a sweep was faster.
    fn is_overtaken(&self, entry: &Entry) -> bool {
        let Some(stream) = self.streams.get(entry.line.name()) else { return false };
        // NOTE: what `Event::order` calls stale; the inbox has the times and not the events.
        let is_stale = stream.applied.is_some_and(|applied| applied > entry.signed);
        let is_same = stream.status.is_some() && stream.status == entry.status;
        is_stale || is_same && (stream.swept || entry.origin == Origin::Swept)
    }

    fn park(&mut self, key: String, entry: Entry, now: Timestamp) {
        if let Some(stream) = self.streams.get_mut(entry.line.name()) {
            // It came, so a sweep does not miss it; but one that a sweep found may still come by itself.
            stream.status.clone_from(&entry.status);
            stream.swept = false;
        }
        self.end(key, entry, State::Parked { at: now }, now);
    }

    /// Takes an event out of its stream.
    fn end(&mut self, key: String, mut entry: Entry, state: State, now: Timestamp) {
        entry.state = state;
        if let Some(stream) = self.streams.get_mut(entry.line.name()) {
            stream.queue.remove(&(entry.signed, entry.number, key.clone()));
            stream.claimed.take_if(|claimed| *claimed == key);
        }
        match entry.state {
            State::Parked { at } => {
                self.parked.insert((at, key.clone()));
            }
            _ => {
                self.done.insert((now, key.clone()));
                self.drop_payload(&key, &mut entry);
            }
        }
        let line = entry.line.clone();
        self.put(key, entry);
        self.restage(&line, now);
    }

    fn drop_payload(&mut self, key: &str, entry: &mut Entry) {
        self.bytes -= entry.payload.len();
        entry.payload = Bytes::new();
        self.changed.push(Changed::Payload(key.to_owned()));
    }

    fn put(&mut self, key: String, entry: Entry) {
        self.changed.push(Changed::Event(key.clone()));
        self.entries.insert(key, entry);
    }

    fn queue(&mut self, key: &str, entry: &Entry) {
        let stream = self.streams.entry(entry.line.name().to_owned()).or_default();
        stream.queue.insert((entry.signed, entry.number, key.to_owned()));
    }

    /// Puts a stream where its next event stands.
    fn restage(&mut self, line: &Line, now: Timestamp) {
        let name = line.name();
        let Some(stream) = self.streams.get_mut(name) else { return };
        if let Some((due, number)) = stream.staged.take() {
            self.stage.remove(&(due, number, name.to_owned()));
        }
        self.idle.remove(&(stream.touched, name.to_owned()));
        stream.touched = now;
        if let Some(entry) = stream.head().and_then(|key| self.entries.get(&key)) {
            let due = match entry.state {
                State::Waiting { due } => due,
                State::Claimed { until, .. } => until,
                State::Parked { .. } | State::Done { .. } => now,
            };
            stream.staged = Some((due, entry.number));
            self.stage.insert((due, entry.number, name.to_owned()));
        } else if matches!(line, Line::Alone(_)) {
            self.streams.remove(name);
            return;
        } else {
            self.idle.insert((now, name.to_owned()));
        }
        if matches!(line, Line::Stream(_)) {
            self.changed.push(Changed::Stream(name.to_owned()));
        }
    }

    /// Forgets what is too old to matter.
    fn forget(&mut self, now: Timestamp) {
        let Capacity { retention, parked_for, journeys_for, .. } = self.capacity;
        let old = |set: &mut BTreeSet<(Timestamp, String)>, kept| {
            let is_old = |(at, _): &(Timestamp, String)| now.since(*at) >= kept;
            let first = set.first().filter(|entry| is_old(entry)).cloned();
            if let Some(first) = &first {
                set.remove(first);
            }
            first.map(|(_, name)| name)
        };
        for _ in 0..SWEEP {
            let event = old(&mut self.done, retention).or_else(|| {
                let key = old(&mut self.parked, parked_for)?;
                tracing::error!(event = key, "a parked webhook was given up");
                Some(key)
            });
            let stream = old(&mut self.idle, retention);
            let journey = old(&mut self.begun, journeys_for);
            if event.is_none() && stream.is_none() && journey.is_none() {
                break;
            }
            if let Some(key) = event {
                self.remove(key);
            }
            if let Some(name) = stream {
                self.forget_stream(name);
            }
            if let Some(session) = journey {
                self.journeys.remove(&session);
                self.changed.push(Changed::Journey(session));
            }
        }
    }

    fn forget_stream(&mut self, name: String) {
        if let Some(stream) = self.streams.remove(&name) {
            self.known_since = self.known_since.max(stream.touched);
        }
        self.changed.push(Changed::Stream(name));
        self.changed.push(Changed::KnownSince);
    }

    fn remove(&mut self, key: String) {
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.payload.len();
        }
        self.changed.push(Changed::Event(key.clone()));
        self.changed.push(Changed::Payload(key));
    }

    /// Makes room for one event more; what is done longest goes first, and what is not done never.
    fn make_room(&mut self, bytes: usize) -> Result<(), InboxError> {
        let Capacity { events, bytes: most, .. } = self.capacity;
        if self.bytes.saturating_add(bytes) > most {
            return Err(InboxError::Full);
        }
        while self.entries.len() >= events {
            let (_, oldest) = self.done.pop_first().ok_or(InboxError::Full)?;
            self.remove(oldest);
        }
        while self.idle.len() >= events {
            let Some((_, name)) = self.idle.pop_first() else { break };
            self.forget_stream(name);
        }
        Ok(())
    }
}

// ===== impl Stream =====

impl Stream {
    /// The event to be handled next, or being handled.
    fn head(&self) -> Option<String> {
        let first = || self.queue.first().map(|(_, _, key)| key.clone());
        self.claimed.clone().or_else(first)
    }
}

// ===== keeping it in a file =====

#[cfg(feature = "webhook-redb")]
impl Book {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.get(name)
    }

    pub(super) fn journey_of(&self, session: &str) -> Option<&Journey> {
        self.journeys.get(session)
    }

    /// Puts back since when nothing was forgotten.
    pub(super) fn restore_known_since(&mut self, since: Timestamp) {
        self.known_since = since;
    }

    /// Puts a stream back in.
    pub(super) fn restore_stream(&mut self, name: String, stream: Stream) {
        self.idle.insert((stream.touched, name.clone()));
        self.streams.insert(name, stream);
    }

    /// Puts a journey back in.
    pub(super) fn restore_journey(&mut self, session: String, journey: Journey) {
        self.begun.insert((journey.since, session.clone()));
        self.journeys.insert(session, journey);
    }

    /// Puts an event back in, after all streams. If `orphaned`, whoever had claimed it is dead.
    pub(super) fn restore_event(&mut self, key: String, mut entry: Entry, orphaned: bool, now: Timestamp) {
        self.number = self.number.max(entry.number);
        self.bytes += entry.payload.len();
        match entry.state {
            State::Claimed { .. } if orphaned => entry.state = State::Waiting { due: now },
            State::Claimed { epoch, .. } => self.epoch = self.epoch.max(epoch),
            State::Waiting { .. } => {}
            State::Parked { at } => {
                self.parked.insert((at, key.clone()));
            }
            State::Done { at } => {
                self.done.insert((at, key.clone()));
            }
        }
        let line = entry.line.clone();
        if entry.is_pending() {
            self.queue(&key, &entry);
            if let (State::Claimed { .. }, Some(stream)) = (&entry.state, self.streams.get_mut(line.name())) {
                stream.claimed = Some(key.clone());
            }
        }
        let is_pending = entry.is_pending();
        self.entries.insert(key, entry);
        if is_pending {
            self.restage(&line, now);
        }
    }
}

#[cfg(test)]
mod tests;
