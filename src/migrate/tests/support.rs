//! A source and a replica to migrate between.

use std::collections::BTreeMap;

pub(super) use bytes::Bytes;
use rusqlite::Connection;

pub(super) use super::super::*;
pub(super) use crate::model::{NodeId, ObjectKind, SchemaKinds, SchemaObject, Selection, TableDef, TableId};
pub(super) use crate::sqlite::{catalog, ident, in_memory, store};

pub(super) const PEER: NodeId = NodeId(7);

/// A source and a replica, and what a capturing source would know of its tables.
pub(super) struct Ends {
    pub(super) source: Connection,
    pub(super) replica: Connection,
    pub(super) known: BTreeMap<String, TableDef>,
    pub(super) next: i64,
    pub(super) held: Vec<Held>,
    pub(super) mode: Mode,
    pub(super) adopt: bool,
    pub(super) mirror: bool,
    pub(super) kinds: SchemaKinds,
}

impl Ends {
    pub(super) fn new(mode: Mode) -> Self {
        let replica = in_memory().unwrap();
        store::ensure_node(&replica).unwrap();
        Self {
            source: in_memory().unwrap(),
            replica,
            known: BTreeMap::new(),
            next: 1,
            held: Vec::new(),
            mode,
            adopt: false,
            mirror: true,
            kinds: SchemaKinds::ALL,
        }
    }

    /// Both ends with this schema, migrated, and these rows.
    pub(super) fn with(mode: Mode, ddl: &str, rows: &str) -> Self {
        let mut ends = Self::new(mode);
        ends.source.execute_batch(ddl).unwrap();
        ends.sync().unwrap();
        ends.both(rows);
        for name in ends.held.iter().map(|held| held.name.clone()).collect::<Vec<_>>() {
            create_deferred_indexes(&ends.replica, PEER, &name).unwrap();
        }
        ends
    }

    pub(super) fn both(&self, sql: &str) {
        self.source.execute_batch(sql).unwrap();
        self.replica.execute_batch(sql).unwrap();
    }

    /// A rename at the source, as capture follows it.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        self.source.execute_batch(&format!("ALTER TABLE {} RENAME TO {}", ident(from), ident(to))).unwrap();
        let def = self.known.remove(from).unwrap();
        self.known.insert(to.to_owned(), def);
    }

    pub(super) fn catalog(&mut self) -> Catalog {
        let objects = catalog::objects(&self.source).unwrap();
        let mut known = BTreeMap::new();
        for entry in catalog::table_list(&self.source).unwrap() {
            let schema = catalog::table(&self.source, &entry.name).unwrap().unwrap();
            let on = |object: &&SchemaObject| object.kind == ObjectKind::Index && object.table == entry.name;
            let indexes: Vec<SchemaObject> = objects.iter().filter(on).cloned().collect();
            let before = self.known.get(&entry.name).cloned();
            let same = before.as_ref().is_some_and(|def| def.ddl == schema.ddl && def.indexes == indexes);
            let (id, ancestors) = match before {
                Some(def) if same => (def.id, def.ancestors),
                Some(def) => (self.new_id(), [vec![def.id], def.ancestors].concat()),
                None => (self.new_id(), Vec::new()),
            };
            let def = TableDef {
                id,
                ancestors,
                name: entry.name.clone(),
                ddl: schema.ddl,
                indexes,
                arrow_schema: Bytes::new(),
                rows_estimate: 0,
            };
            known.insert(entry.name, def);
        }
        self.known = known;
        let objects = objects.into_iter().filter(|object| object.kind != ObjectKind::Index).collect();
        Catalog { tables: self.known.values().cloned().collect(), objects }
    }

    pub(super) fn new_id(&mut self) -> TableId {
        self.next += 1;
        TableId(self.next)
    }

    pub(super) fn sync(&mut self) -> Result<Outcome, Error> {
        let catalog = self.catalog();
        self.apply(&catalog)
    }

    /// In one transaction, rolled back where it fails, as the applier does it.
    pub(super) fn apply(&mut self, catalog: &Catalog) -> Result<Outcome, Error> {
        let selection = Selection::all();
        let Self { mode, adopt, mirror, kinds, .. } = *self;
        let rules = Rules { mode, kinds, selection: &selection, adopt, mirror };
        self.replica.execute_batch("BEGIN IMMEDIATE").unwrap();
        match apply_catalog(&self.replica, PEER, catalog, &self.held, &rules) {
            Ok(outcome) => {
                self.replica.execute_batch("COMMIT").unwrap();
                let stay = outcome.gone.iter().filter(|(_, _, dropped)| !dropped);
                let tables = outcome.tables.iter().map(|table| Held { id: table.id, name: table.name.clone() });
                self.held = tables.chain(stay.map(|(id, name, _)| Held { id: *id, name: name.clone() })).collect();
                Ok(outcome)
            }
            Err(error) => {
                self.replica.execute_batch("ROLLBACK").unwrap();
                Err(error)
            }
        }
    }

    /// Runs it at the source, and migrates.
    pub(super) fn change(&mut self, sql: &str) -> Result<Outcome, Error> {
        self.source.execute_batch(sql).unwrap();
        self.sync()
    }
}

/// Every object of a database that is not ours, with its text.
pub(super) fn schema(conn: &Connection) -> Vec<(String, String, String)> {
    let sql = "SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE '\\_\\_cdc%' ESCAPE '\\'
               AND tbl_name NOT LIKE '\\_\\_cdc%' ESCAPE '\\' AND name NOT LIKE 'sqlite%' ORDER BY 1, 2";
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

pub(super) fn names(conn: &Connection) -> Vec<String> {
    schema(conn).into_iter().map(|(_, name, _)| name).collect()
}

/// The one value of a query, as text.
pub(super) fn ask(conn: &Connection, sql: &str) -> String {
    let value: rusqlite::types::Value = conn.query_row(sql, [], |row| row.get(0)).unwrap();
    match value {
        rusqlite::types::Value::Null => "NULL".to_owned(),
        rusqlite::types::Value::Integer(integer) => integer.to_string(),
        rusqlite::types::Value::Real(real) => real.to_string(),
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Blob(_) => "blob".to_owned(),
    }
}

/// The only table of an outcome.
#[track_caller]
pub(super) fn only(outcome: &Outcome) -> &Migrated {
    assert_eq!(outcome.tables.len(), 1);
    &outcome.tables[0]
}
