//! Writes and deletes the rows of a window.
//!
//! Without triggers a row is written by INSERT OR REPLACE: what stands in its way on another unique index was changed or
//! deleted at the source too, and comes in the same window. Where the user's triggers fire, REPLACE would skip the
//! delete triggers of what it displaces; there a row is written by UPSERT, and what is in the way is deleted by name.

use std::ops::Range;

use rusqlite::{CachedStatement, Connection, Statement, ffi};

use super::Error;
use super::error::shown;
use super::statement::{Cell, Displace, Target};
use crate::codec::DecodedBatch;
use crate::model::{EncodedBatch, NormalKey, Rows, RowsOp};
use crate::sqlite;
use rusqlite::types::ValueRef;

/// seq, ts and origin stand before the columns of the table.
pub(super) const LEADING_COLUMNS: usize = 3;

/// How many rows were written and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) upserts: u64,
    pub(super) deletes: u64,
}

/// Rows of one table, and where they go.
pub(super) struct Writer<'a> {
    pub(super) conn: &'a Connection,
    pub(super) target: &'a Target,
    /// Whether the user's triggers fire.
    pub(super) firing: bool,
}

impl Writer<'_> {
    /// Applies the changes of one batch.
    ///
    /// # Errors
    /// [`Error::Row`], [`Error::NullRefused`], [`Error::Batch`], or SQLite's.
    pub(super) fn apply(&self, rows: &Rows) -> Result<Written, Error> {
        match rows.op {
            RowsOp::Delete => {
                let batch = self.decode(&rows.batch, LEADING_COLUMNS + self.target.key.len())?;
                Ok(Written { upserts: 0, deletes: self.delete(&batch)? })
            }
            RowsOp::Upsert => {
                let batch = self.decode(&rows.batch, LEADING_COLUMNS + self.target.wire_len)?;
                let upserts = self.upsert(&batch, LEADING_COLUMNS, 0..batch.rows())?;
                Ok(Written { upserts, deletes: 0 })
            }
            RowsOp::Exactly => {
                let batch = self.decode(&rows.batch, LEADING_COLUMNS + self.target.wire_len)?;
                self.exactly(&batch)
            }
        }
    }

    /// Opens a batch.
    pub(super) fn decode(&self, batch: &EncodedBatch, columns: usize) -> Result<DecodedBatch, Error> {
        DecodedBatch::new(batch, columns).map_err(|source| Error::Batch { table: self.target.name.clone(), source })
    }

    /// Writes these rows of a batch whose wire columns begin at `offset`.
    pub(super) fn upsert(&self, batch: &DecodedBatch, offset: usize, rows: Range<usize>) -> Result<u64, Error> {
        let rest = if self.firing { rows.clone() } else { self.upsert_many(batch, offset, rows.clone())? };
        let mut statement = self.conn.prepare_cached(self.upsert_sql())?;
        for row in rest {
            self.upsert_one(&mut statement, &At { batch, offset, row })?;
        }
        Ok(rows.len() as u64)
    }

    fn upsert_sql(&self) -> &str {
        if self.firing { &self.target.upsert } else { &self.target.replace }
    }

    /// Writes many rows a statement, which costs a quarter less than one a statement. Returns the rows that are left:
    /// too few for another statement, or all from one on that was refused, so that it is found which row it was.
    /// Where the disk failed, nothing more may be written: the transaction, and what it wrote before, may be gone.
    fn upsert_many(&self, batch: &DecodedBatch, offset: usize, rows: Range<usize>) -> Result<Range<usize>, Error> {
        let (target, at_once) = (self.target, self.target.rows_at_once);
        let mut left = rows;
        if at_once < 2 || left.len() < at_once {
            return Ok(left);
        }
        let mut statement = self.conn.prepare_cached(&target.replace_many)?;
        while left.len() >= at_once {
            let mut param = 0;
            for row in left.start..left.start + at_once {
                let at = At { batch, offset, row };
                self.refuse_nulls(&at)?;
                for place in 0..target.wire_len {
                    param += 1;
                    statement.raw_bind_parameter(param, Cell(at.value(place)))?;
                }
            }
            match statement.raw_execute() {
                Ok(_) => left.start += at_once,
                Err(error) if sqlite::is_refusal(&error) => break,
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(left)
    }

    fn upsert_one(&self, statement: &mut CachedStatement<'_>, at: &At<'_>) -> Result<(), Error> {
        self.refuse_nulls(at)?;
        match bind_row(statement, self.target, at).and_then(|()| statement.raw_execute()) {
            Ok(_) => Ok(()),
            Err(error) if self.firing && is_unique_conflict(&error) && !self.conn.is_autocommit() => {
                self.displace_and_insert(statement, at)
            }
            Err(error) => Err(self.refused(error, at)),
        }
    }

    /// Deletes the rows of a batch of keys that stand after the leading columns.
    fn delete(&self, batch: &DecodedBatch) -> Result<u64, Error> {
        let mut statement = self.conn.prepare_cached(&self.target.delete)?;
        let mut count = 0;
        for row in 0..batch.rows() {
            for part in 0..self.target.key.len() {
                statement.raw_bind_parameter(part + 1, Cell(batch.value(LEADING_COLUMNS + part, row)))?;
            }
            count += statement.raw_execute().map_err(|error| {
                let parts = 0..self.target.key.len();
                let key = parts.map(|part| sqlite::value_of(batch.value(LEADING_COLUMNS + part, row))).collect();
                self.refused_key(error, &crate::model::Key(key))
            })? as u64;
        }
        Ok(count)
    }

    /// Makes the rows that `IS` each key exactly those that stand side by side.
    fn exactly(&self, batch: &DecodedBatch) -> Result<Written, Error> {
        let collations = self.target.collations();
        let mut written = Written::default();
        let mut before: Option<NormalKey> = None;
        for row in 0..batch.rows() {
            let key = self.target.key_of(batch, LEADING_COLUMNS, row);
            let normal = key.normal(&collations);
            if before.as_ref() != Some(&normal) {
                written.deletes += self.delete_key(&key)?;
                before = Some(normal);
            }
            written.upserts += self.upsert(batch, LEADING_COLUMNS, row..row + 1)?;
        }
        Ok(written)
    }

    /// Deletes every row that `IS` this key.
    pub(super) fn delete_key(&self, key: &crate::model::Key) -> Result<u64, Error> {
        let mut statement = self.conn.prepare_cached(&self.target.delete)?;
        for (part, value) in key.0.iter().enumerate() {
            statement.raw_bind_parameter(part + 1, sqlite::Bind(value))?;
        }
        Ok(statement.raw_execute().map_err(|error| self.refused_key(error, key))? as u64)
    }

    /// REPLACE stores a column's default for a NULL that NOT NULL refuses: another value than the source has.
    fn refuse_nulls(&self, at: &At<'_>) -> Result<(), Error> {
        for (place, column) in &self.target.null_refused {
            if matches!(at.value(*place), ValueRef::Null) {
                let key = shown(&self.target.key_of(at.batch, at.offset, at.row));
                let (table, column) = (self.target.name.clone(), column.clone());
                return Err(Error::NullRefused { table, key, column });
            }
        }
        Ok(())
    }

    /// Writes a row that an UPSERT could not, because others hold its unique values: deletes those first, so that their
    /// triggers fire. Where the index is partial or on an expression, a REPLACE under `recursive_triggers` does that.
    fn displace_and_insert(&self, upsert: &mut CachedStatement<'_>, at: &At<'_>) -> Result<(), Error> {
        for Displace { sql, places } in &self.target.displace {
            let mut delete = self.conn.prepare_cached(sql)?;
            bind(&mut delete, places, at)
                .and_then(|()| delete.raw_execute())
                .map_err(|error| self.refused(error, at))?;
        }
        match bind_row(upsert, self.target, at).and_then(|()| upsert.raw_execute()) {
            Ok(_) => return Ok(()),
            Err(error) if is_unique_conflict(&error) => {}
            Err(error) => return Err(self.refused(error, at)),
        }
        self.conn.execute_batch("PRAGMA recursive_triggers = ON")?;
        let replaced = self.conn.prepare(&self.target.replace).and_then(|mut replace| {
            bind_row(&mut replace, self.target, at)?;
            replace.raw_execute()
        });
        self.conn.execute_batch("PRAGMA recursive_triggers = OFF")?;
        replaced.map(drop).map_err(|error| self.refused(error, at))
    }

    fn refused(&self, error: rusqlite::Error, at: &At<'_>) -> Error {
        self.refused_key(error, &self.target.key_of(at.batch, at.offset, at.row))
    }

    fn refused_key(&self, error: rusqlite::Error, key: &crate::model::Key) -> Error {
        if sqlite::is_refusal(&error) {
            return Error::Row { table: self.target.name.clone(), key: shown(key), source: error };
        }
        self.failed(error)
    }

    fn failed(&self, error: rusqlite::Error) -> Error {
        sqlite::Error::doing(format!("write table \"{}\"", self.target.name))(error).into()
    }
}

/// One row of a batch.
struct At<'a> {
    batch: &'a DecodedBatch,
    offset: usize,
    row: usize,
}

impl At<'_> {
    fn value(&self, place: usize) -> ValueRef<'_> {
        self.batch.value(self.offset + place, self.row)
    }
}

fn bind_row(statement: &mut Statement<'_>, target: &Target, at: &At<'_>) -> rusqlite::Result<()> {
    for place in 0..target.wire_len {
        statement.raw_bind_parameter(place + 1, Cell(at.value(place)))?;
    }
    Ok(())
}

fn bind(statement: &mut Statement<'_>, places: &[usize], at: &At<'_>) -> rusqlite::Result<()> {
    for (param, place) in places.iter().enumerate() {
        statement.raw_bind_parameter(param + 1, Cell(at.value(*place)))?;
    }
    Ok(())
}

fn is_unique_conflict(error: &rusqlite::Error) -> bool {
    let unique = [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY, ffi::SQLITE_CONSTRAINT_ROWID];
    error.sqlite_extended_error_code().is_some_and(|code| unique.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{integers, started};

    #[test]
    fn user_triggers_see_every_row_go_that_another_displaces() {
        let ddl =
            "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, w); CREATE UNIQUE INDEX tw ON t(abs(w)) WHERE w <> 0";
        let (mut peer, mut replica) = started(ddl);
        replica.rules.user_triggers = true;
        replica.run(
            "CREATE TABLE mirror(id, u, w);
             CREATE TRIGGER ti AFTER INSERT ON t BEGIN INSERT INTO mirror VALUES (NEW.id, NEW.u, NEW.w); END;
             CREATE TRIGGER td AFTER DELETE ON t BEGIN DELETE FROM mirror WHERE id = OLD.id; END;
             CREATE TRIGGER tu AFTER UPDATE ON t BEGIN DELETE FROM mirror WHERE id = OLD.id;
               INSERT INTO mirror VALUES (NEW.id, NEW.u, NEW.w); END",
        );
        let states = [
            "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, NULL, 0), (5, NULL, 0)",
            "UPDATE t SET u = u || '.'; UPDATE t SET u = CASE id WHEN 1 THEN 'b.' WHEN 2 THEN 'a.' ELSE u || 'x' END WHERE 0",
            "DELETE FROM t; INSERT INTO t VALUES (1, 'c.', -2), (2, 'a.', -3), (3, 'b.', 1), (4, 'd', 0)",
        ];
        for state in states {
            peer.run(state);
            let gone = peer.deletes("t", &[integers(&[5])]);
            let items = if state.starts_with("DELETE") { vec![gone] } else { vec![] };
            let items = items.into_iter().chain([peer.upserts("t", "1")]).collect();
            replica.apply(peer.next(items)).expect("apply");
            replica.assert_equal(&peer);
            let differ = "SELECT count(*) FROM (SELECT * FROM mirror EXCEPT SELECT * FROM t)
                UNION ALL SELECT count(*) FROM t UNION ALL SELECT count(*) FROM mirror";
            let look = replica.look();
            let mut counts = look.prepare(differ).expect("prepare");
            let counts: Vec<i64> =
                counts.query_map([], |row| row.get(0)).expect("query").collect::<Result<_, _>>().expect("count");
            assert!(counts[0] == 0 && counts[1] == counts[2], "{state}: {counts:?}");
        }
    }

    #[test]
    fn of_many_rows_the_one_that_is_refused_is_named() {
        let (mut peer, mut replica) = started("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
        // An index of the replica's own, whose expression overflows for one value.
        replica.run("CREATE INDEX mine ON t(abs(v))");
        peer.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) INSERT INTO t SELECT i, i FROM n");
        peer.run("UPDATE t SET v = -9223372036854775807 - 1 WHERE id = 137");
        let error = replica.apply(peer.next(vec![peer.upserts("t", "1")])).expect_err("an overflow");
        let cause = std::error::Error::source(&error).expect("cause").to_string();
        assert!(cause.contains("table \"t\", key (137)"), "{cause}");
        peer.run("UPDATE t SET v = 0 WHERE id = 137");
        peer.seq -= 1;
        let items = peer.catalog().into_iter().chain([peer.upserts("t", "1")]).collect();
        assert_eq!(replica.apply(peer.next(items)).expect("apply").upserts, 200);
    }

    #[test]
    fn a_row_that_is_in_the_way_is_deleted_and_the_other_updated() {
        let (mut peer, mut replica) = started("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE)");
        replica.rules.user_triggers = true;
        replica.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
        replica.run(
            "CREATE TABLE seen(what);
             CREATE TRIGGER ti AFTER INSERT ON t BEGIN INSERT INTO seen VALUES ('insert ' || NEW.id); END;
             CREATE TRIGGER td AFTER DELETE ON t BEGIN INSERT INTO seen VALUES ('delete ' || OLD.id); END;
             CREATE TRIGGER tu AFTER UPDATE ON t BEGIN INSERT INTO seen VALUES ('update ' || OLD.id); END",
        );
        peer.run("INSERT INTO t VALUES (1, 'b'), (2, 'c')");
        replica.apply(peer.next(vec![peer.upserts("t", "1")])).expect("apply");
        let seen = "SELECT group_concat(what) FROM seen";
        let seen: String = replica.look().query_row(seen, [], |row| row.get(0)).expect("seen");
        assert_eq!(seen, "delete 2,update 1,insert 2");
    }
}
