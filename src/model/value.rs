//! One value of one column, exactly as SQLite stores it.

/// A SQLite value with its storage class.
///
/// Text is bytes: SQLite stores whatever it was given, also what is not valid UTF-8, and so do we. Equality is identity
/// of storage class and bits: `1` and `1.0` differ, `0.0` and `-0.0` differ. What the key of a row compares as equal is
/// [`super::NormalKey`]'s business.
#[derive(Clone)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A double. SQLite never stores NaN.
    Real(f64),
    /// Text in the database's encoding, which is UTF-8 or something that was stored as if it were.
    Text(Vec<u8>),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Value {
    /// The storage class as one byte, in SQLite's sort order: null 0, integer 1, real 2, text 3, blob 4.
    pub fn class(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Integer(_) => 1,
            Self::Real(_) => 2,
            Self::Text(_) => 3,
            Self::Blob(_) => 4,
        }
    }

    /// Whether this is SQL NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Text from a string.
    pub fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }

    /// Bytes that this value occupies in memory and, roughly, on the wire.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(bytes) | Self::Blob(bytes) => bytes.len() + 4,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) | (Self::Blob(a), Self::Blob(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl std::hash::Hash for Value {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.class().hash(state);
        match self {
            Self::Null => {}
            Self::Integer(integer) => integer.hash(state),
            Self::Real(real) => real.to_bits().hash(state),
            Self::Text(bytes) | Self::Blob(bytes) => bytes.hash(state),
        }
    }
}

/// Shows the class and, for what may be long or private, only the length: a value must not reach a log by accident.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Integer(_) => f.write_str("integer"),
            Self::Real(_) => f.write_str("real"),
            Self::Text(bytes) => write!(f, "text[{}]", bytes.len()),
            Self::Blob(bytes) => write!(f, "blob[{}]", bytes.len()),
        }
    }
}
