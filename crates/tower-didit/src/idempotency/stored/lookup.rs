//! Look-ups through the service that the call itself goes through.

use std::{future::poll_fn, marker::PhantomData, pin::pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, Uri, header, uri};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tower::Service;
use uuid::Uuid;

use crate::{
    call::current::InCall,
    idempotency::{
        reconcile::{Lookup, LookupFailed, LookupFuture},
        store::{Key, Store},
    },
};

/// The longest answer that is read: 1 MiB, many times a full page of sessions.
const LONGEST: usize = 1024 * 1024;

/// The longest that one look-up takes, its repetitions, its wait for quota and its body included: 30 s. Reads at Didit are
/// answered within a second; whoever waits behind the call in doubt must not wait for a server that says nothing.
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

impl<S, B> Lookups<S, B> {
    /// Look-ups about a call to `uri` with these headers, of which `carrier` is the idempotency key; the call is `key` in
    /// the store.
    pub(super) fn new(
        inner: S,
        (uri, mut headers): (Uri, HeaderMap),
        carrier: &header::HeaderName,
        (store, key): (Arc<dyn Store>, Key),
    ) -> Self {
        for of_the_body in [
            header::CONTENT_ENCODING,
            header::CONTENT_LENGTH,
            header::CONTENT_TYPE,
            header::EXPECT,
            header::TRANSFER_ENCODING,
        ] {
            headers.remove(of_the_body);
        }
        headers.remove(carrier);
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
        let answer = InCall::apart(|| self.inner.call(request));
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

    fn is_anothers(&mut self, id: Uuid) -> LookupFuture<'_, Result<bool, LookupFailed>> {
        let (holder, key) = (self.store.holder(id), self.key);
        Box::pin(async move {
            let holder = timeout(LOOKUP_TIME, holder).await.map_err(|_elapsed| LookupFailed)?;
            Ok(holder.map_err(|_| LookupFailed)?.is_some_and(|holder| holder != key))
        })
    }
}
