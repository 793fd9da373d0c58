//! Which route a request is for.

use std::sync::Arc;

use didit_api::{Endpoint, EndpointId, Routes};
use http::Method;
use uuid::Uuid;

/// What a method and a path lead to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// A route.
    Endpoint(EndpointId, Params),
    /// A route, had the path ended in a slash; where it would be.
    Redirect(String),
    /// A path with other methods, joined by commas.
    OtherMethods(String),
    /// Nothing.
    Unknown,
}

/// What the path says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params {
    /// The session, on routes below `/v3/session/{…}/`.
    pub(crate) session: Option<Uuid>,
}

/// The methods that a route table can hold.
const METHODS: [Method; 6] = [Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE, Method::HEAD];

/// Finds the route of a request.
pub(crate) fn resolve(routes: &Arc<Routes>, method: &Method, path: &str, query: Option<&str>) -> Resolved {
    if let Some((id, params)) = find(routes, method, path) {
        return Resolved::Endpoint(id, params);
    }
    let others: Vec<_> = allowed(routes, path).collect();
    if !others.is_empty() {
        return Resolved::OtherMethods(others.join(", "));
    }
    let slashed = format!("{path}/");
    if !path.ends_with('/') && allowed(routes, &slashed).next().is_some() {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        return Resolved::Redirect(slashed + &query);
    }
    Resolved::Unknown
}

fn allowed(routes: &Routes, path: &str) -> impl Iterator<Item = &'static str> {
    const NAMES: [&str; 6] = ["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD"];
    METHODS.into_iter().zip(NAMES).filter(move |(method, _)| find(routes, method, path).is_some()).map(|(_, name)| name)
}

/// A route whose session id, if the template has one, is a canonical UUID: Didit's router matches nothing else.
fn find(routes: &Routes, method: &Method, path: &str) -> Option<(EndpointId, Params)> {
    let id = routes.find(method, path)?;
    let params = match session_segment(routes.get(id), path) {
        None => Params::default(),
        Some(segment) => Params { session: Some(canonical(segment)?) },
    };
    Some((id, params))
}

/// The segment that stands for the variable right after `session` or `sessions`.
fn session_segment<'p>(endpoint: &Endpoint, path: &'p str) -> Option<&'p str> {
    let mut previous = "";
    endpoint.path().split('/').zip(path.split('/')).find_map(|(template, segment)| {
        let is_session = template.starts_with('{') && matches!(previous, "session" | "sessions");
        previous = template;
        is_session.then_some(segment)
    })
}

/// A UUID in its one canonical spelling: lower case, with hyphens.
pub(crate) fn canonical(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "11111111-2222-4333-8444-555555555555";

    fn routes() -> Arc<Routes> {
        let routes = Routes::blank()
            .endpoint(Endpoint::new("list", Method::GET, "/v3/sessions/"))
            .endpoint(Endpoint::new("decision", Method::GET, "/v3/session/{id}/decision/"))
            .endpoint(Endpoint::new("hook", Method::GET, "/v3/session/{id}/webhook/{webhook}"))
            .build();
        Arc::new(routes.unwrap())
    }

    fn look(method: Method, path: &str) -> Resolved {
        resolve(&routes(), &method, path, Some("a=1"))
    }

    #[test]
    fn a_missing_final_slash_is_a_redirect_that_keeps_the_query() {
        assert_eq!(look(Method::GET, "/v3/sessions"), Resolved::Redirect("/v3/sessions/?a=1".to_owned()));
        assert_eq!(look(Method::GET, "/v3/nothing"), Resolved::Unknown);
    }

    #[test]
    fn only_a_canonical_uuid_is_a_session() {
        let session = canonical(ID);
        let decision = look(Method::GET, &format!("/v3/session/{ID}/decision/"));
        assert!(matches!(decision, Resolved::Endpoint(_, params) if params.session == session && session.is_some()));
        for bad in ["7", "11111111222243338444555555555555", "AAAAAAAA-2222-4333-8444-555555555555"] {
            assert_eq!(look(Method::GET, &format!("/v3/session/{bad}/decision/")), Resolved::Unknown);
        }
    }

    #[test]
    fn another_method_is_told_what_is_allowed() {
        assert_eq!(look(Method::DELETE, "/v3/sessions/"), Resolved::OtherMethods("GET".to_owned()));
    }
}
