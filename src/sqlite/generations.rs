//! Which generation of a captured table an entry of the log is read with: `__cdc_tables`, as its readers need it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::Connection;

use super::Error;
use crate::model::TableId;

/// What the generations of the captured tables have become.
#[derive(Debug, Default)]
pub struct Generations {
    /// The newest generation of each table that is captured.
    pub newest: BTreeMap<TableId, Newest>,
    /// What each generation of such a table has become: the newest one.
    pub became: HashMap<TableId, TableId>,
    /// The same for those that had the same key columns as the newest: it reads their entries.
    pub readable: HashMap<TableId, TableId>,
}

/// A table that is captured.
#[derive(Debug)]
pub struct Newest {
    /// Its name.
    pub name: String,
    /// The ids it had before, newest first.
    pub ancestors: Vec<TableId>,
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
    /// SQLite's, or [`Error::Damaged`] where one replaces another that is not older.
    pub fn read(connection: &Connection) -> Result<Self, Error> {
        if !super::store::table_exists(connection, "__cdc_tables")? {
            return Ok(Self::default());
        }
        let rows = rows(connection)?;
        let replaced: Vec<TableId> = rows.values().filter_map(|row| row.replaces).collect();
        let mut all = Self::default();
        for (id, row) in rows.iter().filter(|(id, row)| !replaced.contains(id) && !row.dropped) {
            all.add(*id, row, &rows);
        }
        Ok(all)
    }

    /// The names, in lower case, of the tables whose first generation came after that one.
    pub fn made_after(&self, seen: TableId) -> BTreeSet<String> {
        let first = |(id, newest): &(&TableId, &Newest)| *newest.ancestors.last().unwrap_or(id);
        let made = self.newest.iter().filter(|line| first(line) > seen);
        made.map(|(_, newest)| newest.name.to_lowercase()).collect()
    }

    fn add(&mut self, id: TableId, newest: &Row, rows: &BTreeMap<TableId, Row>) {
        let before = |id: &TableId| rows.get(id).and_then(|row| row.replaces);
        let ancestors: Vec<TableId> = std::iter::successors(before(&id), before).collect();
        for member in ancestors.iter().chain([&id]) {
            self.became.insert(*member, id);
            if rows.get(member).is_some_and(|row| row.key == newest.key) {
                self.readable.insert(*member, id);
            }
        }
        self.newest.insert(id, Newest { name: newest.name.clone(), ancestors });
    }
}

fn rows(connection: &Connection) -> Result<BTreeMap<TableId, Row>, Error> {
    // Names of columns differ in case only where SQLite takes them for the same: in ASCII.
    let sql = "SELECT id, name, replaces, lower(key), dropped FROM main.__cdc_tables ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query([])?;
    let mut rows = BTreeMap::new();
    while let Some(row) = found.next()? {
        let (id, replaces) = (TableId(row.get(0)?), row.get::<_, Option<i64>>(2)?.map(TableId));
        // So that every line of generations ends.
        if replaces.is_some_and(|older| older >= id) {
            let what = format!("generation {} replaces one that is not older", id.0);
            return Err(Error::Damaged { table: "__cdc_tables", what });
        }
        let (name, key, dropped) = (row.get(1)?, row.get(3)?, row.get(4)?);
        rows.insert(id, Row { name, replaces, key, dropped });
    }
    Ok(rows)
}
