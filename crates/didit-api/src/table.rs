//! Didit's routes.
use crate::Endpoint;
use http::Method;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("session-create", Method::POST, "/v3/session/"),
        Endpoint::new("session-list", Method::GET, "/v3/sessions/"),
    ]
}
