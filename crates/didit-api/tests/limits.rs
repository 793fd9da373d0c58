//! Which scopes count which request, and what a file of limits may say.

use std::time::Duration;

use didit_api::{Limits, Routes, Scope, limits::LimitsError};
use http::Method;

/// The names of the scopes that count one endpoint, in order of the scopes.
#[expect(clippy::panic, reason = "a helper of tests fails the test")]
fn counting(limits: &Limits, routes: &Routes, endpoint: &str) -> Vec<String> {
    let id = routes.named(endpoint).unwrap_or_else(|| panic!("no endpoint {endpoint}"));
    let scopes = limits.table(routes).of(Some(id), routes.get(id).method());
    scopes.iter().map(|scope| limits.scopes()[scope.index()].name().to_owned()).collect()
}

fn scope_of_json(scope: &str) -> Result<Limits, LimitsError> {
    Limits::from_json(&format!(r#"{{"version":"t","scopes":[{scope}]}}"#))
}

// ===== the documented states =====

#[test]
fn no_documented_scope_is_lost() {
    let names = |limits: Limits| limits.scopes().iter().map(|scope| scope.name().to_owned()).collect::<Vec<_>>();
    let july = [
        "generic-get",
        "generic-write",
        "session-v2-create",
        "session-generate-pdf",
        "session-add-images",
        "session-update-kyc",
        "session-update-poa",
    ];
    assert_eq!(names(Limits::version_named("2026-07").unwrap()), july);
    assert_eq!(names(Limits::didit()), [july.as_slice(), &["ingest-write"]].concat());
}

#[test]
fn every_named_version_exists_and_says_so() {
    for version in Limits::VERSIONS {
        assert_eq!(Limits::version_named(version).unwrap().version(), version);
    }
    assert_eq!(Limits::didit().version(), Limits::VERSIONS[0]);
    assert_eq!(Limits::version_named("1999-01"), None);
}

#[test]
fn documented_scopes_name_only_known_endpoints() {
    for version in Limits::VERSIONS {
        assert_eq!(Limits::version_named(version).unwrap().unknown_endpoints(&Routes::didit()), []);
    }
}

#[test]
fn every_endpoint_is_counted_as_the_documentation_says() {
    let (limits, routes) = (Limits::didit(), Routes::didit());
    let exempt = ["healthcheck", "healthcheck-slash", "session-sandbox-arm"];
    let ingest = ["transaction-create", "event-create", "event-batch"];
    let extra = [
        ("session-create", "session-v2-create"),
        ("session-generate-pdf", "session-generate-pdf"),
        ("session-add-images", "session-add-images"),
        ("session-add-images-patch", "session-add-images"),
        ("session-update-data", "session-update-kyc"),
        ("session-update-data-post", "session-update-kyc"),
        ("session-update-poa-data", "session-update-poa"),
        ("session-update-poa-data-post", "session-update-poa"),
    ];
    for (_, endpoint) in routes.iter() {
        let name = endpoint.name();
        let global = if endpoint.method() == Method::GET { "generic-get" } else { "generic-write" };
        let mut expected = match name {
            _ if exempt.contains(&name) => vec![],
            _ if ingest.contains(&name) => vec!["ingest-write"],
            _ => vec![global],
        };
        expected.extend(extra.iter().filter(|(of, _)| *of == name).map(|(_, scope)| *scope));
        assert_eq!(counting(&limits, &routes, name), expected, "{name}");
    }
}

#[test]
fn ingest_is_an_ordinary_write_in_july() {
    let (july, routes) = (Limits::version_named("2026-07").unwrap(), Routes::didit());
    for endpoint in ["transaction-create", "event-create", "event-batch"] {
        assert_eq!(counting(&july, &routes, endpoint), ["generic-write"]);
    }
}

#[test]
fn unknown_path_is_counted_by_its_method() {
    let (limits, routes) = (Limits::didit(), Routes::didit());
    let table = limits.table(&routes);
    let names =
        |method| table.of(None, &method).iter().map(|id| limits.scopes()[id.index()].name()).collect::<Vec<_>>();
    assert_eq!(names(Method::GET), ["generic-get"]);
    for write in [Method::POST, Method::PATCH, Method::DELETE, Method::PUT] {
        assert_eq!(names(write), ["generic-write"]);
    }
    assert!(table.of(None, &Method::OPTIONS).is_empty());
}

#[test]
fn unknown_path_is_counted_by_any_method_a_scope_names() {
    let limits = Limits::none().with(Scope::methods("rare", 1, ["OPTIONS", "REPORT"]).unwrap()).unwrap();
    let table = limits.table(&Routes::empty());
    assert!(!table.of(None, &Method::OPTIONS).is_empty());
    assert!(!table.of(None, &Method::from_bytes(b"REPORT").unwrap()).is_empty());
}

// ===== a user's own =====

#[test]
fn one_line_takes_session_creation_out_of_the_write_scope() {
    let routes = Routes::didit();
    let scope = Scope::endpoints("session-v2-create", 600, ["session-create"]).unwrap().replacing();
    let limits = Limits::didit().with(scope).unwrap();
    assert_eq!(counting(&limits, &routes, "session-create"), ["session-v2-create"]);
    assert_eq!(limits.scopes().len(), Limits::didit().scopes().len());
}

#[test]
fn added_scope_counts_beside_the_others() {
    let routes = Routes::didit();
    let limits = Limits::didit().with(Scope::endpoints("aml", 5, ["aml"]).unwrap()).unwrap();
    assert_eq!(counting(&limits, &routes, "aml"), ["generic-write", "aml"]);
    assert_eq!(counting(&limits, &routes, "poa"), ["generic-write"]);
}

#[test]
fn replacing_scope_keeps_endpoint_scopes_that_add() {
    let routes = Routes::didit();
    let own = Scope::endpoints("pdf", 30, ["session-generate-pdf"]).unwrap().replacing();
    let limits = Limits::didit().with(own).unwrap();
    assert_eq!(counting(&limits, &routes, "session-generate-pdf"), ["session-generate-pdf", "pdf"]);
}

#[test]
fn scope_of_methods_cannot_replace() {
    let scope = Scope::methods("g", 1, ["GET"]).unwrap().replacing();
    assert_eq!(Limits::none().with(scope.clone()), Err(LimitsError::Mode { scope: "g".to_owned() }));
    // Nor does it come in through a file.
    let json = serde_json::to_string(&scope).unwrap();
    let error = serde_json::from_str::<Scope>(&json).unwrap_err().to_string();
    assert!(error.contains("\"mode\" belongs to \"endpoints\""), "{error}");
    assert!(Limits::none().with(scope.adding()).is_ok());
}

#[test]
fn dropped_scope_counts_nothing() {
    let limits = Limits::didit().without("generic-write");
    assert_eq!(counting(&limits, &Routes::didit(), "session-create"), ["session-v2-create"]);
}

#[test]
fn misspelt_endpoint_is_found() {
    let limits = Limits::none().with(Scope::endpoints("a", 1, ["session-creat", "aml"]).unwrap()).unwrap();
    let unknown = limits.unknown_endpoints(&Routes::didit());
    assert_eq!(unknown.len(), 1);
    assert_eq!((unknown[0].scope.as_str(), unknown[0].endpoint.as_str()), ("a", "session-creat"));
}

#[test]
fn set_holds_as_many_scopes_as_bits_and_no_more() {
    let scope = |n: usize| Scope::methods(format!("s{n}"), 1, ["GET"]).unwrap();
    let full = (0..Limits::MAX_SCOPES).try_fold(Limits::none(), |limits, n| limits.with(scope(n))).unwrap();
    let last = full.table(&Routes::empty()).of(None, &Method::GET).iter().count();
    assert_eq!(last, Limits::MAX_SCOPES);
    assert_eq!(full.clone().with(scope(Limits::MAX_SCOPES)), Err(LimitsError::TooMany));
    assert!(full.with(scope(0)).is_ok(), "a scope of a known name takes no further place");
}

#[test]
fn unusable_scopes_are_refused_with_their_name() {
    let name = || "s".to_owned();
    let good = || Scope::methods("s", 1, ["GET"]).unwrap();
    let cases = [
        (Scope::methods("s", 0, ["GET"]), LimitsError::Zero { scope: name() }),
        (Scope::endpoints("s", 0, ["aml"]), LimitsError::Zero { scope: name() }),
        (good().with_limit(0), LimitsError::Zero { scope: name() }),
        (Scope::methods("s", 1, []), LimitsError::Nothing { scope: name() }),
        (Scope::endpoints("s", 1, []), LimitsError::Nothing { scope: name() }),
        (Scope::methods("s", 1, ["get"]), LimitsError::Method { scope: name(), method: "get".to_owned() }),
        (Scope::methods("s", 1, [""]), LimitsError::Method { scope: name(), method: String::new() }),
        (good().with_window(Duration::ZERO), LimitsError::Window { scope: name(), window: Duration::ZERO }),
        (good().with_window(Duration::MAX), LimitsError::Window { scope: name(), window: Duration::MAX }),
    ];
    for (made, refused) in cases {
        assert_eq!(made, Err(refused));
    }
}

// ===== files =====

#[test]
fn limits_survive_a_file() {
    let own = Scope::endpoints("aml", 5, ["aml"]).unwrap().with_window(Duration::from_millis(1500)).unwrap();
    for limits in [Limits::none(), Limits::didit(), Limits::didit().with(own).unwrap()] {
        let json = serde_json::to_string_pretty(&limits).unwrap();
        assert_eq!(Limits::from_json(&json).unwrap(), limits);
        assert_eq!(serde_json::from_str::<Limits>(&json).unwrap(), limits);
    }
}

#[test]
fn window_and_mode_have_defaults() {
    let limits = scope_of_json(r#"{"name":"a","limit":7,"endpoints":["aml"]}"#).unwrap();
    let scope = limits.scope("a").unwrap();
    assert_eq!((scope.limit().get(), scope.window(), scope.is_replacing()), (7, Limits::WINDOW, false));
    assert_eq!(scope.endpoint_names().collect::<Vec<_>>(), ["aml"]);
}

#[test]
fn wrong_files_are_refused_by_type() {
    let name = || "a".to_owned();
    let cases = [
        (r#"{"name":"a","limit":1}"#, LimitsError::Either { scope: name() }),
        (r#"{"name":"a","limit":1,"methods":["GET"],"endpoints":["aml"]}"#, LimitsError::Either { scope: name() }),
        (r#"{"name":"a","limit":1,"methods":["GET"],"mode":"add"}"#, LimitsError::Mode { scope: name() }),
        (r#"{"name":"a","limit":1,"methods":[]}"#, LimitsError::Nothing { scope: name() }),
        (r#"{"name":"a","limit":0,"methods":["GET"]}"#, LimitsError::Zero { scope: name() }),
        (
            r#"{"name":"a","limit":1,"window_ms":0,"methods":["GET"]}"#,
            LimitsError::Window { scope: name(), window: Duration::ZERO },
        ),
        (
            r#"{"name":"a","limit":1,"window_ms":86400001,"methods":["GET"]}"#,
            LimitsError::Window { scope: name(), window: Duration::from_millis(86_400_001) },
        ),
        (
            r#"{"name":"a","limit":1,"methods":["GET"]},{"name":"a","limit":2,"methods":["GET"]}"#,
            LimitsError::Duplicate { scope: name() },
        ),
    ];
    for (json, refused) in cases {
        assert_eq!(scope_of_json(json), Err(refused), "{json}");
    }
}

#[test]
fn malformed_files_are_refused_with_line_and_column() {
    let cases = [
        ("", 1, 0, "EOF"),
        ("{\n  \"version\": \"t\",\n  \"scopes\": [,]\n}", 3, 14, "expected value"),
        ("{\"version\":\"t\",\n\"scopes\":[],\n\"extra\":1}", 3, 7, "unknown field `extra`"),
        ("{\"version\":\"t\",\"scopes\":[\n{\"name\":\"a\",\"limt\":1}]}", 2, 18, "unknown field `limt`"),
        ("{\"version\":\"t\",\"scopes\":[\n{\"name\":\"a\",\"limit\":-1}]}", 2, 22, "invalid value"),
        ("{\"version\":\"t\",\"scopes\":[\n{\"name\":\"a\",\"limit\":4294967296}]}", 2, 30, "invalid value"),
        (
            "{\"version\":\"t\",\"scopes\":[\n{\"name\":\"a\",\"limit\":1,\"mode\":\"maybe\"}]}",
            2,
            36,
            "unknown variant",
        ),
    ];
    for (json, line, column, begins) in cases {
        match Limits::from_json(json) {
            Err(LimitsError::Json { line: at_line, column: at_column, reason }) => {
                assert_eq!((at_line, at_column), (line, column), "{json}: {reason}");
                assert!(reason.starts_with(begins), "{reason}");
                assert!(!reason.contains(" at line "), "{reason}");
            }
            other => panic!("{json}: {other:?}"),
        }
    }
}
