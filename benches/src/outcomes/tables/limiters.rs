//! Every kind of limiter under demand without end, on an exact server where refusals are free.

use std::num::NonZeroU32;

use crate::outcomes::{
    Job, Problem, Table, in_parallel,
    scenarios::{
        Settings,
        saturated::{Saturation, world},
    },
    strategies::{AnyStrategy, Governor, Pacing, SlidingOrFixed, WindowType},
    world::{LIMIT, Leg, MINUTE, Server, reads},
};

fn strategies(leg: Leg) -> Result<Vec<AnyStrategy>, Problem> {
    let burst = NonZeroU32::new;
    let (ours, spread) = (Pacing::new(reads(LIMIT)?), Some(leg.spread()));
    let window = |window| SlidingOrFixed { window, spread: None };
    Ok(vec![
        Box::new(Governor { burst: burst(300), spread: None }),
        Box::new(Governor { burst: burst(1), spread: None }),
        Box::new(Governor { burst: burst(1), spread }),
        Box::new(Governor { burst: burst(30), spread }),
        Box::new(Governor { burst: burst(150), spread }),
        Box::new(window(WindowType::Fixed)),
        Box::new(window(WindowType::SlidingCounter)),
        Box::new(window(WindowType::SlidingLog)),
        Box::new(SlidingOrFixed { window: WindowType::SlidingLog, spread }),
        Box::new(ours.clone()),
        Box::new(Pacing { burst: burst(30), ..ours }),
    ])
}

/// Goodput, 429s and the fullest window, by limiter and latency.
pub(super) fn table(settings: Settings) -> Result<Table, Problem> {
    let names: Vec<_> = strategies(Leg::Near)?.iter().map(|strategy| strategy.name()).collect();
    let length = 60 * MINUTE * settings.peer_hours;
    let mut jobs: Vec<Job<Saturation>> = Vec::new();
    for number in 0..names.len() {
        for leg in Leg::ALL {
            jobs.push(Box::new(move || {
                let strategy = strategies(leg)?.swap_remove(number);
                world(strategy.as_ref(), leg, Server::Lenient, length, settings.seed)
            }));
        }
    }
    let results = in_parallel(jobs)?;
    let title = format!(
        "Limiters under demand without end, {} h each: goodput per minute (most arrivals in one window; 429s per 100 attempts)",
        settings.peer_hours,
    );
    let mut table = Table::new(title, std::iter::once("limiter").chain(Leg::ALL.map(Leg::name)));
    for (name, results) in names.into_iter().zip(results.chunks(Leg::ALL.len())) {
        let cells = results.iter().map(|result| {
            let share = 100.0 * result.throttled as f64 / result.sent.max(1) as f64;
            format!("{:.1} ({}; {share:.2})", result.goodput, result.largest)
        });
        table.rows.push(std::iter::once(name).chain(cells).collect());
    }
    Ok(table)
}
