//! HPACK's string code (RFC 7541, appendix B), to read with.
//!
//! The code is canonical: symbols in order of the length of their codes, and of their values within one length, have
//! codes that count upwards. So the lengths are all that has to be written down.

use std::sync::LazyLock;

/// How many bits the code of each byte has.
const BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26,
];

/// The longest code, in bits.
const BITS_MAX: usize = 30;

/// Padding is shorter than a byte.
const PADDING_BITS_MAX: usize = 7;

struct Code {
    /// The first code of each length.
    first: [u32; BITS_MAX + 1],
    /// Where the symbols of each length begin.
    start: [usize; BITS_MAX + 2],
    /// All symbols in the order of their codes.
    symbols: Vec<u8>,
}

static CODE: LazyLock<Code> = LazyLock::new(|| {
    let mut symbols: Vec<u8> = (0..=u8::MAX).collect();
    symbols.sort_by_key(|symbol| BITS[usize::from(*symbol)]);
    let (mut first, mut start) = ([0; BITS_MAX + 1], [0; BITS_MAX + 2]);
    let (mut code, mut at) = (0, 0);
    for bits in 1..=BITS_MAX {
        code <<= 1;
        (first[bits], start[bits]) = (code, at);
        while at < symbols.len() && usize::from(BITS[usize::from(symbols[at])]) == bits {
            (code, at) = (code + 1, at + 1);
        }
    }
    start[BITS_MAX + 1] = at;
    Code { first, start, symbols }
});

/// The bytes that a coded string stands for; `None` where it is none.
pub(super) fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    let code = &*CODE;
    let mut decoded = Vec::with_capacity(coded.len() * 8 / 5);
    let (mut value, mut bits) = (0, 0);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |place| byte >> place & 1)) {
        (value, bits) = (value << 1 | u32::from(bit), bits + 1);
        if bits > BITS_MAX {
            return None;
        }
        let count = code.start[bits + 1] - code.start[bits];
        let nth = value.checked_sub(code.first[bits]).and_then(|nth| usize::try_from(nth).ok());
        if let Some(nth) = nth.filter(|nth| *nth < count) {
            decoded.push(code.symbols[code.start[bits] + nth]);
            (value, bits) = (0, 0);
        }
    }
    // What is left is padding: ones, as the code of the end begins.
    (bits <= PADDING_BITS_MAX && value == (1 << bits) - 1).then_some(decoded)
}

/// The code of a string, for tests of what reads it.
#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let code = &*CODE;
    let bits_of = |byte: u8| {
        let bits = usize::from(BITS[usize::from(byte)]);
        let nth = code.symbols[code.start[bits]..].iter().position(|symbol| *symbol == byte).expect("a symbol");
        let value = code.first[bits] + u32::try_from(nth).expect("a small number");
        (0..bits).rev().map(move |place| u8::from(value >> place & 1 == 1))
    };
    let mut bits: Vec<u8> = text.iter().flat_map(|byte| bits_of(*byte)).collect();
    bits.resize(bits.len().next_multiple_of(8), 1);
    bits.chunks(8).map(|byte| byte.iter().fold(0, |value, bit| value << 1 | bit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    /// RFC 7541, appendix C.4 and C.6.
    #[test]
    fn the_examples_of_the_standard_are_read() {
        for (coded, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            ("", ""),
        ] {
            assert_eq!(decode(&hex(coded)).as_deref(), Some(text.as_bytes()), "{text}");
            assert_eq!(encode(text.as_bytes()), hex(coded), "{text}");
        }
    }

    #[test]
    fn every_byte_has_a_code() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
    }

    #[test]
    fn what_is_no_code_is_refused() {
        // The end's own code, padding of a whole byte, padding that is not ones.
        for wrong in ["ffffffff", "f1e3c2e5f23a6ba0ab90f4ffff", "a8eb10649cb0", "1ff0"] {
            assert_eq!(decode(&hex(wrong)), None, "{wrong}");
        }
    }
}
