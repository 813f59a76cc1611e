//! Keeps applications from writing by accident into what is received: `protect: true`.
//!
//! A trigger before each INSERT, UPDATE and DELETE raises, unless the apply flag is set. Only the user's triggers firing
//! here (`user_triggers: on`) ever meet it while the applier writes, for otherwise no trigger fires at all.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::model::{NodeId, TableId};
use crate::sqlite::store::{self, meta_key};
use crate::sqlite::{ident, literal};

/// What is to be protected.
pub(super) struct Protection<'a> {
    pub(super) peer: NodeId,
    pub(super) peer_name: &'a str,
    /// Whether the link says so; otherwise nothing of this peer's is.
    pub(super) on: bool,
}

impl Protection<'_> {
    /// Makes and removes triggers until they are those that `tables` need. Says whether any changed.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn reconcile<'t>(
        &self,
        conn: &Connection,
        tables: impl Iterator<Item = (TableId, &'t str)>,
    ) -> rusqlite::Result<bool> {
        let mut wanted = BTreeMap::new();
        if self.on {
            for (id, table) in tables {
                wanted.extend(self.triggers(id, table));
            }
        }
        let mut changed = false;
        for (name, sql) in self.present(conn)? {
            if wanted.get(&name) == Some(&sql) {
                wanted.remove(&name);
                continue;
            }
            conn.execute_batch(&format!("DROP TRIGGER main.{}", ident(&name)))?;
            changed = true;
        }
        for sql in wanted.values() {
            conn.execute_batch(sql)?;
            changed = true;
        }
        Ok(changed)
    }

    fn prefix(&self) -> String {
        format!("__cdc_protect_{}_", self.peer)
    }

    fn present(&self, conn: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement = conn.prepare_cached(
            "SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger' AND substr(name, 1, length(?1)) = ?1",
        )?;
        let rows = statement.query_map([self.prefix()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

    fn triggers(&self, id: TableId, table: &str) -> Vec<(String, String)> {
        let message =
            literal(&format!("read-only replica of {}: write at the source", self.peer_name.replace('\0', "")));
        let make = |(letter, event): (&str, &str)| {
            let name = format!("{}{}_{letter}", self.prefix(), id.0);
            let sql = format!(
                "CREATE TRIGGER {} BEFORE {event} ON {} WHEN (SELECT value FROM __cdc_meta WHERE key = '{}') IS NOT {} \
                 BEGIN SELECT RAISE(ABORT, {message}); END",
                ident(&name),
                ident(table),
                meta_key::CAPTURE_LIMIT,
                store::APPLYING
            );
            (name, sql)
        };
        [("i", "INSERT"), ("u", "UPDATE"), ("d", "DELETE")].map(make).into()
    }
}

/// The apply flag: set while a window is applied, so that no trigger of ours logs or refuses anything.
pub(super) struct ApplyFlag {
    /// What the flag was; `None` where this database has none.
    limit: Option<i64>,
    /// Whether there is to be one afterwards.
    keep: bool,
}

impl ApplyFlag {
    /// Sets it. A database that captures nothing has a flag only while it is protected.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn raise(conn: &Connection, protect: bool) -> rusqlite::Result<Self> {
        let found: Option<i64> = store::meta(conn, meta_key::CAPTURE_LIMIT)?;
        let limit = found.or(protect.then_some(i64::MAX));
        let keep = protect || store::epoch(conn)?.is_some();
        if limit.is_some() {
            store::set_meta(conn, meta_key::CAPTURE_LIMIT, store::APPLYING)?;
        }
        Ok(Self { limit, keep })
    }

    /// Puts it back as it was, before the commit.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn lower(self, conn: &Connection) -> rusqlite::Result<()> {
        match self.limit {
            Some(limit) if self.keep => store::set_meta(conn, meta_key::CAPTURE_LIMIT, limit),
            Some(_) => conn
                .prepare_cached("DELETE FROM main.__cdc_meta WHERE key = ?1")?
                .execute([meta_key::CAPTURE_LIMIT])
                .map(drop),
            None => Ok(()),
        }
    }
}
