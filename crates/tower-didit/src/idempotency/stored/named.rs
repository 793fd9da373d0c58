//! What a call is called in the store, and what it asks for.

use std::collections::HashMap;

use bytes::Bytes;
use didit_api::{Endpoint, RetryClass};
use http::{HeaderValue, Request, header};
use serde_json::{Value, value::RawValue};

use super::layer::Shared;
use crate::{
    call::{CallOptions, IdempotencyKey, OperationId},
    idempotency::{
        payload,
        store::{Fingerprint, Key},
    },
};

/// A call that its caller has named.
pub(super) struct Named {
    pub(super) key: Key,
    pub(super) fingerprint: Fingerprint,
    /// Its body, if it lies in memory.
    pub(super) body: Option<Bytes>,
    pub(super) operation_id: Option<OperationId>,
}

impl Named {
    /// Names the call to the server, and reads what it is called in the store: nothing if its caller gave it no name,
    /// so that no other call can ever have the same.
    pub(super) fn stamp<B: 'static>(
        shared: &Shared,
        request: &mut Request<B>,
    ) -> (Option<IdempotencyKey>, Option<Self>) {
        if shared.operation_as_vendor_data {
            fill_vendor_data(shared, request);
        }
        let own_header = shared.keys.own(request).is_some();
        let options = request.extensions().get::<CallOptions>();
        let own_key = own_header || options.is_some_and(|options| options.idempotency_key.is_some());
        let operation_id = options.and_then(|options| options.operation_id.clone());
        let key = shared.keys.stamp(request);
        // Reading changes nothing, so there is nothing to remember.
        let named = key
            .as_ref()
            .filter(|_| !request.method().is_safe())
            .and_then(|key| Self::read(shared, request, key, own_key, operation_id));
        if named.is_some() {
            // The id of what was made is read out of the answer, and what is kept of it is given to whoever asks next.
            request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        (key, named)
    }

    fn read<B: 'static>(
        shared: &Shared,
        request: &Request<B>,
        key: &IdempotencyKey,
        own_key: bool,
        operation_id: Option<OperationId>,
    ) -> Option<Self> {
        let (secret, method) = (shared.store.secret(), request.method().as_str().as_bytes());
        let key = match &operation_id {
            // As it is sent: quotes may be of the header, and are of the key then in one place and not in the other.
            _ if own_key => {
                let sent = request.headers().get(&shared.keys.header);
                secret.hash("key", [sent.map_or(key.as_str().as_bytes(), HeaderValue::as_bytes)])
            }
            // NOTE: without the body, unlike the key that is sent: another body must be found to be a conflict.
            Some(id) => secret.hash("operation", [id.as_str().as_bytes(), method, request.uri().path().as_bytes()]),
            None => return None,
        };
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).as_bytes();
        let body = payload::in_memory(request.body());
        let fingerprint = match &body {
            Some(body) => secret.hash("payload", [method, target, body]),
            None => secret.hash("payload, streaming", [method, target]),
        };
        Some(Self { key, fingerprint, body, operation_id })
    }
}

/// Gives a session creation without `vendor_data` the operation's id for one.
fn fill_vendor_data<B: 'static>(shared: &Shared, request: &mut Request<B>) -> Option<()> {
    let id = request.extensions().get::<CallOptions>()?.operation_id.as_ref()?;
    let endpoint = shared.routes.find(request.method(), request.uri().path()).map(|id| shared.routes.get(id))?;
    if Endpoint::retry_class(endpoint) != RetryClass::VendorData {
        return None;
    }
    let text = Bytes::from(with_vendor_data(&payload::in_memory(request.body())?, id.as_str())?);
    let length = HeaderValue::from(text.len());
    *request.body_mut() = payload::of_bytes(text)?;
    if let Some(given) = request.headers_mut().get_mut(header::CONTENT_LENGTH) {
        *given = length;
    }
    Some(())
}

/// A JSON object with this `vendor_data`, and otherwise the same to the byte; `None` if it has one, or is no object.
fn with_vendor_data(object: &[u8], id: &str) -> Option<String> {
    let text = std::str::from_utf8(object).ok()?;
    let fields: HashMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let id = Value::from(id);
    Some(match fields.get("vendor_data").map(|given| given.get()) {
        Some(nothing @ ("null" | "\"\"")) => {
            let start = nothing.as_ptr() as usize - text.as_ptr() as usize;
            format!("{}{id}{}", &text[..start], &text[start + nothing.len()..])
        }
        Some(_given) => return None,
        None => {
            let (before, fields_and_end) = text.split_once('{')?;
            let comma = if fields.is_empty() { "" } else { "," };
            format!("{before}{{\"vendor_data\":{id}{comma}{fields_and_end}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vendor_data_is_filled_in_and_nothing_else_is_changed() {
        let cases = [
            ("{}", Some(r#"{"vendor_data":"a\"b"}"#)),
            (
                " { \"n\": 12345678901234567890123, \"m\": 1.10 }",
                Some(" {\"vendor_data\":\"a\\\"b\", \"n\": 12345678901234567890123, \"m\": 1.10 }"),
            ),
            (r#"{"x":null,"vendor_data": null ,"y":0.30}"#, Some(r#"{"x":null,"vendor_data": "a\"b" ,"y":0.30}"#)),
            (r#"{"vendor_data":""}"#, Some(r#"{"vendor_data":"a\"b"}"#)),
            (r#"{"metadata":{"vendor_data":"u"}}"#, Some(r#"{"vendor_data":"a\"b","metadata":{"vendor_data":"u"}}"#)),
            (r#"{"vendor_data":"user 7"}"#, None),
            (r#"{"vendor_data":7}"#, None),
            ("[]", None),
            ("not json", None),
        ];
        for (given, expected) in cases {
            assert_eq!(with_vendor_data(given.as_bytes(), "a\"b").as_deref(), expected, "{given}");
        }
    }
}
