//! Applies a peer's windows to the local database.
//!
//! One window becomes one transaction: the peer's schema, the rows that it changed, a piece of a table's copy, and the
//! checkpoint that says how far all of it goes. So a crash at any moment leaves the whole window or nothing of it, and a
//! window that comes twice is refused by its position.
//!
//! `replicate` feeds it what the link received; [`crate::migrate`] makes the schema fit; what it answers ([`Applied`])
//! goes back to the peer as an acknowledgement and, where a copy's digest differs, as a request for rows.
//!
//! The life of a window: [`Applier::apply`] begins the transaction and reads the checkpoint → `mirror` walks the items
//! → `catalog` hands the peer's schema to `migrate` and keeps the progress of its tables → `rows` writes and deletes
//! with the statements of `statement` → `copy` makes a range what the peer says, or compares its digest → `checkpoint`
//! moves the position → commit, synced.
//!
//! Invariants:
//! * The checkpoint moves only in the transaction that holds the changes it covers.
//! * What is answered is durable: the commit is synced before [`Applier::apply`] returns.
//! * The progress of a copy never passes a range that was not applied or compared equal.
//! * Our own triggers never log what is applied here.
//!
//! Not promised: that one window is one transaction of the source's; it is one or more, always whole, unless the link may
//! split large windows; then [`Held::between_transactions`] says so until the last part is applied.

mod ahead;
mod applier;
mod catalog;
mod checkpoint;
pub mod conflicts;
mod copy;
mod error;
mod file;
mod foreign;
mod gone;
mod made;
pub(crate) mod merge;
mod mirror;
mod moves;
mod protect;
mod rows;
mod statement;
#[cfg(test)]
mod testing;
mod user_triggers;
mod window;

pub use applier::Applier;
pub use checkpoint::{Held, HeldTable};
pub use error::{Error, SourceError};
pub use foreign::{Broken, ForeignKeys, Looked, broken};
pub use merge::{FromPeer, How, Meeting, MergeRules, Policies, Policy, ToPeer};
pub use window::{Applied, LinkRules, NeedRange, Recapture, Recorded, TableStatus, Window};
