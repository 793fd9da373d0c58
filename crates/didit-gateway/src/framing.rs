//! Where one HTTP/1.1 request ends and the next begins, read strictly.
//!
//! # Why, since hyper reads that too
//!
//! A request whose length can be read in two ways is how one request is smuggled past a proxy inside another (RFC 9112
//! section 11.2). hyper takes one reading and drops the other from the headers, which is allowed, and leaves nothing for
//! a service to refuse. So the bytes are also read here, on their way to hyper, by rules that leave no choice: one
//! `Content-Length` of digits, or one `Transfer-Encoding: chunked`, and lines that end in CR LF. Nothing is changed; what
//! is found is told to the service, request by request.

use std::collections::VecDeque;

use crate::frames::Heads;

/// What is wrong with the framing of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// `Content-Length` beside `Transfer-Encoding`.
    TwoKinds,
    /// More than one `Content-Length`, even if they agree.
    TwoLengths,
    /// A `Content-Length` that is not a number of digits.
    Length,
    /// A `Transfer-Encoding` that is not `chunked` and nothing else, once.
    Encoding,
    /// A line that does not end in CR LF.
    LineEnd,
    /// A request that was not seen to begin: what went before it was read differently.
    Lost,
}

impl Violation {
    /// What is wrong, as a sentence.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::TwoKinds => "the request has both Content-Length and Transfer-Encoding",
            Self::TwoLengths => "the request has more than one Content-Length",
            Self::Length => "the request's Content-Length is not a number",
            Self::Encoding => "the request's Transfer-Encoding is not \"chunked\" alone",
            Self::LineEnd => "a line of the request's head does not end in CR LF",
            Self::Lost => "the request's beginning cannot be told from what went before it",
        }
    }
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    place: Place,
    line: Line,
    head: Head,
    /// How many heads have ended.
    heads: u64,
    /// One verdict for each request whose head has ended and that the service has not asked about.
    verdicts: VecDeque<Result<(), Violation>>,
}

/// A line so far, no more of it than is looked at.
#[derive(Debug, Default)]
struct Line {
    text: Vec<u8>,
    begun: bool,
    is_cut: bool,
    ends_in_cr: bool,
}

/// Where in the conversation the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a head; or, with nothing of it read, between requests.
    Head,
    /// In a body, with this many bytes to come.
    Body(u64),
    /// In the line that says how large a chunk is.
    ChunkSize,
    /// In a chunk, with this many bytes to come.
    Chunk(u64),
    /// At the end of a chunk's data.
    ChunkEnd,
    /// In the lines after the last chunk.
    Trailers,
    /// In HTTP/2, where frames say how long they are.
    Http2(Heads),
    /// Behind a violation: nothing after it is a request.
    Over,
}

/// What the head at hand has said so far.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    /// Empty lines before it.
    empty_lines: u32,
    length: Option<u64>,
    chunked: bool,
    violation: Option<Violation>,
}

/// No line that matters is longer; hyper has its own bound for those that do not.
const LINE: usize = 256;

/// The first line of HTTP/2's preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// What comes behind it.
const PREFACE_REST: &[u8] = b"\r\nSM\r\n\r\n";

impl Framing {
    pub(crate) fn new() -> Self {
        Self { place: Place::Head, line: Line::default(), head: Head::default(), heads: 0, verdicts: VecDeque::new() }
    }

    /// Whether a head has begun and not ended.
    ///
    /// One empty line before it is none of it: RFC 9112 section 2.2 has it ignored, as some clients end a body with one.
    pub(crate) fn in_head(&self) -> bool {
        match &self.place {
            Place::Head => self.head.begun || self.line.begun || self.head.empty_lines > 1,
            Place::Http2(heads) => heads.in_head(),
            _ => false,
        }
    }

    /// How many heads have ended, which tells one from the next.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether several requests may be under way at once.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.place, Place::Http2(_))
    }

    /// What is to be said of the next request, in the order in which they came.
    pub(crate) fn next_request(&mut self) -> Result<(), Violation> {
        self.verdicts.pop_front().unwrap_or(Err(Violation::Lost))
    }

    /// Reads what came in.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match &mut self.place {
                Place::Http2(heads) => {
                    self.heads += heads.read(bytes);
                    return;
                }
                Place::Over => return,
                &mut Place::Body(left) => self.skip(bytes, left, Place::Body, Place::Head),
                &mut Place::Chunk(left) => self.skip(bytes, left, Place::Chunk, Place::ChunkEnd),
                Place::Head | Place::ChunkSize | Place::ChunkEnd | Place::Trailers => self.read_line(bytes),
            };
        }
    }

    fn skip<'b>(&mut self, bytes: &'b [u8], left: u64, rest: fn(u64) -> Place, then: Place) -> &'b [u8] {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - taken as u64;
        self.place = if left == 0 { then } else { rest(left) };
        &bytes[taken..]
    }

    fn read_line<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        if let Some(last) = part.last() {
            self.line.ends_in_cr = *last == b'\r';
        }
        let room = LINE.saturating_sub(self.line.text.len());
        self.line.text.extend_from_slice(&part[..room.min(part.len())]);
        self.line.is_cut |= part.len() > room;
        self.line.begun |= !bytes.is_empty();
        let Some(end) = end else { return &[] };
        let mut line = std::mem::take(&mut self.line);
        self.end_line(&line);
        // Its memory serves the next line.
        line.text.clear();
        self.line.text = line.text;
        &bytes[end + 1..]
    }

    fn end_line(&mut self, line: &Line) {
        // Without its end; `None` if that is not CR LF.
        let text = line.ends_in_cr.then(|| line.text.strip_suffix(b"\r").unwrap_or(&line.text));
        match self.place {
            Place::Head => match text {
                None => {
                    self.head.violation.get_or_insert(Violation::LineEnd);
                    // A bare LF on its own may be taken for the end of the head, and may not.
                    if line.text.is_empty() {
                        self.end_head();
                    }
                }
                // RFC 9112 section 2.2: empty lines before a request are ignored.
                Some(b"") if !self.head.begun => self.head.empty_lines = self.head.empty_lines.saturating_add(1),
                Some(b"") => self.end_head(),
                Some(PREFACE) if !self.head.begun => {
                    self.place = Place::Http2(Heads::after_first_line(PREFACE_REST.len()));
                }
                Some(_) if !self.head.begun => self.head.begun = true,
                Some(field) => self.head.field(field, line.is_cut),
            },
            Place::ChunkSize => {
                let digits = line.text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                let hex = std::str::from_utf8(&line.text[..digits]).ok();
                let size = hex.and_then(|hex| u64::from_str_radix(hex, 16).ok());
                self.place = match size.filter(|_| text.is_some()) {
                    Some(0) => Place::Trailers,
                    Some(size) => Place::Chunk(size),
                    // hyper refuses it in the body; here, nothing after it counts.
                    None => Place::Over,
                };
            }
            Place::ChunkEnd => self.place = if text == Some(b"") { Place::ChunkSize } else { Place::Over },
            Place::Trailers if text == Some(b"") => self.place = Place::Head,
            Place::Trailers if text.is_none() => self.place = Place::Over,
            Place::Trailers | Place::Body(_) | Place::Chunk(_) | Place::Http2(_) | Place::Over => {}
        }
    }

    fn end_head(&mut self) {
        let Head { length, chunked, violation, .. } = std::mem::take(&mut self.head);
        let (verdict, place) = match violation {
            Some(violation) => (Err(violation), Place::Over),
            None if chunked => (Ok(()), Place::ChunkSize),
            None => (Ok(()), length.filter(|length| *length > 0).map_or(Place::Head, Place::Body)),
        };
        self.verdicts.push_back(verdict);
        self.heads += 1;
        self.place = place;
    }
}

impl Head {
    fn field(&mut self, line: &[u8], is_cut: bool) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        let violation = if name.eq_ignore_ascii_case(b"content-length") {
            let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            // Of one that long, not all digits are here.
            let length = digits.filter(|_| !is_cut);
            match (self.length.is_some(), length.and_then(|text| text.parse().ok())) {
                (true, _) => Some(Violation::TwoLengths),
                (false, None) => Some(Violation::Length),
                (false, length) => {
                    self.length = length;
                    self.chunked.then_some(Violation::TwoKinds)
                }
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let again = std::mem::replace(&mut self.chunked, true);
            if self.length.is_some() {
                Some(Violation::TwoKinds)
            } else {
                (again || !value.eq_ignore_ascii_case(b"chunked")).then_some(Violation::Encoding)
            }
        } else {
            None
        };
        self.violation = self.violation.or(violation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdicts on a conversation, which do not depend on how it is cut into pieces.
    fn verdicts(bytes: &[u8]) -> Vec<Result<(), Violation>> {
        let read = |pieces: usize| {
            let mut framing = Framing::new();
            bytes.chunks(pieces.max(1)).for_each(|piece| framing.read(piece));
            framing.verdicts.into_iter().collect::<Vec<_>>()
        };
        let whole = read(bytes.len());
        for pieces in [1, 2, 3, 7, 64] {
            assert_eq!(read(pieces), whole, "in pieces of {pieces}");
        }
        whole
    }

    fn head(fields: &str) -> Vec<Result<(), Violation>> {
        verdicts(format!("POST / HTTP/1.1\r\nhost: h\r\n{fields}\r\n").as_bytes())
    }

    #[test]
    fn a_request_with_one_length_is_good() {
        for fields in ["", "content-length: 0\r\n", "Content-Length:\t5 \r\n", "transfer-encoding: Chunked\r\n"] {
            assert_eq!(head(fields), [Ok(())], "{fields:?}");
        }
    }

    #[test]
    fn a_length_that_can_be_read_in_two_ways_is_found() {
        for (fields, violation) in [
            ("content-length: 5\r\ntransfer-encoding: chunked\r\n", Violation::TwoKinds),
            ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", Violation::TwoKinds),
            ("content-length: 5\r\ncontent-length: 6\r\n", Violation::TwoLengths),
            ("content-length: 5\r\nContent-Length: 5\r\n", Violation::TwoLengths),
            ("content-length: 5, 5\r\n", Violation::Length),
            ("content-length: +5\r\n", Violation::Length),
            ("content-length: -1\r\n", Violation::Length),
            ("content-length: 0x5\r\n", Violation::Length),
            ("content-length:\r\n", Violation::Length),
            ("content-length: 99999999999999999999\r\n", Violation::Length),
            ("content-length : 5\r\ncontent-length: 6\r\n", Violation::TwoLengths),
            ("transfer-encoding: gzip, chunked\r\n", Violation::Encoding),
            ("transfer-encoding: chunked, identity\r\n", Violation::Encoding),
            ("transfer-encoding: xchunked\r\n", Violation::Encoding),
            ("transfer-encoding: \x0bchunked\r\n", Violation::Encoding),
            ("transfer-encoding: identity\r\n", Violation::Encoding),
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", Violation::Encoding),
            ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", Violation::Encoding),
            ("x: y\ncontent-length: 5\r\n", Violation::LineEnd),
        ] {
            assert_eq!(head(fields), [Err(violation)], "{fields:?}");
        }
    }

    #[test]
    fn every_request_of_a_connection_is_found_behind_the_body_before_it() {
        let conversation = b"\r\nPOST /1 HTTP/1.1\r\ncontent-length: 25\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\
            POST /2 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nab\r\nc\r\n1C\r\nGET /in-a-chunk HTTP/1.1\r\n\r\n\
            \r\n0\r\ntrailer: x\r\n\r\nGET /3 HTTP/1.1\r\n\r\nPOST /4 HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\
            \r\n\r\nxGET /5 HTTP/1.1\r\n\r\n";
        let found = verdicts(conversation);
        // Behind the fourth nothing counts.
        assert_eq!(found, [Ok(()), Ok(()), Ok(()), Err(Violation::TwoLengths)]);
    }

    #[test]
    fn a_long_line_is_not_kept_and_its_end_is_seen() {
        let long = "x".repeat(100_000);
        assert_eq!(
            head(&format!("a: {long}\r\ncontent-length: 1\r\ncontent-length: 1\r\n")),
            [Err(Violation::TwoLengths)]
        );
        let zeros = "0".repeat(LINE);
        assert_eq!(head(&format!("content-length: {zeros}5\r\n")), [Err(Violation::Length)]);
        assert_eq!(head(&format!("a: {long}\ncontent-length: 1\r\n")), [Err(Violation::LineEnd)]);
        let mut framing = Framing::new();
        framing.read(format!("GET / HTTP/1.1\r\n{long}").as_bytes());
        assert!(framing.in_head() && framing.line.text.len() <= LINE);
    }

    #[test]
    fn what_follows_chunks_that_make_no_sense_is_lost() {
        for chunks in ["x\r\n", "5\nabcde", "-5\r\n", "ffffffffffffffffff\r\n", "5\r\nabcdefgh", "0\r\n\n"] {
            let text = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunks}GET / HTTP/1.1\r\n\r\n");
            assert_eq!(verdicts(text.as_bytes()), [Ok(())], "{chunks:?}");
        }
        assert_eq!(Framing::new().next_request(), Err(Violation::Lost));
    }

    #[test]
    fn a_head_of_http2_begins_with_its_first_frame_and_ends_with_its_last() {
        let frame = |kind: u8, flags: u8, length: u8| {
            [&[0, 0, length, kind, flags, 0, 0, 0, 1], vec![b'x'; length.into()].as_slice()].concat()
        };
        let mut framing = Framing::new();
        let mut after = |bytes: &[u8]| {
            // Byte by byte, so that every boundary falls between two reads.
            bytes.chunks(1).for_each(|byte| framing.read(byte));
            (framing.in_head(), framing.heads())
        };
        assert_eq!(after(b"PRI * HTTP/2.0\r\n\r\nSM"), (true, 0));
        assert_eq!(after(b"\r\n\r\n"), (false, 1));
        // SETTINGS, and PING.
        assert_eq!(after(&[frame(4, 0, 6), frame(6, 0, 8)].concat()), (false, 1));
        let headers = frame(1, 0, 20);
        assert_eq!(after(&headers[..3]), (false, 1), "it may be any frame yet");
        assert_eq!(after(&headers[3..4]), (true, 1));
        assert_eq!(after(&headers[4..]), (true, 1));
        assert_eq!(after(&frame(9, 0, 0)), (true, 1));
        assert_eq!(after(&frame(9, 4, 3)), (false, 2));
        // DATA whose flags look the same, and a head without a payload.
        assert_eq!(after(&[frame(0, 4, 3), frame(1, 5, 0)].concat()), (false, 3));
    }

    #[test]
    fn empty_lines_before_a_head_are_some_of_it_from_the_second_on() {
        let mut framing = Framing::new();
        framing.read(b"\r\n");
        assert!(!framing.in_head());
        framing.read(b"\r\n");
        assert!(framing.in_head());
        framing.read(b"GET / HTTP/1.1\r\n\r\n\r\n");
        assert_eq!((framing.in_head(), framing.heads()), (false, 1));
    }

    #[test]
    fn http2_is_left_to_itself() {
        assert_eq!(verdicts(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\n\ncontent-length: x\r\n\r\n"), []);
    }
}
