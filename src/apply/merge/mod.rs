//! Applies windows where both ends write: decides what is concurrent, which of two changes wins, and what is logged of it.
//!
//! The rules are those of a model that was tried in hundreds of thousands of random histories (DESIGN, section 9); each
//! file here is a part of them, under the model's words:
//!
//! * [`both`]: a window's beginning: drift, blindness;
//! * [`index`]: the newest entry of the local log for each key (*absorb*), by which alone concurrency is decided;
//! * [`versions`]: fresh versions, the hybrid clock, and what the applier itself logs;
//! * [`decide`]: whether an incoming change is concurrent, and whether it wins;
//! * [`stage`]: what was accepted, until all of it is known: slots of unique values are freed first;
//! * [`place`]: writes what was accepted, and settles who holds a unique value;
//! * [`range`]: pieces of copies, judged key by key;
//! * [`conflicts`]: everything that lost, whole;
//! * [`meet`]: what both ends agree on before windows flow, and how it is kept.
//!
//! Invariants:
//! * Concurrent is the key's newest local entry that lies beyond what the sender had seen and did not come from it;
//!   nothing else decides it.
//! * The versions of a key never go backwards in the log.
//! * Whatever loses is in `__cdc_conflicts` by the same transaction.

mod both;
mod conflicts;
mod decide;
mod index;
mod meet;
pub(crate) mod mutant;
mod place;
mod range;
mod session;
mod stage;
mod table;
#[cfg(test)]
mod tests;
mod versions;

pub(super) use both::{Both, Watch, has_moved};
pub use decide::{MergeRules, Policies, Policy};
pub(super) use index::LogIndex;
pub use meet::{FromPeer, How, Meeting, ToPeer};
pub(super) use meet::{end_seed, is_union, keep, keep_one_way, knew_our_table, take_due, take_won};
pub(super) use session::Merge;
