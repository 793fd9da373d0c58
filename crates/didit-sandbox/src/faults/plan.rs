//! What happens to one request.

use std::time::Duration;

use http::Method;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Fault, Faults, Rule, Truncation};

/// Decides, request by request, what goes wrong.
#[derive(Debug)]
pub(crate) struct Plans(Vec<Armed>);

#[derive(Debug)]
struct Armed {
    rule: Rule,
    seen: u64,
    rng: StdRng,
}

/// What goes wrong with one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) delay: Option<Duration>,
    /// How the body of the answer comes, whatever the answer is.
    pub(crate) body: Manner,
    /// Anything else.
    pub(crate) fault: Option<Fault>,
    /// What a fault with a choice chooses by.
    pub(crate) draw: u64,
}

/// How the body of an answer comes: by default whole and at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) slow: Option<(usize, Duration)>,
    pub(crate) cut: Option<Truncation>,
}

impl Plans {
    pub(crate) fn new(faults: &Faults, seed: u64) -> Self {
        let armed = |(rule, stream): (&Rule, u64)| Armed {
            rule: rule.clone(),
            seen: 0,
            rng: StdRng::seed_from_u64(seed.wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        };
        Self(faults.rules().iter().zip(1..).map(armed).collect())
    }

    /// `since_start` is the time of the request, from the start of the sandbox.
    pub(crate) fn plan(&mut self, route: &str, method: &Method, since_start: Duration) -> Plan {
        let mut plan = Plan::default();
        // Every rule draws for every request it applies to, fired or not, so that each keeps its own sequence.
        for armed in self.0.iter_mut().filter(|armed| armed.rule.applies(route, method)) {
            if !armed.fires(since_start) {
                continue;
            }
            // Drawn even where an earlier fault wins, for the same reason.
            let draw = if armed.rule.fault == Fault::AbsurdThrottle { armed.rng.random() } else { 0 };
            match &armed.rule.fault {
                Fault::Delay(delay) => plan.delay = Some(plan.delay.unwrap_or_default().saturating_add(*delay)),
                Fault::SlowBody { bytes, every } => plan.body.slow = plan.body.slow.or(Some((*bytes, *every))),
                Fault::TruncatedBody(cut) => plan.body.cut = plan.body.cut.or(Some(*cut)),
                _ if plan.fault.is_some() => {}
                fault => (plan.fault, plan.draw) = (Some(fault.clone()), draw),
            }
        }
        plan
    }
}

impl Armed {
    fn fires(&mut self, since_start: Duration) -> bool {
        self.seen += 1;
        self.rule.when.fires(self.seen, since_start, &mut self.rng)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::faults::{Ending, Refusal, When};

    fn fired(plans: &mut Plans, requests: usize) -> Vec<bool> {
        (0..requests).map(|_| plans.plan("aml", &Method::POST, Duration::ZERO).fault.is_some()).collect()
    }

    #[test]
    fn scripted_rules_fire_on_exactly_their_requests() {
        let rule = |when| Faults::none().with(Rule::new(Fault::WorkThenDrop).on_route("aml").when(when));
        let mut first = Plans::new(&rule(When::First(2)), 0);
        first.plan("session-create", &Method::POST, Duration::ZERO);
        assert_eq!(fired(&mut first, 4), [true, true, false, false]);
        let mut nth = Plans::new(&rule(When::Nth(vec![2, 4])), 0);
        assert_eq!(fired(&mut nth, 5), [false, true, false, true, false]);
    }

    #[test]
    fn an_outage_begins_and_ends_at_its_times() {
        let secs = Duration::from_secs;
        let rule = Rule::new(Fault::ResetBeforeWork).when(When::Between(secs(60), secs(360)));
        let mut plans = Plans::new(&Faults::none().with(rule), 0);
        let mut fires = |at| plans.plan("aml", &Method::POST, at).fault.is_some();
        assert_eq!([secs(59), secs(60), secs(359), secs(360)].map(&mut fires), [false, true, true, false]);
    }

    #[test]
    fn probabilities_are_met_and_repeat_with_the_seed() {
        let faults = Faults::none().with(Rule::new(Fault::ResetBeforeWork).when(When::Probability(0.2)));
        let run = |seed| fired(&mut Plans::new(&faults, seed), 10_000);
        let hits = run(1).into_iter().filter(|hit| *hit).count();
        assert!((1_850..=2_150).contains(&hits), "{hits}");
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn another_rule_does_not_change_what_the_first_one_does() {
        let rule = Rule::new(Fault::ResetBeforeWork).when(When::Probability(0.5));
        let mut alone = Plans::new(&Faults::none().with(rule.clone()), 3);
        let delay = Rule::new(Fault::Delay(Duration::from_secs(1))).when(When::Probability(0.5));
        let mut both = Plans::new(&Faults::none().with(rule).with(delay), 3);
        assert_eq!(fired(&mut alone, 200), fired(&mut both, 200));
    }

    #[test]
    fn delays_add_up_and_the_first_other_fault_wins() {
        let delay = Rule::new(Fault::Delay(Duration::from_secs(1)));
        let faults = Faults::none()
            .with(delay.clone())
            .with(Rule::new(Fault::WorkThenDrop))
            .with(delay)
            .with(Rule::new(Fault::ResetBeforeWork));
        let plan = Plans::new(&faults, 0).plan("aml", &Method::POST, Duration::ZERO);
        let expected =
            Plan { delay: Some(Duration::from_secs(2)), fault: Some(Fault::WorkThenDrop), ..Plan::default() };
        assert_eq!(plan, expected);
    }

    #[test]
    fn a_body_may_be_slow_and_cut_off_whatever_the_answer_is() {
        let (cut, every) = (Truncation::at_byte(3), Duration::from_millis(5));
        let faults = Faults::none()
            .with(Rule::new(Fault::TruncatedBody(cut)))
            .with(Rule::new(Fault::WorkThenDrop))
            .with(Rule::new(Fault::SlowBody { bytes: 1, every }));
        let plan = Plans::new(&faults, 0).plan("aml", &Method::POST, Duration::ZERO);
        assert_eq!(plan.body, Manner { slow: Some((1, every)), cut: Some(cut) });
        assert_eq!(plan.fault, Some(Fault::WorkThenDrop));
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let check = |rule| Faults::none().with(rule).check(|name| name == "aml").unwrap_err().to_string();
        let reset = || Rule::new(Fault::ResetBeforeWork);
        assert!(check(reset().on_route("aml").on_route("amll")).contains("\"amll\""));
        assert!(check(reset().when(When::Probability(1.5))).contains("1.5"));
        assert!(check(reset().when(When::Probability(f64::NAN))).contains("NaN"));
        assert!(check(reset().when(When::Nth(vec![0]))).contains("from 1"));
        let never = When::Between(Duration::from_secs(2), Duration::from_secs(2));
        assert!(check(reset().when(never)).contains("from 2s to 2s"));
        assert!(check(Rule::new(Fault::status(StatusCode::OK))).contains("200"));
        assert!(check(Rule::new(Fault::Delay(Duration::MAX))).contains("longer"));
        assert!(check(Rule::new(Fault::late_commit(Duration::MAX))).contains("longer"));
        let moved = Fault::never_commit(Duration::ZERO).with_ending(Ending::Status(StatusCode::FOUND));
        assert!(check(Rule::new(moved)).contains("302"));
        assert!(check(Rule::new(Fault::Refusal(Refusal::new(StatusCode::OK)))).contains("200"));
        assert!(check(Rule::new(Fault::TruncatedBody(Truncation::at_percent(101)))).contains("101 percent"));
        assert!(check(Rule::new(Fault::SlowBody { bytes: 0, every: Duration::ZERO })).contains("0 bytes"));
    }
}
