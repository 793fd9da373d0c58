//! Didit's reconciliation: session creations are looked up, the rest is decided by the route's class.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use didit_api::{
    Endpoint, RetryClass, Routes,
    shapes::{Decision, ListSessions, SessionKind, SessionPage, SessionRow},
};
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::{Doubt, Found, Lookup, LookupFailed, LookupFuture, Reconcile, Undecided, Verdict, created_at};
use crate::{
    error::{ConfigError, check_duration},
    idempotency::store::Timestamp,
};

/// Finds out what became of calls to Didit.
///
/// | class of the route | verdict |
/// |---|---|
/// | `VendorData`: session creation with a `vendor_data` | looked up: see below |
/// | `Safe`, `Idempotent`, `BodyId` | [`Harmless`](Verdict::Harmless) |
/// | `IdempotencyKey` | harmless for [`KEY_KEPT`](Self::KEY_KEPT) after it was first sent, undecided later |
/// | `Unsafe`, session creation without `vendor_data` | [`Undecided`](Verdict::Undecided) |
///
/// # Session creation
///
/// `GET /v3/sessions/?vendor_data=…&workflow_id=…` is asked after 2 s, and again and again if nothing shows, because
/// neither Didit's list nor a commit that outlived its connection has to be there at once: Didit does not say how long
/// either takes. Nothing counts as absent until the route's attempt timeout has passed, 30 s; see [how far that
/// goes](super#how-far-absent-goes). A session counts if it was made since the call may have been sent for the first
/// time, by Didit's own clock (`Date`). How long ago that is, is measured by this side's, which must not be set back
/// over a restart; those of processes that share a store must not differ by more than a second or two. If the call
/// seems to be still to come, because it was sent by a clock that is ahead, everything of the last minute may have been
/// made since, and if they differ by more than that, everything there is: that is enough to find a session by its
/// metadata, or to find none, and otherwise it is [undecided](Undecided::Clocks).
///
/// - If the request's `metadata` has a string `operation_id`, each is asked for its `metadata`, and only the one with
///   the same id is the one. So are the three before them, because Didit may have answered with an unfinished session
///   and given it the new metadata. If all that were made since have other ids, it is [undecided](Undecided::Renamed):
///   one of them may have been this call's before another call was answered with it.
/// - Otherwise those are left out that the store knows for another operation's. The only one that is left is the one,
///   and several are [undecided](Undecided::Several).
///
/// # One `vendor_data` for all that one person does
///
/// Then several sessions have the same one on purpose, and while one of them is unfinished Didit answers every creation
/// with it. With an `operation_id` in the `metadata` each operation finds its own in all of these cases. Without one:
///
/// | what there is | what is answered | why |
/// |---|---|---|
/// | sessions made before the call | absent, and the call is sent again | they are not its own; if one is unfinished, Didit answers with it, as it would have the first time |
/// | one made since, and nobody's | it is adopted | it is what came of the call, or what Didit would answer it with now |
/// | one made since, by another operation in the store | absent, and the call is sent again | at most the call was answered with the other's: sent again, it is again, or gets its first own |
/// | one made since by another in the store, and one that is nobody's | the second is adopted | as if the first were not there |
/// | one made since, and nobody's, where the id of another operation's session could not be read | [undecided](Undecided::Unread) | it may be that one |
/// | several made since, and nobody's | [undecided](Undecided::Several) | nothing tells them apart |
///
/// So two operations share a session if Didit said so, or if their `metadata` does, and never by a guess of this
/// side's. A guess is wrong only if something else than this store's operations makes sessions for the person in the
/// same seconds, or an operation of this store whose own answer is still on its way; and only as long as the store
/// remembers an operation, a day [by default](crate::idempotency::store::Retention). Who cannot live with that gives
/// each operation an `operation_id` in its `metadata`, or a `vendor_data` of its own.
///
/// # What an adopted session looks like
///
/// 201 with a JSON body of `session_id`, `session_number`, `status`, `vendor_data`, `workflow_id`, `created_at`, and
/// what else the look-up shows: `url` (the list's `session_url`) and, if the decision was asked, `metadata`. There is
/// **no** `session_token` and no `callback`: Didit shows the token in the answer to a creation only.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_didit::idempotency::{IdempotencyLayer, reconcile::DiditReconcile, store::MemoryStore};
///
/// // Rather wait two minutes than have a second session.
/// let reconcile = DiditReconcile::new().absent_after(Duration::from_secs(120))?;
/// let layer = IdempotencyLayer::new().store(MemoryStore::new()).reconcile(reconcile);
/// # Ok::<(), tower_didit::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct DiditReconcile {
    routes: Arc<Routes>,
    /// `None` for the route's attempt timeout.
    absent_after: Option<Duration>,
}

/// When to look for the first time: 2 s. Reads at Didit are answered within a second, and a session whose connection
/// broke is usually there by then.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// How many sessions are asked for, and compared; Didit's default page.
const PAGE: u32 = 50;

/// How many of those made since are asked for their metadata: each is one request of the global read quota.
const DECISIONS: usize = 10;

/// How many of those made before are asked, newest first: the one that was open when the call was made is among them,
/// unless a person has more than one open session.
const OLDER: usize = 3;

/// `Date` counts whole seconds, and rounds down.
const DATE_GRAIN: Duration = Duration::from_secs(2);

/// How far the clocks of those who share a store are taken to differ at most: a minute. NTP keeps them within a second,
/// so one that is further off was never set, or has been set back.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

// ===== impl DiditReconcile =====

impl DiditReconcile {
    /// How long Didit is taken to remember an `Idempotency-Key`: a day. It does not say.
    pub const KEY_KEPT: Duration = Duration::from_secs(86_400);

    /// The longest time until something counts as absent: an hour.
    pub const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

    /// Takes a session for absent if none shows within the attempt timeout of the route: 30 s.
    pub fn new() -> Self {
        Self { routes: Routes::didit(), absent_after: None }
    }

    /// Reads the classes from these routes.
    #[must_use]
    pub fn routes(mut self, routes: Arc<Routes>) -> Self {
        self.routes = routes;
        self
    }

    /// Takes a session for absent if none shows for so long. One that is made later still is missed, and may be made
    /// [twice](super#how-far-absent-goes); meanwhile somebody is waiting for the call.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Duration`] beyond [`LONGEST_WAIT`](Self::LONGEST_WAIT).
    pub fn absent_after(mut self, time: Duration) -> Result<Self, ConfigError> {
        self.absent_after = Some(check_duration("absent_after", time, Duration::ZERO, Self::LONGEST_WAIT)?);
        Ok(self)
    }

    /// How long nothing counts as absent.
    fn patience(&self, endpoint: Option<&Endpoint>) -> Duration {
        let timeout = endpoint.map_or(Endpoint::DEFAULT_TIMEOUT, Endpoint::attempt_timeout);
        self.absent_after.unwrap_or(timeout).min(Self::LONGEST_WAIT)
    }

    async fn decide(&self, doubt: &Doubt, lookup: &mut dyn Lookup) -> Verdict {
        let endpoint = self.routes.find(&doubt.method, doubt.uri.path()).map(|id| self.routes.get(id));
        match endpoint.map_or_else(|| RetryClass::of_method(&doubt.method), Endpoint::retry_class) {
            RetryClass::Safe | RetryClass::Idempotent | RetryClass::BodyId => Verdict::Harmless,
            RetryClass::IdempotencyKey if doubt.now.since(doubt.since) < Self::KEY_KEPT => Verdict::Harmless,
            RetryClass::IdempotencyKey => Verdict::Undecided(Undecided::TooOld),
            RetryClass::VendorData => find_session(doubt, self.patience(endpoint), lookup).await,
            // `RetryClass` may grow; what is not understood is not decided.
            _ => Verdict::Undecided(Undecided::NoTrace),
        }
    }
}

/// Looks until something shows or `patience` is over: each pause is as long as all before it, and the last look is at
/// the end.
async fn find_session(doubt: &Doubt, patience: Duration, lookup: &mut dyn Lookup) -> Verdict {
    let Some(body) = &doubt.body else { return Verdict::Undecided(Undecided::NoBody) };
    let Some(wanted) = Wanted::read(body) else { return Verdict::Undecided(Undecided::NoTrace) };
    let (start, mut next) = (Instant::now(), FIRST_LOOK.min(patience));
    loop {
        sleep_until(start + next).await;
        let elapsed = start.elapsed();
        match wanted.look(&Sent::read(doubt, elapsed), doubt.now.plus(elapsed), lookup).await {
            Ok(None) if next >= patience => return Verdict::Absent,
            Ok(None) => next = (next * 2).min(patience),
            Ok(Some(verdict)) => return verdict,
            Err(undecided) => return Verdict::Undecided(undecided),
        }
    }
}

impl Default for DiditReconcile {
    fn default() -> Self {
        Self::new()
    }
}

impl Reconcile for DiditReconcile {
    fn reconcile<'a>(&'a self, doubt: &'a Doubt, lookup: &'a mut dyn Lookup) -> LookupFuture<'a, Verdict> {
        Box::pin(self.decide(doubt, lookup))
    }

    fn waits(&self) -> Duration {
        let looked_up = self.routes.iter().filter(|(_, endpoint)| endpoint.retry_class() == RetryClass::VendorData);
        let longest = looked_up.map(|(_, endpoint)| self.patience(Some(endpoint))).max();
        longest.unwrap_or_else(|| self.patience(None))
    }
}

/// How long ago the call may have been sent for the first time.
struct Sent {
    /// At most so long.
    ago: Duration,
    /// Whether it is that, and not only the most that clocks may differ.
    is_known: bool,
}

impl Sent {
    /// So long after the call was found in doubt.
    fn read(doubt: &Doubt, elapsed: Duration) -> Self {
        // More than nothing if somebody else's clock is ahead, or this one was set back.
        let ahead = doubt.since.since(doubt.now);
        let before = match ahead {
            Duration::ZERO => doubt.now.since(doubt.since),
            _ if ahead <= CLOCKS_DIFFER => CLOCKS_DIFFER,
            _ => Duration::MAX,
        };
        Self { ago: before.saturating_add(elapsed), is_known: ahead.is_zero() }
    }
}

/// By what a session would be recognised.
struct Wanted {
    workflow_id: Option<String>,
    vendor_data: String,
    operation_id: Option<String>,
}

impl Wanted {
    /// `None` if the request names nothing that a session can be found by.
    fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Request {
            workflow_id: Option<String>,
            vendor_data: Option<String>,
            metadata: Option<Value>,
        }

        let request: Request = serde_json::from_slice(body).ok()?;
        Some(Self {
            workflow_id: request.workflow_id,
            vendor_data: request.vendor_data.filter(|vendor_data| !vendor_data.is_empty())?,
            operation_id: request.metadata.as_ref().and_then(operation_id),
        })
    }

    /// One look; `None` if nothing shows.
    async fn look(&self, sent: &Sent, now: Timestamp, lookup: &mut dyn Lookup) -> Result<Option<Verdict>, Undecided> {
        let mut list = ListSessions::default();
        list.session_kind = Some(SessionKind::All);
        list.limit = Some(PAGE);
        list.vendor_data = Some(self.vendor_data.clone());
        list.workflow_id.clone_from(&self.workflow_id);
        let response = get(lookup, &format!("/v3/sessions/?{}", list.to_query())).await?;
        let server_now = date(&response).unwrap_or(now);
        let oldest = sent.ago.saturating_add(DATE_GRAIN);
        let page: SessionPage = serde_json::from_slice(response.body()).map_err(|_| Undecided::LookupFailed)?;
        let is_candidate = |row: &SessionRow| {
            // A session that does not say when it was made may have been made since.
            let made = row.created_at.as_deref().and_then(created_at::parse);
            made.is_none_or(|made| server_now.since(made) <= oldest)
        };
        let (since, older): (Vec<_>, Vec<_>) = page.results.into_iter().partition(is_candidate);
        if let Some(operation) = &self.operation_id {
            return self.ask_each(operation, &since, &older, lookup).await;
        }
        let mut free = Vec::new();
        for row in since {
            let id = id_of(&row)?;
            if !lookup.is_anothers(id).await.map_err(|LookupFailed| Undecided::LookupFailed)? {
                free.push(row);
            }
        }
        if free.is_empty() {
            return Ok(None);
        }
        if lookup.has_unread(&self.vendor_data).await.map_err(|LookupFailed| Undecided::LookupFailed)? {
            return Err(Undecided::Unread);
        }
        match free.as_slice() {
            _ if !sent.is_known => Err(Undecided::Clocks),
            [row] => Ok(Some(Verdict::Found(self.found(row, None).by_elimination()))),
            rows => Err(Undecided::Several { candidates: rows.len() }),
        }
    }

    /// Finds the session that carries the operation's id in its metadata.
    async fn ask_each(
        &self,
        operation: &str,
        since: &[SessionRow],
        older: &[SessionRow],
        lookup: &mut dyn Lookup,
    ) -> Result<Option<Verdict>, Undecided> {
        if since.len() > DECISIONS {
            return Err(Undecided::Several { candidates: since.len() });
        }
        for row in since.iter().chain(older.iter().take(OLDER)) {
            let id = id_of(row)?;
            let response = get(lookup, &format!("/v3/session/{id}/decision/")).await?;
            let decision: Decision = serde_json::from_slice(response.body()).map_err(|_| Undecided::LookupFailed)?;
            if decision.metadata.as_ref().and_then(operation_id).as_deref() == Some(operation) {
                return Ok(Some(Verdict::Found(self.found(row, decision.metadata))));
            }
        }
        if since.is_empty() { Ok(None) } else { Err(Undecided::Renamed) }
    }

    fn found(&self, row: &SessionRow, metadata: Option<Value>) -> Found {
        let mut body = Map::new();
        let known = [
            ("session_id", Some(json!(row.session_id))),
            ("session_number", row.session_number.map(Value::from)),
            ("status", Some(json!(row.status))),
            ("vendor_data", Some(json!(self.vendor_data))),
            ("workflow_id", self.workflow_id.clone().map(Value::from)),
            ("created_at", row.created_at.clone().map(Value::from)),
            ("url", row.session_url.as_ref().map(|url| json!(url.expose()))),
            ("metadata", metadata),
        ];
        body.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        let id = Uuid::try_parse(&row.session_id).ok();
        Found::new(StatusCode::CREATED, id, Value::Object(body).to_string().into())
    }
}

/// What stands in a path, and is asked for in a store: a UUID or nothing.
fn id_of(row: &SessionRow) -> Result<Uuid, Undecided> {
    Uuid::try_parse(&row.session_id).map_err(|_| Undecided::LookupFailed)
}

fn operation_id(metadata: &Value) -> Option<String> {
    metadata.get("operation_id").and_then(Value::as_str).map(str::to_owned)
}

async fn get(lookup: &mut dyn Lookup, target: &str) -> Result<Response<Bytes>, Undecided> {
    match lookup.get(target).await {
        Ok(response) if response.status() == StatusCode::OK => Ok(response),
        Ok(_) | Err(_) => Err(Undecided::LookupFailed),
    }
}

/// When the server says it is.
fn date(response: &Response<Bytes>) -> Option<Timestamp> {
    let date = response.headers().get(http::header::DATE)?.to_str().ok()?;
    let date = httpdate::parse_http_date(date).ok()?;
    let since_epoch = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::default().plus(since_epoch))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use http::{HeaderMap, Method, Uri};

    use super::*;

    /// What Didit has: sessions as (id, made so many seconds after the intent, `operation_id` in its metadata).
    struct Didit {
        sessions: Vec<(u8, i64, Option<&'static str>)>,
        date: Option<&'static str>,
        asked: Vec<String>,
        failing: HashMap<&'static str, u16>,
        /// The sessions that the store knows for other operations'.
        others: Vec<u8>,
    }

    impl Didit {
        fn with(sessions: &[(u8, i64, Option<&'static str>)]) -> Self {
            Self {
                sessions: sessions.to_vec(),
                date: None,
                asked: Vec::new(),
                failing: HashMap::new(),
                others: Vec::new(),
            }
        }

        fn answer(&self, target: &str) -> Value {
            let id = |number: u8| Uuid::from_bytes([number; 16]).to_string();
            if target.starts_with("/v3/sessions/") {
                let row = |(number, made, _): &(u8, i64, _)| {
                    let second = u64::try_from(10 + made).unwrap();
                    let created_at = format!("2026-01-31T12:00:{second:02}.500000+00:00");
                    let url = format!("https://verify.didit.me/session/token{number}");
                    json!({
                        "session_id": id(*number), "session_url": url, "status": "In Progress",
                        "vendor_data": "user 7", "created_at": created_at,
                    })
                };
                return json!({ "count": 1, "results": self.sessions.iter().map(row).collect::<Vec<_>>() });
            }
            let session = self.sessions.iter().find(|(number, ..)| target.contains(&id(*number))).unwrap();
            json!({ "session_id": id(session.0), "status": "In Progress", "metadata": { "operation_id": session.2 } })
        }
    }

    impl Lookup for Didit {
        fn get<'a>(&'a mut self, target: &'a str) -> LookupFuture<'a, Result<Response<Bytes>, LookupFailed>> {
            self.asked.push(target.to_owned());
            let failing = self.failing.iter().find(|(part, _)| target.contains(**part));
            let mut response = Response::builder().status(failing.map_or(200, |(_, status)| *status));
            if let Some(date) = self.date {
                response = response.header("date", date);
            }
            let response = response.body(self.answer(target).to_string().into()).unwrap();
            Box::pin(async move { Ok(response) })
        }

        fn is_anothers(&mut self, id: Uuid) -> LookupFuture<'_, Result<bool, LookupFailed>> {
            let known = self.others.iter().any(|number| Uuid::from_bytes([*number; 16]) == id);
            Box::pin(async move { Ok(known) })
        }
    }

    /// An intent of 12:00:10, asked about at 12:00:15.
    fn doubt(path: &'static str, body: Option<&'static str>) -> Doubt {
        let at = |text: &str| created_at::parse(text).unwrap();
        Doubt {
            method: Method::POST,
            uri: Uri::from_static(path),
            headers: HeaderMap::new(),
            body: body.map(Bytes::from),
            operation_id: None,
            since: at("2026-01-31T12:00:10Z"),
            now: at("2026-01-31T12:00:15Z"),
        }
    }

    async fn ask(didit: &mut Didit, operation: Option<&'static str>) -> Verdict {
        let body = match operation {
            Some(_) => r#"{"workflow_id":"W","vendor_data":"user 7","metadata":{"operation_id":"op-1"}}"#,
            None => r#"{"workflow_id":"W","vendor_data":"user 7"}"#,
        };
        let doubt = doubt("/v3/session/", Some(body));
        DiditReconcile::new().reconcile(&doubt, didit).await
    }

    fn found(verdict: Verdict) -> Value {
        let Verdict::Found(found) = verdict else { panic!("{verdict:?}") };
        assert!(!format!("{found:?}").contains("token"));
        serde_json::from_slice(&found.body).unwrap()
    }

    fn undecided(verdict: Verdict) -> Undecided {
        match verdict {
            Verdict::Undecided(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_session_made_since_is_the_one() {
        let mut didit = Didit::with(&[(2, 1, None), (1, -9, None)]);
        let body = found(ask(&mut didit, None).await);
        assert_eq!(body["session_id"], Uuid::from_bytes([2; 16]).to_string());
        assert_eq!(
            (body["url"].as_str().unwrap(), body.get("session_token")),
            ("https://verify.didit.me/session/token2", None)
        );
        assert_eq!(didit.asked, ["/v3/sessions/?session_kind=all&limit=50&vendor_data=user%207&workflow_id=W"]);
    }

    #[tokio::test(start_paused = true)]
    async fn several_made_since_cannot_be_told_apart_without_a_marker() {
        let mut didit = Didit::with(&[(3, 2, None), (2, 1, None)]);
        assert_eq!(undecided(ask(&mut didit, None).await), Undecided::Several { candidates: 2 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_marker_tells_them_apart_and_finds_one_that_was_handed_out_again() {
        for sessions in [&[(3, 2, Some("op-2")), (2, 1, Some("op-1"))][..], &[(3, -5, None), (2, -9, Some("op-1"))]] {
            let body = found(ask(&mut Didit::with(sessions), Some("op-1")).await);
            assert_eq!(body["session_id"], Uuid::from_bytes([2; 16]).to_string(), "{sessions:?}");
            assert_eq!(body["metadata"]["operation_id"], "op-1");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_made_since_under_another_name_may_have_been_renamed() {
        let mut didit = Didit::with(&[(2, 1, Some("op-2"))]);
        assert_eq!(undecided(ask(&mut didit, Some("op-1")).await), Undecided::Renamed);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_made_since_is_absent_after_every_look() {
        for operation in [None, Some("op-1")] {
            let start = Instant::now();
            let mut didit = Didit::with(&[(1, -9, Some("op-0"))]);
            assert!(matches!(ask(&mut didit, operation).await, Verdict::Absent));
            // After 2, 4, 8, 16 and 30 s, the attempt timeout of the route.
            assert_eq!(didit.asked.iter().filter(|target| target.starts_with("/v3/sessions/")).count(), 5);
            assert_eq!(start.elapsed().as_secs(), 30);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_servers_clock_says_how_old_a_session_is() {
        // It is a minute slow: what it made 4 s ago stands there as made before the intent.
        let mut didit = Didit::with(&[(2, 1, None)]);
        didit.date = Some("Sat, 31 Jan 2026 11:59:17 GMT");
        assert!(matches!(ask(&mut didit, None).await, Verdict::Found(_)));
        // It is a minute fast.
        didit.date = Some("Sat, 31 Jan 2026 12:01:17 GMT");
        assert!(matches!(ask(&mut didit, None).await, Verdict::Absent));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_by_a_clock_that_is_ahead_is_found_by_its_marker_and_never_by_elimination() {
        const UNMARKED: &str = r#"{"workflow_id":"W","vendor_data":"user 7"}"#;
        const MARKED: &str = r#"{"workflow_id":"W","vendor_data":"user 7","metadata":{"operation_id":"op-1"}}"#;
        // One session, of four seconds ago or of five minutes ago.
        let (fresh, old) = ("Sat, 31 Jan 2026 12:00:17 GMT", "Sat, 31 Jan 2026 12:05:12 GMT");
        let cases = [
            (30, UNMARKED, fresh, Some(Undecided::Clocks)),
            (3_600, UNMARKED, old, Some(Undecided::Clocks)),
            // Longer ago than clocks differ.
            (30, UNMARKED, old, None),
            (30, MARKED, fresh, None),
            (3_600, MARKED, old, None),
        ];
        for (ahead, body, date, why) in cases {
            let mut doubt = doubt("/v3/session/", Some(body));
            doubt.since = doubt.now.plus(Duration::from_secs(ahead));
            let mut didit = Didit::with(&[(2, 1, Some("op-1"))]);
            didit.date = Some(date);
            match (DiditReconcile::new().reconcile(&doubt, &mut didit).await, why) {
                (Verdict::Undecided(given), Some(why)) => assert_eq!(given, why, "{ahead} {date}"),
                (Verdict::Absent, None) => assert_eq!(body, UNMARKED, "{ahead} {date}"),
                (Verdict::Found(found), None) => assert!(body == MARKED && !found.inferred, "{ahead} {date}"),
                (verdict, _) => panic!("{ahead} {date}: {verdict:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_fails_decides_nothing() {
        for part in ["/v3/sessions/", "/decision/"] {
            let mut didit = Didit::with(&[(2, 1, Some("op-1"))]);
            didit.failing.insert(part, 403);
            assert_eq!(undecided(ask(&mut didit, Some("op-1")).await), Undecided::LookupFailed, "{part}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_calls_are_decided_by_their_class() {
        let mut didit = Didit::with(&[]);
        let reconcile = DiditReconcile::new();
        for path in ["/v3/aml/", "/v3/transactions/"] {
            let verdict = reconcile.reconcile(&doubt(path, None), &mut didit).await;
            assert!(matches!(verdict, Verdict::Harmless), "{path}: {verdict:?}");
        }
        let mut old = doubt("/v3/aml/", None);
        old.now = old.since.plus(DiditReconcile::KEY_KEPT);
        assert_eq!(undecided(reconcile.reconcile(&old, &mut didit).await), Undecided::TooOld);
        let cases = [
            ("/v3/face-match/", Some("{}"), Undecided::NoTrace),
            ("/unknown/", Some("{}"), Undecided::NoTrace),
            ("/v3/session/", None, Undecided::NoBody),
            ("/v3/session/", Some(r#"{"workflow_id":"W"}"#), Undecided::NoTrace),
            ("/v3/session/", Some(r#"{"vendor_data":""}"#), Undecided::NoTrace),
            ("/v3/session/", Some("not json"), Undecided::NoTrace),
        ];
        for (path, body, why) in cases {
            let verdict = reconcile.reconcile(&doubt(path, body), &mut didit).await;
            assert_eq!(undecided(verdict), why, "{path} {body:?}");
        }
        assert!(didit.asked.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_store_knows_for_anothers_is_not_adopted_without_a_marker() {
        let cases: [(&[u8], &[u8], Option<u8>); 4] =
            [(&[2], &[2], None), (&[3, 2], &[2], Some(3)), (&[3, 2], &[3], Some(2)), (&[3, 2], &[3, 2], None)];
        for (made, others, expected) in cases {
            let sessions: Vec<_> = made.iter().map(|number| (*number, 1, None)).collect();
            let mut didit = Didit::with(&sessions);
            didit.others = others.to_vec();
            match (ask(&mut didit, None).await, expected) {
                (Verdict::Found(found), Some(number)) => {
                    assert_eq!((found.session_id, found.inferred), (Some(Uuid::from_bytes([number; 16])), true));
                }
                (verdict, expected) => {
                    assert!(
                        matches!((&verdict, expected), (Verdict::Absent, None)),
                        "{made:?} {others:?}: {verdict:?}"
                    );
                }
            }
        }
        // With a marker it is the server that says whose it is, and Didit lets operations share.
        let mut didit = Didit::with(&[(2, 1, Some("op-1"))]);
        didit.others = vec![2];
        assert!(matches!(ask(&mut didit, Some("op-1")).await, Verdict::Found(found) if !found.inferred));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_until_something_is_absent_can_be_set() {
        for (seconds, looks) in [(0, 1), (1, 1), (2, 1), (3, 2), (120, 7)] {
            let reconcile = DiditReconcile::new().absent_after(Duration::from_secs(seconds)).unwrap();
            let (start, mut didit) = (Instant::now(), Didit::with(&[]));
            let doubt = doubt("/v3/session/", Some(r#"{"vendor_data":"user 7"}"#));
            assert!(matches!(reconcile.reconcile(&doubt, &mut didit).await, Verdict::Absent));
            assert_eq!((start.elapsed().as_secs(), didit.asked.len()), (seconds, looks));
            assert_eq!(reconcile.waits().as_secs(), seconds);
        }
        let beyond = DiditReconcile::new().absent_after(DiditReconcile::LONGEST_WAIT + Duration::from_secs(1));
        assert!(matches!(beyond, Err(ConfigError::Duration { .. })));
    }
}
