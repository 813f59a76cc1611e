//! When nodes are at rest, read out of their database files: what the program says of itself is not what is tested.
//!
//! An end has nothing left to do of itself when all of this holds in one reading of its file ([`Rest::read`]):
//! * the schema is the one that its triggers were last compared at;
//! * its log is not full, so that what is written now is logged;
//! * no table's copy is under way, agreed on, or waiting for another to end ([`check_copies`]).
//!
//! Nodes are at rest ([`at_rest`]) when that is so of each of them, and each has applied its peers' logs to their ends.

use std::{collections::BTreeMap, path::Path};

use rusqlite::Connection;

use super::{open_reader, oracle::quoted};

/// Where a log ends, or up to where it is applied: its epoch, and the last entry's number; zeros before there is any.
pub type LogEnd = (i64, i64);

/// What a database with nothing left to do of itself holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Where its log ends.
    pub head: LogEnd,
    /// Up to where each peer's log is applied, by the peer's name; a peer of whom no more than the first window has come
    /// is not there. The first is what was agreed on when the two met; another follows in any case, with the schema.
    pub applied: BTreeMap<String, LogEnd>,
    /// How many windows it has applied, all peers together.
    pub windows: i64,
}

impl Rest {
    /// One reading; says what there is to be done, if there is anything.
    pub fn read(path: &Path) -> Result<Self, String> {
        let conn = look(path)?;
        check_copies(&conn)?;
        let head = log_end(&conn)?;
        let mut statement = conn
            .prepare("SELECT name, coalesce(epoch, 0), coalesce(seq, 0) FROM __cdc_checkpoints WHERE windows > 1")
            .map_err(text)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).map_err(text)?;
        let applied = rows.collect::<Result<_, _>>().map_err(text)?;
        let windows = number(&conn, "SELECT coalesce(sum(windows), 0) FROM __cdc_checkpoints")?;
        Ok(Self { head, applied, windows })
    }
}

/// A node, as whoever waits for its rest knows it.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Its name, by which its peers know it.
    pub name: &'a str,
    /// Its database.
    pub database: &'a Path,
}

/// What all of them hold, in their order, if nothing is on its way; what is, otherwise. `links`: pairs of places in `ends`,
/// between which changes go both ways.
///
/// It looks at one after the other: only where a second look finds the same were all of them at rest at once.
pub fn at_rest(ends: &[End<'_>], links: &[(usize, usize)]) -> Result<Vec<Rest>, String> {
    let read = |end: &End<'_>| Rest::read(end.database).map_err(|what| format!("{}: {what}", end.name));
    let all = ends.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    for (here, there) in links.iter().flat_map(|&(one, other)| [(one, other), (other, one)]) {
        let (name, peer) = (ends[here].name, ends[there].name);
        let (applied, head) = (all[here].applied.get(peer), all[there].head);
        if applied != Some(&head) {
            return Err(format!("{peer}'s log ends at {head:?}, at {name} is applied {applied:?}"));
        }
    }
    Ok(all)
}

/// A connection that sees one state of a database, which must be there.
pub fn look(path: &Path) -> Result<Connection, String> {
    if !path.exists() {
        return Err("no database yet".to_owned());
    }
    let conn = open_reader(path);
    conn.execute_batch("BEGIN").map_err(text)?;
    Ok(conn)
}

/// Where the log of what is captured ends; an error where it is not known to end there.
pub fn log_end(conn: &Connection) -> Result<LogEnd, String> {
    let meta = |key: &str| number(conn, &format!("SELECT value FROM __cdc_meta WHERE key = '{key}'"));
    let (actual, known) = (number(conn, "PRAGMA schema_version")?, meta("schema_version")?);
    if actual != known {
        return Err(format!("the schema is at {actual}, accounted for up to {known}"));
    }
    let log: String = conn
        .query_row("SELECT value FROM __cdc_meta WHERE key = 'log_table'", [], |row| row.get(0))
        .map_err(|error| format!("no log: {error}"))?;
    let head = number(conn, &format!("SELECT coalesce(max(seq), 0) FROM {}", quoted(&log)))?;
    if head >= meta("capture_limit")? {
        return Err(format!("the log is full, at {head}, and nobody has begun another one"));
    }
    Ok((meta("epoch")?, head))
}

/// An error that names what is to be copied into this database and is not yet. A copy that is due or under way begins at
/// the end of the peer's log, and so has nothing behind it there; a table that is `left` is not copied any more.
pub fn check_copies(conn: &Connection) -> Result<(), String> {
    let sql = "SELECT group_concat(what, ', ') FROM (
        SELECT name || ' ' || state AS what FROM __cdc_copies WHERE state NOT IN ('done', 'left') UNION ALL
        SELECT key || ' ' || quote(value) FROM __cdc_meta WHERE key GLOB 'copy_due:*' OR key = 'missed')";
    match conn.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).map_err(text)? {
        Some(copies) => Err(format!("copies unfinished: {copies}")),
        None => Ok(()),
    }
}

fn number(conn: &Connection, sql: &str) -> Result<i64, String> {
    conn.query_row(sql, [], |row| row.get(0)).map_err(|error| format!("{sql}: {error}"))
}

fn text(error: rusqlite::Error) -> String {
    error.to_string()
}
