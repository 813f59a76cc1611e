//! Finds out what changed in a database.

mod batches;
<<<<<<< HEAD
=======
#[cfg(test)]
mod fixture;
>>>>>>> h-capture-read
pub mod read_error;
pub mod reader;
mod snapshot;
pub mod source;
pub mod wake;
<<<<<<< HEAD
=======

pub use read_error::Error as ReadError;
>>>>>>> h-capture-read
