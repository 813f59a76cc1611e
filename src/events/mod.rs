//! Events: the change log of one database as a stream, for those who react to changes rather than copy them.
//!
//! A [`ChangesHandler`] is given batches of events, in change order, one at a time; [`outputs`] are those that are built in.

pub mod handler;
pub mod outputs;

pub use handler::{ChangesHandler, HandlerError};
