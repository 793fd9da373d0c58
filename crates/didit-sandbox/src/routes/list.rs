//! `GET /v3/sessions/`.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{NO_PERMISSION, decision::has_results};
use crate::{
    answer::{self, Answer},
    call::Call,
    clock,
    sessions::Session,
    world::World,
};

/// How many sessions a page shows if the query does not say.
const DEFAULT_LIMIT: usize = 50;

/// Lists sessions, newest first, without their `metadata`, and without those too new to be listed.
pub(super) fn list(world: &World, now: Duration, call: &Call) -> Answer {
    if let Some(refusal) = world.refuse_stranger(call, NO_PERMISSION) {
        return refusal;
    }
    let query = call.query();
    let get = |name: &str| query.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let filter = match Filter::read(get) {
        Ok(filter) => filter,
        Err(refusal) => return refusal,
    };
    let number = |name: &str| get(name).and_then(|text| text.parse::<usize>().ok());
    let limit = number("limit").filter(|limit| *limit > 0).unwrap_or(DEFAULT_LIMIT);
    let offset = number("offset").unwrap_or(0);

    let (mut count, mut results) = (0, Vec::new());
    let listed = |session: &&Session| session.listed <= now;
    let sessions = world.sessions.newest_first(filter.vendor_data).filter(listed);
    for session in sessions.filter(|session| filter.takes(session, now)) {
        if count >= offset && results.len() < limit {
            results.push(row(session, now));
        }
        count += 1;
    }
    let after = offset.saturating_add(limit);
    let next = (after < count).then(|| page(call, &query, limit, after));
    let previous = (offset > 0).then(|| page(call, &query, limit, offset.saturating_sub(limit)));
    Answer::ok(&json!({ "count": count, "next": next, "previous": previous, "results": results }))
}

/// What a session must have to be listed.
struct Filter<'q> {
    none: bool,
    vendor_data: Option<&'q str>,
    statuses: Option<Vec<&'q str>>,
    workflow: Option<Uuid>,
}

impl<'q> Filter<'q> {
    fn read(get: impl Fn(&str) -> Option<&'q str>) -> Result<Self, Answer> {
        let none = match get("session_kind") {
            None | Some("user" | "all") => false,
            Some("business") => true,
            Some(other) => {
                let text = format!("\"{other}\" is not a valid choice.");
                return Err(answer::invalid("session_kind", &text));
            }
        };
        let workflow = get("workflow_id").filter(|text| !text.is_empty()).map(Uuid::try_parse).transpose();
        Ok(Self {
            none,
            vendor_data: get("vendor_data").filter(|text| !text.is_empty()),
            // Exact and case-sensitive; an unknown status matches nothing.
            statuses: get("status").filter(|text| !text.is_empty()).map(|text| text.split(',').collect()),
            workflow: workflow.map_err(|_| answer::invalid("workflow_id", "Must be a valid UUID."))?,
        })
    }

    fn takes(&self, session: &Session, now: Duration) -> bool {
        !self.none
            && self.workflow.is_none_or(|workflow| workflow == session.workflow)
            && self.statuses.as_ref().is_none_or(|statuses| statuses.contains(&session.status(now).as_str()))
    }
}

fn row(session: &Session, now: Duration) -> Value {
    let status = session.status(now);
    json!({
        "session_id": session.id.to_string(),
        "session_kind": "user",
        "session_number": session.number,
        "session_url": session.url,
        "portrait_image": null,
        "document_type": null,
        "full_name": null,
        "country": null,
        "status": status.as_str(),
        "vendor_data": session.vendor_data,
        "didit_internal_id": null,
        "created_at": clock::with_offset(session.created),
        "features": [{
            "feature": "ID_VERIFICATION",
            "status": if has_results(&status) { status.as_str() } else { "Not Finished" },
        }],
        "phone_number": null,
        "email_address": null,
        "additional_details": null,
    })
}

/// The address of another page: the same query with another offset.
fn page(call: &Call, query: &[(String, String)], limit: usize, offset: usize) -> String {
    let kept = query.iter().filter(|(key, _)| key != "limit" && key != "offset");
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.append_pair("limit", &limit.to_string());
    if offset > 0 {
        text.append_pair("offset", &offset.to_string());
    }
    text.extend_pairs(kept.map(|(key, value)| (key.as_str(), value.as_str())));
    let host = call.uri.authority().map(http::uri::Authority::as_str).or_else(|| call.text("host"));
    let origin = match host {
        Some(host) => format!("{}://{host}", call.uri.scheme_str().unwrap_or("http")),
        None => "https://verification.didit.me".to_owned(),
    };
    format!("{origin}{}?{}", call.path(), text.finish())
}
