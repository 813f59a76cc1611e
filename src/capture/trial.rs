//! A place where triggers are tried before they stand in the application's way: an empty database in memory.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::change_log::{self, LogWidth};
use super::image_sql::VALUES_MAX;
use super::trigger_sql::Trigger;
use crate::model::{Generated, TableSchema};
use crate::sqlite::store::{CAPTURE_TABLES, NODE_TABLES};
use crate::sqlite::{self, ident, quote};

/// An empty database with our own tables.
pub(super) struct Trial {
    connection: Connection,
}

impl Trial {
    /// Makes one.
    pub fn new(log: &str) -> Result<Self, sqlite::Error> {
        let connection = sqlite::in_memory()?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
        connection.execute_batch(NODE_TABLES)?;
        connection.execute_batch(CAPTURE_TABLES)?;
        // As wide as any key and image: what is tried is the triggers, not the log.
        connection
            .execute_batch(&change_log::create_sql(log, LogWidth { keys: KEY_COLUMNS_MAX, values: VALUES_MAX }))?;
        Ok(Self { connection })
    }

    /// Why the application's statements on the table would not compile under these triggers, if they would not.
    pub fn refusal(&self, table: &TableSchema, triggers: &[Trigger]) -> rusqlite::Result<Option<String>> {
        if table.key_columns().len() > KEY_COLUMNS_MAX {
            return Ok(Some(format!("its key has more than {KEY_COLUMNS_MAX} columns")));
        }
        self.connection.execute_batch("SAVEPOINT trial")?;
        let outcome = self.compile(table, triggers);
        self.connection.execute_batch("ROLLBACK TO trial; RELEASE trial")?;
        Ok(outcome.err().map(|error| format!("SQLite does not compile its triggers ({error})")))
    }

    fn compile(&self, table: &TableSchema, triggers: &[Trigger]) -> rusqlite::Result<()> {
        self.connection.execute_batch(&table.ddl)?;
        for sql in table.indexes.iter().filter_map(|index| index.sql.as_deref()) {
            self.connection.execute_batch(sql)?;
        }
        for trigger in triggers {
            self.connection.execute_batch(&trigger.sql)?;
        }
        let name = ident(&table.name);
        let written = table.columns.iter().filter(|column| column.generated == Generated::No);
        let columns: Vec<&str> = written.map(|column| column.name.as_str()).collect();
        let nulls = vec!["NULL"; columns.len()].join(", ");
        let set = columns.iter().map(|column| format!("{} = NULL", ident(column))).collect::<Vec<_>>().join(", ");
        self.connection
            .prepare(&format!("INSERT INTO {name}({}) VALUES ({nulls})", quote::idents(columns.iter().copied())))?;
        self.connection.prepare(&format!("UPDATE {name} SET {set}"))?;
        self.connection.prepare(&format!("DELETE FROM {name}"))?;
        Ok(())
    }
}

/// Key columns at most: what a log entry has room for beside its own columns, within SQLite's 2,000.
const KEY_COLUMNS_MAX: usize = 1_900;
