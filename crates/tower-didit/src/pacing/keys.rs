//! One ledger for each credential: limits are per credential, so that two must never slow one another.

use std::{
    collections::HashMap,
    fmt,
    hash::Hasher,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderName};
use siphasher::sip128::{Hasher128, SipHasher13};
use tokio::time::Instant;

use super::pacer::{Config, Pacer};

/// Stands for a credential, which cannot be read back from it: a hash under a random key (SipHash-1-3, 128 bits).
///
/// The same in all clones of a layer, and in a process that restored its [snapshot](super::PacingSnapshot).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct KeyId([u64; 2]);

/// Finds a credential among headers.
type Find = dyn Fn(&HeaderMap) -> Option<&[u8]> + Send + Sync;

/// Where a request's credential is found.
#[derive(Clone)]
pub(super) enum Credential {
    /// In a header.
    Header(HeaderName),
    /// Where the user knows.
    Of(Arc<Find>),
}

/// The ledgers of a layer.
#[derive(Debug)]
pub(super) struct Keys {
    hasher: SipHasher13,
    hash_key: [u64; 2],
    credential: Credential,
    most: usize,
    config: Arc<Config>,
    // The first to be seen stays for good and is found without a lock: most processes have but one.
    first: OnceLock<Arc<Pacer>>,
    others: Mutex<Others>,
}

#[derive(Debug, Default)]
struct Others {
    pacers: HashMap<KeyId, Arc<Pacer>>,
    // How many there may be before somebody looks who is idle.
    look_at: usize,
    // As of when there was no room, and when there is as far as is known.
    full: Option<(Instant, Instant)>,
}

// ===== impl KeyId =====

impl KeyId {
    /// Requests without a credential.
    pub const NONE: Self = Self([0; 2]);
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

// ===== impl Credential =====

impl Credential {
    fn of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        match self {
            Self::Header(name) => headers.get(name).map(http::HeaderValue::as_bytes),
            Self::Of(find) => find(headers),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "Header({name})"),
            Self::Of(_) => f.write_str("Of(..)"),
        }
    }
}

// ===== impl Keys =====

impl Keys {
    /// Idle ledgers are dropped when there are twice as many as the last time; not before there are this many.
    const FEW: usize = 16;

    /// While there is no room, how long nobody looks again who is idle: it takes a walk over all ledgers.
    const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

    pub(super) fn new(credential: Credential, hash_key: [u64; 2], most: usize, config: Arc<Config>) -> Self {
        Self {
            hasher: SipHasher13::new_with_keys(hash_key[0], hash_key[1]),
            hash_key,
            credential,
            most,
            config,
            first: OnceLock::new(),
            others: Mutex::default(),
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn hash_key(&self) -> [u64; 2] {
        self.hash_key
    }

    /// Puts a ledger where nobody was yet.
    pub(super) fn put(&self, pacer: Pacer) {
        let pacer = Arc::new(pacer);
        if let Err(pacer) = self.first.set(pacer) {
            self.others().pacers.insert(pacer.key(), pacer);
        }
    }

    /// The ledger for a request's credential, or when there is room for a new one.
    pub(super) fn of(&self, headers: &HeaderMap, now: Instant) -> Result<Arc<Pacer>, Instant> {
        let key = self.key_of(headers);
        let first = self.first.get_or_init(|| self.make(key, now));
        if first.key() == key {
            return Ok(Arc::clone(first));
        }
        let mut others = self.others();
        if let Some(known) = others.pacers.get(&key) {
            return Ok(Arc::clone(known));
        }
        others.make_room(self.most.saturating_sub(1).max(1), now)?;
        let pacer = self.make(key, now);
        others.pacers.insert(key, Arc::clone(&pacer));
        Ok(pacer)
    }

    /// What a credential starts with.
    pub(super) fn make(&self, key: KeyId, now: Instant) -> Arc<Pacer> {
        Arc::new(Pacer::new(Arc::clone(&self.config), key, now))
    }

    /// All ledgers, the first one first.
    pub(super) fn all(&self) -> Vec<Arc<Pacer>> {
        let mut all: Vec<_> = self.first.get().cloned().into_iter().collect();
        all.extend(self.others().pacers.values().cloned());
        all
    }

    fn key_of(&self, headers: &HeaderMap) -> KeyId {
        let Some(credential) = self.credential.of(headers) else { return KeyId::NONE };
        let mut hasher = self.hasher;
        hasher.write(credential);
        let hash = hasher.finish128();
        KeyId([hash.h1, hash.h2])
    }

    fn others(&self) -> std::sync::MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// ===== impl Others =====

impl Others {
    /// Makes room for one more, or says when there will be.
    ///
    /// NOTE: a ledger is only dropped if nobody else holds it. Whoever looks one up does so under the same lock, so that
    /// none is dropped between being found and being used.
    fn make_room(&mut self, most: usize, now: Instant) -> Result<(), Instant> {
        let full = self.pacers.len() >= most;
        // Attempts that end without having been sent may make room earlier than foretold.
        if let Some((since, until)) = self.full
            && full
            && now < until.min(since + Keys::BETWEEN_LOOKS)
        {
            return Err(until);
        }
        if !full && self.pacers.len() < self.look_at.max(Keys::FEW) {
            return Ok(());
        }
        let mut first_idle = None;
        self.pacers.retain(|_, pacer| {
            let idle_at = if Arc::strong_count(pacer) > 1 { None } else { pacer.idle_at(now) };
            let idle = idle_at.is_some_and(|at| at <= now);
            if !idle {
                first_idle = [first_idle, idle_at].into_iter().flatten().min();
            }
            !idle
        });
        self.look_at = self.pacers.len() * 2;
        self.full = None;
        if self.pacers.len() < most {
            return Ok(());
        }
        // Somebody's attempts are in flight everywhere: it takes their answer and a window.
        let until = first_idle.unwrap_or(now + Duration::from_secs(60));
        self.full = Some((now, until));
        Err(until)
    }
}
