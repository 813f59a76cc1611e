//! One owner a database: a lock file beside it, never a lock on it.
//!
//! `<database>-twinlite.lock` is locked for as long as the owner lives, so a crash releases it; its content says who the
//! owner is and where to reach it. `<database>-twinlite.sock` is that place, or a name in the folder for temporary files
//! where the path is too long for a socket.
//!
//! Two names of one file (a symbolic link, another spelling) are one database.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::lock_file::{LockFile, Seen, Wanted, file_error};
use super::{ConsumerLock, Error};

/// Bytes that a unix socket's path may have on every platform we run on: `sun_path` has 104 on macOS, 108 on Linux.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Who owns a database, and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// The process.
    pub pid: u32,
    /// Its control socket.
    pub socket: PathBuf,
}

/// This process's ownership of a database, until dropped.
#[derive(Debug)]
pub struct Owner {
    // Held for as long as this is.
    _lock: LockFile,
    ownership: Ownership,
}

impl Owner {
    /// Becomes the owner. The database itself need not be there yet, its folder must.
    ///
    /// # Errors
    /// [`Error::Owned`] by another process (or another node of this one), [`Error::File`].
    pub fn acquire(database: &Path) -> Result<Self, Error> {
        let database = canonical(database);
        let mut lock = match LockFile::take(&lock_path(&database))? {
            Wanted::Taken(lock) => lock,
            Wanted::Held(by) => return Err(Error::Owned { pid: ownership(&by, &database).pid, database }),
        };
        let ownership = Ownership { pid: std::process::id(), socket: socket_path(&database) };
        // Whoever made it is gone, or we would not hold the lock.
        match std::fs::remove_file(&ownership.socket) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(file_error(&ownership.socket, "remove a stale socket")(source));
            }
            Ok(()) | Err(_) => {}
        }
        lock.write(&serde_json::json!(ownership).to_string())?;
        Ok(Self { _lock: lock, ownership })
    }

    /// Where the owner is to listen for [`super::serve_control`].
    pub fn socket(&self) -> &Path {
        &self.ownership.socket
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // What cannot be removed is stale, and the next owner takes it over.
        let _ = std::fs::remove_file(&self.ownership.socket);
    }
}

/// How a database's ownership stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody owns it.
    Free,
    /// Nobody owns it, and an owner that crashed left its lock file: the next owner takes it over.
    LeftBehind,
    /// That process owns it.
    Owned(Ownership),
}

/// Who owns the database; `None` where nobody does.
///
/// # Errors
/// [`Error::File`] where the lock file is there and cannot be read.
pub fn find_owner(database: &Path) -> Result<Option<Ownership>, Error> {
    Ok(match standing(database)? {
        Standing::Free | Standing::LeftBehind => None,
        Standing::Owned(ownership) => Some(ownership),
    })
}

/// Who owns the database, and whether somebody did who is gone.
///
/// # Errors
/// As [`find_owner`].
pub fn standing(database: &Path) -> Result<Standing, Error> {
    let database = canonical(database);
    Ok(match LockFile::look(&lock_path(&database))? {
        Seen::Free => Standing::Free,
        Seen::LeftBehind => Standing::LeftBehind,
        Seen::Held(by) => Standing::Owned(ownership(&by, &database)),
    })
}

/// Removes the lock files and the socket that processes which were killed have left beside a database: its owner's, and
/// those of these consumers. What somebody holds stays.
pub fn sweep<'n>(database: &Path, consumers: impl IntoIterator<Item = &'n str>) {
    // Whoever holds a lock and drops it removes the file.
    if matches!(standing(database), Ok(Standing::LeftBehind)) {
        drop(Owner::acquire(database));
    }
    for consumer in consumers {
        drop(ConsumerLock::acquire(database, consumer));
    }
}

/// What an owner has written; one that has not written yet listens where every owner does.
fn ownership(written: &str, database: &Path) -> Ownership {
    serde_json::from_str(written).unwrap_or_else(|_| Ownership { pid: 0, socket: socket_path(database) })
}

fn lock_path(database: &Path) -> PathBuf {
    beside(database, "-twinlite.lock")
}

/// The path without links and dots, also of a file that is yet to be made.
pub(super) fn canonical(database: &Path) -> PathBuf {
    if let Ok(path) = database.canonicalize() {
        return path;
    }
    let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), database.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => database.to_owned(),
    }
}

pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn socket_path(database: &Path) -> PathBuf {
    let path = beside(database, "-twinlite.sock");
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return path;
    }
    let hash = xxh3_64(database.as_os_str().as_encoded_bytes());
    std::env::temp_dir().join(format!("twinlite-{hash:016x}.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_leaves_with_the_pid_of_the_first() {
        let folder = tempfile::tempdir().expect("folder");
        let database = folder.path().join("app.db");
        let owner = Owner::acquire(&database).expect("first");
        let error = Owner::acquire(&database).expect_err("second");
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        let found = find_owner(&database).expect("readable").expect("owned");
        assert_eq!((found.pid, found.socket.as_path()), (std::process::id(), owner.socket()));
        drop(owner);
        assert_eq!(find_owner(&database).expect("readable"), None);
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0, "nothing is left");
    }

    #[test]
    fn what_a_crash_leaves_is_taken_over() {
        let folder = tempfile::tempdir().expect("folder");
        let database = folder.path().join("app.db");
        std::fs::write(beside(&database, "-twinlite.lock"), "{\"pid\":1,\"socket\":\"/x\"} and more text")
            .expect("lock");
        std::fs::write(beside(&database, "-twinlite.sock"), "").expect("socket");
        assert_eq!(standing(&database).expect("readable"), Standing::LeftBehind);
        assert_eq!(find_owner(&database).expect("readable"), None);
        let _owner = Owner::acquire(&database).expect("nobody holds it");
        assert_eq!(find_owner(&database).expect("readable").expect("owned").pid, std::process::id());
    }

    #[test]
    fn two_names_of_one_database_have_one_owner() {
        let folder = tempfile::tempdir().expect("folder");
        let (database, alias) = (folder.path().join("app.db"), folder.path().join("alias.db"));
        std::fs::write(&database, "").expect("database");
        std::os::unix::fs::symlink(&database, &alias).expect("link");
        let _owner = Owner::acquire(&alias).expect("first");
        assert!(matches!(Owner::acquire(&database), Err(Error::Owned { .. })));
    }

    #[test]
    fn whoever_looks_does_not_keep_an_owner_away() {
        let folder = tempfile::tempdir().expect("folder");
        let database = folder.path().join("app.db");
        // A crash left the file, and somebody looks into it, as `find_owner` does for a moment.
        let path = beside(&database, "-twinlite.lock");
        let looker = std::fs::File::create(&path).expect("lock file");
        looker.try_lock_shared().expect("nobody owns it");
        let (begins, began) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let acquiring = scope.spawn(|| {
                begins.send(()).expect("the test waits");
                Owner::acquire(&database).map(drop)
            });
            began.recv().expect("the thread begins");
            for _ in 0..100 {
                std::thread::yield_now();
            }
            drop(looker);
            acquiring.join().expect("no panic").expect("a looker is no owner");
        });
    }

    #[test]
    fn a_long_path_has_its_socket_elsewhere() {
        let long = PathBuf::from(format!("/{}/app.db", "x".repeat(SOCKET_PATH_BYTES_MAX)));
        assert!(socket_path(&long).starts_with(std::env::temp_dir()));
        assert_ne!(socket_path(&long), socket_path(&long.with_extension("other")));
        assert_eq!(socket_path(Path::new("/data/app.db")), Path::new("/data/app.db-twinlite.sock"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let error = Owner::acquire(Path::new("/does/not/exist/app.db")).expect_err("no folder");
        assert!(error.to_string().starts_with("/does/not/exist/app.db-twinlite.lock: open the lock file"), "{error}");
    }
}
