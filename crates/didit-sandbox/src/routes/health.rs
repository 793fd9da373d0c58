//! `GET /system/healthcheck` and `GET /v3/status/`, which ask for no key.

use std::time::Duration;

use serde_json::json;

use crate::{answer::Answer, clock};

/// Says that all is well.
pub(super) fn healthcheck(now: Duration) -> Answer {
    Answer::ok(&json!({ "status": "ok", "timestamp": clock::zulu(now) }))
}

/// Says that every service works.
pub(super) fn status(now: Duration) -> Answer {
    Answer::ok(&json!({
        "status": "operational",
        "updated_at": clock::zulu(now),
        "services": [],
        "incidents": [],
    }))
}
