//! Which generation of a captured table an entry of the log is read with: `__cdc_tables`, as its readers need it.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;

use super::Error;
use crate::model::TableId;

/// What the generations of the captured tables have become.
#[derive(Debug, Default)]
pub struct Generations {
    /// The newest generation of each table that is captured, and the table's name.
    pub newest: BTreeMap<TableId, String>,
    /// For each generation that had the same key columns as the newest of its table: that newest one.
    pub readable: HashMap<TableId, TableId>,
}

struct Row {
    name: String,
    replaces: Option<TableId>,
    key: String,
    dropped: bool,
}

impl Generations {
    /// Reads them; none where nothing is captured.
    ///
    /// # Errors
    /// SQLite's.
    pub fn read(connection: &Connection) -> Result<Self, Error> {
        if !super::store::table_exists(connection, "__cdc_tables")? {
            return Ok(Self::default());
        }
        let sql = "SELECT id, name, replaces, lower(key), dropped FROM main.__cdc_tables ORDER BY id";
        let mut statement = connection.prepare_cached(sql)?;
        let read = |row: &rusqlite::Row<'_>| {
            let replaces = row.get::<_, Option<i64>>(2)?.map(TableId);
            let (name, key, dropped) = (row.get(1)?, row.get(3)?, row.get(4)?);
            Ok((TableId(row.get(0)?), Row { name, replaces, key, dropped }))
        };
        let rows = statement.query_map([], read)?.collect::<rusqlite::Result<BTreeMap<TableId, Row>>>()?;
        let replaced: Vec<TableId> = rows.values().filter_map(|row| row.replaces).collect();
        let mut all = Self::default();
        for (id, row) in rows.iter().filter(|(id, row)| !replaced.contains(id) && !row.dropped) {
            all.newest.insert(*id, row.name.clone());
            let mut before = Some(*id);
            // A generation replaces an older one, so this ends.
            while let Some(member) = before {
                let Some(found) = rows.get(&member) else { break };
                if found.key == row.key {
                    all.readable.insert(member, *id);
                }
                before = found.replaces.filter(|older| *older < member);
            }
        }
        Ok(all)
    }
}
