//! A node of a history: a database in a file, with an application, a reader, a maintainer and an applier.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;

use super::link::Link;
use crate::apply::{Applier, Recapture, SourceError};
use crate::capture::reader::LogReader;
use crate::capture::{self, CaptureOptions, Images, Maintainer};
use crate::model::{Clock, ManualClock, NodeId, Version};
use crate::sqlite::store::{self, meta_key};
use crate::sqlite::{self, Role};

/// What the table of a history is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    /// Which kind of key.
    pub(super) key: usize,
    /// How many unique columns.
    pub(super) uniques: usize,
    /// Which kind of unique index comes first.
    pub(super) index: usize,
}

impl Shape {
    pub(super) const KEYS: usize = 4;
    pub(super) const INDEXES: usize = 5;

    fn ddl(self) -> String {
        let key =
            ["k INTEGER PRIMARY KEY", "k INT PRIMARY KEY", "k TEXT NOT NULL PRIMARY KEY", "k PRIMARY KEY"][self.key];
        let columns: String = (0..self.uniques).map(|place| format!(", u{place}")).collect();
        let options = if self.key == 3 { " WITHOUT ROWID" } else { "" };
        let mut ddl = format!("CREATE TABLE t({key}, id INTEGER{columns}){options};");
        for place in 0..self.uniques {
            let on = match (self.index + place) % Self::INDEXES {
                0 => format!("(u{place})"),
                1 => format!("(u{place} COLLATE NOCASE)"),
                2 => format!("(u{place}) WHERE u{place} IS NOT NULL"),
                3 => format!("(lower(u{place}))"),
                _ => format!("(u{place}, length(u{place}))"),
            };
            ddl.push_str(&format!("CREATE UNIQUE INDEX t_u{place} ON t{on};"));
        }
        ddl
    }

    /// A key as SQL.
    pub(super) fn key_sql(self, key: usize) -> String {
        if self.key == 2 { format!("'k{key}'") } else { key.to_string() }
    }

    /// A key as it is read back.
    pub(super) fn key_of(self, text: &str) -> usize {
        text.trim_start_matches('k').parse().expect("a key of ours")
    }
}

/// A row: its id, and its unique values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) values: Vec<Option<String>>,
}

/// The live rows by key.
pub(super) type Rows = BTreeMap<usize, Row>;

/// A node.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) shape: Shape,
    pub(super) app: Connection,
    pub(super) reader: LogReader,
    pub(super) maintainer: Maintainer,
    pub(super) applier: Applier,
    pub(super) clock: Arc<ManualClock>,
    pub(super) skew: i64,
    pub(super) links: BTreeMap<usize, Link>,
    path: PathBuf,
}

fn open(path: &Path, clock: &Arc<ManualClock>) -> (LogReader, Maintainer, Applier) {
    let maintainer = Maintainer::open(path, options(), Arc::clone(clock) as Arc<dyn Clock>).expect("open");
    let mut applier = Applier::open(path, false).expect("open");
    applier.set_recapture(Box::new(InThisDatabase { options: options(), clock: Arc::clone(clock) }));
    (LogReader::open(path).expect("open"), maintainer, applier)
}

struct InThisDatabase {
    options: CaptureOptions,
    clock: Arc<ManualClock>,
}

impl Recapture for InThisDatabase {
    fn recapture(&mut self, conn: &Connection, ours: bool) -> Result<(), SourceError> {
        capture::recapture(conn, &self.options, &*self.clock, ours).map(drop).map_err(SourceError::from)
    }

    fn recapture_ahead(&mut self, conn: &mut Connection) -> Result<(), SourceError> {
        capture::reconcile(conn, &self.options, &*self.clock).map(drop).map_err(SourceError::from)
    }
}

/// Entries of the log that say a key was written: all that name one but touches.
const WRITTEN: &str = "op IN (1, 2, 3, 9, 10)";

fn options() -> CaptureOptions {
    CaptureOptions { two_way: true, ..CaptureOptions::default() }
}

/// Makes a database of that shape, for nodes to be copied from.
pub(super) fn template(path: &Path, shape: Shape) {
    let app = sqlite::open(path, Role::Application, true).expect("open");
    app.execute_batch("PRAGMA journal_mode = WAL; PRAGMA page_size = 4096").expect("WAL");
    app.execute_batch(&shape.ddl()).expect("ddl");
    // Half of the shapes have images in their logs, which decide nothing.
    let images = if shape.index % 2 == 1 { Images::Full } else { Images::Key };
    let options = CaptureOptions { images, ..options() };
    let mut maintainer = Maintainer::open(path, options, Arc::new(ManualClock::at(0))).expect("open");
    maintainer.install().expect("install");
    drop(maintainer);
    app.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("checkpoint");
}

impl Node {
    /// Whether the log names a key.
    pub(super) fn logs(&self, key: usize) -> bool {
        self.number(&format!("SELECT count(*) FROM __cdc_log WHERE k0 = {}", self.shape.key_sql(key))) > 0
    }

    pub(super) fn new(folder: &Path, template: &Path, number: usize, shape: Shape, skew: i64) -> Self {
        let path = folder.join(format!("{number}.db"));
        std::fs::copy(template, &path).expect("copy");
        let id = NodeId(i64::try_from(number).expect("few") + 1);
        let app = sqlite::open(&path, Role::Application, false).expect("open");
        store::set_meta(&app, meta_key::NODE_ID, id.0).expect("id");
        store::set_meta(&app, meta_key::EPOCH, 1_000 + id.0).expect("epoch");
        let clock = Arc::new(ManualClock::at(0));
        app.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).expect("triggers");
        tell_time(&app, Arc::clone(&clock));
        let (reader, maintainer, applier) = open(&path, &clock);
        let links = BTreeMap::new();
        Self { id, shape, app, reader, maintainer, applier, clock, skew, links, path }
    }

    /// As after a restart: nothing is known but what the database keeps.
    pub(super) fn restart(&mut self) {
        (self.reader, self.maintainer, self.applier) = open(&self.path, &self.clock);
    }

    /// Removes our triggers, as whoever works on a database may. Says how they are made again.
    pub(super) fn drop_triggers(&self) -> Vec<String> {
        let mut found =
            self.app.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").expect("prepare");
        let triggers = found
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .expect("triggers")
            .collect::<rusqlite::Result<Vec<_>>>()
            .expect("triggers");
        for (name, _) in &triggers {
            self.app.execute_batch(&format!("DROP TRIGGER \"{name}\"")).expect("drop");
        }
        triggers.into_iter().map(|(_, sql)| sql).collect()
    }

    /// The last sequence number.
    pub(super) fn head(&self) -> i64 {
        self.number("SELECT coalesce(max(seq), 0) FROM __cdc_log")
    }

    pub(super) fn number(&self, sql: &str) -> i64 {
        self.app.prepare_cached(sql).expect("prepare").query_row([], |row| row.get(0)).expect("a number")
    }

    /// Whether a copy of a peer's is unfinished here.
    pub(super) fn is_copying(&self, peer: NodeId) -> bool {
        store::copy_unfinished(&self.app, peer).expect("read")
    }

    pub(super) fn has_missed(&self) -> bool {
        store::meta::<String>(&self.app, meta_key::MISSED).expect("read").is_some()
            || store::meta(&self.app, meta_key::SCHEMA_VERSION).expect("read")
                != Some(sqlite::catalog::schema_version(&self.app).expect("version"))
    }

    pub(super) fn rows(&self) -> Rows {
        let uniques: String = (0..self.shape.uniques).map(|place| format!(", u{place}")).collect();
        let sql = format!("SELECT CAST(k AS TEXT), id{uniques} FROM t");
        let mut statement = self.app.prepare_cached(&sql).expect("prepare");
        let read = |row: &rusqlite::Row<'_>| {
            let values = (0..self.shape.uniques).map(|place| row.get(place + 2)).collect::<Result<_, _>>()?;
            Ok((self.shape.key_of(&row.get::<_, String>(0)?), Row { id: row.get(1)?, values }))
        };
        statement.query_map([], read).expect("rows").collect::<rusqlite::Result<_>>().expect("rows")
    }

    /// The version of a key's newest entry, as a change of this node's own.
    pub(super) fn newest_version(&self, key: usize) -> Option<Version> {
        let key = self.shape.key_sql(key);
        let sql = format!("SELECT ts, seq FROM __cdc_log WHERE {WRITTEN} AND k0 = {key} ORDER BY seq DESC LIMIT 1");
        let read = |row: &rusqlite::Row<'_>| Ok(Version { ts_ms: row.get(0)?, origin: self.id, seq: row.get(1)? });
        self.app.query_row(&sql, [], read).ok()
    }

    /// Whether the versions of a key go back in the log.
    pub(super) fn went_back(&self) -> bool {
        let of = "coalesce(origin, ?1), coalesce(oseq, seq)";
        let sql = format!("SELECT k0, ts, {of} FROM __cdc_log WHERE {WRITTEN} ORDER BY seq");
        let mut statement = self.app.prepare_cached(&sql).expect("prepare");
        let mut newest: BTreeMap<String, Version> = BTreeMap::new();
        let mut rows = statement.query([self.id.0]).expect("log");
        while let Some(row) = rows.next().expect("row") {
            let key = format!("{:?}", row.get_ref(0).expect("key"));
            let get = |place| row.get::<_, i64>(place).expect("a number");
            let version = Version { ts_ms: get(1), origin: NodeId(get(2)), seq: get(3) };
            if newest.insert(key, version).is_some_and(|before| version <= before) {
                return true;
            }
        }
        false
    }

    /// Rows that are kept as conflicts, by id, and keys of deletions that are.
    pub(super) fn recorded(&self) -> (BTreeSet<i64>, BTreeSet<usize>) {
        let (mut rows, mut deletions) = (BTreeSet::new(), BTreeSet::new());
        let mut statement = self.app.prepare("SELECT key, loser, columns FROM __cdc_conflicts").expect("prepare");
        let mut found = statement.query([]).expect("conflicts");
        while let Some(row) = found.next().expect("row") {
            let key = crate::model::Key::from_bytes(&row.get::<_, Vec<u8>>(0).expect("key")).expect("key");
            let Some(loser) = row.get::<_, Option<Vec<u8>>>(1).expect("loser") else {
                let text = key.shown();
                deletions.insert(self.shape.key_of(text.trim_matches(|c| "()'".contains(c))));
                continue;
            };
            let columns: Vec<String> = serde_json::from_str(&row.get::<_, String>(2).expect("columns")).expect("JSON");
            let place = columns.iter().position(|name| name == "id").expect("id");
            let values = crate::model::Key::from_bytes(&loser).expect("row").0;
            let crate::model::Value::Integer(id) = values[place] else { panic!("{values:?}") };
            rows.insert(id);
        }
        (rows, deletions)
    }
}

/// `julianday('now')` by the history's clock.
fn tell_time(app: &Connection, clock: Arc<ManualClock>) {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    #[expect(clippy::cast_precision_loss, reason = "times of a history are small")]
    let now = move |_: &rusqlite::functions::Context<'_>| {
        // In the middle of the millisecond, for the triggers cut it off.
        Ok((clock.now_ms() as f64 + 0.5) / 86_400_000.0 + 2_440_587.5)
    };
    app.create_scalar_function("julianday", 1, flags, now).expect("julianday");
}
