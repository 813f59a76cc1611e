//! What lost, as a person looks it up and settles it: `__cdc_conflicts`, whose rows [`super::merge`] writes.
//!
//! [`read`] says what is recorded; [`settle`] makes a loser win after all, or forgets it. Making it win is an
//! application's write: the triggers are on and log it, so it replicates as any new change does.
//!
//! Invariants:
//! * A record goes in the transaction that writes its row, so that it is settled once or not at all.
//! * What was not logged is taken back: a loser that wins here alone would make the nodes differ.
//!
//! Not promised: that an id is never given again. SQLite gives the highest one anew once its record is gone.

mod error;
pub(super) mod key_sql;
mod read;
mod settle;

pub use error::Error;
pub use read::{Loser, Record, Summary, count, get, page};
pub use settle::{apply, drop_all, drop_some};

/// Why a record says that a row breaks a foreign key: nothing lost, and nothing was changed for it.
pub(super) const FOREIGN_KEY: &str = "foreign_key";
