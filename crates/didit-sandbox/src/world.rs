//! The whole state of a sandbox and what a request does to it: synchronous, with the time as an argument.

use std::{sync::Arc, time::Duration};

use didit_api::Routes;
use http::{StatusCode, header};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;
use uuid::Uuid;

use crate::{
    answer::{self, Answer},
    builder::Settings,
    call::Call,
    faults::{Fault, Plans},
    ids::Ids,
    journal::{Journal, JournalEntry},
    limiter::Limiter,
    replays::Replays,
    resolve::{Params, Resolved, resolve},
    routes::Handler,
    sessions::Sessions,
    stats::{Book, Stats},
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
    keys: Keys,
    handlers: Arc<[Handler]>,
    limiter: Limiter,
    plans: Plans,
    journal: Journal,
    latency: StdRng,
    started: Duration,
}

/// What comes of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) reply: Reply,
    /// How much later than usual the answer comes.
    pub(crate) delay: Duration,
}

/// An answer, or none.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Answer),
    Lost { work_done: bool },
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
            keys: Keys(keys),
            handlers,
            limiter,
            plans: Plans::new(&settings.faults, settings.seed),
            journal: Journal::new(settings.journal_capacity),
            latency: latency_rng(settings.seed),
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
        self.limiter = self.limiter.cleared(&self.settings.routes);
        self.plans = Plans::new(&self.settings.faults, self.settings.seed);
        self.journal = Journal::new(self.settings.journal_capacity);
        self.latency = latency_rng(self.settings.seed);
        self.started = now;
    }

    /// Draws the time before and after the arrival of a request.
    pub(crate) fn draw_latency(&mut self) -> (Duration, Duration) {
        self.settings.latency.draw(&mut self.latency)
    }

    /// Counts a request, lets go wrong what is due to, and does the work.
    pub(crate) fn arrive(&mut self, now: Duration, call: &Call) -> Outcome {
        let routes = Arc::clone(&self.settings.routes);
        let resolved = resolve(&routes, &call.method, call.path(), call.uri.query());
        let name = match &resolved {
            Resolved::Endpoint(id, _) => routes.get(*id).name(),
            Resolved::Redirect(_) => "redirect",
            Resolved::OtherMethods(_) | Resolved::Unknown => "unknown",
        };
        let mut entry = JournalEntry {
            at_ms: u64::try_from(now.saturating_sub(self.started).as_millis()).unwrap_or(u64::MAX),
            method: call.method.to_string(),
            route: name.to_owned(),
            correlation_id: noted(call, "x-correlation-id"),
            idempotency_key: noted(call, "idempotency-key"),
            ..JournalEntry::default()
        };
        if let Resolved::Endpoint(_, Params { session: Some(session) }) = &resolved {
            entry.session_id = Some(session.to_string());
        }
        self.book.arrived(name);
        let outcome = match self.admit(now, call, &resolved) {
            Some(refusal) => {
                self.book.stats.throttled += 1;
                Outcome::at_once(refusal)
            }
            None => {
                self.book.stats.accepted += 1;
                self.serve(now, call, &routes, resolved, &mut entry)
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
        self.limiter.arrive(now, key, endpoint, &call.method).err().map(|throttled| answer::throttled(&throttled))
    }

    fn serve(
        &mut self,
        now: Duration,
        call: &Call,
        routes: &Routes,
        resolved: Resolved,
        entry: &mut JournalEntry,
    ) -> Outcome {
        let plan = self.plans.plan(&entry.route, &call.method);
        if plan.delay.is_some() {
            self.note_fault("delay", entry);
        }
        if let Some(fault) = &plan.fault {
            self.note_fault(fault.kind(), entry);
        }
        let work = || {
            let answer = match resolved {
                Resolved::Endpoint(id, params) => {
                    let handler = self.handlers.get(id.index()).copied().unwrap_or_default();
                    handler.answer(self, now, call, routes.get(id), params)
                }
                Resolved::Redirect(to) => answer::moved(&to),
                Resolved::OtherMethods(allowed) => answer::method_not_allowed(&call.method, &allowed),
                Resolved::Unknown => answer::not_found(),
            };
            if let Some(session) = answer.session {
                entry.session_id = Some(session.to_string());
            }
            answer
        };
        let reply = match plan.fault {
            None | Some(Fault::Delay(_)) => Reply::Answer(work()),
            Some(Fault::Status { code, retry_after }) => Reply::Answer(faulted(code, retry_after)),
            Some(Fault::ResetBeforeWork) => Reply::Lost { work_done: false },
            Some(Fault::WorkThenDrop) => {
                work();
                Reply::Lost { work_done: true }
            }
        };
        Outcome { reply, delay: plan.delay.unwrap_or_default() }
    }

    fn note_fault(&mut self, kind: &str, entry: &mut JournalEntry) {
        self.book.faulted(kind);
        entry.fault = Some(kind.to_owned());
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
        Stats { peak: self.limiter.peaks(), ..self.book.stats.clone() }
    }

    pub(crate) fn journal(&self) -> Vec<JournalEntry> {
        self.journal.entries()
    }
}

impl Outcome {
    fn at_once(answer: Answer) -> Self {
        Self { reply: Reply::Answer(answer), delay: Duration::ZERO }
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

/// The latency's own sequence, so that the number of identifiers drawn does not shift it.
fn latency_rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(!seed)
}

/// A header for the journal, cut to a length that cannot fill the memory.
fn noted(call: &Call, name: &str) -> Option<String> {
    call.text(name).map(|text| text.chars().take(256).collect())
}

/// The answer of a status fault: JSON where Didit itself would speak, a page where what stands before it would.
fn faulted(code: StatusCode, retry_after: Option<u64>) -> Answer {
    let reason = code.canonical_reason().unwrap_or("Error");
    let answer = match code.as_u16() {
        429 => {
            let seconds = retry_after.unwrap_or(1);
            let text = format!("Request was throttled. Expected available in {seconds} seconds.");
            Answer::detail(code, &text)
        }
        500 => Answer::of_type(code, "text/html", "<h1>Server Error (500)</h1>".into()),
        502..=504 => {
            let page = format!("<html><body><h1>{} {reason}</h1></body></html>", code.as_u16());
            Answer::of_type(code, "text/html", page.into())
        }
        _ => Answer::json(code, &json!({ "detail": reason })),
    };
    match retry_after {
        Some(seconds) => answer.header(header::RETRY_AFTER, &seconds.to_string()),
        None => answer,
    }
}
