//! What can go wrong with what a CloudQuery peer sends, and with what is asked of it.

use crate::model::Fault;

/// A failure at CloudQuery's edge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Arrow cannot read or write it.
    #[error("read or write an Arrow stream")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Bytes that are no Arrow stream, or not the one that was announced.
    #[error("a message from the peer is malformed: {0}")]
    Malformed(String),
    /// A schema without `cq:table_name`.
    #[error("missing table name")]
    NoTableName,
    /// A pattern of tables that matches none.
    #[error("{key} include a pattern {pattern} with no matches")]
    NoMatch {
        /// `tables` or `skip_tables`.
        key: &'static str,
        /// The pattern.
        pattern: String,
    },
    /// A source's own failure; it says itself what it is.
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// A column of a type that has no form in SQLite.
    #[error("column {column:?} is of type {type_name}, which cannot be stored; leave it out, or send it as text")]
    UnsupportedType {
        /// Its name.
        column: String,
        /// Its type.
        type_name: String,
    },
    /// A value that cannot be stored without losing some of it.
    #[error("column {column:?} holds a value that cannot be stored: {what}; correct it at the source")]
    Unstorable {
        /// Its name.
        column: String,
        /// What is wrong with it; never the value.
        what: &'static str,
    },
    /// A stored value that is none of the type that was asked for.
    #[error("column {column:?} holds a value that cannot be read as {type_name}: {what}")]
    Unreadable {
        /// Its name.
        column: String,
        /// The type that was asked for.
        type_name: String,
        /// What is wrong with it; never the value.
        what: &'static str,
    },
}

impl Error {
    /// What this failure asks of the caller.
    pub fn fault(&self) -> Fault {
        match self {
            // The same bytes will be wrong again.
            Self::Arrow(_) | Self::Malformed(_) | Self::NoTableName => Fault::Halt,
            // Somebody has to write the pattern anew, or look at what the source says.
            Self::NoMatch { .. } | Self::Source(_) => Fault::Halt,
            Self::UnsupportedType { .. } | Self::Unstorable { .. } | Self::Unreadable { .. } => Fault::Halt,
        }
    }
}
