//! Digests of rows, and of one entry of a log.
//!
//! Both ends of a copy by digest, and `verify`, digest the same rows in the same order and compare. Storage class and
//! length go in with the bytes, so that no two different rows look the same by where one value ends.

use rusqlite::types::ValueRef;
use xxhash_rust::xxh3::Xxh3;

/// Stands after each row; no storage class has that number.
const ROW_END: u8 = 0xff;

/// Digest of rows: xxh3-128 over order, storage class and bytes.
#[derive(Default)]
pub struct RowDigest {
    hasher: Box<Xxh3>,
    rows: u64,
    unordered: u128,
}

impl RowDigest {
    /// Of no rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one value of the current row.
    pub fn push(&mut self, value: ValueRef<'_>) {
        push(&mut self.hasher, value);
    }

    /// Ends the row.
    pub fn end_row(&mut self) {
        self.hasher.update(&[ROW_END]);
        self.rows += 1;
    }

    /// Adds a whole row. Several rows may have one key where there is a NULL in it; they have no order that both ends
    /// share, so with `unordered` the row's place among the others does not count.
    pub fn row<'a>(&mut self, values: impl IntoIterator<Item = ValueRef<'a>>, unordered: bool) {
        if unordered {
            let mut hasher = Xxh3::new();
            values.into_iter().for_each(|value| push(&mut hasher, value));
            self.unordered = self.unordered.wrapping_add(hasher.digest128());
            self.rows += 1;
        } else {
            values.into_iter().for_each(|value| self.push(value));
            self.end_row();
        }
    }

    /// How many rows, and the digest.
    pub fn finish(mut self) -> (u64, u128) {
        if self.unordered != 0 {
            self.hasher.update(&self.unordered.to_le_bytes());
        }
        (self.rows, self.hasher.digest128())
    }
}

/// xxh3-64 over values with their storage class: recognises an entry of a log.
pub fn fingerprint<'a>(values: impl IntoIterator<Item = ValueRef<'a>>) -> i64 {
    let mut hasher = Xxh3::new();
    for value in values {
        push(&mut hasher, value);
    }
    hasher.digest().cast_signed()
}

fn push(hasher: &mut Xxh3, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => hasher.update(&[0]),
        ValueRef::Integer(integer) => hasher.update(&head(1, integer.cast_unsigned())),
        ValueRef::Real(real) => hasher.update(&head(2, real.to_bits())),
        ValueRef::Text(bytes) => {
            hasher.update(&head(3, bytes.len() as u64));
            hasher.update(bytes);
        }
        ValueRef::Blob(bytes) => {
            hasher.update(&head(4, bytes.len() as u64));
            hasher.update(bytes);
        }
    }
}

fn head(class: u8, word: u64) -> [u8; 9] {
    let mut head = [class; 9];
    head[1..].copy_from_slice(&word.to_le_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_key_have_no_order() {
        let rows = |order: [i64; 3]| {
            let mut digest = RowDigest::new();
            digest.row([ValueRef::Integer(9)], false);
            order.iter().for_each(|value| digest.row([ValueRef::Null, ValueRef::Integer(*value)], true));
            digest.finish()
        };
        assert_eq!(rows([1, 2, 3]), rows([3, 1, 2]));
        assert_ne!(rows([1, 2, 3]), rows([1, 2, 4]));
    }

    fn digest(rows: &[&[ValueRef<'_>]]) -> (u64, u128) {
        let mut digest = RowDigest::new();
        for row in rows {
            for value in *row {
                digest.push(*value);
            }
            digest.end_row();
        }
        digest.finish()
    }

    #[test]
    fn a_digest_tells_class_order_bounds_and_sign_apart() {
        use ValueRef::{Blob, Integer, Null, Real, Text};
        let different: [&[&[ValueRef<'_>]]; 12] = [
            &[],
            &[&[]],
            &[&[Null]],
            &[&[Integer(0)]],
            &[&[Real(0.0)]],
            &[&[Real(-0.0)]],
            &[&[Text(b"ab"), Text(b"c")]],
            &[&[Text(b"a"), Text(b"bc")]],
            &[&[Blob(b"ab"), Blob(b"c")]],
            &[&[Integer(1), Integer(2)]],
            &[&[Integer(2), Integer(1)]],
            &[&[Integer(1)], &[Integer(2)]],
        ];
        let digests: std::collections::HashSet<_> = different.iter().map(|rows| digest(rows)).collect();
        assert_eq!(digests.len(), different.len());
        assert_eq!(digest(&[&[Null, Text(b"x")]]), digest(&[&[Null, Text(b"x")]]));
    }

    #[test]
    fn digests_stay_what_they_are_because_peers_of_other_versions_compare_them() {
        assert_eq!(fingerprint([ValueRef::Integer(1), ValueRef::Text(b"a"), ValueRef::Null]), FINGERPRINT);
        assert_eq!(digest(&[&[ValueRef::Integer(1), ValueRef::Text(b"a")]]), (1, DIGEST));
    }

    const FINGERPRINT: i64 = -1_602_498_247_821_099_887;
    const DIGEST: u128 = 32_424_798_287_819_095_212_854_487_833_248_893_759;
}
