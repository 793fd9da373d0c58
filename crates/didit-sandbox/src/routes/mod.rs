//! What each route does, one file each.

mod admin;
mod aml;
mod decision;
mod delete;
mod events;
mod generic;
mod health;
mod id_verification;
mod idempotency;
mod list;
mod odd;
mod pdf;
mod session_create;
mod transaction;
mod update_status;

use std::time::Duration;

use didit_api::{Endpoint, RetryClass};
use serde_json::Value;

pub(crate) use admin::{admin, finish, is_admin};
pub(crate) use decision::body as decision_body;
pub(crate) use transaction::transaction_id;
pub(crate) use update_status::set_status;

use crate::{
    answer::{self, Answer},
    call::Call,
    resolve::Params,
    world::{Caller, World},
};

/// Which function answers a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Handler {
    Aml,
    Decision,
    Delete,
    Event,
    EventBatch,
    #[default]
    Generic,
    Health,
    IdVerification,
    Import,
    List,
    Pdf,
    PhoneSend,
    SessionCreate,
    Status,
    Transaction,
    UpdateStatus,
}

/// What a session route says to a stranger (Didit's OpenAPI file, on decision, delete and update-status).
const NO_CREDENTIALS: &str = "Authentication credentials were not provided or are invalid.";

/// What any other route says to a stranger (the same, on session creation and standalone checks).
const NO_PERMISSION: &str = "You do not have permission to perform this action.";

impl Handler {
    /// Finds a route's function by what the route is, so that a table with names of its own works too.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        match (endpoint.method().as_str(), endpoint.path()) {
            ("GET", "/system/healthcheck" | "/system/healthcheck/") => Self::Health,
            ("GET", "/v3/status/") => Self::Status,
            ("POST", "/v3/session/") => Self::SessionCreate,
            ("GET", "/v3/sessions/") => Self::List,
            ("POST", "/v3/aml/") => Self::Aml,
            ("POST", "/v3/id-verification/") => Self::IdVerification,
            ("POST", "/v3/transactions/") => Self::Transaction,
            ("POST", "/v3/events/") => Self::Event,
            ("POST", "/v3/events/batch/") => Self::EventBatch,
            ("POST", "/v3/phone/send/") => Self::PhoneSend,
            ("POST", "/v3/session/imports/") => Self::Import,
            (method, path) => match (method, below_session(path)) {
                ("GET", Some("decision/")) => Self::Decision,
                ("GET", Some("generate-pdf/")) => Self::Pdf,
                ("DELETE", Some("delete/")) => Self::Delete,
                ("PATCH", Some("update-status/")) => Self::UpdateStatus,
                _ => Self::Generic,
            },
        }
    }

    /// Answers a request for a route.
    pub(crate) fn answer(
        self,
        world: &mut World,
        now: Duration,
        call: &Call,
        endpoint: &Endpoint,
        params: Params,
    ) -> Answer {
        let name = endpoint.name();
        let honours_key = endpoint.retry_class() == RetryClass::IdempotencyKey;
        if honours_key && world.caller(call) == Caller::Known {
            idempotency::once(world, call, name, |world| self.work(world, now, call, name, params))
        } else {
            self.work(world, now, call, name, params)
        }
    }

    fn work(self, world: &mut World, now: Duration, call: &Call, name: &str, params: Params) -> Answer {
        match self {
            Self::Aml => aml::aml(world, now, call, name),
            Self::Decision => decision::decision(world, now, call, params),
            Self::Delete => delete::delete(world, call, params),
            Self::Event => events::event(world, call, name),
            Self::EventBatch => events::batch(world, call, name),
            Self::Generic => generic::generic(world, now, call, name),
            Self::Health => health::healthcheck(now),
            Self::IdVerification => id_verification::id_verification(world, now, call, name),
            Self::Import => odd::import(world, now, call, name),
            Self::List => list::list(world, now, call),
            Self::Pdf => pdf::generate_pdf(world, call, params),
            Self::PhoneSend => odd::phone_send(world, now, call, name),
            Self::SessionCreate => session_create::session_create(world, now, call, name),
            Self::Status => health::status(now),
            Self::Transaction => transaction::transaction(world, now, call, name),
            Self::UpdateStatus => update_status::update_status(world, now, call, params),
        }
    }
}

/// What follows `/v3/session/{…}/` in a template.
fn below_session(path: &str) -> Option<&str> {
    path.strip_prefix("/v3/session/{")?.split_once("}/").map(|(_, rest)| rest)
}

/// The body as a JSON object.
fn object(call: &Call) -> Result<Value, Answer> {
    let value = call.json().map_err(|error| answer::not_json(&error))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(answer::invalid("non_field_errors", "Invalid data. Expected a dictionary."))
    }
}

/// A field that is text, absent or null. Empty text counts as absent.
fn optional_text(body: &Value, field: &str) -> Result<Option<String>, Answer> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(answer::invalid(field, "Not a valid string.")),
    }
}

/// A field of any kind; null if it is absent.
fn any(body: &Value, field: &str) -> Value {
    body.get(field).cloned().unwrap_or_default()
}
