//! A file that is locked for as long as its holder lives, so that a crash releases it. What is in it says who that is.
//!
//! Invariants:
//! * The lock decides, never the content: a file that nobody holds is stale, whatever it says.
//! * The file is never removed while unlocked by somebody else's hand: who drops a [`LockFile`] removes it under its own
//!   lock, and who takes a lock checks that the file is still the one in the folder.
//! * Who only looks keeps nobody from taking the lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Error;

/// What is in a lock file is a line; what is longer is not ours.
const CONTENT_BYTES_MAX: u64 = 64 << 10;

/// Times that a lock is tried while others look who holds it, or a holder that is just leaving removes the file under our
/// hands. Each try needs such a coincidence anew.
const ATTEMPTS_MAX: usize = 10_000;

/// Read and write for user and group, as for the database.
const MODE: u32 = 0o660;

/// The lock, until dropped.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
}

/// What becomes of who wants a lock.
pub(super) enum Wanted {
    /// It is ours.
    Taken(LockFile),
    /// Somebody has it, who has written this.
    Held(String),
}

/// What is seen of a lock.
pub(super) enum Seen {
    /// There is no file.
    Free,
    /// There is one that nobody holds: who held it crashed, and the next takes it over.
    LeftBehind,
    /// Somebody has it, who has written this.
    Held(String),
}

impl LockFile {
    /// Takes the lock, if it is free.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn take(path: &Path) -> Result<Wanted, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path);
            let file = open.map_err(file_error(path, "open the lock file"))?;
            match file.try_lock() {
                Ok(()) if is_same(&file, path) => return Ok(Wanted::Taken(Self { file, path: path.to_owned() })),
                Ok(()) => {}
                // Somebody who only looks ([`Self::look`]) holds it shared for a moment; a holder lets nobody share.
                Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {
                    drop(file);
                    std::thread::yield_now();
                }
                Err(TryLockError::WouldBlock) => return Ok(Wanted::Held(content(file))),
                Err(TryLockError::Error(source)) => return Err(file_error(path, "lock the lock file")(source)),
            }
        }
        Ok(Wanted::Held(String::new()))
    }

    /// Looks who has it.
    ///
    /// # Errors
    /// [`Error::File`] where the file is there and cannot be read.
    pub fn look(path: &Path) -> Result<Seen, Error> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Seen::Free),
            Err(source) => return Err(file_error(path, "open the lock file")(source)),
        };
        match file.try_lock_shared() {
            // Dropping the file gives our lock back.
            Ok(()) => Ok(Seen::LeftBehind),
            Err(TryLockError::WouldBlock) => Ok(Seen::Held(content(file))),
            Err(TryLockError::Error(source)) => Err(file_error(path, "lock the lock file")(source)),
        }
    }

    /// Says who has it, in place of what a crash left.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write(&mut self, line: &str) -> Result<(), Error> {
        let file = &mut self.file;
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{line}"));
        written.map_err(file_error(&self.path, "write the lock file"))
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // What cannot be removed is stale, and whoever comes next takes it over.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// Nothing where it cannot be read: who has just taken a lock has not yet written who that is.
fn content(mut file: File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(CONTENT_BYTES_MAX).read_to_string(&mut text));
    read.map_or_else(|_| String::new(), |_| text)
}

fn is_same(file: &File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let ours = file.metadata().map(identity).ok();
    ours.is_some() && ours == std::fs::metadata(path).map(identity).ok()
}

pub(super) fn file_error(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, doing, source }
}
