//! The synchronisation that the machine is built on: the standard library's, or loom's where all interleavings are tried.

#[cfg(not(all(test, interleavings)))]
pub(super) use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

#[cfg(all(test, interleavings))]
pub(super) use loom::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
