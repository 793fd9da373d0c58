//! What a call's spans say about its business: the session and the workflow it is about.

use std::borrow::Cow;

use serde::Deserialize;

/// The largest body that is looked into: several times what a session creation takes.
pub(super) const LARGEST_BODY: usize = 16 * 1024;

/// The session that a path names, by the template of its route; only what looks like a UUID.
pub fn session_in_path<'p>(template: &str, path: &'p str) -> Option<&'p str> {
    let mut before = "";
    for (known, given) in template.split('/').zip(path.split('/')) {
        if known.starts_with('{') {
            return (matches!(before, "session" | "sessions") && is_id(given)).then_some(given);
        }
        before = known;
    }
    None
}

#[derive(Deserialize)]
struct Request<'b> {
    #[serde(borrow)]
    workflow_id: Option<Cow<'b, str>>,
}

#[derive(Deserialize)]
struct Answer<'b> {
    #[serde(borrow)]
    session_id: Option<Cow<'b, str>>,
}

/// The workflow that a JSON body asks for.
pub(super) fn workflow(body: &[u8]) -> Option<Cow<'_, str>> {
    parse::<Request<'_>>(body)?.workflow_id.filter(|id| is_id(id))
}

/// The session that a JSON body tells of.
pub(super) fn session(body: &[u8]) -> Option<Cow<'_, str>> {
    parse::<Answer<'_>>(body)?.session_id.filter(|id| is_id(id))
}

fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Option<T> {
    (body.len() <= LARGEST_BODY).then(|| serde_json::from_slice(body).ok()).flatten()
}

/// Whether a text looks like an id of Didit's (a UUID): anything else may be a person's, or forge a line.
pub(super) fn is_id(text: &str) -> bool {
    let fits = |(place, byte): (usize, u8)| match place {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "11111111-2222-4333-8444-555555555555";

    #[test]
    fn the_session_is_found_where_the_template_has_it() {
        let decision = format!("/v3/session/{ID}/decision/");
        assert_eq!(session_in_path("/v3/session/{id}/decision/", &decision), Some(ID));
        assert_eq!(session_in_path("/v3/sessions/{id}/reviews/", &format!("/v3/sessions/{ID}/reviews/")), Some(ID));
        assert_eq!(session_in_path("/v3/users/{vendor_data}/", &format!("/v3/users/{ID}/")), None);
        assert_eq!(session_in_path("/v3/session/imports/{id}/", &format!("/v3/session/imports/{ID}/")), None);
        assert_eq!(session_in_path("/v3/session/{id}/decision/", "/v3/session/ada@example.org/decision/"), None);
        assert_eq!(session_in_path("/v3/session/", "/v3/session/"), None);
        for secret in ["0123456789abcdef0123456789abcdef0123", "111111112222-4333-8444-555555555555-", &"-".repeat(36)]
        {
            let path = format!("/v3/session/{secret}/decision/");
            assert_eq!(session_in_path("/v3/session/{id}/decision/", &path), None, "{secret}");
        }
    }

    #[test]
    fn only_ids_are_taken_out_of_a_body() {
        let body = |id: &str| format!(r#"{{"vendor_data":"x","workflow_id":{id},"session_id":{id}}}"#);
        let good = body(&format!("\"{ID}\""));
        assert_eq!(workflow(good.as_bytes()).as_deref(), Some(ID));
        assert_eq!(session(good.as_bytes()).as_deref(), Some(ID));
        for id in ["null", "7", "\"\"", "\"Ada Example\"", "[]"] {
            assert_eq!(workflow(body(id).as_bytes()), None, "{id}");
        }
        assert_eq!(workflow(b""), None);
        assert_eq!(workflow(b"--sheet"), None);
        let large = format!("{}{good}", " ".repeat(LARGEST_BODY));
        assert_eq!(workflow(large.as_bytes()), None);
    }
}
