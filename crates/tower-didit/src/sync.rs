//! The synchronisation that the circuit breaker and the pacing queue are built on: the standard library's, or loom's where
//! all interleavings are tried.

#![cfg_attr(
    not(all(feature = "circuit-breaker", feature = "pacing")),
    allow(unused_imports, reason = "each of the two has its own feature")
)]

#[cfg(not(all(test, interleavings)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

#[cfg(all(test, interleavings))]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
