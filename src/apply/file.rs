//! The file of a database that is applied to.

use std::path::Path;

use rusqlite::Connection;

use super::Error;
use crate::sqlite;

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
