//! One owner a database: a lock file beside it, never a lock on it.
//!
//! `<database>-twinlite.lock` is locked for as long as the owner lives, so a crash releases it; its content says who the
//! owner is and where to reach it. `<database>-twinlite.sock` is that place, or a name in the folder for temporary files
//! where the path is too long for a socket.
//!
//! Invariants:
//! * The lock decides, never the content: a file that nobody holds is stale, whatever pid it names.
//! * The lock file is never removed while unlocked by somebody else's hand: who drops an [`Owner`] removes it under its
//!   own lock, and who takes a lock checks that the file is still the one in the folder.
//! * Two names of one file (a symbolic link, another spelling) are one database.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{ConsumerLock, Error};

/// Bytes that a unix socket's path may have on every platform we run on: `sun_path` has 104 on macOS, 108 on Linux.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// A lock file is a line; what is longer is not ours.
const CONTENT_BYTES_MAX: u64 = 64 << 10;

/// Times that a lock is tried while others look who owns the database, or an owner that is just leaving removes the file
/// under our hands. Each try needs such a coincidence anew.
const ATTEMPTS_MAX: usize = 10_000;

/// Read and write for user and group, as for the database.
pub(super) const MODE: u32 = 0o660;

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
    lock: File,
    lock_path: PathBuf,
    ownership: Ownership,
}

impl Owner {
    /// Becomes the owner. The database itself need not be there yet, its folder must.
    ///
    /// # Errors
    /// [`Error::Owned`] by another process (or another node of this one), [`Error::File`].
    pub fn acquire(database: &Path) -> Result<Self, Error> {
        let database = canonical(database);
        let lock_path = beside(&database, "-twinlite.lock");
        for _ in 0..ATTEMPTS_MAX {
            let open =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(&lock_path);
            let lock = open.map_err(file_error(&lock_path, "open the lock file"))?;
            match lock.try_lock() {
                Ok(()) => {}
                // Somebody who only looks ([`find_owner`]) holds it shared for a moment; an owner lets nobody share.
                Err(TryLockError::WouldBlock) if lock.try_lock_shared().is_ok() => {
                    drop(lock);
                    std::thread::yield_now();
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Err(owned(&database, lock)),
                Err(TryLockError::Error(source)) => return Err(file_error(&lock_path, "lock the lock file")(source)),
            }
            if is_same(&lock, &lock_path) {
                return Self::settle(&database, lock, lock_path);
            }
        }
        Err(Error::Owned { database, pid: 0 })
    }

    fn settle(database: &Path, mut lock: File, lock_path: PathBuf) -> Result<Self, Error> {
        let ownership = Ownership { pid: std::process::id(), socket: socket_path(database) };
        // Whoever made it is gone, or we would not hold the lock.
        match std::fs::remove_file(&ownership.socket) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(file_error(&ownership.socket, "remove a stale socket")(source));
            }
            Ok(()) | Err(_) => {}
        }
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            serde_json::to_writer(&*lock, &ownership)?;
            lock.write_all(b"\n")
        };
        write(&mut lock).map_err(file_error(&lock_path, "write the lock file"))?;
        Ok(Self { lock, lock_path, ownership })
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
        let _ = std::fs::remove_file(&self.lock_path);
        let _ = self.lock.unlock();
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
    let lock_path = beside(&canonical(database), "-twinlite.lock");
    let lock = match File::open(&lock_path) {
        Ok(lock) => lock,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Standing::Free),
        Err(source) => return Err(file_error(&lock_path, "open the lock file")(source)),
    };
    match lock.try_lock_shared() {
        // Nobody holds it: its owner crashed. Dropping the file gives our lock back.
        Ok(()) => Ok(Standing::LeftBehind),
        Err(TryLockError::WouldBlock) => Ok(Standing::Owned(content(lock).unwrap_or_else(|| unknown(database)))),
        Err(TryLockError::Error(source)) => Err(file_error(&lock_path, "lock the lock file")(source)),
    }
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

/// An owner that has the lock and has not yet written who it is.
fn unknown(database: &Path) -> Ownership {
    Ownership { pid: 0, socket: socket_path(&canonical(database)) }
}

fn content(mut lock: File) -> Option<Ownership> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(CONTENT_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn owned(database: &Path, lock: File) -> Error {
    let pid = content(lock).map_or(0, |ownership| ownership.pid);
    Error::Owned { database: database.to_owned(), pid }
}

pub(super) fn is_same(lock: &File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let ours = lock.metadata().map(identity).ok();
    ours.is_some() && ours == std::fs::metadata(path).map(identity).ok()
}

pub(super) fn file_error(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, doing, source }
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
        let looker = File::create(&path).expect("lock file");
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
