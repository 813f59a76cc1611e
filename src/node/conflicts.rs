//! Settles recorded conflicts in a node's database: the owner does, or the command where nobody owns it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::admin::Settlement;
use crate::apply::conflicts;
use crate::sqlite::{self, Role};

/// How long an application may keep the write lock from us: a person waits at the terminal.
const LOCK_WAIT: Duration = Duration::from_secs(15);

/// What was settled.
pub struct Settled {
    /// How many records are gone.
    pub records: u64,
    /// The same for a person.
    pub lines: Vec<String>,
}

/// Does it, on a connection of its own that writes as an application does: what it writes is captured. Blocks.
///
/// # Errors
/// [`conflicts::Error`]; nothing is changed then.
pub fn settle(database: &Path, settlement: &Settlement) -> Result<Settled> {
    let mut conn = sqlite::open(database, Role::Application, false)?;
    conn.busy_timeout(LOCK_WAIT).map_err(sqlite::Error::from)?;
    let (records, line) = match settlement {
        Settlement::Apply { id } => (1, conflicts::apply(&mut conn, *id)?),
        Settlement::Drop { ids } => dropped(conflicts::drop_some(&mut conn, ids)?),
        Settlement::DropAll => dropped(conflicts::drop_all(&mut conn)?),
    };
    Ok(Settled { records, lines: vec![line] })
}

fn dropped(records: u64) -> (u64, String) {
    let word = if records == 1 { "record" } else { "records" };
    (records, format!("dropped {records} {word}"))
}
