//! Events: the change log of one database as a stream, for those who react to changes rather than copy them.
//!
//! An [`Engine`] reads the log and gives a [`ChangesHandler`] batches of events, in change order, one at a time, at least
//! once. What comes next is read in one read transaction (`log`), cut into batches that say how far the consumer is once
//! they are taken (`batch`), clipped while tables are given row by row (`bootstrap`), and noted in the database (`ledger`).
//! Who looks after the database meanwhile is the `keeper`'s business.
//!
//! A batch's id is `<epoch>-<first seq>-<last seq>-<digest>`: the same events have the same id, also when they are handed
//! over again after a crash. But a batch may be cut elsewhere then, and hold newer rows where the log keeps keys only
//! ([`crate::capture::events`]), so who drops repeats exactly does it by
//! [`crate::model::Event::seq`]: of one epoch's log, an event that is not above the last one taken was taken, or comes again
//! newer, above it. Rows of a bootstrap all carry the end of the log; taken twice, they are the same row.
//!
//! [`outputs`] are the handlers that are built in.

pub mod engine;
pub mod handler;
pub mod outputs;
pub mod reports;

mod batch;
mod bootstrap;
mod control;
mod error;
mod keeper;
mod ledger;
mod log;
mod session;
mod start;
mod taken;

/// The guide's example is run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/events.md")]
pub struct Guide;

pub use crate::config::OnGap;
pub use engine::{CONSUMER, Ended, Engine, Observer, Progress, State};
pub use error::Error;
pub use handler::{ChangesHandler, HandlerError};
pub use start::keys_only;
