//! A multipart form as large as asked for, made while it is sent.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

const HEAD: &[u8] = b"--sheet\r\ncontent-disposition: form-data; name=\"front_image\"; filename=\"front.jpg\"\r\n\r\n";
const BETWEEN: &[u8] =
    b"\r\n--sheet\r\ncontent-disposition: form-data; name=\"back_image\"; filename=\"back.jpg\"\r\n\r\n";
const TAIL: &[u8] = b"\r\n--sheet--\r\n";

/// The two sides of a document as a multipart form, in frames of 64 KiB that exist only once they are asked for.
///
/// Every byte of an image depends on its place, so that a piece that is lost, doubled or moved changes the hash.
#[derive(Clone, Debug)]
pub struct Upload {
    total: usize,
    sent: usize,
    // Where the second image begins.
    second: usize,
    // Whether the length is announced.
    sized: bool,
}

impl Upload {
    /// What it is.
    pub const CONTENT_TYPE: &'static str = "multipart/form-data; boundary=sheet";

    /// How many bytes a frame has.
    pub const FRAME: usize = 64 * 1024;

    /// A form of `total` bytes, which should be more than a few hundred, of a known length.
    pub fn new(total: usize) -> Self {
        Self { total, sent: 0, second: total / 2, sized: true }
    }

    /// Keeps its length to itself, so that it is sent in chunks.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.sized = false;
        self
    }

    /// The byte at a place.
    fn byte(&self, place: usize) -> u8 {
        let images_end = self.total - TAIL.len();
        match place {
            _ if place < HEAD.len() => HEAD[place],
            _ if (self.second..self.second + BETWEEN.len()).contains(&place) => BETWEEN[place - self.second],
            _ if place >= images_end => TAIL[place - images_end],
            // The upper bits of a multiplicative hash: no run of them repeats.
            _ => (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0],
        }
    }

    fn next_frame(&mut self) -> Option<Bytes> {
        let end = self.total.min(self.sent + Self::FRAME);
        let frame: Vec<u8> = (self.sent..end).map(|place| self.byte(place)).collect();
        self.sent = end;
        (!frame.is_empty()).then(|| frame.into())
    }

    /// The length and the hash of the whole form.
    pub fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        let mut form = Self { sent: 0, ..self.clone() };
        while let Some(frame) = form.next_frame() {
            digest.add(&frame);
        }
        digest
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next_frame().map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.sized && self.sent == self.total
    }

    fn size_hint(&self) -> SizeHint {
        match self.sized {
            true => SizeHint::with_exact(u64::try_from(self.total - self.sent).unwrap_or(u64::MAX)),
            false => SizeHint::default(),
        }
    }
}

/// The length and the hash of bytes, however they are cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    length: usize,
    // FNV-1a, which is defined byte by byte.
    hash: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self { length: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Digest {
    /// Takes in the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// How many bytes it was.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Reads a body to its end.
    ///
    /// # Errors
    ///
    /// Those of the body.
    pub async fn of<B>(body: B) -> Result<Self, B::Error>
    where
        B: Body<Data = Bytes>,
    {
        let mut body = std::pin::pin!(body);
        let mut digest = Self::default();
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            if let Some(data) = frame?.data_ref() {
                digest.add(data);
            }
        }
        Ok(digest)
    }
}
