//! Look-ups through the service that the call itself goes through.

use std::{future::poll_fn, marker::PhantomData, pin::pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header, uri};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tower::Service;
use uuid::Uuid;

use super::unread::stands_for;
use crate::{
    call::current::Scope,
    idempotency::{
        reconcile::{Lookup, LookupFailed, LookupFuture},
        store::{Key, Store},
    },
};

/// The longest answer that is read: 1 MiB, many times a full page of sessions.
const LONGEST: usize = 1024 * 1024;

/// The longest that one look-up takes, its repetitions, its wait for quota and its body included: 30 s. Reads at Didit
/// are answered within a second; whoever waits behind the call in doubt must not wait for a server that says nothing.
const LOOKUP_TIME: Duration = Duration::from_secs(30);

/// Sends look-ups to the inner service.
pub(super) struct Lookups<S, B> {
    inner: S,
    uri: Uri,
    headers: HeaderMap,
    store: Arc<dyn Store>,
    key: Key,
    body: PhantomData<fn() -> B>,
}

/// Whether a header is about the call's body, or about the answer that the call wants, and not about a look-up's.
fn is_of_the_call(name: &HeaderName) -> bool {
    let name = name.as_str();
    let families = ["accept-", "content-", "if-", "want-"];
    let others = ["digest", "expect", "prefer", "range", "repr-digest", "te", "trailer", "transfer-encoding"];
    families.iter().any(|family| name.starts_with(family)) || others.contains(&name)
}

impl<S, B> Lookups<S, B> {
    /// Look-ups about a call to `uri` with these headers, of which `carrier` is the idempotency key; the call is `key`
    /// in the store.
    pub(super) fn new(
        inner: S,
        (uri, mut headers): (Uri, HeaderMap),
        carrier: &HeaderName,
        (store, key): (Arc<dyn Store>, Key),
    ) -> Self {
        let of_the_call: Vec<_> = headers.keys().filter(|name| is_of_the_call(name)).cloned().collect();
        for name in of_the_call.iter().chain([carrier]) {
            headers.remove(name);
        }
        // What comes is read here.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Self { inner, uri, headers, store, key, body: PhantomData }
    }

    fn request(&self, target: &str) -> Option<Request<B>>
    where
        B: Default,
    {
        let mut parts = uri::Parts::from(self.uri.clone());
        parts.path_and_query = Some(target.parse().ok()?);
        let mut request = Request::new(B::default());
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }

    async fn send<RB>(&mut self, request: Request<B>) -> Result<Response<Bytes>, LookupFailed>
    where
        S: Service<Request<B>, Response = Response<RB>>,
        RB: Body,
    {
        poll_fn(|cx| self.inner.poll_ready(cx)).await.map_err(|_| LookupFailed)?;
        // A call of its own: with its own time, its own attempts, and no place in the report of the one it is about.
        let answer = Scope::apart().around(self.inner.call(request));
        let (parts, body) = answer.await.map_err(|_| LookupFailed)?.into_parts();
        let (mut body, mut data) = (pin!(body), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let Ok(mut piece) = frame.map_err(|_| LookupFailed)?.into_data() else { continue };
            if data.len() + piece.remaining() > LONGEST {
                return Err(LookupFailed);
            }
            data.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
        }
        Ok(Response::from_parts(parts, data.freeze()))
    }
}

impl<S, B, RB> Lookup for Lookups<S, B>
where
    S: Service<Request<B>, Response = Response<RB>> + Send,
    S::Future: Send,
    S::Error: Send,
    B: Default + Send,
    RB: Body<Data: Send, Error: Send> + Send,
{
    fn get<'a>(&'a mut self, target: &'a str) -> LookupFuture<'a, Result<Response<Bytes>, LookupFailed>> {
        Box::pin(async move {
            let request = self.request(target).ok_or(LookupFailed)?;
            timeout(LOOKUP_TIME, self.send(request)).await.map_err(|_elapsed| LookupFailed)?
        })
    }

    fn has_unread(&mut self, vendor_data: &str) -> LookupFuture<'_, Result<bool, LookupFailed>> {
        // Its holder is the operation that marks it, so it is another's in any case.
        self.is_anothers(stands_for(self.store.secret(), vendor_data))
    }

    fn is_anothers(&mut self, id: Uuid) -> LookupFuture<'_, Result<bool, LookupFailed>> {
        let (holder, key) = (self.store.holder(id), self.key);
        Box::pin(async move {
            let holder = timeout(LOOKUP_TIME, holder).await.map_err(|_elapsed| LookupFailed)?;
            Ok(holder.map_err(|_| LookupFailed)?.is_some_and(|holder| holder != key))
        })
    }
}
