//! The whole state of a sandbox and what a request does to it: synchronous, with the time as an argument.

use std::{sync::Arc, time::Duration};

use didit_api::{EndpointId, Routes, SessionStatus};
use http::StatusCode;
use rand::{SeedableRng, rngs::StdRng};
use uuid::Uuid;

use crate::{
    agenda::Agenda,
    answer::{self, Answer},
    builder::Settings,
    call::Call,
    connection::Work,
    faulted,
    faults::{Ending, Fault, Manner, Plans},
    ids::Ids,
    ingested::Ingested,
    journal::{Journal, JournalEntry},
    limiter::Limiter,
    neighbour::Arrivals,
    odd_limits::OddLimits,
    replays::Replays,
    resolve::{Params, Resolved, resolve},
    routes::{self, Handler},
    sessions::Sessions,
    stats::{Book, Stats},
    webhooks::{Attempt, Outbox},
    window::Stamps,
};

/// Everything that changes while a sandbox runs, and the settings it runs by.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) sessions: Sessions,
    pub(crate) replays: Replays,
    pub(crate) book: Book,
    pub(crate) ids: Ids,
    pub(crate) ingested: Ingested,
    pub(crate) odd_limits: OddLimits,
    pub(crate) outbox: Outbox,
    /// When the answer to the request that is being carried out leaves the sandbox.
    pub(crate) answer_leaves: Duration,
    agenda: Agenda<Due>,
    /// The latest time that anything was done at. Time never runs backwards.
    latest: Duration,
    keys: Keys,
    handlers: Arc<[Handler]>,
    limiter: Limiter,
    plans: Plans,
    journal: Journal,
    latency: StdRng,
    list_delay: StdRng,
    neighbours: Vec<Arrivals>,
    started: Duration,
}

/// What comes of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) reply: Reply,
    /// How much later than usual the answer comes.
    pub(crate) delay: Duration,
    /// How its body comes.
    pub(crate) manner: Manner,
}

/// An answer, or none.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Answer),
    Lost(Work),
}

/// What happens by itself once its time has come.
#[derive(Debug)]
enum Due {
    /// A request arrives whose client is gone.
    Arrival { call: Call, after: Duration },
    /// A late commit.
    Commit {
        call: Call,
        resolved: Resolved,
        /// Its number in the journal.
        entry: usize,
        /// The transaction that it holds the id of.
        transaction: Option<String>,
    },
    /// A session comes to its end.
    Finish { session: Uuid, status: SessionStatus },
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Known,
    WrongKey,
    NoKey,
}

/// The API keys. Its `Debug` does not show them.
#[derive(Clone)]
struct Keys(Vec<String>);

impl World {
    pub(crate) fn new(keys: Vec<String>, settings: Settings, now: Duration) -> Self {
        let routes: &Routes = &settings.routes;
        let handlers = routes.iter().map(|(_, endpoint)| Handler::of(endpoint)).collect();
        let stamps = if settings.whole_second_stamps { Stamps::WholeSeconds } else { Stamps::Exact };
        // One more than there are keys: requests without a known one share their windows.
        let limiter = Limiter::new(&settings.limits, routes, keys.len() + 1, settings.count_rejected, stamps);
        Self {
            sessions: Sessions::default(),
            replays: Replays::default(),
            book: Book::default(),
            ids: Ids::seeded(settings.seed),
            ingested: Ingested::default(),
            odd_limits: odd_limits(&settings),
            outbox: Outbox::new(&settings.webhooks, settings.seed, now),
            answer_leaves: now,
            agenda: Agenda::default(),
            latest: now,
            keys: Keys(keys),
            handlers,
            limiter,
            plans: Plans::new(&settings.faults, settings.seed),
            journal: Journal::new(settings.journal_capacity),
            latency: latency_rng(settings.seed),
            list_delay: list_delay_rng(settings.seed),
            neighbours: neighbours(&settings, now),
            started: now,
            settings,
        }
    }

    /// Back to the beginning: nothing counted, nothing stored, every random sequence from its start.
    pub(crate) fn reset(&mut self, now: Duration) {
        self.sessions = Sessions::default();
        self.replays = Replays::default();
        self.book = Book::default();
        self.ids = Ids::seeded(self.settings.seed);
        self.ingested = Ingested::default();
        self.odd_limits = odd_limits(&self.settings);
        self.outbox = self.outbox.cleared(self.settings.seed, now);
        self.agenda = Agenda::default();
        self.limiter = self.limiter.cleared(&self.settings.routes);
        self.plans = Plans::new(&self.settings.faults, self.settings.seed);
        self.journal = Journal::new(self.settings.journal_capacity);
        self.latency = latency_rng(self.settings.seed);
        self.list_delay = list_delay_rng(self.settings.seed);
        self.neighbours = neighbours(&self.settings, now);
        self.started = now;
    }

    /// Draws the time before and after the arrival of a request.
    pub(crate) fn draw_latency(&mut self) -> (Duration, Duration) {
        self.settings.latency.draw(&mut self.latency)
    }

    /// Draws how much later than it is made a session is listed.
    pub(crate) fn draw_list_delay(&mut self) -> Duration {
        self.settings.list_delay.draw(&mut self.list_delay)
    }

    /// The time that the state is of.
    pub(crate) fn now(&self) -> Duration {
        self.latest
    }

    /// Lets everything happen that was due until `now`, each thing at its own time.
    pub(crate) fn catch_up(&mut self, now: Duration) {
        // What nobody waits for, and the requests of neighbours between.
        while let Some((due, what)) = self.agenda.next(now) {
            self.neighbours_arrive(due);
            self.latest = self.latest.max(due);
            match what {
                Due::Arrival { call, after } => {
                    self.take(self.latest, call, after, true);
                }
                Due::Commit { call, resolved, entry, transaction } => {
                    self.commit(self.latest, &call, &resolved, entry, transaction);
                }
                Due::Finish { session, status } => {
                    routes::set_status(self, self.latest, session, status);
                }
            }
        }
        self.neighbours_arrive(now);
        self.latest = self.latest.max(now);
    }

    /// Counts the requests of neighbours that arrive until `now`, in the windows of the first key.
    fn neighbours_arrive(&mut self, now: Duration) {
        while let Some(first) =
            self.neighbours.iter_mut().min_by_key(|neighbour| neighbour.next().unwrap_or(Duration::MAX))
            && let Some(at) = first.next().filter(|at| *at <= now)
        {
            let at = at.max(self.latest);
            match self.limiter.arrive(at, 0, Some(first.endpoint), &first.method) {
                Ok(()) => self.book.stats.neighbour_accepted += 1,
                Err(_) => self.book.stats.neighbour_throttled += 1,
            }
            first.step();
        }
    }

    /// Counts a request, lets go wrong what is due to, and does the work. `after` is how long its answer is under way.
    pub(crate) fn arrive(&mut self, now: Duration, call: Call, after: Duration) -> Outcome {
        self.take(now, call, after, false)
    }

    /// Nobody waits for an answer any more. `call` is the request if it was still under way: when it was to arrive, and
    /// how long its answer would have been under way.
    pub(crate) fn client_left(&mut self, call: Option<(Duration, Call, Duration)>) {
        let Some((due, call, after)) = call else {
            self.book.stats.abandoned_after_arrival += 1;
            return;
        };
        self.book.stats.abandoned_before_arrival += 1;
        if self.settings.abandoned_arrive {
            self.agenda.note(due, Due::Arrival { call, after });
        }
    }

    fn take(&mut self, now: Duration, call: Call, after: Duration, abandoned: bool) -> Outcome {
        let routes = Arc::clone(&self.settings.routes);
        let resolved = resolve(&routes, &call.method, call.path(), call.uri.query());
        let name = match &resolved {
            Resolved::Endpoint(id, _) => routes.get(*id).name(),
            Resolved::Redirect(_) => "redirect",
            Resolved::OtherMethods(_) | Resolved::Unknown => "unknown",
        };
        let mut entry = JournalEntry {
            at_ms: self.since_start(now),
            method: call.method.to_string(),
            route: name.to_owned(),
            correlation_id: noted(&call, "x-correlation-id"),
            idempotency_key: noted(&call, "idempotency-key"),
            operation_id: noted(&call, "x-operation-id"),
            abandoned,
            ..JournalEntry::default()
        };
        if let Resolved::Endpoint(_, Params { session: Some(session) }) = &resolved {
            entry.session_id = Some(session.to_string());
        }
        self.book.arrived(name);
        let outcome = match self.admit(now, &call, &resolved) {
            Some(refusal) => {
                self.book.stats.throttled += 1;
                Outcome::at_once(refusal)
            }
            None => {
                self.book.stats.accepted += 1;
                self.serve(now, call, resolved, after, &mut entry)
            }
        };
        if let Reply::Answer(answer) = &outcome.reply {
            entry.status = Some(answer.status.as_u16());
        }
        self.journal.write(entry);
        outcome
    }

    /// The rate limits. A redirect meets none: it is answered before anything looks at the request.
    fn admit(&mut self, now: Duration, call: &Call, resolved: &Resolved) -> Option<Answer> {
        let endpoint = match resolved {
            Resolved::Endpoint(id, _) => Some(*id),
            Resolved::OtherMethods(_) | Resolved::Unknown => None,
            Resolved::Redirect(_) => return None,
        };
        let key = self.keys.index(call).unwrap_or(self.keys.0.len());
        let throttled = self.limiter.arrive(now, key, endpoint, &call.method).err()?;
        Some(answer::throttled(&throttled, &self.settings.hints, now))
    }

    fn serve(
        &mut self,
        now: Duration,
        call: Call,
        resolved: Resolved,
        after: Duration,
        entry: &mut JournalEntry,
    ) -> Outcome {
        let plan = self.plans.plan(&entry.route, &call.method, now.saturating_sub(self.started));
        let kinds = [
            plan.delay.map(|_| "delay"),
            plan.body.slow.map(|_| "slow-body"),
            plan.body.cut.map(|_| "truncated-body"),
            plan.fault.as_ref().map(Fault::kind),
        ];
        for kind in kinds.into_iter().flatten() {
            self.book.faulted(kind);
            entry.fault = Some(kind.to_owned());
        }
        let mut delay = plan.delay.unwrap_or_default();
        self.answer_leaves = now.saturating_add(after).saturating_add(delay);
        let reply = match plan.fault {
            Some(Fault::Status { code, retry_after }) => Reply::Answer(faulted::status(code, retry_after)),
            Some(Fault::Refusal(refusal)) => Reply::Answer(faulted::refusal(now, &refusal)),
            Some(Fault::AbsurdThrottle) => Reply::Answer(faulted::absurd(plan.draw)),
            Some(Fault::OddThrottle(kind)) => Reply::Answer(faulted::odd(kind)),
            Some(Fault::ResetBeforeWork) => Reply::Lost(Work::Refused),
            Some(Fault::WorkThenDrop) => {
                self.work(now, &call, &resolved, entry);
                Reply::Lost(Work::Done)
            }
            Some(Fault::LateCommit { after: wait, ending }) => {
                let transaction = self.reserve(&call, &resolved);
                let number = self.journal.next_number();
                let due = now.saturating_add(wait);
                self.agenda.note(due, Due::Commit { call, resolved, entry: number, transaction });
                end(ending, Work::Pending, &mut delay)
            }
            Some(Fault::NeverCommit { after: wait, ending }) => {
                delay = delay.saturating_add(wait);
                end(ending, Work::Forgotten, &mut delay)
            }
            None | Some(Fault::Delay(_) | Fault::TruncatedBody(_) | Fault::SlowBody { .. }) => {
                Reply::Answer(self.work(now, &call, &resolved, entry))
            }
        };
        Outcome { reply, delay, manner: plan.body }
    }

    /// Does what a request asks for.
    fn work(&mut self, now: Duration, call: &Call, resolved: &Resolved, entry: &mut JournalEntry) -> Answer {
        let answer = match resolved {
            Resolved::Endpoint(id, params) => {
                let routes = Arc::clone(&self.settings.routes);
                self.handler(*id).answer(self, now, call, routes.get(*id), *params)
            }
            Resolved::Redirect(to) => answer::moved(to),
            Resolved::OtherMethods(allowed) => answer::method_not_allowed(&call.method, allowed),
            Resolved::Unknown => answer::not_found(),
        };
        entry.worked_at_ms = Some(self.since_start(now));
        if let Some(session) = answer.session {
            entry.session_id = Some(session.to_string());
        }
        answer
    }

    /// Does late what a request asked for.
    fn commit(&mut self, now: Duration, call: &Call, resolved: &Resolved, entry: usize, transaction: Option<String>) {
        if let Some(id) = transaction {
            self.ingested.release(&id);
        }
        self.answer_leaves = now;
        let mut done = JournalEntry::default();
        self.work(now, call, resolved, &mut done);
        self.book.stats.late_commits_done += 1;
        if let Some(entry) = self.journal.entry(entry) {
            entry.worked_at_ms = done.worked_at_ms;
            entry.session_id = done.session_id.or(entry.session_id.take());
        }
    }

    /// Holds the id of a transaction that is made later, for others with the same id to race with.
    fn reserve(&mut self, call: &Call, resolved: &Resolved) -> Option<String> {
        let Resolved::Endpoint(endpoint, _) = resolved else { return None };
        if self.handler(*endpoint) != Handler::Transaction || self.caller(call) != Caller::Known {
            return None;
        }
        routes::transaction_id(call).filter(|id| self.ingested.reserve(id))
    }

    fn handler(&self, endpoint: EndpointId) -> Handler {
        self.handlers.get(endpoint.index()).copied().unwrap_or_default()
    }

    /// Has a session come to its end, and somebody look at it then.
    pub(crate) fn finish_at(&mut self, due: Duration, session: Uuid, status: SessionStatus) {
        self.agenda.note(due, Due::Finish { session, status });
        self.outbox.wake(due);
    }

    /// A session has another status than before: whoever subscribed to that is told.
    pub(crate) fn status_changed(&mut self, now: Duration, session: Uuid) {
        if let Some(session) = self.sessions.get(session) {
            self.outbox.status_updated(now, session, &session.status(now));
        }
    }

    /// Begins an attempt to deliver a webhook.
    pub(crate) fn begin_webhook(&mut self, letter: (usize, u64), first: bool) -> Option<Attempt> {
        self.outbox.attempt(letter, first, self.latest, self.since_start(self.latest))
    }

    /// Milliseconds since the start.
    fn since_start(&self, now: Duration) -> u64 {
        u64::try_from(now.saturating_sub(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whose key a request carries.
    pub(crate) fn caller(&self, call: &Call) -> Caller {
        match (self.keys.index(call), call.headers.contains_key("x-api-key")) {
            (Some(_), _) => Caller::Known,
            (None, true) => Caller::WrongKey,
            (None, false) => Caller::NoKey,
        }
    }

    /// Refuses a request whose key is wrong or missing, in the words of its route.
    pub(crate) fn refuse_stranger(&self, call: &Call, words: &str) -> Option<Answer> {
        let status = match self.caller(call) {
            Caller::Known => return None,
            Caller::WrongKey if self.settings.wrong_key_is_401 => StatusCode::UNAUTHORIZED,
            Caller::WrongKey | Caller::NoKey => StatusCode::FORBIDDEN,
        };
        Some(Answer::detail(status, words))
    }

    pub(crate) fn knows_workflow(&self, id: Uuid) -> bool {
        self.settings.any_workflow || self.settings.workflows.contains(&id)
    }

    pub(crate) fn stats(&self) -> Stats {
        let is_commit = |due: &&Due| matches!(due, Due::Commit { .. });
        let is_arrival = |due: &&Due| matches!(due, Due::Arrival { .. });
        let (late, abandoned) =
            (self.agenda.pending().filter(is_commit).count(), self.agenda.pending().filter(is_arrival).count());
        let [sent, delivered, given_up, dropped] = self.outbox.counts();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Stats {
            peak: self.limiter.peaks(),
            late_commits_pending: count(late),
            abandoned_pending: count(abandoned),
            webhooks_sent: sent,
            webhooks_delivered: delivered,
            webhooks_given_up: given_up,
            webhooks_dropped: dropped,
            ..self.book.stats.clone()
        }
    }

    pub(crate) fn journal(&self) -> Vec<JournalEntry> {
        self.journal.entries()
    }
}

impl Outcome {
    pub(crate) fn at_once(answer: Answer) -> Self {
        Self { reply: Reply::Answer(answer), delay: Duration::ZERO, manner: Manner::default() }
    }
}

impl Keys {
    fn index(&self, call: &Call) -> Option<usize> {
        let given = call.headers.get("x-api-key")?.as_bytes();
        self.0.iter().position(|key| key.as_bytes() == given)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// What a client gets in place of the answer, and how much later.
fn end(ending: Ending, work: Work, delay: &mut Duration) -> Reply {
    match ending {
        Ending::Drop => Reply::Lost(work),
        Ending::Silence => {
            *delay = delay.saturating_add(Fault::LONGEST_DELAY);
            Reply::Lost(work)
        }
        Ending::Status(code) => Reply::Answer(faulted::status(code, None)),
    }
}

fn odd_limits(settings: &Settings) -> OddLimits {
    OddLimits::new(settings.sandbox_quota, settings.phone_attempts, settings.import_time)
}

/// The latency's own sequence, so that the number of identifiers drawn does not shift it.
fn latency_rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(!seed)
}

/// The list delays' own sequence, for the same reason.
fn list_delay_rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed.rotate_left(16) ^ 0x6c69_7374)
}

fn neighbours(settings: &Settings, now: Duration) -> Vec<Arrivals> {
    let arrivals =
        |(neighbour, number)| Arrivals::new(neighbour, &settings.routes, settings.seed.wrapping_add(number), now);
    settings.neighbours.iter().zip(0..).filter_map(arrivals).collect()
}

/// A header for the journal, cut to a length that cannot fill the memory.
fn noted(call: &Call, name: &str) -> Option<String> {
    call.text(name).map(|text| text.chars().take(256).collect())
}
