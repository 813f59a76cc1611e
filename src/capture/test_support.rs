//! What the tests of this stage share: a database in a file, captured, with an application's connection beside ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{CaptureOptions, Generation, Installed, Reconciled, change_log, generation, install, reconcile};
use crate::model::{ManualClock, NormalKey, Value};
use crate::sqlite::{Role, catalog, ident, open, value_of};

pub(super) struct Fixture {
    pub ours: Connection,
    pub app: Connection,
    pub options: CaptureOptions,
    pub clock: ManualClock,
    pub path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Fixture {
    /// A database with that schema, not captured yet.
    pub fn bare(ddl: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let ours = open(&path, Role::Maintainer, true).unwrap();
        let app = open(&path, Role::Maintainer, false).unwrap();
        app.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).unwrap();
        app.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, true).unwrap();
        app.execute_batch(ddl).unwrap();
        let (options, clock) = (CaptureOptions::default(), ManualClock::at(1_000));
        Self { ours, app, options, clock, path, _folder: folder }
    }

    /// A captured database with that schema.
    pub fn captured(ddl: &str) -> Self {
        let mut fixture = Self::bare(ddl);
        fixture.install();
        fixture
    }

    pub fn install(&mut self) -> Installed {
        install(&mut self.ours, &self.options, &self.clock).unwrap()
    }

    pub fn reconcile(&mut self) -> Reconciled {
        reconcile(&mut self.ours, &self.options, &self.clock).unwrap()
    }

    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub fn tables(&self) -> Vec<Generation> {
        generation::tables(&self.ours).unwrap()
    }

    pub fn head(&self) -> i64 {
        change_log::bounds(&self.ours, &self.options.log_table).unwrap().0
    }

    /// The entries after `seq`: operation, table and key, as text.
    pub fn log_after(&self, seq: i64) -> Vec<String> {
        let sql = format!("SELECT * FROM {} WHERE seq > ?1 ORDER BY seq", ident(&self.options.log_table));
        let mut statement = self.ours.prepare(&sql).unwrap();
        let width = statement.column_count();
        let rows = statement.query_map([seq], |row| {
            let mut entry = format!("{}/{}", row.get::<_, i64>(3)?, row.get::<_, i64>(2)?);
            for column in 7..width {
                match value_of(row.get_ref(column)?) {
                    Value::Null => {}
                    Value::Integer(integer) => entry += &format!(" {integer}"),
                    Value::Real(real) => entry += &format!(" {real:?}"),
                    Value::Text(text) => entry += &format!(" '{}'", String::from_utf8_lossy(&text)),
                    Value::Blob(blob) => entry += &format!(" x{blob:?}"),
                }
            }
            Ok(entry)
        });
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    /// What a script of the application's logs.
    #[track_caller]
    pub fn logs(&self, script: &str) -> Vec<String> {
        let head = self.head();
        self.run(script);
        self.log_after(head)
    }

    /// The application's schema, and everybody's.
    pub fn schema(&self) -> BTreeSet<(String, String, String, Option<String>)> {
        let mut statement = self.app.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    /// Every row of a table by its key.
    pub fn rows(&self, table: &str) -> BTreeMap<NormalKey, BTreeSet<String>> {
        let schema = catalog::table(&self.ours, table).unwrap().unwrap();
        let columns: Vec<String> = schema.wire_columns().into_iter().map(ident).collect();
        let mut statement = self.ours.prepare(&format!("SELECT {} FROM {}", columns.join(", "), ident(table))).unwrap();
        let mut found: BTreeMap<NormalKey, BTreeSet<String>> = BTreeMap::new();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<Value> = (0..columns.len()).map(|place| value_of(row.get_ref(place).unwrap())).collect();
            let key = schema.key_of(&values).normal(&schema.key_collations());
            let row = crate::model::Key(values).to_bytes();
            found.entry(key).or_default().insert(format!("{row:?}"));
        }
        found
    }

    /// The keys of a table that the log names after `seq`.
    pub fn named_after(&self, table: &str, seq: i64) -> BTreeSet<NormalKey> {
        let schema = catalog::table(&self.ours, table).unwrap().unwrap();
        let collations = schema.key_collations();
        let ids: BTreeSet<i64> = self
            .tables()
            .iter()
            .filter(|known| known.schema_name == table)
            .flat_map(|known| known.ancestors.iter().chain([&known.id]).map(|id| id.0).collect::<Vec<_>>())
            .collect();
        let sql = format!("SELECT * FROM {} WHERE seq > ?1", ident(&self.options.log_table));
        let mut statement = self.ours.prepare(&sql).unwrap();
        let mut rows = statement.query([seq]).unwrap();
        let mut named = BTreeSet::new();
        while let Some(row) = rows.next().unwrap() {
            if ids.contains(&row.get(2).unwrap()) {
                let key = (0..collations.len()).map(|place| value_of(row.get_ref(7 + place).unwrap())).collect();
                named.insert(crate::model::Key(key).normal(&collations));
            }
        }
        named
    }
}
