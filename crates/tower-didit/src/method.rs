//! Methods as logs and metrics name them: whoever sends a request chooses the method, and no more than these may come of it.

use http::Method;

/// The methods that have a name of their own, those of RFC 9110 and RFC 5789; and what the others are called, as
/// OpenTelemetry has it.
pub(crate) const NAMES: [&str; 10] =
    ["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", OTHER];
pub(crate) const OTHER: &str = "_OTHER";

/// Where a method's name stands.
pub(crate) fn index(method: &Method) -> usize {
    NAMES.iter().position(|known| *known == method.as_str()).unwrap_or(NAMES.len() - 1)
}

/// A method's name.
pub(crate) fn name(method: &Method) -> &'static str {
    NAMES[index(method)]
}
