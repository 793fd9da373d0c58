//! Records as bytes, for stores that are not in memory.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use uuid::Uuid;

use super::{Answer, Epoch, Record, Timestamp, record::State};

/// The first byte of every record, so that another layout can be told apart.
const VERSION: u8 = 1;

const IN_FLIGHT: u8 = 0;
const INTENDED: u8 = 1;
const UNKNOWN: u8 = 2;
const DONE: u8 = 3;

/// Bytes that are no record of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no record of version {VERSION}")]
pub struct Unreadable;

impl Record {
    /// The record as bytes: a version, the epoch, the fingerprint, the state.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(VERSION);
        out.extend(self.epoch.0.to_le_bytes());
        out.extend(self.fingerprint);
        let mut time = |tag: u8, times: &[Timestamp]| {
            out.push(tag);
            times.iter().for_each(|time| out.extend(time.as_millis().to_le_bytes()));
        };
        match &self.state {
            State::InFlight { since, until } => time(IN_FLIGHT, &[*since, *until]),
            State::Intended { since } => time(INTENDED, &[*since]),
            State::Unknown { since } => time(UNKNOWN, &[*since]),
            State::Done { at, answer } => {
                time(DONE, &[*at]);
                out.extend(answer.status.as_u16().to_le_bytes());
                optional(&mut out, answer.session_id.as_ref().map(|id| id.as_bytes().as_slice()));
                optional(&mut out, answer.body.as_ref().map(|body| body.data.as_ref()));
                let content_type = answer.body.as_ref().and_then(|body| body.content_type.as_ref());
                optional(&mut out, content_type.map(HeaderValue::as_bytes));
            }
        }
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut rest = Reader(bytes);
        if rest.take::<1>()? != [VERSION] {
            return Err(Unreadable);
        }
        let epoch = Epoch(u64::from_le_bytes(rest.take()?));
        let fingerprint = rest.take()?;
        let state = match rest.take::<1>()? {
            [IN_FLIGHT] => State::InFlight { since: rest.time()?, until: rest.time()? },
            [INTENDED] => State::Intended { since: rest.time()? },
            [UNKNOWN] => State::Unknown { since: rest.time()? },
            [DONE] => State::Done { at: rest.time()?, answer: rest.answer()? },
            _ => return Err(Unreadable),
        };
        if rest.0.is_empty() { Ok(Self { epoch, fingerprint, state }) } else { Err(Unreadable) }
    }
}

/// A length that no bytes have stands for none.
const NONE: u32 = u32::MAX;

fn optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let length = bytes.map_or(NONE, |bytes| u32::try_from(bytes.len()).unwrap_or(NONE));
    out.extend(length.to_le_bytes());
    out.extend(bytes.filter(|_| length != NONE).unwrap_or_default());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*head)
    }

    fn time(&mut self) -> Result<Timestamp, Unreadable> {
        self.take().map(|bytes| Timestamp::from_millis(u64::from_le_bytes(bytes)))
    }

    fn optional(&mut self) -> Result<Option<&[u8]>, Unreadable> {
        let length = u32::from_le_bytes(self.take()?);
        if length == NONE {
            return Ok(None);
        }
        let (head, rest) = self.0.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX)).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(Some(head))
    }

    fn answer(&mut self) -> Result<Answer, Unreadable> {
        let status = StatusCode::from_u16(u16::from_le_bytes(self.take()?)).map_err(|_| Unreadable)?;
        let session_id = self.optional()?.map(Uuid::from_slice).transpose().map_err(|_| Unreadable)?;
        let data = self.optional()?.map(Bytes::copy_from_slice);
        let content_type = self.optional()?.map(HeaderValue::from_bytes).transpose().map_err(|_| Unreadable)?;
        let answer = Answer { session_id, ..Answer::new(status) };
        Ok(match data {
            Some(data) => answer.with_body(content_type, data),
            None => answer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let time = Timestamp::from_millis;
        let id = Uuid::from_bytes([7; 16]);
        let json = HeaderValue::from_static("application/json");
        let states = [
            State::InFlight { since: time(1), until: time(u64::MAX) },
            State::Intended { since: time(2) },
            State::Unknown { since: time(3) },
            State::Done { at: time(4), answer: Answer::new(StatusCode::OK) },
            State::Done { at: time(5), answer: Answer { session_id: Some(id), ..Answer::new(StatusCode::CREATED) } },
            State::Done { at: time(6), answer: Answer::new(StatusCode::OK).with_body(Some(json), Bytes::from("{}")) },
            State::Done { at: time(7), answer: Answer::new(StatusCode::OK).with_body(None, Bytes::new()) },
        ];
        states.into_iter().map(|state| Record { epoch: Epoch(9), fingerprint: [8; 32], state }).collect()
    }

    #[test]
    fn every_record_survives_being_written() {
        for record in records() {
            assert_eq!(Record::from_bytes(&record.to_bytes()), Ok(record));
        }
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_no_record() {
        for record in records() {
            let mut bytes = record.to_bytes();
            for length in 0..bytes.len() {
                assert_eq!(Record::from_bytes(&bytes[..length]), Err(Unreadable), "{record:?} cut to {length}");
            }
            bytes.push(0);
            assert_eq!(Record::from_bytes(&bytes), Err(Unreadable));
        }
    }
}
