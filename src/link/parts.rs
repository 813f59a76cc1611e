//! Large frames in parts.
//!
//! A row may be as large as SQLite lets it be, a message on the wire may not: what is above [`PART_BYTES_MAX`] travels
//! as several Part frames, between which control frames find their way. [`Cut`] makes them, [`Assembler`] joins them.

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::proto::{self, Part, frame::Kind};
use super::{Error, Frame};

/// A frame above this size travels in parts of this size. On a slow line each part that arrives is a sign of life, and what
/// overtakes data does so between two parts: at 64 kB/s one takes 16 s.
pub const PART_BYTES_MAX: usize = 1 << 20;

/// The largest frame there may be: a row at SQLite's own limit of 10⁹ bytes, and a tenth more around it. It also bounds
/// what a peer can make us hold for frames that it does not finish.
pub const FRAME_BYTES_MAX: usize = 1126 << 20;

/// The frames that can be unfinished at once: one of data and one of control.
const OPEN_FRAMES_MAX: usize = 2;

/// A frame on its way out, as it is or in parts.
pub(super) struct Cut {
    rest: Bytes,
    part_bytes: usize,
    /// The id of the parts, and the next one's index; `None` for a frame that goes as it is.
    parts: Option<(u64, u32)>,
}

impl Cut {
    /// The frame in messages of about that size.
    pub(super) fn new(frame: Bytes, id: u64, part_bytes: usize) -> Self {
        let parts = (frame.len() > part_bytes).then_some((id, 0));
        Self { rest: frame, part_bytes, parts }
    }
}

impl Iterator for Cut {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((id, index)) = self.parts else {
            return Some(std::mem::take(&mut self.rest));
        };
        let bytes = self.rest.split_to(self.rest.len().min(self.part_bytes));
        self.parts = Some((id, index + 1));
        let part = Part { id, index, last: self.rest.is_empty(), bytes };
        Some(proto::Frame { kind: Some(Kind::Part(part)) }.encode_to_vec().into())
    }
}

/// Joins the parts that arrive.
pub(super) struct Assembler {
    open: Vec<Open>,
    bytes_max: usize,
}

struct Open {
    id: u64,
    next: u32,
    /// Grows as bytes arrive; what the peer announces is never believed.
    bytes: BytesMut,
}

impl Assembler {
    /// One that holds so many bytes of unfinished frames.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { open: Vec::new(), bytes_max }
    }

    /// The frame that this message is or completes; `None` while parts of it are to come.
    pub(super) fn push(&mut self, message: Bytes) -> Result<Option<Frame>, Error> {
        let frame = proto::Frame::decode(message)?;
        match frame.kind {
            Some(Kind::Part(part)) => self.join(part)?.map(Frame::decode).transpose(),
            Some(_) | None => frame.try_into().map(Some),
        }
    }

    fn join(&mut self, part: Part) -> Result<Option<Bytes>, Error> {
        let held: usize = self.open.iter().map(|open| open.bytes.len()).sum();
        let bytes = held.saturating_add(part.bytes.len());
        if bytes > self.bytes_max {
            return Err(Error::TooLarge { bytes });
        }
        let found = self.open.iter().position(|open| open.id == part.id);
        let place = match found {
            Some(place) => place,
            None if self.open.len() < OPEN_FRAMES_MAX => {
                self.open.push(Open { id: part.id, next: 0, bytes: BytesMut::new() });
                self.open.len() - 1
            }
            None => return Err(Error::Malformed("too many frames are in parts at once")),
        };
        let open = &mut self.open[place];
        if open.next != part.index {
            return Err(Error::Malformed("a part is missing"));
        }
        open.next += 1;
        open.bytes.extend_from_slice(&part.bytes);
        Ok(part.last.then(|| self.open.swap_remove(place).bytes.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Trouble;

    fn fault(message: &str) -> Frame {
        Frame::Fault(Trouble { code: "c".into(), message: message.into(), hint: String::new() })
    }

    #[test]
    fn a_frame_survives_any_cut_also_with_another_in_between() {
        let (one, two) = (fault("the first of two frames"), fault("the second"));
        for part_bytes in 1..40 {
            let mut assembler = Assembler::new(1 << 20);
            let mut got = Vec::new();
            let mut ones = Cut::new(one.encode(), 1, part_bytes);
            let mut twos = Cut::new(two.encode(), 2, part_bytes);
            loop {
                let messages: Vec<Bytes> = ones.next().into_iter().chain(twos.next()).collect();
                if messages.is_empty() {
                    break;
                }
                got.extend(messages.into_iter().filter_map(|message| assembler.push(message).expect("own part")));
            }
            assert_eq!(got.len(), 2, "{part_bytes}");
            assert!(got.contains(&one) && got.contains(&two) && assembler.open.is_empty());
        }
    }

    #[test]
    fn a_frame_that_is_small_goes_as_it_is() {
        let frame = fault("small").encode();
        assert_eq!(Cut::new(frame.clone(), 1, frame.len()).collect::<Vec<_>>(), [frame]);
    }

    #[test]
    fn a_peer_cannot_make_us_hold_more_than_the_bound() {
        let parts: Vec<Bytes> = Cut::new(fault(&"x".repeat(200)).encode(), 1, 50).collect();
        let mut assembler = Assembler::new(120);
        assert!(assembler.push(parts[0].clone()).expect("the first").is_none());
        assert!(assembler.push(parts[1].clone()).expect("the second").is_none());
        assert!(matches!(assembler.push(parts[2].clone()), Err(Error::TooLarge { bytes: 150 })));
    }

    #[test]
    fn parts_out_of_order_nested_or_of_too_many_frames_are_malformed() {
        let parts: Vec<Bytes> = Cut::new(fault("a frame in parts").encode(), 1, 4).collect();
        assert!(matches!(Assembler::new(100).push(parts[1].clone()), Err(Error::Malformed(_))));
        let nested = Cut::new(parts[0].clone(), 2, 4).map(|part| part.to_vec()).collect::<Vec<_>>();
        let mut assembler = Assembler::new(100);
        let ends: Vec<_> = nested.into_iter().map(|part| assembler.push(part.into())).collect();
        assert!(matches!(ends.last(), Some(Err(Error::Malformed(_)))));
        let mut assembler = Assembler::new(100);
        let first = |id| Cut::new(fault("a frame in parts").encode(), id, 4).next().expect("a part");
        assert!(assembler.push(first(1)).is_ok() && assembler.push(first(2)).is_ok());
        assert!(matches!(assembler.push(first(3)), Err(Error::Malformed(_))));
    }
}
