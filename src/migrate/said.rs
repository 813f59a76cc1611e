//! What a peer said before: `__cdc_received` holds its tables, indexes, views and triggers in its own words.
//!
//! How else to tell the peer's index from one that was made here, and a change of the peer's from one of ours.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::{Catalog, Error, Rules};
use crate::model::{NodeId, ObjectKind, SchemaKinds, SchemaObject};

/// The kind under which an index is kept that waits for the end of its table's copy.
pub(super) const DEFERRED: &str = "deferred";

/// The kind under which a column is kept that the peer dropped and that `safe` left here.
const LEFT: &str = "left";

/// What one peer said in its last catalog that was applied here.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// CREATE TABLE, by name in lower case.
    pub(super) tables: HashMap<String, String>,
    /// CREATE INDEX, by name in lower case.
    pub(super) indexes: HashMap<String, String>,
    /// Names in lower case of indexes that wait for a copy.
    pub(super) deferred: HashSet<String>,
    /// Columns that the peer dropped and that were left here: table in lower case, column in upper case.
    pub(super) left: HashSet<(String, String)>,
    /// Views and triggers.
    pub(super) objects: Vec<SchemaObject>,
}

impl Said {
    /// Reads it.
    pub(super) fn load(conn: &Connection, peer: NodeId) -> Result<Self, Error> {
        let mut said = Self::default();
        let mut statement =
            conn.prepare_cached("SELECT type, name, tbl_name, sql FROM main.__cdc_received WHERE peer = ?1")?;
        let mut rows = statement.query([peer.0])?;
        while let Some(row) = rows.next()? {
            let (kind, name, table, sql): (String, String, String, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let lower = name.to_ascii_lowercase();
            let object = |kind| SchemaObject { kind, name: name.clone(), table: table.clone(), sql: sql.clone() };
            match kind.as_str() {
                "table" => drop(said.tables.insert(lower, sql)),
                "index" => drop(said.indexes.insert(lower, sql)),
                LEFT => drop(said.left.insert((table.to_ascii_lowercase(), sql))),
                "view" => said.objects.push(object(ObjectKind::View)),
                "trigger" => said.objects.push(object(ObjectKind::Trigger)),
                _ => {
                    said.deferred.insert(lower.clone());
                    said.indexes.insert(lower, sql);
                }
            }
        }
        Ok(said)
    }

    /// The view or trigger of that name.
    pub(super) fn object(&self, wanted: &SchemaObject) -> Option<&SchemaObject> {
        self.objects.iter().find(|object| is_same(object, wanted))
    }
}

/// Whether two objects are of one kind and name.
pub(super) fn is_same(a: &SchemaObject, b: &SchemaObject) -> bool {
    a.kind == b.kind && a.name.eq_ignore_ascii_case(&b.name)
}

/// Whether the link carries objects of that kind.
pub(super) fn carries(kinds: SchemaKinds, kind: ObjectKind) -> bool {
    match kind {
        ObjectKind::Index => kinds.indexes,
        ObjectKind::View => kinds.views,
        ObjectKind::Trigger => kinds.triggers,
    }
}

/// What is kept besides the peer's words.
pub(super) struct Beside {
    /// Names in lower case of indexes that wait for a copy.
    pub(super) deferred: HashSet<String>,
    /// Columns that were left here: table, column in upper case.
    pub(super) left: Vec<(String, String)>,
}

/// Keeps what the peer says now, in place of what it said before.
pub(super) fn store(
    conn: &Connection,
    peer: NodeId,
    catalog: &Catalog,
    rules: &Rules<'_>,
    beside: &Beside,
) -> Result<(), Error> {
    conn.prepare_cached("DELETE FROM main.__cdc_received WHERE peer = ?1")?.execute([peer.0])?;
    let mut insert = conn.prepare_cached(
        "INSERT OR REPLACE INTO main.__cdc_received(peer, type, name, tbl_name, sql) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for table in &catalog.tables {
        insert.execute((peer.0, "table", &table.name, &table.name, &table.ddl))?;
        for index in &table.indexes {
            let waits = beside.deferred.contains(&index.name.to_ascii_lowercase());
            let kind = if waits { DEFERRED } else { "index" };
            insert.execute((peer.0, kind, &index.name, &table.name, &index.sql))?;
        }
    }
    for (table, column) in &beside.left {
        insert.execute((peer.0, LEFT, format!("{table}.{column}"), table, column))?;
    }
    for object in catalog.objects.iter().filter(|object| carries(rules.kinds, object.kind)) {
        insert.execute((peer.0, object.kind.sql(), &object.name, &object.table, &object.sql))?;
    }
    Ok(())
}
