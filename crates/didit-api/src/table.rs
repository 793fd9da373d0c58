//! Didit's routes, version 3 of the API: one row, one route.
//!
//! What a row does not say:
//!
//! - the scopes that count it: [`Limits`](crate::Limits) names endpoints, because the numbers change and routes do not;
//! - the device side (`/v1/transactions/…`) and the older block lists. They are unknown here on purpose: an unknown
//!   route is counted by the scope of its method and repeated only if its method says so, which is all that is known
//!   about them.

use std::time::Duration;

use http::Method;

use crate::{
    Endpoint, RetryClass,
    RetryClass::{BodyId, IdempotencyKey, Idempotent, Safe, Unsafe, VendorData},
    ServiceGroup,
};

/// Name, method, path, what makes repeating safe, attempt timeout.
type Row = (&'static str, Method, &'static str, RetryClass, Duration);

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PATCH: Method = Method::PATCH;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;

/// Didit asks load balancers to probe every 5 to 15 s: a probe is over before the next one.
const PROBE: Duration = Duration::from_secs(5);
/// Lists, in the samples of Didit's OpenAPI file.
const LIST: Duration = Duration::from_secs(10);
/// A decision in the same samples; taken for every other read of one thing.
const READ: Duration = Duration::from_secs(15);
/// A code by phone or e-mail, in the same samples.
const CODE: Duration = Duration::from_secs(15);
/// Nothing is published for writes.
const WRITE: Duration = Endpoint::DEFAULT_TIMEOUT;
/// Database validation, in the samples.
const DATABASE: Duration = Duration::from_secs(45);
/// A PDF, faces, a company registry, in the samples. AML: its page asks for at least 60 s with adverse media (a pause
/// of 5 s, then up to 25 s of polling, on top of the screening). Proof of address: its page says at least 45 s and no
/// early retry; a second try bills again, so the wait is the longer one.
const SLOW: Duration = Duration::from_secs(60);
/// Reading a document, in the samples: up to three images of 10 MB have to be uploaded first.
const DOCUMENT: Duration = Duration::from_secs(120);

/// Didit itself.
#[rustfmt::skip]
static CORE: &[Row] = &[
    // Not retried on a timeout unless `vendor_data` is given: each POST without it makes a session nobody can find.
    ("session-create", POST, "/v3/session/", VendorData, WRITE),
    ("session-list", GET, "/v3/sessions/", Safe, LIST),
    ("session-decision", GET, "/v3/session/{id}/decision/", Safe, READ),
    ("session-generate-pdf", GET, "/v3/session/{id}/generate-pdf/", Safe, SLOW),
    // 204, then 404: the second answer means that the first was carried out.
    ("session-delete", DELETE, "/v3/session/{id}/delete/", Idempotent, WRITE),
    // 204 each time.
    ("sessions-delete", POST, "/v3/sessions/delete/", Idempotent, WRITE),
    // The same status twice is a 400 that does no harm.
    ("session-update-status", PATCH, "/v3/session/{id}/update-status/", Idempotent, WRITE),
    ("session-update-data", PATCH, "/v3/session/{id}/update-data/", Idempotent, WRITE),
    ("session-update-poa-data", PATCH, "/v3/session/{id}/update-poa-data/", Idempotent, WRITE),
    // The rate-limiting page counts POST as well; what a second one does is not documented.
    ("session-update-data-post", POST, "/v3/session/{id}/update-data/", Unsafe, WRITE),
    ("session-update-poa-data-post", POST, "/v3/session/{id}/update-poa-data/", Unsafe, WRITE),
    // Images are added, not set, with either method.
    ("session-add-images", POST, "/v3/session/{id}/add-images/", Unsafe, WRITE),
    ("session-add-images-patch", PATCH, "/v3/session/{id}/add-images/", Unsafe, WRITE),
    ("session-update-company-data", PATCH, "/v3/session/{id}/kyb/{company}/update-data/", Idempotent, WRITE),
    ("session-update-feature-status", PATCH, "/v3/session/{id}/features/{node}/update-status/", Idempotent, WRITE),
    ("session-update-aml-hit-status", PATCH, "/v3/session/{id}/update-aml-hit-status/", Idempotent, WRITE),
    ("session-bulk-update-aml-hit-status", PATCH, "/v3/session/{id}/bulk-update-aml-hit-status/", Idempotent, WRITE),
    ("session-share", POST, "/v3/session/{id}/share/", Unsafe, WRITE),
    // Once per partner application, and what the second call answers is not documented.
    ("session-import-shared", POST, "/v3/session/import-shared/", Unsafe, WRITE),
    // Rows are keyed by `external_id`, but what a second job does with known rows is not documented.
    ("session-import-create", POST, "/v3/session/imports/", Unsafe, WRITE),
    ("session-import-template", GET, "/v3/session/imports/template/", Safe, READ),
    ("session-import", GET, "/v3/session/imports/{id}/", Safe, READ),
    ("session-import-errors", GET, "/v3/session/imports/{id}/errors/", Safe, READ),
    // Armed twice with one scenario is armed once.
    ("session-sandbox-arm", POST, "/v3/session/{id}/sandbox/arm/", Idempotent, WRITE),
    ("session-review-list", GET, "/v3/sessions/{id}/reviews/", Safe, LIST),
    ("session-review-create", POST, "/v3/sessions/{id}/reviews/", Unsafe, WRITE),
    ("session-webhook-list", GET, "/v3/session/{id}/webhooks/", Safe, LIST),
    // The one documented route without a final slash beside the health check.
    ("session-webhook", GET, "/v3/session/{id}/webhook/{webhook}", Safe, READ),

    ("workflow-list", GET, "/v3/workflows/", Safe, LIST),
    // Didit calls a 500 safe to retry here; a timeout may still have made the workflow.
    ("workflow-create", POST, "/v3/workflows/", Unsafe, WRITE),
    ("workflow", GET, "/v3/workflows/{id}/", Safe, READ),
    ("workflow-update", PATCH, "/v3/workflows/{id}/", Idempotent, WRITE),
    ("workflow-delete", DELETE, "/v3/workflows/{id}/", Idempotent, WRITE),
    ("questionnaire-list", GET, "/v3/questionnaires/", Safe, LIST),
    ("questionnaire-create", POST, "/v3/questionnaires/", Unsafe, WRITE),
    ("questionnaire", GET, "/v3/questionnaires/{id}/", Safe, READ),
    ("questionnaire-update", PATCH, "/v3/questionnaires/{id}/", Idempotent, WRITE),
    ("questionnaire-delete", DELETE, "/v3/questionnaires/{id}/", Idempotent, WRITE),

    ("user-list", GET, "/v3/users/", Safe, LIST),
    // "Not idempotent": a duplicate `vendor_data` is a 400 that does not return the user.
    ("user-create", POST, "/v3/users/create/", Unsafe, WRITE),
    ("users-delete", POST, "/v3/users/delete/", Idempotent, WRITE),
    ("user", GET, "/v3/users/{vendor_data}/", Safe, READ),
    ("user-update", PATCH, "/v3/users/{vendor_data}/", Idempotent, WRITE),
    ("user-update-status", PATCH, "/v3/users/{vendor_data}/update-status/", Idempotent, WRITE),
    ("business-list", GET, "/v3/businesses/", Safe, LIST),
    ("business-create", POST, "/v3/businesses/create/", Unsafe, WRITE),
    ("businesses-delete", POST, "/v3/businesses/delete/", Idempotent, WRITE),
    ("business", GET, "/v3/businesses/{vendor_data}/", Safe, READ),
    ("business-update", PATCH, "/v3/businesses/{vendor_data}/", Idempotent, WRITE),
    ("business-update-status", PATCH, "/v3/businesses/{vendor_data}/update-status/", Idempotent, WRITE),

    ("billing-balance", GET, "/v3/billing/balance/", Safe, READ),
    ("billing-top-up", POST, "/v3/billing/top-up/", Unsafe, WRITE),

    // The older, single webhook; a PATCH may rotate the secret, and each rotation kills the one before.
    ("webhook", GET, "/v3/webhook/", Safe, READ),
    ("webhook-update", PATCH, "/v3/webhook/", Unsafe, WRITE),
    ("webhook-destination-list", GET, "/v3/webhook/destinations/", Safe, LIST),
    // The same URL twice is a 400, but only the first answer carries the secret.
    ("webhook-destination-create", POST, "/v3/webhook/destinations/", Unsafe, WRITE),
    ("webhook-destination", GET, "/v3/webhook/destinations/{id}/", Safe, READ),
    ("webhook-destination-update", PATCH, "/v3/webhook/destinations/{id}/", Idempotent, WRITE),
    ("webhook-destination-delete", DELETE, "/v3/webhook/destinations/{id}/", Idempotent, WRITE),
    ("webhook-delivery-list", GET, "/v3/webhook/destinations/{id}/deliveries/", Safe, LIST),
    ("webhook-delivery-resend", POST, "/v3/webhook/destinations/{id}/deliveries/{delivery}/resend/", Unsafe, WRITE),

    ("customization", GET, "/v3/customization/", Safe, READ),
    ("customization-update", PATCH, "/v3/customization/", Idempotent, WRITE),

    // Cases, blueprints, reports: what the console calls with a user's token. Only the methods are known of each.
    ("console-get", GET, "/v3/organization/{org}/application/{app}/{*rest}", Safe, WRITE),
    ("console-post", POST, "/v3/organization/{org}/application/{app}/{*rest}", Unsafe, WRITE),
    ("console-patch", PATCH, "/v3/organization/{org}/application/{app}/{*rest}", Idempotent, WRITE),
    ("console-delete", DELETE, "/v3/organization/{org}/application/{app}/{*rest}", Idempotent, WRITE),

    ("healthcheck", GET, "/system/healthcheck", Safe, PROBE),
    ("healthcheck-slash", GET, "/system/healthcheck/", Safe, PROBE),
    ("status", GET, "/v3/status/", Safe, LIST),
    ("sandbox-scenarios", GET, "/v1/sandbox/scenarios/", Safe, LIST),
];

/// Each 200 bills again, and makes another session if it is saved.
#[rustfmt::skip]
static ID_VERIFICATION: &[Row] = &[
    ("id-verification", POST, "/v3/id-verification/", Unsafe, DOCUMENT),
    ("poa", POST, "/v3/poa/", Unsafe, SLOW),
    ("id-wallet-list", GET, "/v3/id-verification/wallets/", Safe, LIST),
    // The wallet pages name `Idempotency-Key`; a call that is still running answers 409 with `Retry-After`.
    ("id-wallet-verify", POST, "/v3/id-verification/wallets/{wallet}/", IdempotencyKey, WRITE),
    ("id-wallet-verification", GET, "/v3/id-verification/wallets/verifications/{request}/", Safe, READ),
    ("id-wallet-response", POST, "/v3/id-verification/wallets/verifications/{request}/response/", Unsafe, WRITE),
];

/// As with documents: each 200 bills again.
#[rustfmt::skip]
static BIOMETRICS: &[Row] = &[
    ("face-match", POST, "/v3/face-match/", Unsafe, SLOW),
    ("passive-liveness", POST, "/v3/passive-liveness/", Unsafe, SLOW),
    ("age-estimation", POST, "/v3/age-estimation/", Unsafe, SLOW),
    ("face-search", POST, "/v3/face-search/", Unsafe, SLOW),
];

#[rustfmt::skip]
static AML: &[Row] = &[
    ("aml", POST, "/v3/aml/", IdempotencyKey, SLOW),
    ("wallet-screening", POST, "/v3/wallet-screening/", Unsafe, SLOW),
];

#[rustfmt::skip]
static KYB: &[Row] = &[
    ("kyb-search", POST, "/v3/kyb/search/", Unsafe, SLOW),
    ("kyb-select", POST, "/v3/kyb/select/", Unsafe, SLOW),
];

#[rustfmt::skip]
static DATABASE_VALIDATION: &[Row] = &[
    // July's OpenAPI file calls a 502 unbilled and safe to retry, the newer page does not: the newer one holds.
    ("database-validation", POST, "/v3/database-validation/", Unsafe, DATABASE),
];

/// A pending verification is sent again, not made anew, but a number has four attempts an hour and a code two sends:
/// blind repeats would lock the person out. A check spends one of three attempts.
#[rustfmt::skip]
static PHONE: &[Row] = &[
    ("phone-send", POST, "/v3/phone/send/", Unsafe, CODE),
    ("phone-check", POST, "/v3/phone/check/", Unsafe, CODE),
];

/// As with phones.
#[rustfmt::skip]
static EMAIL: &[Row] = &[
    ("email-send", POST, "/v3/email/send/", Unsafe, CODE),
    ("email-check", POST, "/v3/email/check/", Unsafe, CODE),
];

#[rustfmt::skip]
static TRANSACTIONS: &[Row] = &[
    ("transaction-list", GET, "/v3/transactions/", Safe, LIST),
    // A `transaction_id` is accepted once; the second time is a 400, or a 409 in a race.
    ("transaction-create", POST, "/v3/transactions/", BodyId, WRITE),
    ("transaction", GET, "/v3/transactions/{id}/", Safe, READ),
    ("transaction-sdk-token", POST, "/v3/transactions/sdk-token/", Unsafe, WRITE),
    ("transaction-travel-rule", PATCH, "/v3/transactions/{id}/travel-rule/", Idempotent, WRITE),
    ("transaction-travel-rule-ownership", POST, "/v3/transactions/{id}/travel-rule/ownership/", Unsafe, WRITE),
    // An `event_id` seen before is answered with `replayed`: whole batches may be repeated.
    ("event-create", POST, "/v3/events/", BodyId, WRITE),
    ("event-batch", POST, "/v3/events/batch/", BodyId, WRITE),
    ("travel-rule-settings", GET, "/v3/travel-rule/settings/", Safe, READ),
    ("travel-rule-settings-update", PUT, "/v3/travel-rule/settings/", Idempotent, WRITE),
    ("travel-rule-address-list", GET, "/v3/travel-rule/wallet-addresses/", Safe, LIST),
    ("travel-rule-address-create", POST, "/v3/travel-rule/wallet-addresses/", Unsafe, WRITE),
    ("travel-rule-vasp-list", GET, "/v3/travel-rule/vasps/", Safe, LIST),
    ("travel-rule-vasp-create", POST, "/v3/travel-rule/vasps/", Unsafe, WRITE),
    ("travel-rule-vasp", GET, "/v3/travel-rule/vasps/{id}/", Safe, READ),
    ("travel-rule-vasp-decision", PUT, "/v3/travel-rule/vasps/{id}/decision/", Idempotent, WRITE),
    // Keyed by transaction hash and wallet: 201 first, 200 after.
    ("travel-rule-inbound", POST, "/v3/travel-rule/inbound/", BodyId, WRITE),
    ("travel-rule-widget-session", POST, "/v3/travel-rule/widget-session/", Unsafe, WRITE),
    ("travel-rule-widget-vasp-list", GET, "/v3/travel-rule/widget/{token}/vasps/", Safe, LIST),
    ("travel-rule-widget-vasp-select", POST, "/v3/travel-rule/widget/{token}/vasps/", Unsafe, WRITE),
];

/// What no limit counts. Didit exempts the health check by name. Arming a scenario carries a session's token and no
/// key, so it is probably session traffic, which is exempt; to be wrong costs one 429 in a sandbox.
const UNLIMITED: [&str; 3] = ["healthcheck", "healthcheck-slash", "session-sandbox-arm"];

pub(crate) fn endpoints() -> Vec<Endpoint> {
    let groups = [
        (ServiceGroup::Core, CORE),
        (ServiceGroup::IdVerification, ID_VERIFICATION),
        (ServiceGroup::Biometrics, BIOMETRICS),
        (ServiceGroup::Aml, AML),
        (ServiceGroup::Kyb, KYB),
        (ServiceGroup::DatabaseValidation, DATABASE_VALIDATION),
        (ServiceGroup::Phone, PHONE),
        (ServiceGroup::Email, EMAIL),
        (ServiceGroup::Transactions, TRANSACTIONS),
    ];
    let rows = groups.into_iter().flat_map(|(group, rows)| rows.iter().map(move |row| (group, row)));
    rows.map(|(group, (name, method, path, retry, timeout))| {
        let endpoint = Endpoint::new(*name, method.clone(), *path).retry(*retry).timeout(*timeout).group(group);
        if UNLIMITED.contains(name) { endpoint.unlimited() } else { endpoint }
    })
    .collect()
}
