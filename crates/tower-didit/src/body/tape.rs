//! A stream that is recorded while it is read.
//!
//! [`Tape`] is the recording and the rest of the stream behind it, a plain state machine. One attempt holds it at a time
//! and reads through a [`Reader`]; the retry layer owns its [`Keeper`], which passes it on. The two may live on different
//! threads, because a client sends bodies from tasks of its own, so they meet in a mutex. It is held for one poll of the
//! stream at most, and there is nobody to wait for but the other of the two.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{
    BoxError,
    source::{Source, length_of, shifted},
};

/// What a recorded frame is taken to cost beside its bytes: its entry, twice because the list grows by doubling and a half
/// more while it is being moved, and the counter that shared bytes get.
const ENTRY: usize = 4 * size_of::<Recorded>();

/// The bookkeeping that any recording may have, however small its cap: a stream of a few frames always fits.
const SMALL_CHANGE: usize = 4 * 1024;

/// The largest body of several pieces that is put together for a policy to look at: 64 KiB, far above any JSON that Didit
/// takes and far below an upload.
const LARGEST_JOINED: usize = 64 * 1024;

/// Why the body of an attempt ended before its end, if the original body did not fail itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A newer attempt of the same call sends the body now.
    #[error("a newer attempt of the same call sends this body now")]
    Superseded,
    /// The original body failed or panicked while it was read, and what it would have gone on with is lost.
    #[error("the body broke while an attempt read it")]
    Broken,
}

/// One frame of a recording.
enum Recorded {
    Data(Bytes),
    // Boxed, because there is one at most and it is four times as large.
    Trailers(Box<HeaderMap>),
}

impl Recorded {
    fn of(frame: &Frame<Bytes>) -> Option<Self> {
        let data = frame.data_ref().map(|data| Self::Data(data.clone()));
        data.or_else(|| frame.trailers_ref().map(|trailers| Self::Trailers(Box::new(trailers.clone()))))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => {
                trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
            }
        }
    }

    fn frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data.clone()),
            Self::Trailers(trailers) => Frame::trailers(HeaderMap::clone(trailers)),
        }
    }

    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(*trailers),
        }
    }
}

/// The number of an attempt: one holds the tape, and those before it have lost it.
type Holder = u32;

struct Tape<B: Body> {
    recorded: VecDeque<Recorded>,
    // The bytes in it.
    bytes: usize,
    // Where the holder reads next. Behind the last one, the stream goes on.
    next: usize,
    cap: usize,
    // Whether what the holder reads stays here; once it does not, no further attempt can begin.
    records: bool,
    // The stream behind the recording; `None` once it ended.
    rest: Option<Source<B>>,
    // The stream ended in an error or a panic: what is recorded is not the whole body.
    broken: bool,
    holder: Holder,
    // The holder's reader is gone, or not there yet.
    vacant: bool,
    // Whom to tell that the tape was passed on.
    waiting: Option<Waker>,
}

impl<B: Body> Tape<B> {
    fn new(source: Source<B>, cap: usize) -> Self {
        Self {
            recorded: VecDeque::new(),
            bytes: 0,
            next: 0,
            cap,
            records: true,
            rest: Some(source),
            broken: false,
            holder: 0,
            vacant: false,
            waiting: None,
        }
    }

    fn can_start_over(&self) -> bool {
        self.records && !self.broken
    }

    /// Passes the tape on to a new holder, at its beginning. Returns whom to wake.
    fn pass_on(&mut self) -> Option<Waker> {
        self.holder += 1;
        self.vacant = true;
        self.next = 0;
        self.waiting.take()
    }

    /// Keeps only what the holder has not read yet, and from now on nothing that it reads.
    fn stop_recording(&mut self) {
        self.records = false;
        self.recorded.drain(..mem::take(&mut self.next));
        self.recorded.shrink_to_fit();
        self.clear_if_unwanted();
    }

    fn break_off(&mut self) {
        self.broken = true;
        self.rest = None;
        self.stop_recording();
    }

    /// The holder's reader is gone.
    fn leave(&mut self, holder: Holder) {
        if holder == self.holder {
            self.vacant = true;
            self.clear_if_unwanted();
        }
    }

    /// Frees everything if nobody will read it. A reader that lost the tape may keep it alive for long: a client that
    /// waits for room in its socket does not look at the body meanwhile.
    fn clear_if_unwanted(&mut self) {
        if self.vacant && !self.records {
            self.recorded = VecDeque::new();
            self.rest = None;
            self.broken = true;
        }
    }

    fn poll_frame(&mut self, holder: Holder, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
    where
        B: Unpin,
        B::Error: Into<BoxError>,
    {
        if holder != self.holder {
            return Poll::Ready(Some(Err(ReplayError::Superseded.into())));
        }
        if self.broken {
            return Poll::Ready(Some(Err(ReplayError::Broken.into())));
        }
        if let Some(frame) = self.read_recorded() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        match rest.poll_frame(cx) {
            Poll::Pending => {
                match &mut self.waiting {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => self.waiting = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.rest = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.break_off();
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let to_come = rest.size_hint().lower();
                if rest.is_end_stream() {
                    self.rest = None;
                }
                self.record(&frame, to_come);
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn read_recorded(&mut self) -> Option<Frame<Bytes>> {
        if !self.records {
            return self.recorded.pop_front().map(Recorded::into_frame);
        }
        let frame = self.recorded.get(self.next)?.frame();
        self.next += 1;
        Some(frame)
    }

    /// Keeps a frame that the holder just read, unless it or what is to come does not fit.
    fn record(&mut self, frame: &Frame<Bytes>, to_come: u64) {
        if !self.records {
            return;
        }
        let Some(recorded) = Recorded::of(frame) else { return self.stop_recording() };
        let bytes = self.bytes.saturating_add(recorded.bytes());
        let whole = bytes.saturating_add(usize::try_from(to_come).unwrap_or(usize::MAX));
        let entries = (self.recorded.len() + 1).saturating_mul(ENTRY);
        if whole > self.cap || entries > (self.cap / 10).saturating_add(SMALL_CHANGE) {
            return self.stop_recording();
        }
        self.bytes = bytes;
        self.recorded.push_back(recorded);
        self.next += 1;
    }

    /// The whole body, if all of it is recorded, and is one piece or small.
    fn joined(&self) -> Bytes {
        if self.rest.is_some() || !self.can_start_over() {
            return Bytes::new();
        }
        let mut pieces = self.recorded.iter().filter_map(|recorded| match recorded {
            Recorded::Data(data) => Some(data),
            Recorded::Trailers(_) => None,
        });
        match (pieces.next(), pieces.next()) {
            (Some(only), None) => only.clone(),
            (Some(first), Some(second)) if self.bytes <= LARGEST_JOINED => {
                let mut joined = BytesMut::with_capacity(self.bytes);
                for piece in [first, second].into_iter().chain(pieces) {
                    joined.extend_from_slice(piece);
                }
                joined.freeze()
            }
            _ => Bytes::new(),
        }
    }
}

/// A tape in use. A panic of the stream, which poisons the mutex, breaks the tape: nobody knows what would come next.
fn lock<B: Body>(tape: &Mutex<Tape<B>>) -> MutexGuard<'_, Tape<B>> {
    tape.lock().unwrap_or_else(|poisoned| {
        let mut tape = poisoned.into_inner();
        tape.break_off();
        tape
    })
}

/// The retry layer's end of a tape. Dropping it ends the recording.
pub(crate) struct Keeper<B: Body> {
    tape: Arc<Mutex<Tape<B>>>,
    // What every attempt announces.
    size: SizeHint,
}

impl<B: Body> Keeper<B> {
    /// Starts recording. The stream is for the reader to read, which the first attempt gets.
    pub(super) fn new(source: Source<B>, cap: usize) -> (Self, Reader<B>) {
        let size = source.size_hint();
        let tape = Arc::new(Mutex::new(Tape::new(source, cap)));
        let reader = Reader { tape: Arc::clone(&tape), holder: 0, left: size, ended: false };
        (Self { tape, size }, reader)
    }

    /// Whether another attempt could send the whole body now.
    pub(super) fn can_start_over(&self) -> bool {
        lock(&self.tape).can_start_over()
    }

    /// Takes the tape from its reader; `false` if that is too late, and then the reader goes on.
    pub(super) fn take(&self) -> bool {
        let mut tape = lock(&self.tape);
        let can_start_over = tape.can_start_over();
        let wake = if can_start_over { tape.pass_on() } else { None };
        drop(tape);
        if let Some(waker) = wake {
            waker.wake();
        }
        can_start_over
    }

    /// A reader from the beginning. Whoever read before loses the tape.
    pub(super) fn reader(&self) -> Reader<B> {
        let mut tape = lock(&self.tape);
        let wake = tape.pass_on();
        tape.vacant = false;
        let holder = tape.holder;
        drop(tape);
        if let Some(waker) = wake {
            waker.wake();
        }
        Reader { tape: Arc::clone(&self.tape), holder, left: self.size, ended: false }
    }

    /// Ends the recording: there will be no further attempt.
    pub(super) fn release(&self) {
        lock(&self.tape).stop_recording();
    }

    /// The whole body, if all of it is recorded, and is one piece or small; nothing otherwise.
    pub(super) fn joined(&self) -> Bytes {
        lock(&self.tape).joined()
    }
}

impl<B: Body> Drop for Keeper<B> {
    fn drop(&mut self) {
        self.release();
    }
}

/// An attempt's end of a tape.
pub(super) struct Reader<B: Body> {
    tape: Arc<Mutex<Tape<B>>>,
    holder: Holder,
    left: SizeHint,
    // It was told that the body is over, or why it will not be.
    ended: bool,
}

impl<B: Body> Reader<B> {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
    where
        B: Unpin,
        B::Error: Into<BoxError>,
    {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = lock(&self.tape).poll_frame(self.holder, cx);
        match &frame {
            Poll::Ready(None | Some(Err(_))) => self.ended = true,
            Poll::Ready(Some(Ok(frame))) => {
                let read = frame.data_ref().map_or(0, length_of);
                self.left = shifted(self.left, |bytes| bytes.saturating_sub(read));
            }
            Poll::Pending => {}
        }
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        if self.ended {
            return true;
        }
        let tape = lock(&self.tape);
        // Whoever lost the tape has an error to come.
        tape.holder == self.holder && !tape.broken && tape.rest.is_none() && tape.next == tape.recorded.len()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left
    }
}

impl<B: Body> Drop for Reader<B> {
    fn drop(&mut self) {
        lock(&self.tape).leave(self.holder);
    }
}
