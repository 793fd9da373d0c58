//! The state machine of one operation: synchronous, with the time as an argument, and shared by all stores.

use std::time::Duration;

use uuid::Uuid;

use super::{Answer, Key, StoreError, Timestamp};
use crate::outcome::Outcome;

/// A keyed hash of what a call asks for.
pub type Fingerprint = [u8; 32];

/// Who leads: every claim that is granted has a number of its own, greater than all before it in the same store.
///
/// What is written under an older one is refused, so a leader that was given up for lost and comes back late changes
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// What a call wants to do under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What it asks for.
    pub fingerprint: Fingerprint,
    /// How long it may be in flight before it is given up for lost.
    pub lease: Duration,
}

/// What is known about one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(super) epoch: Epoch,
    pub(super) fingerprint: Fingerprint,
    pub(super) state: State,
}

/// Where an operation stands; that there is no record is a state too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A leader is about to send it, or has; until then nobody else may.
    InFlight { since: Timestamp, until: Timestamp },
    /// The server refused it unprocessed: nothing was done, and the key stays taken.
    Intended { since: Timestamp },
    /// It may have been done. Nobody may send it before somebody has looked.
    Unknown { since: Timestamp },
    /// It was answered.
    Done { at: Timestamp, answer: Answer },
}

/// What a claim came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Begun {
    /// Nothing was done before: send it.
    Lead {
        /// What to settle it under.
        epoch: Epoch,
    },
    /// It may have been done before: look first.
    Reconcile {
        /// What to settle it under.
        epoch: Epoch,
        /// When it may have been sent for the first time.
        since: Timestamp,
    },
    /// Somebody else leads.
    Busy {
        /// When they are given up for lost.
        until: Timestamp,
    },
    /// It is done.
    Done(Answer),
    /// The key belongs to a call with another payload.
    Conflict,
}

/// What a led call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Nothing was done and nothing needs to be known: the key is free again.
    Forget,
    /// Nothing was done, and the key stays taken for this payload.
    Keep,
    /// It may have been done.
    Unknown,
    /// It was answered.
    Done(Answer),
    /// Nobody answered it, but what a look-up found can have come of nothing else. A store refuses it with
    /// [`StoreError::Taken`](super::StoreError::Taken) if the id belongs to another operation.
    Adopted(Answer),
}

/// What a store has to write after a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The new record; `None` if nothing changes.
    pub write: Option<Record>,
    /// What the claimant is told.
    pub begun: Begun,
}

/// A settlement, or a renewal, by somebody who no longer leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced;

/// How long records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What was answered or refused: a day by default, the least that callers of other payment-like APIs are used to.
    pub settled: Duration,
    /// What is in flight or unknown: thirty days by default. Forgetting one means that it may be done again, so this is
    /// longer than anybody should leave one unattended; it is there so that a store cannot fill up for ever.
    pub unsettled: Duration,
}

impl Retention {
    /// A day for what is settled, thirty days for what is not.
    pub const DEFAULT: Self =
        Self { settled: Duration::from_secs(86_400), unsettled: Duration::from_secs(30 * 86_400) };
}

impl Default for Retention {
    fn default() -> Self {
        Self::DEFAULT
    }
}

// ===== impl Settlement =====

impl Settlement {
    /// What an outcome means to a store. `in_doubt` says that an earlier attempt may have done it, so that even an
    /// attempt that was provably not carried out proves nothing. `None` after an answer: what is kept of it is up to
    /// the caller.
    pub fn of(outcome: Outcome, in_doubt: bool) -> Option<Self> {
        match outcome {
            Outcome::Answered => None,
            Outcome::Ambiguous => Some(Self::Unknown),
            _ if in_doubt => Some(Self::Unknown),
            Outcome::NotSent(_) => Some(Self::Forget),
            Outcome::Refused { .. } => Some(Self::Keep),
        }
    }

    /// Checks that what this adopts for `key` belongs to no other operation; `holder` says to which one an id does.
    ///
    /// # Errors
    ///
    /// [`StoreError::Taken`] if it does, and whatever `holder` fails with.
    pub fn check(
        &self,
        key: &Key,
        holder: impl FnOnce(Uuid) -> Result<Option<Key>, StoreError>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Adopted(Answer { session_id: Some(id), .. }) if holder(*id)?.is_some_and(|holder| holder != *key) => {
                Err(StoreError::Taken)
            }
            _ => Ok(()),
        }
    }
}

// ===== impl Record =====

impl Record {
    /// What a claim comes to, given what is known: `current`, unless its time is over.
    pub fn begin(
        current: Option<&Self>,
        claim: &Claim,
        epoch: Epoch,
        retention: &Retention,
        now: Timestamp,
    ) -> Claimed {
        let in_flight = |since| {
            let state = State::InFlight { since, until: now.plus(claim.lease) };
            Some(Self { epoch, fingerprint: claim.fingerprint, state })
        };
        let Some(current) = current.filter(|record| record.expires(retention) > now) else {
            return Claimed { write: in_flight(now), begun: Begun::Lead { epoch } };
        };
        if current.fingerprint != claim.fingerprint {
            return Claimed { write: None, begun: Begun::Conflict };
        }
        match &current.state {
            State::InFlight { until, .. } if *until > now => {
                Claimed { write: None, begun: Begun::Busy { until: *until } }
            }
            State::InFlight { since, .. } | State::Unknown { since } => {
                Claimed { write: in_flight(*since), begun: Begun::Reconcile { epoch, since: *since } }
            }
            State::Intended { .. } => Claimed { write: in_flight(now), begun: Begun::Lead { epoch } },
            State::Done { answer, .. } => Claimed { write: None, begun: Begun::Done(answer.clone()) },
        }
    }

    /// The record after a settlement; `None` if there is none any more.
    ///
    /// # Errors
    ///
    /// [`Fenced`] if somebody else leads by now, or the operation is settled already.
    pub fn settle(
        current: Option<&Self>,
        epoch: Epoch,
        settlement: Settlement,
        now: Timestamp,
    ) -> Result<Option<Self>, Fenced> {
        let Some(Self { fingerprint, state: State::InFlight { since, .. }, .. }) =
            current.filter(|record| record.epoch == epoch)
        else {
            return Err(Fenced);
        };
        let state = match settlement {
            Settlement::Forget => return Ok(None),
            Settlement::Keep => State::Intended { since: *since },
            Settlement::Unknown => State::Unknown { since: *since },
            Settlement::Done(answer) | Settlement::Adopted(answer) => State::Done { at: now, answer },
        };
        Ok(Some(Self { epoch, fingerprint: *fingerprint, state }))
    }

    /// The record whose leader still has it in hand, and has until then. A lease that is over is renewed too, as long
    /// as nobody has claimed the operation since.
    ///
    /// # Errors
    ///
    /// [`Fenced`] if somebody else leads by now, or the operation is settled already.
    pub fn renew(current: Option<&Self>, epoch: Epoch, until: Timestamp) -> Result<Self, Fenced> {
        match current.filter(|record| record.epoch == epoch) {
            Some(Self { fingerprint, state: State::InFlight { since, .. }, .. }) => {
                Ok(Self { epoch, fingerprint: *fingerprint, state: State::InFlight { since: *since, until } })
            }
            _ => Err(Fenced),
        }
    }

    /// The record once its leader is known to be dead: what was in flight is unknown.
    #[must_use]
    pub fn orphaned(self) -> Self {
        let state = match self.state {
            State::InFlight { since, .. } => State::Unknown { since },
            state => state,
        };
        Self { state, ..self }
    }

    /// When the record may be thrown away.
    pub fn expires(&self, retention: &Retention) -> Timestamp {
        match &self.state {
            State::InFlight { until, .. } => until.plus(retention.unsettled),
            State::Unknown { since } => since.plus(retention.unsettled),
            State::Intended { since } => since.plus(retention.settled),
            State::Done { at, .. } => at.plus(retention.settled),
        }
    }

    /// Whether throwing the record away could lead to a second execution: it is in flight or unknown.
    pub fn is_unsettled(&self) -> bool {
        matches!(self.state, State::InFlight { .. } | State::Unknown { .. })
    }

    /// The id of what was made, once it is done.
    pub fn session_id(&self) -> Option<Uuid> {
        match &self.state {
            State::Done { answer, .. } => answer.session_id,
            _ => None,
        }
    }

    /// Whether a leader has it in hand.
    pub fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight { .. })
    }

    /// The number of the last claim that was granted.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::outcome::{NotSent, Refusal};

    const LEASE: Duration = Duration::from_secs(60);
    const CLAIM: Claim = Claim { fingerprint: [1; 32], lease: LEASE };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    fn begin(current: Option<&Record>, epoch: u64, now: u64) -> Claimed {
        Record::begin(current, &CLAIM, Epoch(epoch), &Retention::DEFAULT, at(now))
    }

    /// In flight since second 0 under epoch 1.
    fn in_flight() -> Record {
        begin(None, 1, 0).write.unwrap()
    }

    fn settled(settlement: Settlement) -> Option<Record> {
        Record::settle(Some(&in_flight()), Epoch(1), settlement, at(1)).unwrap()
    }

    fn done() -> Settlement {
        Settlement::Done(Answer::new(StatusCode::CREATED))
    }

    #[test]
    fn the_first_claim_leads_and_the_second_finds_it_busy() {
        assert_eq!(begin(None, 1, 0).begun, Begun::Lead { epoch: Epoch(1) });
        let second = begin(Some(&in_flight()), 2, 1);
        assert_eq!(second, Claimed { write: None, begun: Begun::Busy { until: at(60) } });
    }

    #[test]
    fn another_payload_conflicts_whatever_the_state() {
        let other = Claim { fingerprint: [2; 32], lease: LEASE };
        let all = [Some(in_flight()), settled(Settlement::Keep), settled(Settlement::Unknown), settled(done())];
        for record in all {
            let claimed = Record::begin(record.as_ref(), &other, Epoch(2), &Retention::DEFAULT, at(100));
            assert_eq!(claimed, Claimed { write: None, begun: Begun::Conflict }, "{record:?}");
        }
    }

    #[test]
    fn every_outcome_leads_where_the_table_says() {
        let not_sent = [NotSent::Transport, NotSent::Local { retry_at: None }].map(Outcome::NotSent);
        let refused = Outcome::Refused { retry_after: None, reason: Refusal::Unavailable };
        for outcome in not_sent {
            assert_eq!(Settlement::of(outcome, false), Some(Settlement::Forget));
        }
        assert_eq!(Settlement::of(refused, false), Some(Settlement::Keep));
        assert_eq!(Settlement::of(Outcome::Ambiguous, false), Some(Settlement::Unknown));
        assert_eq!(Settlement::of(Outcome::Answered, false), None);
        // After an ambiguous attempt, one that was not carried out proves nothing about the first.
        for outcome in not_sent.into_iter().chain([refused, Outcome::Ambiguous]) {
            assert_eq!(Settlement::of(outcome, true), Some(Settlement::Unknown), "{outcome:?}");
        }
    }

    #[test]
    fn what_was_not_sent_is_forgotten_and_what_was_refused_keeps_its_key() {
        assert_eq!(settled(Settlement::Forget), None);
        let kept = settled(Settlement::Keep);
        assert_eq!(begin(kept.as_ref(), 2, 2).begun, Begun::Lead { epoch: Epoch(2) });
    }

    #[test]
    fn what_is_unknown_is_reconciled_from_its_first_sending() {
        let unknown = settled(Settlement::Unknown);
        let taken = begin(unknown.as_ref(), 2, 50);
        assert_eq!(taken.begun, Begun::Reconcile { epoch: Epoch(2), since: at(0) });
        let again = Record::settle(taken.write.as_ref(), Epoch(2), Settlement::Unknown, at(51)).unwrap();
        assert_eq!(begin(again.as_ref(), 3, 99).begun, Begun::Reconcile { epoch: Epoch(3), since: at(0) });
    }

    #[test]
    fn what_is_done_stays_done_until_its_time_is_over() {
        let record = settled(done());
        let answer = Answer::new(StatusCode::CREATED);
        assert_eq!(begin(record.as_ref(), 2, 86_400).begun, Begun::Done(answer));
        assert_eq!(begin(record.as_ref(), 2, 86_401).begun, Begun::Lead { epoch: Epoch(2) });
    }

    #[test]
    fn a_leader_given_up_for_lost_is_followed_by_one_who_looks_first() {
        assert!(matches!(begin(Some(&in_flight()), 2, 59).begun, Begun::Busy { .. }));
        assert_eq!(begin(Some(&in_flight()), 2, 60).begun, Begun::Reconcile { epoch: Epoch(2), since: at(0) });
        let orphan = in_flight().orphaned();
        assert_eq!(begin(Some(&orphan), 2, 1).begun, Begun::Reconcile { epoch: Epoch(2), since: at(0) });
    }

    #[test]
    fn a_renewed_lease_keeps_others_away_and_is_refused_to_those_who_lost_it() {
        // Even after its time, as long as nobody has come.
        for now in [30, 70] {
            let renewed = Record::renew(Some(&in_flight()), Epoch(1), at(now + 60)).unwrap();
            assert_eq!(begin(Some(&renewed), 2, now + 59).begun, Begun::Busy { until: at(now + 60) });
            let taken = begin(Some(&renewed), 2, now + 60);
            assert_eq!(
                taken.begun,
                Begun::Reconcile { epoch: Epoch(2), since: at(0) },
                "sent first when it was first sent"
            );
            assert_eq!(Record::renew(taken.write.as_ref(), Epoch(1), at(200)), Err(Fenced));
        }
        for gone in [None, settled(Settlement::Forget), settled(Settlement::Unknown), settled(done())] {
            assert_eq!(Record::renew(gone.as_ref(), Epoch(1), at(200)), Err(Fenced), "{gone:?}");
        }
    }

    #[test]
    fn a_late_writer_of_an_older_epoch_changes_nothing() {
        let newer = begin(Some(&in_flight()), 2, 60).write;
        for settlement in [Settlement::Forget, Settlement::Keep, Settlement::Unknown, done()] {
            assert_eq!(Record::settle(newer.as_ref(), Epoch(1), settlement.clone(), at(61)), Err(Fenced));
            assert_eq!(Record::settle(None, Epoch(1), settlement.clone(), at(61)), Err(Fenced), "forgotten meanwhile");
            assert_eq!(Record::settle(settled(done()).as_ref(), Epoch(1), settlement, at(61)), Err(Fenced));
        }
    }
}
