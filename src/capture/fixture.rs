//! A real database with a log and the plainest of triggers, for the tests of what reads it.

use std::io;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::reader::LogReader;
use super::source::{ChangeSource, CopyHow, CopyStep, ReadOutcome, ReadRequest, ReadWindow};
use crate::codec::{Compression, DecodedBatch};
use crate::model::{EncodedBatch, RangeMode, RowsOp, SchemaKinds, Selection, TableId, Value, WindowItem};
use crate::sqlite::{Role, catalog, ident, open, store, value_of};

pub(super) struct Fixture {
    pub writer: Connection,
    pub reader: LogReader,
    pub request: ReadRequest,
    _folder: tempfile::TempDir,
}

/// A window and what it says.
pub(super) struct Said {
    pub window: ReadWindow,
    pub items: Vec<WindowItem>,
}

impl Fixture {
    /// A database with these tables, captured from before their rows.
    pub fn new(ddl: &str, rows: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("app.db");
        let writer = open(&path, Role::Maintainer, true).expect("open");
        writer.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).expect("triggers");
        writer.execute_batch("PRAGMA journal_mode = WAL").expect("WAL");
        store::ensure_node(&writer).expect("node");
        writer.execute_batch(store::CAPTURE_TABLES).expect("tables");
        let log = "CREATE TABLE __cdc_log(seq INTEGER PRIMARY KEY, ts, tbl, op, origin, oseq, via, k0, k1)";
        writer.execute_batch(log).expect("log");
        store::set_meta(&writer, store::meta_key::LOG_TABLE, "__cdc_log").expect("meta");
        store::set_meta(&writer, store::meta_key::EPOCH, 77).expect("meta");
        writer.execute_batch(ddl).expect("ddl");
        let tables = catalog::table_list(&writer).expect("tables");
        for entry in tables.iter().filter(|entry| entry.kind == catalog::TableKind::Ordinary) {
            capture(&writer, &entry.name, None);
        }
        let request = ReadRequest {
            after: 0,
            mark: None,
            catalog_known: None,
            selection: Arc::new(Selection::all()),
            kinds: SchemaKinds::ALL,
            copy: None,
            window_rows: Some(1_000),
            two_way: None,
            batch_rows: 1_000,
            batch_bytes: 1 << 20,
            compression: Compression::None,
        };
        let reader = LogReader::open(&path).expect("reader");
        let mut fixture = Self { writer, reader, request, _folder: folder };
        fixture.settle();
        fixture.run(rows);
        fixture
    }

    /// Says that the triggers were compared with the schema as it is, and that the link has its catalog.
    pub fn settle(&mut self) {
        let version = catalog::schema_version(&self.writer).expect("version");
        store::set_meta(&self.writer, store::meta_key::SCHEMA_VERSION, version).expect("meta");
        self.request.catalog_known = Some(version);
    }

    pub fn run(&self, sql: &str) {
        self.writer.execute_batch(sql).expect("sql");
    }

    /// A new generation of a table, after its schema has changed.
    pub fn recapture(&mut self, table: &str, replaces: i64) -> i64 {
        let id = capture(&self.writer, table, Some(replaces));
        self.settle();
        id
    }

    /// An entry of the log: op, table, key.
    pub fn log(&self, op: i64, table: i64, key: &[Value]) {
        let mut statement = self
            .writer
            .prepare("INSERT INTO __cdc_log(ts, op, tbl, k0, k1) VALUES (5, ?1, ?2, ?3, ?4)")
            .expect("prepare");
        let part = |place: usize| key.get(place).cloned().unwrap_or(Value::Null);
        let (a, b) = (part(0), part(1));
        statement.execute((op, table, crate::sqlite::Bind(&a), crate::sqlite::Bind(&b))).expect("insert");
    }

    pub fn read(&mut self) -> ReadOutcome {
        self.reader.read(&self.request, &mut |_| Ok(())).expect("read")
    }

    /// The next window, after which the position is its end.
    pub fn said(&mut self) -> Said {
        let mut items = Vec::new();
        let outcome = self.reader.read(&self.request, &mut |item| {
            items.push(item);
            io::Result::Ok(())
        });
        match outcome.expect("read") {
            ReadOutcome::Window(window) => {
                self.request.after = window.end.to.position.seq;
                Said { window, items }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A step of a copy, with small limits.
    pub fn copy(&mut self, table: i64, how: CopyHow, rows_max: usize) -> &mut CopyStep {
        let step = CopyStep {
            table: TableId(table),
            low: None,
            high: None,
            bounded: false,
            how,
            rows_max,
            bytes_max: 1 << 20,
            mode: RangeMode::Exact,
            lost_history: false,
        };
        self.request.copy.insert(step)
    }
}

impl Said {
    /// The rows of that kind, without their versions.
    pub fn rows(&self, op: RowsOp) -> Vec<Vec<Value>> {
        self.with_versions(op).into_iter().map(|row| row[3..].to_vec()).collect()
    }

    /// The rows of that kind: seq, ts, origin, and the row.
    pub fn with_versions(&self, op: RowsOp) -> Vec<Vec<Value>> {
        let of_op = |item: &WindowItem| match item {
            WindowItem::Rows(rows) if rows.op == op => decoded(&rows.batch),
            _ => Vec::new(),
        };
        self.items.iter().flat_map(of_op).collect()
    }

    pub fn range(&self) -> Vec<Vec<Value>> {
        match self.items.last() {
            Some(WindowItem::Range(range)) => range.batches.iter().flat_map(decoded).collect(),
            other => panic!("no range: {other:?}"),
        }
    }
}

pub(super) fn decoded(batch: &EncodedBatch) -> Vec<Vec<Value>> {
    let columns = batch.codes.len();
    let decoded = DecodedBatch::new(batch, columns).expect("a batch of ours");
    let row = |row: usize| (0..columns).map(|column| value_of(decoded.value(column, row))).collect();
    (0..decoded.rows()).map(row).collect()
}

pub(super) fn integers(values: &[i64]) -> Vec<Value> {
    values.iter().copied().map(Value::Integer).collect()
}

fn capture(writer: &Connection, name: &str, replaces: Option<i64>) -> i64 {
    let table = catalog::table(writer, name).expect("catalog").expect("table");
    let json = |names: &[&str]| serde_json::to_string(names).expect("json");
    let key: Vec<&str> = table.key_columns().iter().map(|(name, _)| *name).collect();
    let sql = "INSERT INTO __cdc_tables(name, replaces, columns, key, ddl, indexes) VALUES (?1, ?2, ?3, ?4, ?5, '')
               RETURNING id";
    let values = (&table.name, replaces, json(&table.wire_columns()), json(&key), &table.ddl);
    let id: i64 = writer.query_row(sql, values, |row| row.get(0)).expect("generation");
    let places: String = (0..key.len()).map(|place| format!(", k{place}")).collect();
    let entry = |op: i64, row: &str| {
        let values: String = key.iter().map(|column| format!(", {row}.{}", ident(column))).collect();
        format!("INSERT INTO __cdc_log(ts, tbl, op{places}) VALUES (1000, {id}, {op}{values});")
    };
    for (event, body) in [
        ("INSERT", entry(1, "NEW")),
        ("UPDATE", format!("{}{}", entry(3, "OLD"), entry(1, "NEW"))),
        ("DELETE", entry(3, "OLD")),
    ] {
        let trigger = format!("__cdc_{id}_{event}");
        let sql = format!("CREATE TRIGGER {trigger} AFTER {event} ON {} BEGIN {body} END", ident(name));
        writer.execute_batch(&sql).expect("trigger");
    }
    id
}
