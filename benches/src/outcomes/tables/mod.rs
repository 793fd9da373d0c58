//! Tables about the parts that strategies are made of: limiters, budgets, jitter, queues.

pub mod budgets;
pub mod jitter;
pub mod limiters;
pub mod silence;
pub mod waiters;

use super::{Problem, Table, scenarios::Settings};

/// All of them. The one about [waiters] measures time and is the last, so that it runs alone.
///
/// # Errors
///
/// If one cannot be made.
pub fn all(settings: Settings) -> Result<Vec<Table>, Problem> {
    Ok(vec![
        limiters::table(settings)?,
        budgets::table(settings)?,
        jitter::table(settings)?,
        silence::table(settings)?,
        waiters::table()?,
    ])
}
