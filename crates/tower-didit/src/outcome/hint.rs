//! What an answer that nobody wanted is most likely about.

use http::{HeaderMap, StatusCode, header};

/// Explains an answer that looks like something else than it is; `None` for all that speak for themselves.
///
/// Didit's routes end in a slash, and a path without it is moved to the one with it. The redirection is an answer, and
/// not followed: a client that follows it may lose the body of a POST or the key on the way.
///
/// # Example
///
/// ```
/// use http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION};
/// use tower_didit::outcome::hint;
///
/// let moved = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static("/v3/sessions/?limit=5"))]);
/// assert_eq!(hint(StatusCode::MOVED_PERMANENTLY, &moved), Some("the path lacks its final slash"));
/// assert_eq!(hint(StatusCode::NOT_FOUND, &HeaderMap::new()), None);
/// ```
pub fn hint(status: StatusCode, headers: &HeaderMap) -> Option<&'static str> {
    if !matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT) {
        return None;
    }
    let location = headers.get(header::LOCATION)?.as_bytes();
    let path = location.split(|byte| matches!(byte, b'?' | b'#')).next()?;
    path.ends_with(b"/").then_some("the path lacks its final slash")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hinted(status: u16, location: Option<&'static str>) -> bool {
        let location = location.map(|location| (header::LOCATION, location.parse().unwrap()));
        hint(StatusCode::from_u16(status).unwrap(), &location.into_iter().collect()).is_some()
    }

    #[test]
    fn a_move_to_a_path_with_a_final_slash_is_explained() {
        for location in ["/v3/sessions/", "/v3/sessions/?vendor_data=a/b", "https://didit.example/v3/sessions/#top"] {
            assert!(hinted(301, Some(location)), "{location}");
            assert!(hinted(308, Some(location)), "{location}");
        }
    }

    #[test]
    fn every_other_answer_speaks_for_itself() {
        assert!(!hinted(301, None));
        assert!(!hinted(301, Some("/v4/sessions?next=/")));
        assert!(!hinted(302, Some("/v3/sessions/")));
        assert!(!hinted(200, Some("/v3/sessions/")));
        assert!(!hinted(404, None));
    }
}
