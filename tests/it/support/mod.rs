//! What the tests stand on: the oracle, the program as a process, a network that fails on demand, and seeded workloads.

pub mod bank;
pub mod both;
pub mod cq;
pub mod cq_arrays;
pub mod cq_rows;
pub mod cq_table;
pub mod hook;
pub mod nodes;
pub mod oracle;
pub mod pair;
pub mod plugin;
pub mod process;
pub mod proxy;
pub mod random;
pub mod relay;
pub mod rest;
pub mod schema;
pub mod sdk;
pub mod shop;
pub mod statements;
pub mod table;
pub mod wait;
pub mod written;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

/// An application's connection: WAL, foreign keys as SQLite has them, patient.
pub fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    conn.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    conn.pragma_update(None, "journal_mode", "wal").unwrap();
    // As SQLite has it; the copy that is bundled for tests was built otherwise.
    conn.pragma_update(None, "foreign_keys", false).unwrap();
    conn
}

/// A connection that only reads.
pub fn open_reader(path: &Path) -> Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .unwrap_or_else(|error| panic!("open {} to read: {error}", path.display()));
    conn.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    conn
}

/// A folder for one test, and the two databases in it. Gone with it, unless the test fails.
pub struct Place {
    folder: Option<tempfile::TempDir>,
}

impl Place {
    /// A new folder, in memory where the machine has one: what is tested here is not the disk.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("twinlite-").tempdir().unwrap();
        Self { folder: Some(folder) }
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.as_ref().unwrap().path().join(name)
    }

    /// The database that is replicated.
    pub fn source(&self) -> PathBuf {
        self.file("source.db")
    }

    /// The database that it is replicated to.
    pub fn replica(&self) -> PathBuf {
        self.file("replica.db")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = self.folder.take().unwrap().keep();
            eprintln!("the databases of the failed test are kept in {}", kept.display());
        }
    }
}

/// Runs every case, and panics at the end with the names of those that failed: one failure must not hide the others.
pub fn each_case<T>(cases: &[T], name: impl Fn(&T) -> String, run: impl Fn(&T)) {
    let mut failed = Vec::new();
    for case in cases {
        eprintln!("case: {}", name(case));
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(case))).is_err() {
            failed.push(name(case));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

/// Stops a thread, also where the test fails, or its scope would wait for ever.
pub struct StopOnDrop<'a>(pub &'a std::sync::atomic::AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// A number from the environment, for runs that look longer than CI does.
pub fn env_number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Says why a test did not run, and what to install so that it does. CI greps for it: there, nothing may be skipped.
pub fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    assert!(std::env::var_os("TWINLITE_SKIP_NOTHING").is_none(), "{test} was skipped: {why}");
}
