//! The bodies of a call that may be sent more than once: what is kept of a request, and what becomes of a response that
//! is not handed out.
//!
//! # Requests
//!
//! A client consumes a body as it sends it, so a second attempt has nothing left to send. [`ReplayBody`] is what makes
//! it possible, at the least cost for the body at hand:
//!
//! | body | what is kept | what a call pays |
//! |---|---|---|
//! | in memory as one piece (`Full`, `Empty`) | a reference to it | a reference count; no allocation, no lock |
//! | a stream, up to [the cap](crate::retry::RetryBuilder::replay_cap) | its frames, as the first attempt reads them | two allocations (the recording and its list) and the list's growth, an uncontended lock per frame, and the memory of what was read |
//! | a stream that announces more than the cap | nothing once reading has begun | one allocation, a lock per frame |
//!
//! **Frames are shared, never copied.** A recorded frame and the frame that goes out are the same bytes, and so are those
//! of every repetition. All that a recording adds is that the bytes stay in memory after they were sent: at most the cap,
//! plus a tenth of it and 4 KiB of bookkeeping.
//!
//! **The first attempt streams.** Nothing is read ahead of it. A repetition sends what was recorded and then goes on with
//! the rest of the stream, so a server that refuses before it has read the body costs no reading at all.
//!
//! **Above the cap, the call still goes out.** The recording is freed at once, and from then on the call is not
//! repeated: its response or error is handed out as it is. If the body's size hint says from the start that it
//! will not fit, nothing is recorded in the first place. An attempt that failed before it read anything (a connection
//! refused, a quota that is used up) can be followed by another whatever the size.
//!
//! **One attempt reads at a time.** A client may still be sending the body of an attempt that has already been
//! answered. Once a repetition is decided on, the body is the repetition's: the older attempt's body ends in
//! [`ReplayError::Superseded`], so that its transport ends the message as broken, never as complete. Bytes go out neither
//! twice nor out of order.
//!
//! **An error inside the body** goes to the attempt that met it, and the call is not repeated: there is no whole body
//! that could be sent.
//!
//! Every attempt announces the same size, so a body with a length keeps its `Content-Length`, and one without stays
//! chunked and keeps its trailers.
//!
//! # Responses
//!
//! An HTTP/1.1 connection can be used again only after its response was read to the end. The response of an attempt that
//! will be repeated is therefore read and thrown away during the backoff, up to 64 KiB and for at most a second, and
//! never for longer than the backoff lasts; whatever is larger or slower costs a connection, not time. The response that
//! the caller gets is left alone.
//!
//! # Example
//!
//! An upload that comes in pieces, to a server that refuses it after the first of them:
//!
//! ```
//! use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Empty};
//! use tower::{Layer, ServiceExt};
//! use tower_didit::{body::ReplayBody, retry::RetryLayer};
//! # use std::{convert::Infallible, pin::Pin, task::{Context, Poll}};
//! # use http_body::{Body, Frame};
//! #
//! # struct Pieces(Vec<&'static str>);
//! #
//! # impl Body for Pieces {
//! #     type Data = Bytes;
//! #     type Error = Infallible;
//! #
//! #     fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
//! #         Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(Bytes::from(piece)))))
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!
//! let refused = Arc::new(AtomicBool::new(false));
//! let client = tower::service_fn(move |request: Request<ReplayBody<Pieces>>| {
//!     let refused = Arc::clone(&refused);
//!     async move {
//!         let (mut body, mut response) = (request.into_body(), Response::new(Empty::<Bytes>::new()));
//!         if !refused.swap(true, Ordering::Relaxed) {
//!             body.frame().await;
//!             *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
//!         } else {
//!             // The piece that was sent before, and those that nobody has read.
//!             let whole = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
//!             assert_eq!(whole, "three pieces in all");
//!         }
//!         Ok::<_, std::io::Error>(response)
//!     }
//! });
//!
//! // Each call under way may keep this much in memory; the default is Didit's largest upload.
//! let service = RetryLayer::builder().replay_cap(4 * 1024 * 1024).build()?.layer(client);
//! let upload = Pieces(vec![" in all", " pieces", "three"]);
//! let response = service.oneshot(Request::put("/v3/upload/").body(upload)?).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```

mod drain;
mod replay;
mod source;
mod tape;

pub(crate) use self::{drain::Drain, replay::Kept};
pub use self::{replay::ReplayBody, tape::ReplayError};

/// The error type that clients ask of a body's error to turn into.
type BoxError = Box<dyn std::error::Error + Send + Sync>;
