//! How we open a database, for each thing that we do with one.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::Error;

/// How long a statement of ours waits for a lock. Short, for the caller retries with backoff and must see a shutdown.
pub const BUSY_TIMEOUT: Duration = Duration::from_millis(2_000);

/// Prepared statements kept by a connection: a window touches a few statements a table, of the tables that change.
const STATEMENTS_CACHED: usize = 512;

/// Pages of WAL after which an application's connection checkpoints: SQLite's own default.
const CHECKPOINT_PAGES: u32 = 1_000;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads the change log and the tables of a source; never writes.
    Reader,
    /// Installs, re-installs and prunes beside the application; never checkpoints its WAL.
    Maintainer,
    /// Applies a peer's changes: synced at each commit, checkpoints by itself only when told.
    Applier,
    /// Writes as an application does: triggers fire, so that capture sees it, and the WAL is checkpointed as SQLite
    /// does by itself; synced at each commit, for what is committed is acknowledged.
    Application,
}

/// Opens `path` for `role`. `create` makes an empty database where there is none.
///
/// Foreign keys are off on every connection of ours, and schemas are not trusted. Triggers are off and closing never
/// checkpoints, but for [`Role::Application`].
///
/// # Errors
/// [`Error::Missing`], [`Error::NotADatabase`], [`Error::Unusable`] (UTF-16), or [`Error::Open`].
#[expect(clippy::disallowed_methods, reason = "the one place that opens databases")]
pub fn open(path: &Path, role: Role, create: bool) -> Result<Connection, Error> {
    if !create && !path.exists() {
        return Err(Error::Missing { path: path.to_owned() });
    }
    if path.is_dir() {
        return Err(Error::Unusable {
            path: path.to_owned(),
            why: "a folder, not a database; name the file".to_owned(),
        });
    }
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let opened = |source| explain(path, source);
    let connection = Connection::open_with_flags(path, flags).map_err(opened)?;
    prepare(&connection, role).map_err(opened)?;
    check_encoding(&connection, path)?;
    Ok(connection)
}

/// What is known of who else has a database open that is only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Somebody may write it: SQLite's locks and its WAL count.
    Expected,
    /// Nobody has it open: a file in WAL mode without a WAL. It is read as it stands, for SQLite would make a WAL beside
    /// it; the caller makes sure afterwards that nobody came meanwhile.
    None,
}

/// Opens `path` to look at it: reads only, and takes a database that [`open`] refuses for its encoding.
///
/// # Errors
/// SQLite's own, so that the caller can say what each means.
#[expect(clippy::disallowed_methods, reason = "the one place that opens databases")]
pub fn look(path: &Path, company: Company) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match company {
        Company::Expected => Connection::open_with_flags(path, flags)?,
        Company::None => Connection::open_with_flags(still_uri(path), flags | OpenFlags::SQLITE_OPEN_URI)?,
    };
    prepare(&connection, Role::Reader)?;
    Ok(connection)
}

/// The URI of a file that does not change. Every byte that means something in a URI is spelled out.
fn still_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri + "?immutable=1"
}

/// An empty database in memory: where a peer's DDL is tried before it touches anything.
///
/// # Errors
/// SQLite's, where memory is short.
pub fn in_memory() -> Result<Connection, Error> {
    in_memory_as(Role::Reader)
}

/// An empty database in memory, for a role.
///
/// # Errors
/// As [`in_memory`].
#[expect(clippy::disallowed_methods, reason = "the one place that opens databases")]
pub fn in_memory_as(role: Role) -> Result<Connection, Error> {
    let connection = Connection::open_in_memory()?;
    prepare(&connection, role)?;
    Ok(connection)
}

fn prepare(connection: &Connection, role: Role) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    let is_application = role == Role::Application;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, is_application)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !is_application)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    let (synchronous, checkpoint_pages) = match role {
        Role::Applier => ("FULL", 0),
        Role::Application => ("FULL", CHECKPOINT_PAGES),
        Role::Reader | Role::Maintainer => ("NORMAL", 0),
    };
    let is_defensive = matches!(role, Role::Applier | Role::Application);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, is_defensive)?;
    // `temp_store` stays with files: an index of millions of rows is made by sorting them, which must not be in memory.
    let pragmas = format!("PRAGMA wal_autocheckpoint = {checkpoint_pages}; PRAGMA synchronous = {synchronous};");
    connection.execute_batch(&pragmas)?;
    // Reads the header, so that a file that is no database is found here.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

fn explain(path: &Path, source: rusqlite::Error) -> Error {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::NotADatabase { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Unusable {
            path,
            why: "another process holds an exclusive lock on it; end its transaction, or its locking_mode=EXCLUSIVE"
                .to_owned(),
        },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => Error::Unusable {
            path,
            why: "cannot be opened; make the file and its folder (SQLite writes beside the database) readable and \
                  writable for this user"
                .to_owned(),
        },
        Some(ErrorCode::DatabaseCorrupt) => Error::Unusable {
            path,
            why: "a damaged database; restore it from a backup, or recover it with `.recover` of the sqlite3 shell"
                .to_owned(),
        },
        _ => Error::Open { path, source },
    }
}

fn check_encoding(connection: &Connection, path: &Path) -> Result<(), Error> {
    let encoding: String = connection.query_row("PRAGMA encoding", [], |row| row.get(0))?;
    if encoding == "UTF-8" {
        return Ok(());
    }
    let why =
        format!("its encoding is {encoding}; Twinlite replicates UTF-8 databases, for order and text depend on it");
    Err(Error::Unusable { path: path.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_looks_at_a_database_that_nobody_has_open_leaves_no_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a b%?#ü.db");
        let made = open(&path, Role::Application, true).expect("make");
        made.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(a)").expect("ddl");
        drop(made);
        let names = || std::fs::read_dir(folder.path()).expect("folder").count();
        assert_eq!(names(), 1, "the last one to close it removed the WAL");
        let looking = look(&path, Company::None).expect("look");
        let tables: i64 = looking.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).expect("read");
        assert_eq!((tables, names()), (1, 1));
        assert!(looking.execute_batch("INSERT INTO t VALUES (1)").is_err());
    }
}
