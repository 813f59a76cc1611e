//! Finds out what changed in a database.

mod batches;
#[cfg(test)]
mod fixture;
pub mod read_error;
pub mod reader;
mod snapshot;
pub mod source;
pub mod wake;

pub use read_error::Error as ReadError;
