//! A thousand clients that fail together: how many of them come back at once.

use std::time::Duration;

use ::backon::{BackoffBuilder, ExponentialBuilder};
use tower_didit::{
    Randomness,
    retry::{Backoff, ExponentialBackoff},
};

use crate::outcomes::{Problem, Table, scenarios::Settings};

const CLIENTS: usize = 1_000;
const RETRIES: u32 = 5;

/// The waits of one client.
type Waits = Vec<Duration>;

/// A kind of jitter: the waits of the next client.
type Kind = Box<dyn FnMut() -> Waits>;

/// The nth wait in seconds, counted from 0; told the one before it.
type Formula = Box<dyn Fn(i32, f64, &Randomness) -> f64>;

/// From a formula.
fn from_formula(random: Randomness, wait: Formula) -> Kind {
    Box::new(move || {
        let mut last = 1.0;
        let waits = (0..5).map(|number| {
            last = wait(number, last, &random);
            Duration::from_secs_f64(last)
        });
        waits.collect()
    })
}

fn kinds(seed: u64) -> Vec<(&'static str, Kind)> {
    let random = Randomness::seeded(seed);
    let between = |random: &Randomness, least: f64, most: f64| least + (most - least) * random.unit();
    let ours = random.clone();
    let formula = |wait: Formula| from_formula(random.clone(), wait);
    let mut seeds = seed;
    vec![
        (
            "tower-didit (full)",
            Box::new(move || (1..=RETRIES).map(|retry| ExponentialBackoff::DIDIT.delay(retry, &ours)).collect()),
        ),
        ("none", formula(Box::new(|number, _, _| 2_f64.powi(number)))),
        (
            "plus U(0, 0.5 s)",
            formula(Box::new(move |number, _, random| 2_f64.powi(number) + between(random, 0.0, 0.5))),
        ),
        (
            "2ⁿ⁺¹ plus U(0, 1 s)",
            formula(Box::new(move |number, _, random| 2_f64.powi(number + 1) + between(random, 0.0, 1.0))),
        ),
        ("gRPC, ±20 %", formula(Box::new(move |number, _, random| 2_f64.powi(number) * between(random, 0.8, 1.2)))),
        (
            "Stripe, 50–100 % with a floor",
            formula(Box::new(move |number, _, random| (2_f64.powi(number) * between(random, 0.5, 1.0)).max(1.0))),
        ),
        ("equal", formula(Box::new(move |number, _, random| 2_f64.powi(number) * between(random, 0.5, 1.0)))),
        (
            "decorrelated",
            formula(Box::new(move |_, last, random| between(random, 1.0, (3.0 * last).max(1.0)).min(40.0))),
        ),
        (
            "backon",
            Box::new(move || {
                seeds += 1;
                let builder = ExponentialBuilder::default().with_min_delay(Duration::from_secs(1));
                let builder = builder.with_max_times(5).with_jitter().with_jitter_seed(seeds);
                builder.build().collect()
            }),
        ),
    ]
}

/// The most numbers within one tenth of a second, and each is a time.
fn peak(times: &mut [Duration]) -> usize {
    times.sort_unstable();
    let within = |first: usize| {
        let end = times[first] + Duration::from_millis(100);
        times.partition_point(|time| *time < end) - first
    };
    (0..times.len()).map(within).max().unwrap_or_default()
}

/// The peaks, by kind of jitter.
pub(super) fn table(settings: Settings) -> Result<Table, Problem> {
    let title = "1 000 clients fail together, base 1 s, five repetitions that all fail: repetitions within 100 ms";
    let mut table = Table::new(title, ["jitter", "at repetition 1 … 5", "of all", "mean total wait, s"]);
    for (name, mut kind) in kinds(settings.seed) {
        let waits: Vec<_> = (0..CLIENTS).map(|_| kind()).collect();
        let mut of_each = vec![Vec::new(); 5];
        for client in &waits {
            let mut time = Duration::ZERO;
            for (number, wait) in client.iter().enumerate() {
                time += *wait;
                if let Some(times) = of_each.get_mut(number) {
                    times.push(time);
                }
            }
        }
        let mut all: Vec<_> = of_each.concat();
        let peaks: Vec<_> = of_each.iter_mut().map(|times| peak(times).to_string()).collect();
        let total: Duration = waits.iter().flatten().sum();
        let mean = total.as_secs_f64() / CLIENTS as f64;
        table.rows.push(vec![name.to_owned(), peaks.join(", "), peak(&mut all).to_string(), format!("{mean:.1}")]);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_tenth_of_a_second_is_found() {
        let ms = Duration::from_millis;
        assert_eq!(peak(&mut [ms(0), ms(250), ms(99), ms(310), ms(349)]), 3);
        assert_eq!(peak(&mut []), 0);
    }
}
