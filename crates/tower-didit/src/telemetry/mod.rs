//! One place for the names of metrics and spans.

pub mod names;
