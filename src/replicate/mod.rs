//! Where the stages meet: reads a log, sends it over a link, applies what comes.
//!
//! [`feed`] reads windows for every link of a node, [`sender`] sends them and keeps the [`copies`] going, [`receiver`]
//! spools and applies them, [`session`] runs both halves over one connection, and [`runner`] keeps a link connected, one of its
//! `tries` after the other.
//! [`verify`] compares two databases.
//!
//! ```text
//!   feed ── sender ══ link::Connection ══ receiver ── apply::Applier
//!             ▲                               │
//!             └───────── Ack, Need ───────────┘
//! ```
//!
//! Promised: windows of one session travel in order, each is applied in one transaction together with the checkpoint,
//! and an acknowledgement is sent only after that transaction is on disk. Not promised: that a source transaction
//! becomes one of ours; a window holds one or more.

pub mod backoff;
mod both_ways;
pub mod copies;
pub mod cq_link;
pub mod cq_source;
mod error;
pub mod feed;
mod halves;
pub mod meeting;
#[cfg(test)]
mod meeting_tests;
pub mod receiver;
pub mod runner;
pub mod sender;
pub mod session;
mod tries;
#[cfg(test)]
mod two_way_tests;
pub mod verify;

pub use error::{Error, HALTED};
