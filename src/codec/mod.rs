//! Rows as Arrow record batches and back, digests of rows, and the type table toward CloudQuery. Pure: no I/O.

mod batch;
mod digest;
mod schema;

pub use batch::{BatchBuilder, Compression, DecodedBatch};
pub use digest::{RowDigest, fingerprint};
pub use schema::arrow_schema;

use crate::model::Fault;

/// A batch that cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Arrow refused.
    #[error("encode or decode a record batch")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A batch from a peer does not hold what it says.
    #[error(
        "a record batch from the peer is malformed: {0}; run the same Twinlite version on both ends, and report it"
    )]
    Malformed(String),
}

impl Error {
    /// What this failure asks of the caller.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Arrow(_) | Self::Malformed(_) => Fault::Halt,
        }
    }
}
