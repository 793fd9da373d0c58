//! The bodies that pass through: bounded, and not for ever without progress.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};
use tower_didit::{call::SenderWait, telemetry::IdScan};

use crate::{
    conversation::{InFlight, Unwritten},
    log::CallLine,
};

/// Why a body that an application sends cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("the request's body is larger than {most} bytes")]
    TooLarge { most: u64 },
    #[error("no byte of the request's body came in for {after:?}")]
    Slow { after: Duration },
    #[error("the request's body had not come in when the time for the call was over")]
    Late,
    #[error("the request's body broke off")]
    Broken,
}

/// Why a body that the upstream sends cannot be passed on to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("no byte of the answer came in for {after:?}")]
    Slow { after: Duration },
    #[error("the answer broke off")]
    Broken,
}

/// How far a request's body was read; shared by the body and whoever answers the request.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    ended: Arc<AtomicBool>,
    wait: SenderWait,
}

/// A request's body on its way to the upstream.
#[derive(Debug)]
pub(crate) struct Upload {
    body: Incoming,
    progress: Progress,
    left: u64,
    most: u64,
    stall: Stall,
    /// Looks for the workflow of a session creation, and who wants to know it.
    workflow: Option<(IdScan, Arc<OnceLock<String>>)>,
}

/// An answer on its way to the application: the upstream's, or the gateway's own.
#[derive(Debug)]
pub(crate) struct Answer {
    kind: Kind,
    /// Writes the call's line once the body has ended or is given up.
    line: Option<CallLine>,
    /// The call is under way for as long.
    in_flight: Option<InFlight>,
    /// Looks for the session that was created.
    session: Option<IdScan>,
}

/// A piece of an answer on its way to the application.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    /// Tells the connection that it is there; operators' answers need none.
    unwritten: Option<Unwritten>,
}

#[derive(Debug)]
enum Kind {
    Own(Option<Bytes>),
    Upstream { body: Incoming, stall: Stall },
}

/// A time without progress. Its timer is made when there is something to wait for.
#[derive(Debug)]
struct Stall {
    after: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

// ===== impl Progress =====

impl Progress {
    /// A request without a body has ended with its head.
    pub(crate) fn of(body: &impl Body) -> Self {
        Self { ended: Arc::new(AtomicBool::new(body.is_end_stream())), wait: SenderWait::default() }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether the application is waited for.
    pub(crate) fn wait(&self) -> &SenderWait {
        &self.wait
    }
}

// ===== impl Upload =====

impl Upload {
    pub(crate) fn new(
        body: Incoming,
        progress: Progress,
        most: u64,
        after: Duration,
        workflow: Option<Arc<OnceLock<String>>>,
    ) -> Self {
        let workflow = workflow.map(|known| (IdScan::workflow(), known));
        Self { body, progress, left: most, most, stall: Stall::new(after), workflow }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                this.progress.wait.set(true);
                ready!(this.stall.poll(cx));
                return Poll::Ready(Some(Err(UploadError::Slow { after: this.stall.after })));
            }
        };
        this.stall.progress();
        this.progress.wait.set(false);
        // hyper does not ask for the end of a body that says it has ended.
        if frame.is_none() || (matches!(frame, Some(Ok(_))) && this.body.is_end_stream()) {
            this.progress.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                if let (Some((scan, known)), Some(data)) = (&mut this.workflow, frame.data_ref())
                    && let Some(id) = scan.feed(data)
                {
                    // Only the first counts.
                    let _ = known.set(id.to_owned());
                    this.workflow = None;
                }
                Some(match this.left.checked_sub(length) {
                    Some(left) => {
                        this.left = left;
                        Ok(frame)
                    }
                    None => Err(UploadError::TooLarge { most: this.most }),
                })
            }
            Some(Err(_)) => Some(Err(UploadError::Broken)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// ===== impl Answer =====

impl Answer {
    /// A text of the gateway's own.
    pub(crate) fn own(text: impl Into<Bytes>) -> Self {
        Self {
            kind: Kind::Own(Some(text.into()).filter(|text| !text.is_empty())),
            line: None,
            in_flight: None,
            session: None,
        }
    }

    /// The upstream's answer.
    pub(crate) fn upstream(body: Incoming, after: Duration) -> Self {
        Self { kind: Kind::Upstream { body, stall: Stall::new(after) }, line: None, in_flight: None, session: None }
    }

    /// Writes this line, and lets go of the call, once the body has ended.
    pub(crate) fn ending(mut self, line: CallLine, mut in_flight: InFlight) -> Self {
        in_flight.answered();
        self.session =
            (line.named.creates() && line.status.is_some_and(|status| status.is_success())).then(IdScan::session);
        (self.line, self.in_flight) = (Some(line), Some(in_flight));
        self
    }

    fn ended(&mut self) {
        if let Some(line) = &mut self.line {
            line.complete = true;
        }
        self.line = None;
    }
}

impl Body for Answer {
    type Data = Piece;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, AnswerError>>> {
        let this = self.get_mut();
        let frame = match &mut this.kind {
            Kind::Own(text) => text.take().map(|text| Ok(Frame::data(text))),
            Kind::Upstream { body, stall } => match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => {
                    stall.progress();
                    frame.map(|frame| frame.map_err(|_| AnswerError::Broken))
                }
                Poll::Pending => {
                    ready!(stall.poll(cx));
                    Some(Err(AnswerError::Slow { after: stall.after }))
                }
            },
        };
        if let (Some(line), Some(Ok(frame))) = (&mut this.line, &frame)
            && let Some(data) = frame.data_ref()
        {
            line.bytes += data.remaining() as u64;
            if let Some(id) = this.session.as_mut().and_then(|scan| scan.feed(data)) {
                line.named.session = Some(id.to_owned());
                this.session = None;
            }
        }
        // hyper does not ask for the end of a body that says it has ended.
        if frame.is_none() || (matches!(frame, Some(Ok(_))) && this.is_end_stream()) {
            this.ended();
        }
        let unwritten = || this.in_flight.as_ref().map(InFlight::piece);
        let piece = |frame: Frame<Bytes>| frame.map_data(|bytes| Piece { bytes, unwritten: unwritten() });
        Poll::Ready(frame.map(|frame| frame.map(piece)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(text) => text.is_none(),
            Kind::Upstream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Upstream { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // One without a body is never polled.
        if self.is_end_stream() {
            self.ended();
        }
    }
}

// ===== impl Piece =====

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(unwritten) = &self.unwritten {
            unwritten.moved();
        }
    }
}

// ===== impl Stall =====

impl Stall {
    fn new(after: Duration) -> Self {
        Self { after, timer: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let after = self.after;
        self.timer.get_or_insert_with(|| Box::pin(sleep(after))).as_mut().poll(cx)
    }

    fn progress(&mut self) {
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(Instant::now() + self.after);
        }
    }
}
