//! How a layer asks for an outcome: a trait, Didit's implementation, and closures.

use std::error::Error as StdError;

use http::{HeaderMap, Response, StatusCode};

use super::{Outcome, error::is_own, of_error, of_response};

/// Reads the meaning out of what an attempt came back with.
///
/// Implementations are pure: the same result always means the same.
pub trait Classify<E> {
    /// What a response means, by its status and headers.
    fn response(&self, status: StatusCode, headers: &HeaderMap) -> Outcome;

    /// What an error means.
    fn error(&self, error: &E) -> Outcome;

    /// Whether an error is this process's own, and says nothing about the server although the request was sent in part.
    /// The circuit breaker then learns nothing from it. Without an implementation: never.
    fn is_own(&self, _error: &E) -> bool {
        false
    }

    /// What a result means.
    fn of<B>(&self, result: &Result<Response<B>, E>) -> Outcome {
        match result {
            Ok(response) => self.response(response.status(), response.headers()),
            Err(error) => self.error(error),
        }
    }
}

/// Didit's reading: [`of_response`] and [`of_error`].
///
/// Works for every error type that implements [`std::error::Error`]. For a boxed error, which does not, write
/// `classify_fn(of_response, |error: &BoxError| of_error(&**error))`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiditClassifier;

impl<E: StdError + 'static> Classify<E> for DiditClassifier {
    fn response(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        of_response(status, headers)
    }

    fn error(&self, error: &E) -> Outcome {
        of_error(error)
    }

    fn is_own(&self, error: &E) -> bool {
        is_own(error)
    }
}

/// A classifier made of two closures; see [`classify_fn`].
#[derive(Clone, Copy, Debug)]
pub struct ClassifyFn<R, F> {
    response: R,
    error: F,
}

/// Makes a classifier of one closure for responses and one for errors.
///
/// # Example
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_didit::outcome::{Classify, Outcome, classify_fn, of_error};
///
/// // An API whose 409 means "busy, nothing was done".
/// let classifier = classify_fn(
///     |status: StatusCode, headers: &HeaderMap| match status {
///         StatusCode::CONFLICT => Outcome::Ambiguous,
///         _ => tower_didit::outcome::of_response(status, headers),
///     },
///     |error: &std::io::Error| of_error(error),
/// );
/// assert_eq!(classifier.response(StatusCode::CONFLICT, &HeaderMap::new()), Outcome::Ambiguous);
/// ```
pub fn classify_fn<R, F, E>(response: R, error: F) -> ClassifyFn<R, F>
where
    R: Fn(StatusCode, &HeaderMap) -> Outcome,
    F: Fn(&E) -> Outcome,
{
    ClassifyFn { response, error }
}

impl<R, F, E> Classify<E> for ClassifyFn<R, F>
where
    R: Fn(StatusCode, &HeaderMap) -> Outcome,
    F: Fn(&E) -> Outcome,
{
    fn response(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        (self.response)(status, headers)
    }

    fn error(&self, error: &E) -> Outcome {
        (self.error)(error)
    }
}
