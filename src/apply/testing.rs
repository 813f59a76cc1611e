//! For the tests of this module: a peer with a database of its own that says windows, and a replica that hears them.

use std::path::PathBuf;

use bytes::Bytes;
use rusqlite::Connection;

use super::statement::Target;
use super::{Applied, Applier, Error, Held, LinkRules, SourceError, Window};
use crate::codec::{BatchBuilder, Compression, RowDigest};
use crate::migrate::Mode;
use crate::model::{
    Checkpoint, CopyState, Digest, EncodedBatch, Epoch, Key, NodeId, Position, Range, RangeMode, Rows, RowsOp,
    SchemaKinds, SchemaObject, Selection, TableDef, TableId, Value, WindowEnd, WindowItem,
};
use crate::sqlite::range_sql::{Cells, RangeQuery};
use crate::sqlite::{self, Role, borrowed, catalog, ident, quote, value_of};

/// Numbers as the values of a key.
pub(super) fn integers(values: &[i64]) -> Vec<Value> {
    values.iter().copied().map(Value::Integer).collect()
}

/// Numbers as a key.
pub(super) fn key(values: &[i64]) -> Key {
    Key(integers(values))
}

/// A window that can be said more than once.
#[derive(Clone)]
pub(super) struct Said {
    pub(super) peer: NodeId,
    pub(super) from: Position,
    pub(super) lost_history: bool,
    pub(super) items: Vec<WindowItem>,
    pub(super) end: WindowEnd,
    /// The spool breaks after the last item.
    pub(super) fails: bool,
}

/// The other node. Its tables' ids are their places by name, from 1, plus `generation`.
pub(super) struct Peer {
    pub(super) conn: Connection,
    pub(super) id: NodeId,
    pub(super) seq: i64,
    pub(super) generation: i64,
    /// The time of its changes.
    pub(super) at_ms: i64,
}

impl Peer {
    pub(super) fn new(ddl: &str) -> Self {
        let conn = sqlite::in_memory().expect("memory");
        conn.execute_batch(ddl).expect("ddl");
        Self { conn, id: NodeId(5), seq: 0, generation: 0, at_ms: 0 }
    }

    pub(super) fn run(&self, sql: &str) {
        self.conn.execute_batch(sql).expect("statement of the peer's");
    }

    pub(super) fn position(&self) -> Position {
        Position { epoch: Epoch(77), seq: self.seq }
    }

    fn tables(&self) -> Vec<String> {
        catalog::table_list(&self.conn).expect("tables").into_iter().map(|entry| entry.name).collect()
    }

    pub(super) fn table_id(&self, table: &str) -> TableId {
        let place = self.tables().iter().position(|name| name == table).expect("a table of the peer's");
        TableId(i64::try_from(place).expect("few") + 1 + self.generation)
    }

    /// A table of the peer's, as if it wrote into itself.
    pub(super) fn target(&self, table: &str) -> Target {
        let schema = catalog::table(&self.conn, table).expect("catalog").expect("table");
        Target::new(self.table_id(table), &schema, &schema).expect("target")
    }

    pub(super) fn catalog(&self) -> Vec<WindowItem> {
        let mut items = vec![WindowItem::Catalog];
        let objects = catalog::objects(&self.conn).expect("objects");
        for name in self.tables() {
            let schema = catalog::table(&self.conn, &name).expect("catalog").expect("table");
            let id = self.table_id(&name);
            let ancestors = (1..=self.generation).map(|back| TableId(id.0 - back)).collect();
            let is_index =
                |object: &&SchemaObject| object.kind == crate::model::ObjectKind::Index && object.table == name;
            let indexes = objects.iter().filter(is_index).cloned().collect();
            let (ddl, arrow_schema) = (schema.ddl, Bytes::new());
            items.push(WindowItem::Table(TableDef {
                id,
                ancestors,
                name,
                ddl,
                indexes,
                arrow_schema,
                rows_estimate: 3,
            }));
        }
        items
    }

    fn changes(&self, table: &str, condition: &str, op: RowsOp) -> WindowItem {
        let target = self.target(table);
        let columns = quote::idents(target.read.wire_columns());
        let at_ms = self.at_ms;
        let sql = format!("SELECT 0, {at_ms}, NULL, {columns} FROM {} WHERE {condition}", ident(table));
        let mut statement = self.conn.prepare(&sql).expect("select");
        let columns = statement.column_count();
        let mut builder = BatchBuilder::new(columns);
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().expect("row") {
            for column in 0..columns {
                builder.push(row.get_ref(column).expect("cell"));
            }
        }
        let batch = builder.finish(Compression::None).expect("batch");
        WindowItem::Rows(Rows { table: target.id, op, batch })
    }

    /// The rows that meet `condition`, as changed.
    pub(super) fn upserts(&self, table: &str, condition: &str) -> WindowItem {
        self.changes(table, condition, RowsOp::Upsert)
    }

    /// The rows that meet `condition`, as all that have their keys.
    pub(super) fn exactly(&self, table: &str, condition: &str) -> WindowItem {
        self.changes(table, condition, RowsOp::Exactly)
    }

    pub(super) fn deletes(&self, table: &str, keys: &[Vec<Value>]) -> WindowItem {
        let rows = keys.iter().map(|key| [integers(&[0, self.at_ms]), vec![Value::Null], key.clone()].concat());
        let batch = encode(&rows.collect::<Vec<_>>(), 3 + keys[0].len());
        WindowItem::Rows(Rows { table: self.table_id(table), op: RowsOp::Delete, batch })
    }

    fn rows_of(&self, target: &Target, low: Option<&Key>, high: Option<&Key>) -> Vec<Vec<Value>> {
        let mut all: Vec<Vec<Value>> = Vec::new();
        let visit = |row: &sqlite::row_sql::RowRef<'_, '_>| {
            all.push(row.values().map(value_of).collect());
            Ok::<_, rusqlite::Error>(true)
        };
        RangeQuery::new(&target.read, Cells::Wire, low, high).each(&self.conn, visit).expect("rows");
        all
    }

    /// The table's keys in order.
    pub(super) fn keys(&self, table: &str) -> Vec<Key> {
        let target = self.target(table);
        self.rows_of(&target, None, None).iter().map(|row| target.read.key_of(row)).collect()
    }

    /// The rows of (low, high], two a batch.
    pub(super) fn range(&self, table: &str, low: Option<Key>, high: Option<Key>, last: bool) -> WindowItem {
        let target = self.target(table);
        let rows = self.rows_of(&target, low.as_ref(), high.as_ref());
        let batches = rows.chunks(2).map(|rows| encode(rows, target.wire_len)).collect();
        let (mode, lost_history) = (RangeMode::Exact, false);
        WindowItem::Range(Range { table: target.id, low, high, mode, last, lost_history, batches })
    }

    pub(super) fn digest(&self, table: &str, low: Option<Key>, high: Option<Key>, last: bool) -> WindowItem {
        let target = self.target(table);
        let mut digest = RowDigest::new();
        for row in self.rows_of(&target, low.as_ref(), high.as_ref()) {
            row.iter().for_each(|value| digest.push(borrowed(value)));
            digest.end_row();
        }
        let (rows, digest) = digest.finish();
        let (mode, lost_history) = (RangeMode::Exact, false);
        WindowItem::Digest(Digest { table: target.id, low, high, mode, last, lost_history, rows, digest })
    }

    /// A window that begins a session where the peer is now.
    pub(super) fn first(&self, items: Vec<WindowItem>) -> Said {
        let to = Checkpoint { position: self.position(), ts_ms: 1_000 + self.seq, fingerprint: 3 };
        let end = WindowEnd {
            to,
            head: self.seq,
            seen: 0,
            applied: 0,
            whole: true,
            last_part: true,
            markers: Vec::new(),
            repairs: Vec::new(),
            sequences: Vec::new(),
            user_version: None,
            application_id: None,
        };
        Said { peer: self.id, from: self.position(), lost_history: false, items, end, fails: false }
    }

    /// The window after the one before.
    pub(super) fn next(&mut self, items: Vec<WindowItem>) -> Said {
        let from = self.position();
        self.seq += 1;
        Said { from, ..self.first(items) }
    }
}

fn encode(rows: &[Vec<Value>], columns: usize) -> EncodedBatch {
    let mut builder = BatchBuilder::new(columns);
    rows.iter().flatten().for_each(|value| builder.push(borrowed(value)));
    builder.finish(Compression::None).expect("batch")
}

/// A peer with these tables, and a replica that has them too.
pub(super) fn started(ddl: &str) -> (Peer, Replica) {
    let peer = Peer::new(ddl);
    let mut replica = Replica::new();
    replica.apply(peer.first(peer.catalog())).expect("apply");
    (peer, replica)
}

/// A replica in a file of its own.
pub(super) struct Replica {
    pub(super) path: PathBuf,
    pub(super) rules: LinkRules,
    /// Its wall clock.
    pub(super) now_ms: i64,
    applier: Option<Applier>,
    _folder: tempfile::TempDir,
}

impl Replica {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("replica.db");
        let rules = LinkRules {
            mode: Mode::Forced,
            kinds: SchemaKinds::ALL,
            selection: Selection::all(),
            protect: false,
            user_triggers: false,
            adopt: false,
            merge: None,
        };
        let applier = Some(Applier::open(&path, true).expect("open"));
        Self { path, rules, now_ms: 0, applier, _folder: folder }
    }

    pub(super) fn applier(&mut self) -> &mut Applier {
        self.applier.as_mut().expect("open")
    }

    pub(super) fn reopen(&mut self) -> &mut Applier {
        self.applier = None;
        self.applier.insert(Applier::open(&self.path, false).expect("open"))
    }

    pub(super) fn apply(&mut self, said: Said) -> Result<Applied, Error> {
        let broken = said.fails.then(|| Err(SourceError::from("broken")));
        let mut items = said.items.into_iter().map(Ok).chain(broken);
        let rules = self.rules.clone();
        let window = Window {
            peer: said.peer,
            peer_name: "peer",
            rules: &rules,
            from: said.from,
            lost_history: said.lost_history,
            items: &mut items,
            end: &said.end,
            copying_back: crate::model::CopyingBack::No,
            now_ms: self.now_ms,
        };
        self.applier().apply(window)
    }

    pub(super) fn held(&mut self) -> Held {
        self.applier().held("peer", None).expect("held")
    }

    pub(super) fn state(&mut self, table: &str) -> CopyState {
        let held = self.held();
        held.tables.into_iter().find(|held| held.name == table).expect("held").progress.state
    }

    /// Another connection, as an application's: triggers fire.
    pub(super) fn look(&self) -> Connection {
        let conn = sqlite::open(&self.path, Role::Reader, false).expect("open");
        conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).expect("triggers");
        conn
    }

    pub(super) fn run(&self, sql: &str) {
        self.look().execute_batch(sql).expect("statement at the replica");
    }

    /// Every table of the peer's is here, each value of its class.
    #[track_caller]
    pub(super) fn assert_equal(&self, peer: &Peer) {
        let here = self.look();
        for table in peer.tables() {
            let columns = quote::idents(peer.target(&table).read.wire_columns());
            let sql = format!("SELECT {columns} FROM {} ORDER BY {columns}", ident(&table));
            assert_eq!(content(&here, &sql), content(&peer.conn, &sql), "{table}");
        }
        let check: String = here.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("check");
        assert_eq!(check, "ok");
    }
}

/// Values as text with class and bits, so that a difference can be read.
fn content(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(sql).expect("select");
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    let mut all = Vec::new();
    while let Some(row) = rows.next().expect("row") {
        let cells = 0..columns;
        let cell = |cell| match value_of(row.get_ref(cell).expect("cell")) {
            Value::Real(real) => format!("r{:016x}", real.to_bits()),
            Value::Integer(integer) => format!("i{integer}"),
            Value::Null => "-".to_owned(),
            Value::Text(text) => format!("t{text:?}"),
            Value::Blob(blob) => format!("b{blob:?}"),
        };
        all.push(cells.map(cell).collect::<Vec<_>>().join(" "));
    }
    all
}
