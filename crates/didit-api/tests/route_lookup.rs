//! Every route of the table is found, by every way of asking, and finding it allocates nothing.

use didit_api::{Endpoint, Routes, ServiceGroup};
use http::Method;

/// A path that a template matches: each variable becomes a session id.
fn example(template: &str) -> String {
    let mut path = String::new();
    let mut rest = template;
    while let Some((before, (_, after))) = rest.split_once('{').and_then(|(b, a)| Some((b, a.split_once('}')?))) {
        path.push_str(before);
        path.push_str("11111111-2222-4333-8444-555555555555");
        rest = after;
    }
    path + rest
}

#[test]
fn every_route_is_found_by_its_path_and_by_its_name() {
    let routes = Routes::didit();
    assert!(!routes.is_empty());
    for (id, endpoint) in routes.iter() {
        assert_eq!(routes.find(endpoint.method(), &example(endpoint.path())), Some(id), "{}", endpoint.name());
        assert_eq!(routes.named(endpoint.name()), Some(id));
        assert_eq!(routes.get(id), endpoint);
    }
}

#[test]
fn look_up_allocates_nothing() {
    let routes = Routes::didit();
    for (id, endpoint) in routes.iter() {
        let path = example(endpoint.path());
        let mut found = None;
        let counted = allocation_counter::measure(|| found = routes.find(endpoint.method(), &path));
        assert_eq!((found, counted.count_total), (Some(id), 0), "{}", endpoint.name());
    }
    for miss in ["/", "/v3/session/x/y/z/", "/v3/session/11111111-2222-4333-8444-555555555555/decision"] {
        let counted = allocation_counter::measure(|| assert_eq!(routes.find(&Method::GET, miss), None));
        assert_eq!(counted.count_total, 0, "{miss}");
    }
}

#[test]
fn names_are_kebab_case() {
    for (_, endpoint) in Routes::didit().iter() {
        let name = endpoint.name();
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name}");
        assert!(!name.starts_with('-') && !name.ends_with('-') && !name.contains("--"), "{name}");
    }
}

#[test]
fn canonical_routes_end_in_a_slash_but_for_two() {
    let routes = Routes::didit();
    let bare: Vec<_> = routes
        .iter()
        .map(|(_, e)| e)
        .filter(|e| !e.path().ends_with(['/', '}']) || e.name() == "session-webhook")
        .map(Endpoint::name)
        .collect();
    assert_eq!(bare, ["session-webhook", "healthcheck"]);
}

#[test]
fn no_variable_shadows_a_static_segment() {
    let routes = Routes::didit();
    let cases = [
        ("/v3/users/create/", "POST", "user-create"),
        ("/v3/session/imports/template/", "GET", "session-import-template"),
        ("/v3/transactions/sdk-token/", "POST", "transaction-sdk-token"),
        ("/v3/id-verification/wallets/bankid-se/", "POST", "id-wallet-verify"),
        ("/v3/session/import-shared/", "POST", "session-import-shared"),
    ];
    for (path, method, name) in cases {
        let found = routes.find(&method.parse().unwrap(), path).map(|id| routes.get(id).name());
        assert_eq!(found, Some(name), "{path}");
    }
}

/// What decides most: the class, the seconds and the group of the routes a client calls all day.
#[test]
fn table_says_what_the_documentation_says() {
    use didit_api::RetryClass::{BodyId, IdempotencyKey, Idempotent, Safe, Unsafe, VendorData};
    use didit_api::ServiceGroup::{
        Aml, Biometrics, Core, DatabaseValidation, Email, IdVerification, Kyb, Phone, Transactions,
    };
    let rows = [
        ("session-create", "POST", "/v3/session/", VendorData, 30, Core),
        ("session-list", "GET", "/v3/sessions/", Safe, 10, Core),
        ("session-decision", "GET", "/v3/session/{id}/decision/", Safe, 15, Core),
        ("session-generate-pdf", "GET", "/v3/session/{id}/generate-pdf/", Safe, 60, Core),
        ("session-delete", "DELETE", "/v3/session/{id}/delete/", Idempotent, 30, Core),
        ("sessions-delete", "POST", "/v3/sessions/delete/", Idempotent, 30, Core),
        ("session-update-status", "PATCH", "/v3/session/{id}/update-status/", Idempotent, 30, Core),
        ("session-update-data", "PATCH", "/v3/session/{id}/update-data/", Idempotent, 30, Core),
        ("session-update-poa-data", "PATCH", "/v3/session/{id}/update-poa-data/", Idempotent, 30, Core),
        ("session-update-data-post", "POST", "/v3/session/{id}/update-data/", Unsafe, 30, Core),
        ("session-update-poa-data-post", "POST", "/v3/session/{id}/update-poa-data/", Unsafe, 30, Core),
        ("session-add-images", "POST", "/v3/session/{id}/add-images/", Unsafe, 30, Core),
        ("session-add-images-patch", "PATCH", "/v3/session/{id}/add-images/", Unsafe, 30, Core),
        ("id-verification", "POST", "/v3/id-verification/", Unsafe, 120, IdVerification),
        ("poa", "POST", "/v3/poa/", Unsafe, 60, IdVerification),
        ("face-match", "POST", "/v3/face-match/", Unsafe, 60, Biometrics),
        ("passive-liveness", "POST", "/v3/passive-liveness/", Unsafe, 60, Biometrics),
        ("age-estimation", "POST", "/v3/age-estimation/", Unsafe, 60, Biometrics),
        ("face-search", "POST", "/v3/face-search/", Unsafe, 60, Biometrics),
        ("aml", "POST", "/v3/aml/", IdempotencyKey, 60, Aml),
        ("wallet-screening", "POST", "/v3/wallet-screening/", Unsafe, 60, Aml),
        ("database-validation", "POST", "/v3/database-validation/", Unsafe, 45, DatabaseValidation),
        ("kyb-search", "POST", "/v3/kyb/search/", Unsafe, 60, Kyb),
        ("kyb-select", "POST", "/v3/kyb/select/", Unsafe, 60, Kyb),
        ("phone-send", "POST", "/v3/phone/send/", Unsafe, 15, Phone),
        ("phone-check", "POST", "/v3/phone/check/", Unsafe, 15, Phone),
        ("email-send", "POST", "/v3/email/send/", Unsafe, 15, Email),
        ("email-check", "POST", "/v3/email/check/", Unsafe, 15, Email),
        ("transaction-create", "POST", "/v3/transactions/", BodyId, 30, Transactions),
        ("transaction-list", "GET", "/v3/transactions/", Safe, 10, Transactions),
        ("event-create", "POST", "/v3/events/", BodyId, 30, Transactions),
        ("event-batch", "POST", "/v3/events/batch/", BodyId, 30, Transactions),
        ("healthcheck", "GET", "/system/healthcheck", Safe, 5, Core),
        ("status", "GET", "/v3/status/", Safe, 10, Core),
    ];
    let routes = Routes::didit();
    for (name, method, path, retry, seconds, group) in rows {
        let endpoint = routes.get(routes.named(name).unwrap_or_else(|| panic!("no endpoint {name}")));
        assert_eq!((endpoint.method().as_str(), endpoint.path()), (method, path), "{name}");
        assert_eq!((endpoint.retry_class(), endpoint.attempt_timeout().as_secs()), (retry, seconds), "{name}");
        assert_eq!(endpoint.service_group(), group, "{name}");
    }
}

#[test]
fn nothing_that_writes_is_called_safe() {
    for (_, endpoint) in Routes::didit().iter() {
        let safe = endpoint.retry_class() == didit_api::RetryClass::Safe;
        assert_eq!(safe, endpoint.method() == Method::GET, "{}", endpoint.name());
    }
}

#[test]
fn groups_have_names_of_their_own() {
    let routes = Routes::didit();
    let mut names: Vec<_> = routes.iter().map(|(_, endpoint)| endpoint.service_group().name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 9);
    assert_eq!(ServiceGroup::Custom("reports").name(), "reports");
    assert_eq!(ServiceGroup::named("aml"), ServiceGroup::Aml);
    let (one, other) = (ServiceGroup::named("reports"), ServiceGroup::named(&String::from("reports")));
    assert_eq!((one, one), (other, ServiceGroup::Custom("reports")));
    assert!(std::ptr::eq(one.name(), other.name()), "the name is kept once");
}
