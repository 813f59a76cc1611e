//! What is captured, as of one `schema_version`: the newest generation of each table, which older generations' entries
//! can be read with it, and what else of the schema can travel. Read once a version and kept by the reader.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;

use super::entries::entries_sql;
use super::objects::{self, Object};
use crate::capture::read_error::Error;
use crate::model::{Collation, TableId, TableSchema};
use crate::sqlite::row_sql::KeyQuery;
use crate::sqlite::{self, catalog, store};

/// A captured table.
pub(super) struct Table {
    pub id: TableId,
    /// The ids it had before, newest first.
    pub ancestors: Vec<TableId>,
    pub schema: TableSchema,
    pub collations: Vec<Collation>,
    pub by_key: KeyQuery,
}

impl Table {
    pub fn name(&self) -> &str {
        &self.schema.name
    }
}

/// What is captured.
pub(super) struct Captured {
    pub schema_version: i64,
    /// The log, as an SQL identifier.
    pub log: String,
    /// The log's name.
    pub log_name: String,
    /// Key columns that it has.
    pub log_key_columns: usize,
    /// Views and triggers of the user's.
    pub objects: Vec<Object>,
    /// Every table and view in the database, in lower case.
    names: Vec<String>,
    tables: BTreeMap<TableId, Table>,
    /// The newest generation of every generation whose table is there.
    newest: HashMap<TableId, TableId>,
    /// The same for those whose entries have the newest generation's key.
    readable: HashMap<TableId, TableId>,
    entries_sql: String,
}

impl Captured {
    /// Reads it, inside the caller's read transaction.
    pub fn read(connection: &mut Connection, schema_version: i64) -> Result<Self, Error> {
        let generations = generations(connection)?;
        let log = store::log_table(connection)?;
        let log_key_columns = store::log_key_columns(connection, &log)?;
        let (objects, names) = objects::read(connection)?;
        let mut captured = Self {
            schema_version,
            entries_sql: entries_sql(&log, log_key_columns),
            log_name: store::meta(connection, store::meta_key::LOG_TABLE)?.unwrap_or_default(),
            log,
            log_key_columns,
            objects,
            names,
            tables: BTreeMap::new(),
            newest: HashMap::new(),
            readable: HashMap::new(),
        };
        let replaced: Vec<TableId> = generations.values().filter_map(|generation| generation.replaces).collect();
        let newest = generations.iter().filter(|(id, generation)| !replaced.contains(id) && !generation.dropped);
        for (id, generation) in newest {
            captured.add(connection, (*id, generation), &generations)?;
        }
        Ok(captured)
    }

    fn add(
        &mut self,
        connection: &Connection,
        (id, generation): (TableId, &Generation),
        generations: &BTreeMap<TableId, Generation>,
    ) -> Result<(), Error> {
        let Some(schema) = catalog::table(connection, &generation.name)? else { return Ok(()) };
        let ancestors = ancestors(id, generations);
        self.newest.insert(id, id);
        self.readable.insert(id, id);
        for ancestor in &ancestors {
            self.newest.insert(*ancestor, id);
            if generations.get(ancestor).is_some_and(|before| same_names(&before.key, &generation.key)) {
                self.readable.insert(*ancestor, id);
            }
        }
        let (collations, by_key) = (schema.key_collations(), KeyQuery::new(&schema));
        self.tables.insert(id, Table { id, ancestors, schema, collations, by_key });
        Ok(())
    }

    /// Whether there is a table or view of that name, in lower case, in the database.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// The tables, by id.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    /// The table whose newest generation this is.
    pub fn table(&self, id: TableId) -> Option<&Table> {
        self.tables.get(&id)
    }

    /// The table that a generation has become; `None` where it is gone.
    pub fn newest_of(&self, generation: TableId) -> Option<&Table> {
        self.newest.get(&generation).and_then(|id| self.tables.get(id))
    }

    /// The table by which entries of a generation can be read; `None` where it is gone, or its key was another: then it
    /// is copied anew, and its old entries say nothing that the copy does not.
    pub fn readable_as(&self, generation: TableId) -> Option<&Table> {
        self.readable.get(&generation).and_then(|id| self.tables.get(id))
    }

    /// The statement that reads the log's entries after a position.
    pub fn entries_sql(&self) -> &str {
        &self.entries_sql
    }
}

struct Generation {
    name: String,
    replaces: Option<TableId>,
    key: Vec<String>,
    dropped: bool,
}

fn generations(connection: &Connection) -> Result<BTreeMap<TableId, Generation>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT id, name, replaces, key, dropped FROM main.__cdc_tables ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut generations = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let id = TableId(row.get(0)?);
        let replaces = row.get::<_, Option<i64>>(2)?.map(TableId);
        let damaged =
            |what: &str| sqlite::Error::Damaged { table: "__cdc_tables", what: format!("generation {} {what}", id.0) };
        if replaces.is_some_and(|before| before >= id) {
            return Err(damaged("replaces one that is not older").into());
        }
        let key = serde_json::from_str(&row.get::<_, String>(3)?).map_err(|_| damaged("has no list of key columns"))?;
        generations.insert(id, Generation { name: row.get(1)?, replaces, key, dropped: row.get(4)? });
    }
    Ok(generations)
}

fn ancestors(id: TableId, generations: &BTreeMap<TableId, Generation>) -> Vec<TableId> {
    let before = |id: &TableId| generations.get(id).and_then(|generation| generation.replaces);
    std::iter::successors(before(&id), before).collect()
}

fn same_names(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.eq_ignore_ascii_case(b))
}
