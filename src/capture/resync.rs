//! Asks for tables to be copied again, by a marker in the log that every reader sees.

use rusqlite::{Connection, TransactionBehavior};

use super::{Error, drift, generation};
use crate::model::Clock;

/// Marks the copy of these tables, of every captured one where none is named, as beginning anew. Returns their names.
///
/// # Errors
/// [`Error::UnknownTable`] for a table that is not captured, [`Error::NotInstalled`], or SQLite's.
pub fn request_copy(connection: &mut Connection, tables: &[String], clock: &dyn Clock) -> Result<Vec<String>, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let captured = generation::tables(&transaction)?;
    let mut chosen = Vec::new();
    for name in tables {
        let found = captured.iter().find(|table| table.schema_name.eq_ignore_ascii_case(name));
        chosen.push(found.ok_or_else(|| Error::UnknownTable { name: name.clone() })?);
    }
    if tables.is_empty() {
        chosen.extend(&captured);
    }
    let ids: Vec<_> = chosen.iter().map(|table| table.id).collect();
    drift::mark(&transaction, &ids, clock)?;
    let names = chosen.into_iter().map(|table| table.schema_name.clone()).collect();
    transaction.commit()?;
    Ok(names)
}
