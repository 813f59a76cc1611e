//! One process a consumer: a lock file beside the database for as long as an event consumer runs.
//!
//! Two that share a name would share a position, and each would be given half of the events. The lock decides, never the
//! file: what a crash left is taken over.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::xxh3_64;

use super::Error;
use super::lock_file::{LockFile, Seen, Wanted};
use super::owner::{beside, canonical};

/// For how long a consumer that is ending is waited for: a killed process is gone well within it, and who started a second
/// one by mistake is told soon.
const ENDING_WAIT: Duration = Duration::from_secs(1);

/// How often it is looked whether it has ended.
const ENDING_LOOK_EVERY: Duration = Duration::from_millis(10);

/// The right to be the consumer of that name, until dropped.
#[derive(Debug)]
pub struct ConsumerLock {
    // Held for as long as this is.
    _lock: LockFile,
}

impl ConsumerLock {
    /// Whether somebody is that consumer now. Who looks keeps nobody from becoming it.
    pub fn is_held(database: &Path, consumer: &str) -> bool {
        matches!(LockFile::look(&lock_path(&canonical(database), consumer)), Ok(Seen::Held(_)))
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
        match LockFile::take(&lock_path(&database, consumer))? {
            Wanted::Taken(mut lock) => {
                lock.write(&std::process::id().to_string())?;
                Ok(Self { _lock: lock })
            }
            Wanted::Held(by) => {
                let pid = by.trim().parse().unwrap_or(0);
                Err(Error::ConsumerRuns { database, consumer: consumer.to_owned(), pid })
            }
        }
    }
}

fn lock_path(database: &Path, consumer: &str) -> PathBuf {
    // A name may hold what a file's name may not.
    beside(database, &format!("-twinlite-{:016x}.lock", xxh3_64(consumer.as_bytes())))
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
        let path = lock_path(&canonical(&database), "x");
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
        let path = lock_path(&canonical(&database), "x");
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
