//! What is captured, as of one `schema_version`: the newest generation of each table, which older generations' entries
//! can be read with it, and what else of the schema can travel. Read once a version and kept by the reader.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;

use super::entries::entries_sql;
use super::objects::{self, Object};
use crate::capture::read_error::Error;
use crate::model::{Collation, TableId, TableSchema};
use crate::sqlite::generations::Generations;
use crate::sqlite::row_sql::KeyQuery;
use crate::sqlite::{catalog, store};

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
    /// The newest generation of every generation of a table that is captured.
    newest: HashMap<TableId, TableId>,
    /// The same for those whose entries have the newest generation's key.
    readable: HashMap<TableId, TableId>,
    entries_sql: String,
}

impl Captured {
    /// Reads it, inside the caller's read transaction.
    pub fn read(connection: &mut Connection, schema_version: i64) -> Result<Self, Error> {
        let generations = Generations::read(connection)?;
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
            newest: generations.became,
            readable: generations.readable,
        };
        for (id, newest) in generations.newest {
            let Some(schema) = catalog::table(connection, &newest.name)? else { continue };
            let (collations, by_key) = (schema.key_collations(), KeyQuery::new(&schema));
            captured.tables.insert(id, Table { id, ancestors: newest.ancestors, schema, collations, by_key });
        }
        Ok(captured)
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
