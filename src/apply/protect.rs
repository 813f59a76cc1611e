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

#[cfg(test)]
mod tests {
    use super::super::testing::started;

    #[test]
    fn nothing_that_is_applied_is_captured_here_and_the_flag_is_as_it_was() {
        let (mut peer, mut replica) = started("CREATE TABLE t(id INTEGER PRIMARY KEY)");
        replica.run(
            "CREATE TABLE log(id); INSERT INTO __cdc_meta VALUES ('capture_limit', 500), ('epoch', 8), ('hlc', 3);
             CREATE TRIGGER __cdc_1_ai AFTER INSERT ON t WHEN 0 < coalesce((SELECT value FROM __cdc_meta WHERE
             key = 'capture_limit'), 9223372036854775807) BEGIN INSERT INTO log VALUES (NEW.id); END",
        );
        replica.rules.user_triggers = true;
        peer.run("INSERT INTO t VALUES (1)");
        replica.apply(peer.next(vec![peer.upserts("t", "1")])).expect("apply");
        let read = |sql: &str| -> i64 { replica.look().query_row(sql, [], |row| row.get(0)).expect("read") };
        assert_eq!(read("SELECT count(*) FROM log"), 0);
        assert_eq!(read("SELECT value FROM __cdc_meta WHERE key = 'capture_limit'"), 500);
        assert_eq!(read("SELECT value FROM __cdc_meta WHERE key = 'hlc'"), 1_001, "later than what was applied");
        replica.run("INSERT INTO t VALUES (2)");
        assert_eq!(read("SELECT count(*) FROM log"), 1);
    }

    #[test]
    fn a_protected_replica_refuses_its_applications_until_told_otherwise() {
        let (mut peer, mut replica) = started("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
        replica.rules.protect = true;
        replica.apply(peer.next(peer.catalog())).expect("apply");
        let refused = replica.look().execute_batch("INSERT INTO t VALUES (1, 1)").expect_err("protected").to_string();
        assert!(refused.contains("read-only replica of peer: write at the source"), "{refused}");
        for user_triggers in [false, true] {
            replica.rules.user_triggers = user_triggers;
            peer.run("INSERT INTO t(v) VALUES (1); UPDATE t SET v = v + 1");
            replica.apply(peer.next(vec![peer.upserts("t", "1")])).expect("the applier may");
            replica.assert_equal(&peer);
        }
        let delete = replica.look().execute_batch("DELETE FROM t");
        assert!(delete.is_err(), "still protected");
        replica.rules.protect = false;
        replica.apply(peer.next(peer.catalog())).expect("apply");
        replica.run("INSERT INTO t VALUES (100, 1)");
        let flags = "SELECT count(*) FROM __cdc_meta WHERE key = 'capture_limit'";
        assert_eq!(replica.look().query_row(flags, [], |row| row.get::<_, i64>(0)).expect("count"), 0);
    }
}
