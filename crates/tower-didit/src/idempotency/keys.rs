//! How a call gets its key.

use http::{HeaderName, HeaderValue, Method, Request};

use super::{HEADER, HashSecret, payload::in_memory};
use crate::{
    call::{CallOptions, IdempotencyKey, OperationId},
    ids,
    random::Randomness,
};

/// How keys are made and where they are put.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) header: HeaderName,
    pub(super) quoted: bool,
    pub(super) random: Randomness,
    pub(super) secret: HashSecret,
}

impl Default for Keys {
    fn default() -> Self {
        Self { header: HEADER, quoted: false, random: Randomness::new(), secret: HashSecret::NONE }
    }
}

impl Keys {
    /// Puts the key into the request, unless it carries one; returns the key in use.
    pub(super) fn stamp<B: 'static>(&self, request: &mut Request<B>) -> Option<IdempotencyKey> {
        if let Some(own) = request.headers().get(&self.header) {
            return IdempotencyKey::try_from(own.clone()).ok();
        }
        let options = request.extensions().get::<CallOptions>();
        let key = match options.and_then(|options| options.idempotency_key.clone()) {
            Some(own) => own,
            None if matches!(*request.method(), Method::POST | Method::PATCH) => {
                match options.and_then(|options| options.operation_id.as_ref()) {
                    Some(operation) => self.derive(operation, request),
                    None => IdempotencyKey::trusted(ids::new_id(&self.random)),
                }
            }
            None => return None,
        };
        let value = if self.quoted { quote(&key) } else { key.to_header() };
        request.headers_mut().insert(self.header.clone(), value);
        Some(key)
    }

    /// The key that this request of an operation has always and everywhere.
    fn derive<B: 'static>(&self, operation: &OperationId, request: &Request<B>) -> IdempotencyKey {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let call = [operation.as_str(), request.method().as_str(), target].map(str::as_bytes);
        let body = in_memory(request.body());
        // NOTE: the purposes are part of the keys' meaning: another text makes other keys for the same calls.
        let hash = match &body {
            Some(body) => self.secret.hash("idempotency key 1", [call[0], call[1], call[2], body]),
            None => self.secret.hash("idempotency key 1, streaming", call),
        };
        IdempotencyKey::trusted(ids::hashed_id(hash))
    }
}

/// The key as a string item of RFC 8941, section 3.3.3: quoted, with `"` and `\` escaped.
fn quote(key: &IdempotencyKey) -> HeaderValue {
    let escaped = key.as_str().replace('\\', r"\\").replace('"', "\\\"");
    // Visible ASCII in quotes is always a header value.
    HeaderValue::try_from(format!("\"{escaped}\"")).unwrap_or_else(|_| key.to_header())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn request(operation: Option<&str>, body: &'static str) -> Request<Full<Bytes>> {
        let mut request = Request::post("/v3/aml/").body(Full::from(body)).unwrap();
        if let Some(operation) = operation {
            request.extensions_mut().insert(CallOptions::new().operation_id(operation.parse().unwrap()));
        }
        request
    }

    fn key<B: 'static>(keys: &Keys, mut request: Request<B>) -> Option<String> {
        let key = keys.stamp(&mut request)?;
        assert_eq!(request.headers()[HEADER], key.as_str());
        Some(key.as_str().to_owned())
    }

    #[test]
    fn an_operation_has_one_key_in_every_process_for_ever() {
        let found = key(&Keys::default(), request(Some("order-7"), "{}")).unwrap();
        assert_eq!(found, "41ee5a26-6251-8e2b-8904-820784a9d778", "a new release would break with calls under way");
        assert_eq!(uuid::Uuid::parse_str(&found).unwrap().get_version_num(), 8);
    }

    #[test]
    fn operation_method_target_body_and_secret_each_make_another_key() {
        let keys = Keys::default();
        let mut patch = request(Some("order-7"), "{}");
        *patch.method_mut() = Method::PATCH;
        let mut elsewhere = request(Some("order-7"), "{}");
        *elsewhere.uri_mut() = "/v3/aml/?x=1".parse().unwrap();
        let secret = Keys { secret: HashSecret::new([7; 32]), ..Keys::default() };
        let all = [
            key(&keys, request(Some("order-7"), "{}")),
            key(&keys, request(Some("order-8"), "{}")),
            key(&keys, request(Some("order-7"), "[]")),
            key(&keys, request(Some("order-7"), "{}").map(BodyExt::boxed)),
            key(&keys, patch),
            key(&keys, elsewhere),
            key(&secret, request(Some("order-7"), "{}")),
        ];
        assert_eq!(std::collections::HashSet::from(all).len(), 7);
    }

    #[test]
    fn the_host_makes_no_difference() {
        let mut absolute = request(Some("order-7"), "{}");
        *absolute.uri_mut() = "https://verification.didit.me/v3/aml/".parse().unwrap();
        let keys = Keys::default();
        assert_eq!(key(&keys, absolute), key(&keys, request(Some("order-7"), "{}")));
    }

    #[test]
    fn without_an_operation_every_call_has_its_own_key() {
        let keys = Keys::default();
        assert_ne!(key(&keys, request(None, "{}")), key(&keys, request(None, "{}")));
    }

    #[test]
    fn a_callers_own_key_wins_over_its_operation() {
        let mut named = request(None, "{}");
        let options = CallOptions::new().operation_id("order-7".parse().unwrap()).idempotency_key("k".parse().unwrap());
        named.extensions_mut().insert(options);
        assert_eq!(key(&Keys::default(), named).unwrap(), "k");
    }

    #[test]
    fn reading_has_no_key_even_within_an_operation() {
        let mut read = request(Some("order-7"), "");
        *read.method_mut() = Method::GET;
        assert_eq!(key(&Keys::default(), read), None);
    }
}
