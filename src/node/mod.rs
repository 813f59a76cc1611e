//! Builds a running node from its config, and owns its tasks and its end.
//!
//! A node is one database: its lock ([`crate::admin::owner`]), the threads that read, maintain and apply ([`open`]), a
//! [`listener`] where it listens, a [`crate::replicate::runner::Runner`] for each link, and the [`upkeep`] that prunes and watches. Everything
//! stops by one token, after the transaction at hand, within the grace period.

mod cloudquery;
mod conflicts;
mod control;
mod events;
mod foreign_keys;
mod listener;
mod open;
mod running;
mod upkeep;

pub use conflicts::settle;
pub use control::{COPIED_AGAIN, torn_down};
pub use foreign_keys::report as broken_report;
pub use open::{Opened, capture_options};
pub(crate) use running::Parts;
pub use running::{Ended, Node, Surroundings};
