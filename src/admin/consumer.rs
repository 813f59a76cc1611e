//! One process a consumer: a lock file beside the database for as long as an event consumer runs.
//!
//! Two that share a name would share a position, and each would be given half of the events. The lock decides, never the
//! file: what a crash left is taken over.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::xxh3_64;

use super::Error;
use super::owner::{MODE, beside, canonical, file_error, is_same};

/// Times that a lock is tried whose holder is just leaving and removes the file under our hands.
const ATTEMPTS_MAX: usize = 1_000;

/// For how long a consumer that is ending is waited for: a killed process is gone well within it, and who started a second
/// one by mistake is told soon.
const ENDING_WAIT: Duration = Duration::from_secs(1);

/// How often it is looked whether it has ended.
const ENDING_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Digits of a process id at most.
const PID_BYTES_MAX: u64 = 20;

/// The right to be the consumer of that name, until dropped.
#[derive(Debug)]
pub struct ConsumerLock {
    lock: File,
    path: PathBuf,
}

impl ConsumerLock {
    /// Whether somebody is that consumer now. Who looks keeps nobody from becoming it.
    pub fn is_held(database: &Path, consumer: &str) -> bool {
        let held = |lock: File| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock));
        File::open(lock_path(&canonical(database), consumer)).is_ok_and(held)
    }

    /// Becomes that consumer, also where the one before is just ending: a process that is killed holds its lock for a moment
    /// longer.
    ///
    /// # Errors
    /// [`Self::acquire`]'s.
    pub async fn acquire_after_another(database: &Path, consumer: &str) -> Result<Self, Error> {
        let deadline = Instant::now() + ENDING_WAIT;
        loop {
            match Self::acquire(database, consumer) {
                Err(Error::ConsumerRuns { .. }) if Instant::now() < deadline => sleep(ENDING_LOOK_EVERY).await,
                acquired => return acquired,
            }
        }
    }

    /// Becomes the consumer of that name of that database.
    ///
    /// # Errors
    /// [`Error::ConsumerRuns`] where there is one, in this process or another; [`Error::File`].
    pub fn acquire(database: &Path, consumer: &str) -> Result<Self, Error> {
        let database = canonical(database);
        let path = lock_path(&database, consumer);
        let runs = |pid| Error::ConsumerRuns { database: database.clone(), consumer: consumer.to_owned(), pid };
        for _ in 0..ATTEMPTS_MAX {
            let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(&path);
            let mut lock = open.map_err(file_error(&path, "open the consumer's lock file"))?;
            match lock.try_lock() {
                Ok(()) if is_same(&lock, &path) => {}
                Ok(()) => continue,
                // Somebody only looks.
                Err(TryLockError::WouldBlock) if lock.try_lock_shared().is_ok() => {
                    std::thread::yield_now();
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Err(runs(pid_in(lock))),
                Err(TryLockError::Error(source)) => {
                    return Err(file_error(&path, "lock the consumer's lock file")(source));
                }
            }
            let written =
                lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
            written.map_err(file_error(&path, "write the consumer's lock file"))?;
            return Ok(Self { lock, path });
        }
        Err(runs(0))
    }
}

fn lock_path(database: &Path, consumer: &str) -> PathBuf {
    // A name may hold what a file's name may not.
    beside(database, &format!("-twinlite-{:016x}.lock", xxh3_64(consumer.as_bytes())))
}

impl Drop for ConsumerLock {
    fn drop(&mut self) {
        // What cannot be removed is stale, and whoever comes next takes it over.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.lock.unlock();
    }
}

fn pid_in(mut lock: File) -> u32 {
    let mut text = String::new();
    let read = lock.rewind().and_then(|()| lock.take(PID_BYTES_MAX).read_to_string(&mut text));
    read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_runs_once_and_another_name_beside_it() {
        let folder = tempfile::tempdir().expect("folder");
        let database = folder.path().join("app.db");
        std::fs::write(&database, "").expect("database");
        let first = ConsumerLock::acquire(&database, "a/b").expect("free");
        let error = ConsumerLock::acquire(&database, "a/b").expect_err("it runs").to_string();
        assert!(error.contains("\"a/b\"") && error.contains(&format!("pid {}", std::process::id())), "{error}");
        let _other = ConsumerLock::acquire(&database, "c").expect("another name");
        drop(first);
        let _again = ConsumerLock::acquire(&database, "a/b").expect("it left");
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 3, "the database and two locks");
    }

    #[test]
    fn what_a_crash_left_is_taken_over() {
        let folder = tempfile::tempdir().expect("folder");
        let database = folder.path().join("app.db");
        let lock = ConsumerLock::acquire(&database, "x").expect("free");
        let path = lock.path.clone();
        drop(lock);
        std::fs::write(&path, "1\n").expect("a stale file");
        let _lock = ConsumerLock::acquire(&database, "x").expect("nobody holds it");
    }

    #[test]
    fn who_looks_sees_one_that_runs_and_keeps_nobody_away() {
        let folder = tempfile::tempdir().expect("folder");
        let database = folder.path().join("app.db");
        assert!(!ConsumerLock::is_held(&database, "x"), "there is no file");
        let lock = ConsumerLock::acquire(&database, "x").expect("free");
        assert!(ConsumerLock::is_held(&database, "x") && !ConsumerLock::is_held(&database, "y"));
        let path = lock.path.clone();
        drop(lock);
        std::fs::write(&path, "1\n").expect("a stale file");
        assert!(!ConsumerLock::is_held(&database, "x"), "what a crash left");
    }

    /// Whoever killed a consumer and started it again at once was told that it runs.
    #[tokio::test]
    async fn one_that_is_ending_is_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let database = folder.path().join("app.db");
        let first = ConsumerLock::acquire(&database, "x").expect("free");
        let second = ConsumerLock::acquire_after_another(&database, "x");
        tokio::pin!(second);
        let early = tokio::select! {
            biased;
            _ = &mut second => true,
            () = tokio::task::yield_now() => false,
        };
        assert!(!early, "it runs");
        drop(first);
        let _second = second.await.expect("it left");
    }
}
