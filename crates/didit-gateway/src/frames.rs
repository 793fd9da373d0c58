//! The frames of HTTP/2 (RFC 9113 section 4.1), as far as one has to look at them to know what hyper keeps to itself.

/// Follows frames one after the other, however they are cut into pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frames {
    /// Bytes to come of the payload at hand.
    left: usize,
    head: [u8; Self::HEAD],
    filled: usize,
    payload: [u8; 4],
    seen: usize,
    begun: bool,
}

/// A frame that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// The payload's first bytes, zeros behind its end.
    pub(crate) begin: [u8; 4],
}

/// Follows the heads of requests among the frames of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Bytes to come of the preface, which counts as a head.
    preface: usize,
    frames: Frames,
    in_head: bool,
}

// ===== impl Frames =====

impl Frames {
    /// A length of 3 bytes, a type, flags, and a stream of 4 bytes.
    const HEAD: usize = 9;

    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const CONTINUATION: u8 = 9;
    pub(crate) const END_HEADERS: u8 = 4;

    /// What kind of frame has begun and not ended, once that can be told.
    pub(crate) fn kind(&self) -> Option<u8> {
        // The type is the fourth byte.
        (self.begun || self.filled > 3).then_some(self.head[3])
    }

    /// Reads what came by, up to the end of a frame: that frame, if one ended, and what is left to read.
    pub(crate) fn read<'b>(&mut self, mut bytes: &'b [u8]) -> (Option<Frame>, &'b [u8]) {
        loop {
            if self.left == 0 && std::mem::take(&mut self.begun) {
                let [_, _, _, kind, flags, ..] = self.head;
                return (Some(Frame { kind, flags, begin: self.payload }), bytes);
            }
            if bytes.is_empty() {
                return (None, bytes);
            }
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                let kept = if self.begun { taken.min(self.payload.len() - self.seen) } else { 0 };
                self.payload[self.seen..self.seen + kept].copy_from_slice(&bytes[..kept]);
                (self.left, self.seen, bytes) = (self.left - taken, self.seen + kept, &bytes[taken..]);
                continue;
            }
            let taken = (Self::HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            (self.filled, bytes) = (self.filled + taken, &bytes[taken..]);
            if self.filled == Self::HEAD {
                let [high, middle, low, ..] = self.head;
                self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                (self.filled, self.payload, self.seen, self.begun) = (0, [0; 4], 0, true);
            }
        }
    }
}

// ===== impl Heads =====

impl Heads {
    /// Behind the first line of the preface, of which so much is to come.
    pub(crate) fn after_first_line(rest: usize) -> Self {
        Self { preface: rest, frames: Frames::default(), in_head: false }
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn in_head(&self) -> bool {
        self.preface > 0 || self.in_head || self.frames.kind() == Some(Frames::HEADERS)
    }

    /// Reads what came in; how many heads ended in it.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> u64 {
        let (preface, mut bytes) = bytes.split_at(self.preface.min(bytes.len()));
        self.preface -= preface.len();
        let mut ended = u64::from(!preface.is_empty() && self.preface == 0);
        while let (Some(frame), rest) = self.frames.read(bytes) {
            bytes = rest;
            if matches!(frame.kind, Frames::HEADERS | Frames::CONTINUATION) {
                self.in_head = frame.flags & Frames::END_HEADERS == 0;
                ended += u64::from(!self.in_head);
            }
        }
        ended
    }
}
