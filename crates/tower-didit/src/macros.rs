//! Lines that every layer would repeat.

/// Access to the wrapped service, for services with a field `inner`.
#[allow(unused_macros, reason = "every layer that uses it has its own feature")]
macro_rules! inner_accessors {
    () => {
        /// The inner service.
        pub fn get_ref(&self) -> &S {
            &self.inner
        }

        /// The inner service, mutably.
        pub fn get_mut(&mut self) -> &mut S {
            &mut self.inner
        }

        /// Unwraps the inner service.
        pub fn into_inner(self) -> S {
            self.inner
        }
    };
}
