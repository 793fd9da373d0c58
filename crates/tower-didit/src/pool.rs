//! Boxes that a thread uses again: what a call needs for as long as it runs costs no allocation, and its future only a
//! pointer, which is less to copy about.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
    thread::LocalKey,
};

/// How many boxes of a kind a thread keeps for calls to come: as many as it is likely to have under way at once.
const MOST_SPARE: usize = 64;

/// The boxes of a thread that are not in use.
pub(crate) type Spare<T> = RefCell<Vec<Box<T>>>;

/// A value whose memory is used again.
pub(crate) trait Pooled: Default + 'static {
    /// Where this thread keeps what is not in use.
    fn spare() -> &'static LocalKey<Spare<Self>>;

    /// Forgets everything; it may keep memory of its own.
    fn clear(&mut self);
}

/// A new value, in the memory of one that was put back if there is any.
pub(crate) fn take<T: Pooled>() -> Box<T> {
    T::spare().try_with(|spare| spare.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

/// Keeps the memory of a value for another one.
pub(crate) fn put_back<T: Pooled>(mut value: Box<T>) {
    value.clear();
    // While a thread ends, nothing is kept.
    let _ = T::spare().try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < MOST_SPARE {
            spare.push(value);
        }
    });
}

/// A value that puts itself back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease<T: Pooled> {
    // `None` only while it is dropped.
    value: Option<Box<T>>,
}

impl<T: Pooled> Lease<T> {
    pub(crate) fn new() -> Self {
        Self { value: Some(take()) }
    }
}

impl<T: Pooled> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let Some(value) = &self.value else { unreachable!("it is there until it is dropped") };
        value
    }
}

impl<T: Pooled> DerefMut for Lease<T> {
    fn deref_mut(&mut self) -> &mut T {
        let Some(value) = &mut self.value else { unreachable!("it is there until it is dropped") };
        value
    }
}

impl<T: Pooled> Drop for Lease<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            put_back(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept(Vec<u8>);

    thread_local! {
        static SPARE: Spare<Kept> = const { RefCell::new(Vec::new()) };
    }

    impl Pooled for Kept {
        fn spare() -> &'static LocalKey<Spare<Self>> {
            &SPARE
        }

        fn clear(&mut self) {
            self.0.clear();
        }
    }

    #[test]
    fn memory_is_used_again_and_what_was_in_it_is_gone() {
        let mut lease = Lease::<Kept>::new();
        lease.0.extend([7; 100]);
        let place = lease.0.as_ptr();
        drop(lease);
        let again = Lease::<Kept>::new();
        assert_eq!((again.0.as_ptr(), again.0.len()), (place, 0));
        assert_eq!(Lease::<Kept>::new().0.capacity(), 0, "the next one is new");
    }

    #[test]
    fn no_more_is_kept_than_a_thread_is_likely_to_need() {
        drop((0..2 * MOST_SPARE).map(|_| Lease::<Kept>::new()).collect::<Vec<_>>());
        assert_eq!(SPARE.with_borrow(Vec::len), MOST_SPARE);
    }
}
