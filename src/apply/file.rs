//! The file of a database that is applied to.

use std::path::Path;

use rusqlite::Connection;

use super::Error;
use crate::model::Selection;
use crate::sqlite;
use crate::sqlite::catalog::{TableKind, table_list};

/// The WAL is checkpointed above this size: an application that only reads would never do it.
const WAL_BYTES_MAX: u64 = 32 << 20;

/// Switches the database to WAL, so that its readers never wait.
///
/// # Errors
/// [`Error::Wal`], or SQLite's.
pub(super) fn switch_to_wal(conn: &Connection, path: &Path) -> Result<(), Error> {
    let mode = |sql| conn.query_row(sql, [], |row| row.get::<_, String>(0));
    let found = mode("PRAGMA main.journal_mode")?;
    let stays = |mode| Error::Wal { path: path.to_owned(), mode };
    match mode("PRAGMA main.journal_mode = WAL") {
        Ok(now) if now.eq_ignore_ascii_case("wal") => Ok(()),
        Ok(now) => Err(stays(now)),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Err(stays(found)),
        Err(error) => Err(sqlite::Error::doing("switch the replica to WAL")(error).into()),
    }
}

/// Makes the file, readable and writable for its group. SQLite gives `-wal` and `-shm` the mode of the database's file.
///
/// # Errors
/// The system's.
pub(super) fn create_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
    const MODE: u32 = 0o660;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let group = std::fs::metadata(folder)?.gid();
    if file.metadata()?.gid() != group
        && let Err(error) = fchown(&file, None, Some(group))
    {
        tracing::warn!(%error, "new replica keeps our own group, not its folder's");
    }
    // The umask may have taken the group's bits away.
    file.set_permissions(std::fs::Permissions::from_mode(MODE))
}

/// Moves what the WAL holds into the database, as far as its readers let it. A failure costs nothing but disk.
pub(super) fn checkpoint_wal(conn: &Connection, path: &Path) {
    let mut wal = path.to_owned().into_os_string();
    wal.push("-wal");
    if std::fs::metadata(wal).is_ok_and(|wal| wal.len() > WAL_BYTES_MAX)
        && let Err(error) = checkpoint_if_behind(conn)
    {
        tracing::debug!(%error, "WAL not checkpointed");
    }
}

/// A WAL keeps its size once it was written from its beginning again, so the file's size alone says nothing.
fn checkpoint_if_behind(conn: &Connection) -> rusqlite::Result<()> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let (frames, moved) = conn.prepare_cached("PRAGMA main.wal_checkpoint(NOOP)")?.query_row([], read)?;
    let page: i64 = conn.prepare_cached("PRAGMA main.page_size")?.query_row([], |row| row.get(0))?;
    if (frames - moved).saturating_mul(page).cast_unsigned() > WAL_BYTES_MAX {
        conn.prepare_cached("PRAGMA main.wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))?;
    }
    Ok(())
}

/// Whether a table of these holds a row.
///
/// # Errors
/// SQLite's.
pub(super) fn holds_rows(conn: &Connection, selection: &Selection) -> rusqlite::Result<bool> {
    for table in table_list(conn)? {
        let any = format!("SELECT 1 FROM main.{}", sqlite::ident(&table.name));
        if table.kind == TableKind::Ordinary && selection.has(&table.name) && conn.prepare(&any)?.exists([])? {
            return Ok(true);
        }
    }
    Ok(false)
}
