//! The three limits beside the rate windows, each off unless asked for.

use std::{collections::HashMap, time::Duration};

use crate::window::{Stamps, Window};

/// The span of the sandbox's quota: 24 hours (Didit's OpenAPI file, on session creation).
const QUOTA_SPAN: Duration = Duration::from_secs(86_400);

/// The span in which attempts with a phone number are counted: an hour (the same, on phone sending).
const PHONE_SPAN: Duration = Duration::from_secs(3_600);

/// Sessions per day, attempts per phone number, imports at a time. Limits of 0 are none.
#[derive(Debug)]
pub(crate) struct OddLimits {
    creations: Option<Window>,
    attempts: u32,
    by_phone: HashMap<String, Window>,
    import_time: Duration,
    import_ends: Duration,
}

impl OddLimits {
    pub(crate) fn new(creations: u32, attempts: u32, import_time: Duration) -> Self {
        Self {
            creations: (creations > 0).then(|| Window::new(creations, QUOTA_SPAN, Stamps::Exact)),
            attempts,
            by_phone: HashMap::new(),
            import_time,
            import_ends: Duration::ZERO,
        }
    }

    /// Counts a session creation, or says how long until there is room for one.
    pub(crate) fn creation(&mut self, now: Duration) -> Result<(), Duration> {
        self.creations.as_mut().map_or(Ok(()), |window| count(window, now))
    }

    /// Counts an attempt with a phone number, or says how long until there is room for one.
    pub(crate) fn attempt(&mut self, phone: &str, now: Duration) -> Result<(), Duration> {
        if self.attempts == 0 {
            return Ok(());
        }
        let window = || Window::new(self.attempts, PHONE_SPAN, Stamps::Exact);
        count(self.by_phone.entry(phone.to_owned()).or_insert_with(window), now)
    }

    /// Starts an import, or says how long the one that is active takes.
    pub(crate) fn import(&mut self, now: Duration) -> Result<(), Duration> {
        if self.import_ends > now {
            return Err(self.import_ends - now);
        }
        self.import_ends = now.saturating_add(self.import_time);
        Ok(())
    }
}

fn count(window: &mut Window, now: Duration) -> Result<(), Duration> {
    match window.full_until(now) {
        Some(until) => Err(until.saturating_sub(now)),
        None => {
            window.count(now);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(1_000_000 + secs)
    }

    #[test]
    fn the_quota_rolls_over_24_hours() {
        let mut limits = OddLimits::new(2, 0, Duration::ZERO);
        assert!(limits.creation(at(0)).is_ok() && limits.creation(at(3_600)).is_ok());
        assert_eq!(limits.creation(at(7_200)), Err(Duration::from_secs(79_200)));
        assert!(limits.creation(at(86_400)).is_ok());
        assert!(limits.creation(at(86_401)).is_err());
    }

    #[test]
    fn each_phone_number_has_attempts_of_its_own() {
        let mut limits = OddLimits::new(0, 1, Duration::ZERO);
        assert!(limits.attempt("+1", at(0)).is_ok() && limits.attempt("+2", at(0)).is_ok());
        assert_eq!(limits.attempt("+1", at(1)), Err(Duration::from_secs(3_599)));
    }

    #[test]
    fn one_import_at_a_time() {
        let mut limits = OddLimits::new(0, 0, Duration::from_secs(10));
        assert!(limits.import(at(0)).is_ok());
        assert_eq!(limits.import(at(4)), Err(Duration::from_secs(6)));
        assert!(limits.import(at(10)).is_ok());
    }

    #[test]
    fn what_is_off_never_refuses() {
        let mut limits = OddLimits::new(0, 0, Duration::ZERO);
        for _ in 0..10 {
            assert!(limits.creation(at(0)).is_ok() && limits.attempt("+1", at(0)).is_ok());
            assert!(limits.import(at(0)).is_ok());
        }
    }
}
