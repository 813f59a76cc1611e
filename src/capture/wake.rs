//! Says when to look at a database again.
//!
//! SQLite writes its WAL with plain writes, so the file system tells of every commit. Where it does not (some network and
//! FUSE file systems), found out at the start by a write of our own, the database is looked at every
//! [`POLL_WITHOUT_EVENTS`]. Besides, it is looked at every [`POLL_BESIDE_EVENTS`] in any case.
//!
//! A wake-up says "look", not "something was committed": `PRAGMA data_version` on the reader's connection decides that.
//! Events that come while nobody waits are one wake-up, and none is lost.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time;

use crate::model::{Clock as _, Fault, SystemClock};

/// How often the database is looked at where the file system tells of writes: for what it may have kept to itself, and
/// for the file being replaced by another.
pub const POLL_BESIDE_EVENTS: Duration = Duration::from_secs(1);

/// How often it is looked at where the file system tells nothing.
pub const POLL_WITHOUT_EVENTS: Duration = Duration::from_millis(20);

/// How long our own write may take to come back as an event; a local file system takes microseconds.
const PROBE_PATIENCE: Duration = Duration::from_millis(200);

/// What the file that proves events begins with.
const PROBE_PREFIX: &str = ".__cdc_probe";

/// When the database is looked at again after an event, first and last: from what a sync takes on a fast disk to what it
/// takes on a slow one that is busy.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(1);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(256);

/// The database's file cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not there, or its folder cannot be read.
    #[error("watch {path}; check that the file is there and its folder readable")]
    Look {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Look { .. } => Fault::Retry,
        }
    }
}

/// Wakes up whoever reads one database.
pub struct Wake {
    path: PathBuf,
    file: (u64, u64),
    written: Arc<Notify>,
    poll: Duration,
    watcher: Option<RecommendedWatcher>,
}

impl Wake {
    /// Begins to watch the database's file, which must be there. Blocks for as long as an event of our own
    /// takes to come, which is nothing where events come at all.
    ///
    /// # Errors
    /// [`Error::Look`].
    pub fn new(path: &Path) -> Result<Self, Error> {
        Self::with_polls(path, (POLL_BESIDE_EVENTS, POLL_WITHOUT_EVENTS))
    }

    fn with_polls(path: &Path, (beside, without): (Duration, Duration)) -> Result<Self, Error> {
        let look = |source| Error::Look { path: path.to_owned(), source };
        let file = identity(&fs::metadata(path).map_err(look)?);
        // SQLite puts its WAL beside the file itself, not beside a link to it.
        let real = fs::canonicalize(path).map_err(look)?;
        let written = Arc::new(Notify::new());
        let watcher = events(&real, &written);
        let poll = if watcher.is_some() { beside } else { without };
        Ok(Self { path: path.to_owned(), file, written, poll, watcher })
    }

    /// Whether the file system tells of writes; otherwise the database is polled.
    pub fn has_events(&self) -> bool {
        self.watcher.is_some()
    }

    /// Waits until there may be something new: since the last call of this, or, for the first one, since the start.
    /// Says whether the file system told of a write; otherwise it is only time to look again.
    pub async fn changed(&mut self) -> bool {
        let wait = if self.has_events() { SystemClock.until_beat(self.poll) } else { self.poll };
        time::timeout(wait, self.written.notified()).await.is_ok()
    }

    /// Whether the path leads to another file than at the start, or to none: an open connection would read the old one
    /// for ever, and its `data_version` would never move.
    pub fn replaced(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(found) => identity(&found) != self.file,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// The looks that follow an event.
///
/// SQLite writes the WAL first, then syncs it, and only then lets others see the commit, of which no event tells. So after
/// an event the database is looked at again for a while, ever more seldom.
#[derive(Clone, Copy, Debug, Default)]
pub struct AfterEvent(Option<Duration>);

impl AfterEvent {
    /// An event came.
    pub fn begin() -> Self {
        Self(Some(LOOK_AGAIN_MIN))
    }

    /// How long until the next one; `None` where there is none.
    pub fn wait(self) -> Option<Duration> {
        self.0
    }

    /// It was looked.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.map(|wait| wait * 2).filter(|wait| *wait <= LOOK_AGAIN_MAX))
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Watches the folder of the database; `None` where that cannot be had, or tells nothing.
fn events(database: &Path, written: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let folder = database.parent()?;
    let name = database.file_name()?;
    let watched = ["", "-wal", "-journal"].map(|suffix| with_suffix(name, suffix));
    let notify = Arc::clone(written);
    let (probe_seen, probed) = mpsc::sync_channel(1);
    let handle = move |event: notify::Result<Event>| match event {
        // Events may have been lost: look.
        Err(_) => notify.notify_one(),
        Ok(event) if event.need_rescan() => notify.notify_one(),
        // Our own opening and reading is none of the application's doing.
        Ok(Event { kind: EventKind::Access(_), .. }) => {}
        Ok(event) => {
            let names = || event.paths.iter().filter_map(|path| path.file_name());
            if names().any(|name| watched.iter().any(|watched| watched == name)) {
                notify.notify_one();
            } else if names().any(|name| name.as_encoded_bytes().starts_with(PROBE_PREFIX.as_bytes())) {
                let _ = probe_seen.try_send(());
            }
        }
    };
    let mut watcher = notify::recommended_watcher(handle).ok()?;
    watcher.watch(folder, RecursiveMode::NonRecursive).ok()?;
    let probe = tempfile::Builder::new().prefix(PROBE_PREFIX).tempfile_in(folder).ok()?;
    fs::write(probe.path(), b"?").ok()?;
    probed.recv_timeout(PROBE_PATIENCE).ok()?;
    Some(watcher)
}

fn with_suffix(name: &OsStr, suffix: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(suffix);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{Role, open};

    /// Longer than any test waits: what comes before it came by an event.
    const NEVER: Duration = Duration::from_secs(3_600);
    const PATIENCE: Duration = Duration::from_secs(10);

    async fn woken(wake: &mut Wake) -> bool {
        time::timeout(PATIENCE, wake.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_commit_wakes_the_reader_and_one_that_came_earlier_is_not_lost() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("app.db");
        let writer = open(&path, Role::Maintainer, true).expect("open");
        writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(a)").expect("schema");
        let mut wake = Wake::with_polls(&path, (NEVER, NEVER)).expect("watch");
        assert!(wake.has_events(), "the tests' file system tells of writes");
        for _ in 0..3 {
            writer.execute_batch("INSERT INTO t VALUES (1)").expect("insert");
            assert!(woken(&mut wake).await);
        }
        writer.execute_batch("INSERT INTO t VALUES (2)").expect("insert");
        assert!(woken(&mut wake).await);
    }

    #[tokio::test]
    async fn without_events_the_database_is_polled() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("app.db");
        fs::write(&path, b"").expect("file");
        let file = identity(&fs::metadata(&path).expect("metadata"));
        let (written, poll) = (Arc::new(Notify::new()), POLL_WITHOUT_EVENTS);
        let mut wake = Wake { path, file, written, poll, watcher: None };
        let begun = time::Instant::now();
        wake.changed().await;
        wake.changed().await;
        assert!(begun.elapsed() >= 2 * POLL_WITHOUT_EVENTS);
    }

    /// P50: a file moved over the database leaves us with the old one.
    #[tokio::test]
    async fn a_file_moved_over_the_database_is_noticed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("app.db");
        fs::write(&path, b"one").expect("file");
        let mut wake = Wake::with_polls(&path, (NEVER, NEVER)).expect("watch");
        assert!(!wake.replaced());
        let other = folder.path().join("restored.db");
        fs::write(&other, b"two").expect("file");
        fs::rename(&other, &path).expect("move");
        assert!(woken(&mut wake).await);
        assert!(wake.replaced());
        fs::remove_file(&path).expect("remove");
        assert!(wake.replaced());
        assert!(Wake::new(&path).is_err());
    }

    #[test]
    fn a_commit_that_shows_half_a_second_after_its_event_is_seen_and_then_nobody_looks_any_more() {
        let looks: Vec<Duration> = std::iter::successors(Some(AfterEvent::begin()), |after| Some(after.next()))
            .map_while(AfterEvent::wait)
            .collect();
        assert_eq!(looks.first(), Some(&LOOK_AGAIN_MIN));
        assert!(looks.iter().sum::<Duration>() > Duration::from_millis(500) && looks.len() < 10, "{looks:?}");
        assert_eq!(AfterEvent::default().wait(), None, "no event, no look");
    }
}
