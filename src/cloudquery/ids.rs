//! Row ids, `_cq_id`: random, or made of a row's key so that the same row has the same id at every sync.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A random id.
pub fn random() -> Uuid {
    Uuid::new_v4()
}

/// The id that these columns of a row make: name and text form of each (see [`super::text`]), in any order.
///
/// As the SDK does it: SHA-256 of the names and texts in the order of names, and a version 5 UUID of the digest in the
/// nil namespace.
pub fn deterministic<'a>(columns: impl IntoIterator<Item = (&'a str, &'a str)>) -> Uuid {
    let mut columns: Vec<(&str, &str)> = columns.into_iter().collect();
    columns.sort_by_key(|(name, _)| *name);
    let mut digest = Sha256::new();
    for (name, text) in columns {
        digest.update(name);
        digest.update(text);
    }
    Uuid::new_v5(&Uuid::nil(), &digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_the_one_that_the_sdk_makes() {
        let expected = "23f9cd26-b422-5bd9-9849-f9b76986c476";
        assert_eq!(deterministic([("\"AString", "93274\"")]).to_string(), expected);
        assert_eq!(deterministic([("\"AString93274\"", "")]).to_string(), expected);
    }

    #[test]
    fn id_does_not_depend_on_the_order_of_columns() {
        let (a, b) = (("a", "1"), ("b", "2"));
        assert_eq!(deterministic([a, b]), deterministic([b, a]));
        assert_ne!(deterministic([a, b]), deterministic([("a", "2"), ("b", "1")]));
    }

    #[test]
    fn random_ids_are_of_version_4_and_differ() {
        let (a, b) = (random(), random());
        assert_ne!(a, b);
        assert_eq!(a.get_version_num(), 4);
    }
}
