//! Rows as Arrow record batches and back, digests of rows, and the type table toward CloudQuery. Pure: no I/O.
//!
//! The capture stage collects rows in a [`BatchBuilder`]; the apply stage reads them cell by cell from a
//! [`DecodedBatch`]. Between the two, every value keeps its storage class and every bit: a column travels in the
//! narrowest type that holds all of its values exactly, and as a dense union where their classes differ.
//!
//! Bytes from a peer are data to check, never to trust: a batch that is not what it says is [`Error::Malformed`],
//! whatever its bytes are, and holds no more memory than [`BATCH_BYTES_MAX`].

mod batch;
mod column;
mod decode;
mod digest;
mod schema;

pub use batch::{BatchBuilder, Compression};
pub use decode::DecodedBatch;
pub use digest::{RowDigest, fingerprint};
pub use schema::arrow_schema;

use crate::model::Fault;

/// The most bytes of values that one batch may hold: a row at SQLite's own limit (10⁹ bytes), and a tenth more for what
/// stands beside it.
pub const BATCH_BYTES_MAX: usize = 1126 << 20;

/// The most rows that one batch may hold. A column of NULLs takes no bytes at all, so that bytes alone bound nothing.
pub const BATCH_ROWS_MAX: usize = 1 << 24;

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
    /// More rows or bytes than one batch can hold.
    #[error(
        "a batch of {rows} rows and {bytes} bytes is larger than a batch may be ({BATCH_ROWS_MAX} rows, \
         {BATCH_BYTES_MAX} bytes); lower batch_size"
    )]
    TooLarge {
        /// Its rows.
        rows: usize,
        /// Bytes of values.
        bytes: usize,
    },
}

impl Error {
    /// What this failure asks of the caller.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Arrow(_) | Self::Malformed(_) | Self::TooLarge { .. } => Fault::Halt,
        }
    }
}
