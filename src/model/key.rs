//! What names a row: its key's values, and the form in which SQLite compares them.

use super::Value;

/// Bytes of a key's text or blob that a person is shown.
const SHOWN_MAX: usize = 64;

/// The values of a row's key columns, in the key's column order, in the row's own spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub Vec<Value>);

/// SQLite's built-in collations. A table that needs another one is not captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Collation {
    /// Bytes.
    Binary,
    /// ASCII letters without case.
    NoCase,
    /// Trailing spaces do not count.
    RTrim,
}

impl Collation {
    /// The built-in collation of that name, in any case; `None` for one that an application registers.
    pub fn by_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "BINARY" => Some(Self::Binary),
            "NOCASE" => Some(Self::NoCase),
            "RTRIM" => Some(Self::RTrim),
            _ => None,
        }
    }

    /// Its name in SQL.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Binary => "BINARY",
            Self::NoCase => "NOCASE",
            Self::RTrim => "RTRIM",
        }
    }
}

/// A key in a form in which two keys are equal exactly if SQLite's index on them says so.
///
/// Numbers are equal by value whatever their class, text is folded by the column's collation. NULLs are equal here (as
/// `IS` has it), because a change of such a key names all rows that are this key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NormalKey(Vec<u8>);

impl NormalKey {
    /// The bytes, for use as a key of a map kept outside memory.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Key {
    /// Whether any of its values is NULL; such a key can name several rows.
    pub fn has_null(&self) -> bool {
        self.0.iter().any(Value::is_null)
    }

    /// The key for a person to find the row by: as SQL, cut where it is long.
    pub fn shown(&self) -> String {
        let parts: Vec<String> = self.0.iter().map(shown_value).collect();
        format!("({})", parts.join(", "))
    }

    /// The form to compare by. `collations` has one for each key column.
    pub fn normal(&self, collations: &[Collation]) -> NormalKey {
        debug_assert_eq!(self.0.len(), collations.len(), "one collation for each key column");
        let mut bytes = Vec::with_capacity(self.0.len() * 10);
        for (value, collation) in self.0.iter().zip(collations) {
            push_normal(&mut bytes, value, *collation);
        }
        NormalKey(bytes)
    }
}

impl Key {
    /// A form that keeps every value's class and bits, for storing a key in a table of ours.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for value in &self.0 {
            match value {
                Value::Null => bytes.push(0),
                Value::Integer(integer) => {
                    bytes.push(1);
                    bytes.extend_from_slice(&integer.to_be_bytes());
                }
                Value::Real(real) => {
                    bytes.push(2);
                    bytes.extend_from_slice(&real.to_bits().to_be_bytes());
                }
                Value::Text(text) => push_sized(&mut bytes, 3, text),
                Value::Blob(blob) => push_sized(&mut bytes, 4, blob),
            }
        }
        bytes
    }

    /// What [`Self::to_bytes`] made; `None` where the bytes are not that.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut values = Vec::new();
        while let Some((class, rest)) = bytes.split_first() {
            let word = |rest: &[u8]| Some(u64::from_be_bytes(rest.get(..8)?.try_into().ok()?));
            let (value, used) = match class {
                0 => (Value::Null, 0),
                1 => (Value::Integer(word(rest)?.cast_signed()), 8),
                2 => (Value::Real(f64::from_bits(word(rest)?)), 8),
                3 | 4 => {
                    let used = usize::try_from(word(rest)?).ok()?.checked_add(8)?;
                    let content = rest.get(8..used)?.to_vec();
                    (if *class == 3 { Value::Text(content) } else { Value::Blob(content) }, used)
                }
                _ => return None,
            };
            values.push(value);
            bytes = &rest[used..];
        }
        Some(Self(values))
    }
}

fn shown_value(value: &Value) -> String {
    let cut = |bytes: &[u8]| if bytes.len() > SHOWN_MAX { "…" } else { "" };
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) => format!("{real:?}"),
        Value::Text(text) => {
            let head = String::from_utf8_lossy(&text[..text.len().min(SHOWN_MAX)]).replace('\'', "''");
            format!("'{head}{}'", cut(text))
        }
        Value::Blob(blob) => {
            let head: String = blob.iter().take(SHOWN_MAX).map(|byte| format!("{byte:02x}")).collect();
            format!("x'{head}{}'", cut(blob))
        }
    }
}

fn push_normal(bytes: &mut Vec<u8>, value: &Value, collation: Collation) {
    match value {
        Value::Null => bytes.push(0),
        Value::Integer(integer) => {
            bytes.push(1);
            bytes.extend_from_slice(&integer.to_be_bytes());
        }
        Value::Real(real) => match integral(*real) {
            Some(integer) => {
                bytes.push(1);
                bytes.extend_from_slice(&integer.to_be_bytes());
            }
            None => {
                bytes.push(2);
                bytes.extend_from_slice(&real.to_bits().to_be_bytes());
            }
        },
        Value::Text(text) => push_sized(bytes, 3, &fold(text, collation)),
        Value::Blob(blob) => push_sized(bytes, 4, blob),
    }
}

fn push_sized(bytes: &mut Vec<u8>, class: u8, content: &[u8]) {
    bytes.push(class);
    bytes.extend_from_slice(&(content.len() as u64).to_be_bytes());
    bytes.extend_from_slice(content);
}

/// The integer that compares equal to this double, if there is one. 2^63 itself is no i64.
#[expect(clippy::cast_possible_truncation, reason = "the range and the fraction are checked first")]
fn integral(real: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (real.fract() == 0.0 && (-LIMIT..LIMIT).contains(&real)).then_some(real as i64)
}

fn fold(text: &[u8], collation: Collation) -> std::borrow::Cow<'_, [u8]> {
    match collation {
        Collation::Binary => text.into(),
        Collation::NoCase => {
            let mut folded = text.to_ascii_lowercase();
            // SQLite's NOCASE ends at a NUL, and then only the lengths count.
            if let Some(end) = folded.iter().position(|byte| *byte == 0) {
                folded[end..].fill(0);
            }
            folded.into()
        }
        Collation::RTrim => {
            let kept = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
            (&text[..kept]).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn same(a: Value, b: Value, collation: Collation) -> bool {
        Key(vec![a]).normal(&[collation]) == Key(vec![b]).normal(&[collation])
    }

    #[test]
    fn keys_are_equal_where_sqlite_says_so() {
        assert!(same(Value::Integer(1), Value::Real(1.0), Collation::Binary));
        assert!(same(Value::Real(0.0), Value::Real(-0.0), Collation::Binary));
        assert!(!same(Value::Integer(i64::MAX), Value::Real(9_223_372_036_854_775_808.0), Collation::Binary));
        assert!(same(Value::text("Ab"), Value::text("aB"), Collation::NoCase));
        assert!(!same(Value::text("Ä"), Value::text("ä"), Collation::NoCase));
        assert!(same(Value::text("A\0x"), Value::text("a\0y"), Collation::NoCase));
        assert!(!same(Value::text("a\0x"), Value::text("a\0xx"), Collation::NoCase));
        assert!(same(Value::text("a  "), Value::text("a"), Collation::RTrim));
        assert!(!same(Value::text("a\t"), Value::text("a"), Collation::RTrim));
        assert!(!same(Value::text("1"), Value::Integer(1), Collation::Binary));
        assert!(!same(Value::text("a"), Value::Blob(b"a".to_vec()), Collation::NoCase));
    }

    #[test]
    fn stored_keys_come_back_as_they_were() {
        let values = [i64::MIN, 0, i64::MAX].map(Value::Integer).into_iter();
        let values = values.chain([Value::Real(-0.0), Value::Null, Value::text(""), Value::Blob(vec![0, 255])]);
        let key = Key(values.collect());
        assert_eq!(Key::from_bytes(&key.to_bytes()), Some(key.clone()));
        assert_eq!(Key::from_bytes(&key.to_bytes()[..5]), None);
    }

    #[test]
    fn a_key_is_shown_as_sql_and_cut_where_it_is_long() {
        let key = Key(vec![Value::Integer(7), Value::text("it's"), Value::Blob(vec![0, 255]), Value::Null]);
        assert_eq!(key.shown(), "(7, 'it''s', x'00ff', NULL)");
        assert!(Key(vec![Value::text(&"a".repeat(1000))]).shown().chars().count() < 80);
    }

    #[test]
    fn parts_of_a_composite_key_do_not_run_into_each_other() {
        let split = |a: &str, b: &str| Key(vec![Value::text(a), Value::text(b)]).normal(&[Collation::Binary; 2]);
        assert_ne!(split("ab", "c"), split("a", "bc"));
    }
}
