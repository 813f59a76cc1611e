//! As much of HPACK (RFC 7541) as it takes to change one header's value on the way.
//!
//! A [`Blocks`] walks the header blocks of one connection, in order, and keeps what the receiver's dynamic table will
//! hold: of each entry only its size and whether its name is `:authority`. A changed value has the length of the one that
//! it replaces, so entries keep their sizes, both ends evict the same ones, and an index means the same at both. Where
//! a later block names the entry by its index, the receiver finds the changed value.

use std::collections::VecDeque;

use super::huffman;

const AUTHORITY: &[u8] = b":authority";

/// The lengths of the static table's names (appendix A), from index 1.
const STATIC_NAMES: [usize; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];

/// `:authority` in the static table.
const STATIC_AUTHORITY: usize = 1;

/// What an entry counts beside its bytes.
const ENTRY_OVERHEAD: usize = 32;

/// The size of a table where no SETTINGS say otherwise, and ours never do.
const TABLE_BYTES: usize = 4096;

/// What no encoder writes: the receiver may say which rule it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The header blocks of one connection, in one direction.
pub(super) struct Blocks {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    is_authority: bool,
    name_len: usize,
    bytes: usize,
}

/// A header's name, as far as it matters.
#[derive(Clone, Copy)]
struct Name {
    is_authority: bool,
    len: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES }
    }
}

impl Blocks {
    /// Walks the next block. `Some` is the block to send in its place; `None` where it may stay as it is.
    ///
    /// `replace` is given the value of each `:authority` that the block spells out, and returns one of the same length to
    /// put there, or `None` to leave it.
    pub(super) fn walk(
        &mut self,
        block: &[u8],
        replace: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, Malformed> {
        let mut rest = Reader { bytes: block, at: 0 };
        let (mut out, mut copied) = (Vec::new(), 0);
        while let Some(first) = rest.peek() {
            if first & 0x80 != 0 {
                // Wholly from a table: what is there was changed when it was put there.
                rest.integer(7)?;
            } else if first & 0xe0 == 0x20 {
                let bytes_max = rest.integer(5)?;
                self.resize(bytes_max)?;
            } else {
                let is_kept = first & 0x40 != 0;
                let name = self.name(&mut rest, if is_kept { 6 } else { 4 })?;
                let value_at = rest.at;
                let value = rest.string()?;
                if let Some(new) = name.is_authority.then(|| replace(&value)).flatten() {
                    assert_eq!(new.len(), value.len(), "another length would make the tables of both ends differ");
                    out.extend_from_slice(&block[copied..value_at]);
                    write_integer(&mut out, new.len());
                    out.extend_from_slice(&new);
                    copied = rest.at;
                }
                if is_kept {
                    self.insert(name, value.len());
                }
            }
        }
        if copied == 0 {
            return Ok(None);
        }
        out.extend_from_slice(&block[copied..]);
        Ok(Some(out))
    }

    fn name(&self, rest: &mut Reader<'_>, prefix_bits: u32) -> Result<Name, Malformed> {
        let index = rest.integer(prefix_bits)?;
        if index == 0 {
            let name = rest.string()?;
            return Ok(Name { is_authority: name == AUTHORITY, len: name.len() });
        }
        if let Some(len) = STATIC_NAMES.get(index - 1) {
            return Ok(Name { is_authority: index == STATIC_AUTHORITY, len: *len });
        }
        let entry = self.entries.get(index - 1 - STATIC_NAMES.len()).ok_or(Malformed)?;
        Ok(Name { is_authority: entry.is_authority, len: entry.name_len })
    }

    fn insert(&mut self, name: Name, value_len: usize) {
        let bytes = name.len + value_len + ENTRY_OVERHEAD;
        self.evict(self.bytes_max.saturating_sub(bytes));
        // One that is larger than the table empties it, and is not put in.
        if bytes <= self.bytes_max {
            self.entries.push_front(Entry { is_authority: name.is_authority, name_len: name.len, bytes });
            self.bytes += bytes;
        }
    }

    fn resize(&mut self, bytes_max: usize) -> Result<(), Malformed> {
        if bytes_max > TABLE_BYTES {
            return Err(Malformed);
        }
        self.bytes_max = bytes_max;
        self.evict(bytes_max);
        Ok(())
    }

    /// Forgets the oldest entries until no more than this is left.
    fn evict(&mut self, bytes_left: usize) {
        while self.bytes > bytes_left {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.bytes -= oldest.bytes;
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The most bytes that may follow an integer's first: more than any length or index here can need.
const INTEGER_BYTES_MAX: u32 = 4;

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.peek().ok_or(Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    /// An integer in the low bits of the next byte, and further bytes where it does not fit.
    fn integer(&mut self, prefix_bits: u32) -> Result<usize, Malformed> {
        let full = (1 << prefix_bits) - 1;
        let mut value = usize::from(self.byte()?) & full;
        if value < full {
            return Ok(value);
        }
        for nth in 0..INTEGER_BYTES_MAX {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << (7 * nth);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        let is_coded = self.peek().ok_or(Malformed)? & 0x80 != 0;
        let len = self.integer(7)?;
        let text = self.bytes[self.at..].get(..len).ok_or(Malformed)?;
        self.at += len;
        if is_coded { huffman::decode(text).ok_or(Malformed) } else { Ok(text.to_vec()) }
    }
}

/// The length of a string that is not coded.
fn write_integer(out: &mut Vec<u8>, value: usize) {
    const FULL: usize = 0x7f;
    let low = |value: usize| u8::try_from(value & 0x7f).expect("seven bits");
    if value < FULL {
        return out.push(low(value));
    }
    out.push(0x7f);
    let mut rest = value - FULL;
    while rest > 0x7f {
        out.push(low(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low(rest));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upper case, so that a test sees where it was.
    fn shout(value: &[u8]) -> Option<Vec<u8>> {
        (value != b"keep").then(|| value.to_ascii_uppercase())
    }

    fn literal(first: u8, name: Option<&str>, value: &str) -> Vec<u8> {
        let mut bytes = vec![first];
        for text in name.into_iter().chain([value]) {
            write_integer(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    #[test]
    fn every_way_to_spell_the_header_is_found() {
        // By the static table's name, by a name spelled out; to be kept, not to be kept, never to be kept.
        for (first, name) in
            [(0x41, None), (0x01, None), (0x11, None), (0x40, Some(":authority")), (0x00, Some(":authority"))]
        {
            let block = [literal(0x44, None, "/a"), literal(first, name, "host"), vec![0x82]].concat();
            let expected = [literal(0x44, None, "/a"), literal(first, name, "HOST"), vec![0x82]].concat();
            assert_eq!(Blocks::default().walk(&block, shout), Ok(Some(expected)), "{first:#x} {name:?}");
        }
    }

    #[test]
    fn a_coded_value_is_read_and_replaced_in_plain() {
        // RFC 7541, C.4.1.
        let coded =
            [0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let expected = [vec![0x82, 0x86, 0x84], literal(0x41, None, "WWW.EXAMPLE.COM")].concat();
        assert_eq!(Blocks::default().walk(&coded, shout), Ok(Some(expected)));
    }

    #[test]
    fn other_headers_and_values_to_keep_stay_as_they_are() {
        let block = [literal(0x44, None, "/a"), literal(0x40, Some("x"), "y"), literal(0x41, None, "keep")].concat();
        assert_eq!(Blocks::default().walk(&block, shout), Ok(None));
    }

    #[test]
    fn a_name_from_the_dynamic_table_is_known_until_it_is_evicted() {
        let mut blocks = Blocks::default();
        assert!(blocks.walk(&literal(0x40, Some(":authority"), "one"), shout).is_ok_and(|new| new.is_some()));
        assert_eq!(blocks.walk(&literal(0x40, Some("x"), "y"), shout), Ok(None));
        // Now x is 62 and :authority 63.
        assert_eq!(blocks.walk(&literal(0x0f, None, "x")[..1], shout), Err(Malformed), "cut");
        let by_index = |index: u8| [vec![0x7f, index - 63], literal(0, None, "two")[1..].to_vec()].concat();
        assert_eq!(blocks.walk(&[0x7e, 1, b'z'], shout), Ok(None), "62 is x");
        let expected = [vec![0x7f, 1], literal(0, None, "TWO")[1..].to_vec()].concat();
        assert_eq!(blocks.walk(&by_index(64), shout), Ok(Some(expected)), "63 became 64 by the one before");
        // A table of no bytes holds nothing; grown again it is empty.
        assert_eq!(blocks.walk(&[0x20, 0x3f, 0xe1, 0x1f], shout), Ok(None));
        assert_eq!(blocks.walk(&by_index(64), shout), Err(Malformed));
    }

    #[test]
    fn an_entry_counts_as_much_after_the_change() {
        let mut blocks = Blocks::default();
        // 4096 bytes hold 32 entries of 128.
        let long = "a".repeat(128 - ENTRY_OVERHEAD - AUTHORITY.len());
        for _ in 0..40 {
            blocks.walk(&literal(0x41, None, &long), shout).expect("a literal");
        }
        assert_eq!((blocks.entries.len(), blocks.bytes), (32, 4096));
        blocks.walk(&literal(0x41, None, &"b".repeat(5000)), shout).expect("a literal");
        assert_eq!((blocks.entries.len(), blocks.bytes), (0, 0), "one that is too large empties the table");
    }

    #[test]
    fn lengths_of_any_size_are_read_and_written() {
        for len in [0, 1, 126, 127, 128, 254, 255, 16_383, 70_000] {
            let block = literal(0x41, None, &"x".repeat(len));
            let expected = literal(0x41, None, &"X".repeat(len));
            assert_eq!(Blocks::default().walk(&block, shout), Ok(Some(expected)), "{len}");
        }
    }

    #[test]
    fn nonsense_is_refused_without_a_panic() {
        for wrong in [
            &[0x41][..],
            &[0x41, 0x05, b'a'],
            &[0x41, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80],
            &[0x3f, 0xff, 0xff, 0xff, 0x7f],
            &[0x7f, 0x20, 0x00],
        ] {
            assert_eq!(Blocks::default().walk(wrong, shout), Err(Malformed), "{wrong:x?}");
        }
    }
}
