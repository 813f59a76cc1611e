//! Finds out what changed in a database.

mod batches;
pub mod read_error;
pub mod reader;
mod snapshot;
pub mod source;
pub mod wake;
