//! How a call gets its key.

use http::{HeaderName, HeaderValue, Method, Request};

use super::{HEADER, HashSecret, payload::in_memory};
use crate::{
    call::{CallOptions, IdempotencyKey, OperationId, current},
    ids,
    random::Randomness,
};

/// How keys are made and where they are put.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) header: HeaderName,
    pub(super) quoted: bool,
    /// Whether a POST or PATCH that nobody has named gets a key.
    pub(super) unnamed: bool,
    pub(super) random: Randomness,
    pub(super) secret: HashSecret,
}

impl Default for Keys {
    fn default() -> Self {
        Self { header: HEADER, quoted: false, unnamed: true, random: Randomness::new(), secret: HashSecret::NONE }
    }
}

impl Keys {
    /// The key that the request carries already; `None` if it carries none, or something that is no key.
    pub(super) fn own<B>(&self, request: &Request<B>) -> Option<IdempotencyKey> {
        IdempotencyKey::try_from(request.headers().get(&self.header)?.clone()).ok()
    }

    /// Puts the key into the request, unless it carries one; returns the key in use.
    ///
    /// A header that is no key (empty, too long, not ASCII) gives way to what else the caller has named the call by:
    /// with it in the way, nothing would protect a call whose caller asked for it twice. Where there is nothing else it
    /// stays as it is, and the call has no key.
    pub(super) fn stamp<B: 'static>(&self, request: &mut Request<B>) -> Option<IdempotencyKey> {
        let own = request.headers().get(&self.header);
        let is_odd = match own.map(|own| IdempotencyKey::try_from(own.clone())) {
            Some(Ok(own)) => return Some(own),
            Some(Err(_)) => true,
            None => false,
        };
        if is_odd {
            tracing::warn!(header = %self.header, "the request's own idempotency key cannot be used as one");
        }
        let options = request.extensions().get::<CallOptions>();
        let key = match options.and_then(|options| options.idempotency_key.clone()) {
            Some(own) => own,
            None if matches!(*request.method(), Method::POST | Method::PATCH) => {
                match options.and_then(|options| options.operation_id.as_ref()) {
                    Some(operation) => self.derive(operation, request),
                    None if is_odd || !self.unnamed => return None,
                    None => {
                        let spare = current::with(|call| call.spare_key.take()).flatten();
                        IdempotencyKey::trusted(spare.unwrap_or_else(|| ids::new_id(&self.random)))
                    }
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
    fn calls_without_a_name_can_be_left_without_a_key() {
        let keys = Keys { unnamed: false, ..Keys::default() };
        assert_eq!(key(&keys, request(None, "{}")), None);
        assert_eq!(key(&keys, request(Some("order-7"), "{}")), key(&Keys::default(), request(Some("order-7"), "{}")));
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
    fn a_header_that_is_no_key_gives_way_to_what_else_names_the_call() {
        let own_key = CallOptions::new().idempotency_key("k".parse().unwrap());
        for odd in ["", &"x".repeat(300), "\u{e9}"] {
            let with_odd = |mut request: Request<Full<Bytes>>| {
                request.headers_mut().insert(HEADER, HeaderValue::from_bytes(odd.as_bytes()).unwrap());
                request
            };
            let keys = Keys::default();
            let operation = || request(Some("order-7"), "{}");
            assert_eq!(key(&keys, with_odd(operation())), key(&keys, operation()));
            let mut named = with_odd(operation());
            named.extensions_mut().insert(own_key.clone());
            assert_eq!(key(&keys, named).unwrap(), "k");
            let mut unnamed = with_odd(request(None, "{}"));
            assert_eq!(keys.stamp(&mut unnamed), None);
            assert_eq!(unnamed.headers()[HEADER].as_bytes(), odd.as_bytes(), "it is the caller's");
        }
    }

    #[test]
    fn reading_has_no_key_even_within_an_operation() {
        let mut read = request(Some("order-7"), "");
        *read.method_mut() = Method::GET;
        assert_eq!(key(&Keys::default(), read), None);
    }
}
