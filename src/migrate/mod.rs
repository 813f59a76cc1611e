//! Stub until the real one is merged: creates tables and indexes verbatim, drops what is gone.
#![expect(missing_docs, reason = "a stub")]

use crate::model::{Fault, NodeId, SchemaKinds, SchemaObject, Selection, TableDef, TableId, TableSchema};
use crate::sqlite;
use rusqlite::Connection;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Safe,
    Forced,
}
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub tables: Vec<TableDef>,
    pub objects: Vec<SchemaObject>,
}
#[derive(Clone, Debug)]
pub struct Held {
    pub id: TableId,
    pub name: String,
}
pub struct Rules<'a> {
    pub mode: Mode,
    pub kinds: SchemaKinds,
    pub selection: &'a Selection,
    pub adopt: bool,
}
#[derive(Debug)]
pub struct Outcome {
    pub tables: Vec<Migrated>,
    pub gone: Vec<(TableId, String, bool)>,
    pub notes: Vec<String>,
}
#[derive(Debug)]
pub struct Migrated {
    pub id: TableId,
    pub previous: Option<TableId>,
    pub name: String,
    pub schema: TableSchema,
    pub change: Change,
    pub copy: bool,
    pub local: TableSchema,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    Same,
    Altered,
    Renamed,
    Rebuilt,
}
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Sqlite(#[from] sqlite::Error),
    #[error(transparent)]
    Rusqlite(#[from] rusqlite::Error),
}
impl Error {
    pub fn fault(&self) -> Fault {
        Fault::Halt
    }
}
pub fn apply_catalog(
    conn: &Connection,
    _peer: NodeId,
    catalog: &Catalog,
    held: &[Held],
    _rules: &Rules<'_>,
) -> Result<Outcome, Error> {
    let mut tables = Vec::new();
    for def in &catalog.tables {
        let scratch = sqlite::in_memory()?;
        scratch.execute_batch(&def.ddl)?;
        for index in &def.indexes {
            scratch.execute_batch(&index.sql)?;
        }
        let schema = sqlite::catalog::table(&scratch, &def.name)?.expect("created");
        let mut change = Change::Same;
        if sqlite::catalog::table(conn, &def.name)?.is_none() {
            conn.execute_batch(&def.ddl)?;
            for index in &def.indexes {
                conn.execute_batch(&index.sql)?;
            }
            change = Change::Created;
        }
        let local = sqlite::catalog::table(conn, &def.name)?.expect("created");
        let previous = held.iter().find(|held| def.ancestors.contains(&held.id)).map(|held| held.id);
        tables.push(Migrated { id: def.id, previous, name: def.name.clone(), schema, change, copy: false, local });
    }
    let mut gone = Vec::new();
    for held in held {
        if !catalog.tables.iter().any(|def| def.id == held.id || def.ancestors.contains(&held.id)) {
            conn.execute_batch(&format!("DROP TABLE {}", sqlite::ident(&held.name)))?;
            gone.push((held.id, held.name.clone(), true));
        }
    }
    Ok(Outcome { tables, gone, notes: Vec::new() })
}
pub fn create_deferred_indexes(_conn: &Connection, _peer: NodeId, _table: &str) -> Result<usize, Error> {
    Ok(0)
}
