//! The states of Didit's rate-limiting page, as data.

use std::num::NonZeroU32;

use super::{Counts, Limits, Mode, Scope};

/// November 2026: the page with `ingest-write`.
pub(super) fn newest() -> Limits {
    let ingest = ["transaction-create", "event-create", "event-batch"];
    let mut limits = july_2026();
    limits.version = "2026-11".to_owned();
    limits.scopes.push(per_minute("ingest-write", LIMIT_600, endpoints(&ingest)).replacing());
    limits
}

/// July 2026: GET at 600, PDF at 50, headers on 429 only.
pub(super) fn july_2026() -> Limits {
    Limits {
        version: "2026-07".to_owned(),
        scopes: vec![
            per_minute("generic-get", LIMIT_600, methods(&["GET"])),
            // PUT is named nowhere; counting it here is the careful reading.
            per_minute("generic-write", LIMIT_300, methods(&["POST", "PATCH", "DELETE", "PUT"])),
            // Whether creation also meets generic-write is contradicted by Didit's own sources: the careful reading
            // adds.
            per_minute("session-v2-create", LIMIT_600, endpoints(&["session-create"])),
            per_minute("session-generate-pdf", LIMIT_50, endpoints(&["session-generate-pdf"])),
            per_minute("session-add-images", LIMIT_10, endpoints(&["session-add-images", "session-add-images-patch"])),
            per_minute("session-update-kyc", LIMIT_10, endpoints(&["session-update-data", "session-update-data-post"])),
            per_minute(
                "session-update-poa",
                LIMIT_10,
                endpoints(&["session-update-poa-data", "session-update-poa-data-post"]),
            ),
        ],
    }
}

const LIMIT_600: NonZeroU32 = NonZeroU32::new(600).unwrap();
const LIMIT_300: NonZeroU32 = NonZeroU32::new(300).unwrap();
const LIMIT_50: NonZeroU32 = NonZeroU32::new(50).unwrap();
const LIMIT_10: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Built from parts that cannot be refused, so that no documented scope can be lost on the way.
fn per_minute(name: &str, limit: NonZeroU32, counts: Counts) -> Scope {
    Scope { name: name.to_owned(), limit, window: Limits::WINDOW, counts, mode: Mode::Add }
}

fn methods(names: &[&str]) -> Counts {
    Counts::Methods(names.iter().map(ToString::to_string).collect())
}

fn endpoints(names: &[&str]) -> Counts {
    Counts::Endpoints(names.iter().map(ToString::to_string).collect())
}
