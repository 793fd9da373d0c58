//! Sessions that were made and whose ids could not be read, so that no other operation takes one for its own.
//!
//! The store knows who holds an id, and of these there is none. So an id is made of the `vendor_data` that they are
//! found by, and an operation of its own holds that one, for as long as what is settled is remembered.

use bytes::Bytes;
use didit_api::RetryClass;
use http::StatusCode;
use serde::Deserialize;
use uuid::Uuid;

use crate::idempotency::{
    HashSecret,
    store::{Answer, Begun, Claim, Key, Settlement, Store, StoreError, Timestamp},
};

/// The mark of one operation's session.
pub(super) struct Mark {
    key: Key,
    stands_for: Uuid,
}

impl Mark {
    /// What has to be remembered of a session creation with this body that was answered; nothing if its session's id is
    /// known, or no look-up would find it.
    pub(super) fn of(
        secret: &HashSecret,
        key: &Key,
        body: Option<&Bytes>,
        class: RetryClass,
        id: Option<Uuid>,
    ) -> Option<Self> {
        #[derive(Deserialize)]
        struct Request {
            vendor_data: Option<String>,
        }

        if class != RetryClass::VendorData || id.is_some() {
            return None;
        }
        let request: Request = serde_json::from_slice(body?).ok()?;
        let vendor_data = request.vendor_data.filter(|vendor_data| !vendor_data.is_empty())?;
        let key = secret.hash("session of unread id", [vendor_data.as_bytes(), key]);
        Some(Self { key, stands_for: stands_for(secret, &vendor_data) })
    }

    /// Writes it down.
    pub(super) async fn write(self, store: &dyn Store, claim: Claim, now: Timestamp) -> Result<(), StoreError> {
        // Anything else was written down before.
        if let Begun::Lead { epoch } | Begun::Reconcile { epoch, .. } = store.begin(self.key, claim, now).await? {
            let answer = Answer { session_id: Some(self.stands_for), ..Answer::new(StatusCode::CREATED) };
            store.settle(self.key, epoch, Settlement::Done(answer), now).await?;
        }
        Ok(())
    }
}

/// The id that stands for all of one `vendor_data`.
pub(super) fn stands_for(secret: &HashSecret, vendor_data: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&secret.hash("sessions of unread ids", [vendor_data.as_bytes()])[..16]);
    Uuid::from_bytes(bytes)
}
