//! The board on which every part of a node writes how it is doing.
//!
//! `replicate` feeds it through a [`LinkHandle`] for each link and direction; the command line, the admin socket and HTTP
//! read a [`StatusReport`] from it. Setters are cheap (a short lock, no allocation to speak of), so that they can be
//! called for every window; readers wait on [`Board::subscribe`].
//!
//! Invariants:
//! * A lag of 0 is said only while the peer is heard from and everything it told of is applied. Silence counts as lag.
//! * A link is unhealthy while it is halted, and a receiving one also when nothing has gone well with its peer for
//!   [`PEER_GONE_MS`]: connecting again and again is not well.
//!   A sender whose receiver is away is healthy, and its lag says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Metrics;
use super::links::{LinkHandle, Links};
use super::outputs::{EventsHandle, Output};
use super::report::{
    BROKEN_SHOWN_MAX, BrokenReport, Direction, FORMAT, LogReport, NodeReport, StatusReport, TableReport, TableState,
    utc,
};
use crate::model::{Clock, LogTail, NodeId};

/// For how long a receiving link may be without its peer before the node counts as unhealthy.
pub const PEER_GONE_MS: i64 = 60_000;

/// A connected peer that says nothing for this long counts, for the lag, as one that is not connected. Heartbeats come
/// every second; a busy machine may lose a few.
pub const SILENCE_MS: i64 = 5_000;

/// Events that are kept as notes at most; older ones are in the log.
const NOTES_MAX: usize = 50;

/// For how long an event is worth a note: by then a person has looked, or looks for something else.
const NOTE_LIFE_MS: i64 = 24 * 3_600_000;

/// The status of one node. Clones share it.
#[derive(Clone)]
pub struct Board {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    facts: Mutex<Facts>,
    changed: watch::Sender<u64>,
    metrics: Metrics,
}

struct Facts {
    name: String,
    database: String,
    id: Option<NodeId>,
    links: Links,
    outputs: BTreeMap<String, Output>,
    captured: Vec<TableReport>,
    skipped: Vec<TableReport>,
    log: Option<LogReport>,
    tail: LogTail,
    /// Below 0 for a moment where some are settled before it is told here that they were recorded.
    conflicts: i64,
    foreign_keys: Vec<BrokenReport>,
    notes: Vec<Note>,
}

/// Something that a person should know.
struct Note {
    /// What it is about, where it stands until something else is said of that; none of an event.
    about: Option<String>,
    text: String,
    at_ms: i64,
}

impl Note {
    /// As it is shown: an event with its time, so that nobody takes it for what is.
    fn shown(&self, now_ms: i64) -> Option<String> {
        match self.about {
            Some(_) => Some(self.text.clone()),
            None => (now_ms - self.at_ms < NOTE_LIFE_MS).then(|| format!("{}: {}", utc(self.at_ms), self.text)),
        }
    }
}

/// What a heartbeat (or anything else that carries the same) said. Times are by the clock of who sent it, but `at_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The end of the sender's log.
    pub head: i64,
    /// The time of the oldest change that the sender knows is not applied.
    pub behind_since_ms: Option<i64>,
    /// The sender's time when it said so.
    pub sent_ms: i64,
    /// Our time when we heard it.
    pub at_ms: i64,
}

impl Board {
    /// A board for the node of that name on that database.
    pub fn new(name: &str, database: &str, clock: Arc<dyn Clock>) -> Self {
        let facts = Facts {
            name: name.to_owned(),
            database: database.to_owned(),
            id: None,
            links: BTreeMap::new(),
            outputs: BTreeMap::new(),
            captured: Vec::new(),
            skipped: Vec::new(),
            log: None,
            tail: LogTail::default(),
            conflicts: 0,
            foreign_keys: Vec::new(),
            notes: Vec::new(),
        };
        let (changed, _) = watch::channel(0);
        Self { shared: Arc::new(Shared { clock, facts: Mutex::new(facts), changed, metrics: Metrics::default() }) }
    }

    /// The node's counters.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The handle for one direction of a link; the link is on the board from here on, `connecting`. Asking again gives
    /// another handle to the same entry.
    pub fn link(&self, name: &str, direction: Direction, peer: Option<&str>) -> LinkHandle {
        LinkHandle::new(self.clone(), name, direction, peer)
    }

    /// The handle for an output of events; it is on the board from here on, `starting`. Asking again gives another handle to
    /// the same entry. `to`: where they go, as people may see it.
    pub fn events(&self, name: &str, to: &str) -> EventsHandle {
        EventsHandle::new(self.clone(), name, to)
    }

    /// Changes what is known of outputs, and wakes readers.
    pub(super) fn update_outputs(&self, change: impl FnOnce(&mut BTreeMap<String, Output>, i64)) {
        let now_ms = self.shared.clock.now_ms();
        self.update(|facts| change(&mut facts.outputs, now_ms));
    }

    /// Changes what is known of links, and wakes readers where `change` says what is new.
    pub(super) fn update_links<T>(&self, change: impl FnOnce(&mut Links, i64) -> Option<T>) -> Option<T> {
        let now_ms = self.shared.clock.now_ms();
        let new = change(&mut self.facts().links, now_ms);
        if new.is_some() {
            self.tell();
        }
        new
    }

    /// The node's id, once its database has one.
    pub fn set_node(&self, id: NodeId) {
        self.update(|facts| facts.id = Some(id));
    }

    /// The tables that are captured here: name and generation. They replace what was said before.
    pub fn set_captured(&self, tables: impl IntoIterator<Item = (String, Option<i64>)>) {
        let live = |(name, generation)| TableReport { generation, ..TableReport::new(name, TableState::Live) };
        let tables = tables.into_iter().map(live).collect();
        self.update(|facts| facts.captured = tables);
    }

    /// The tables that are not captured: name and reason. They replace what was said before.
    pub fn set_skipped(&self, tables: impl IntoIterator<Item = (String, String)>) {
        let tables = tables.into_iter().map(|(name, reason)| TableReport::skipped(name, reason)).collect();
        self.update(|facts| facts.skipped = tables);
    }

    /// How large the change log is.
    pub fn set_log(&self, rows: u64, bytes: u64) {
        self.update(|facts| facts.log = Some(LogReport { rows, bytes }));
    }

    /// The newest entries of our own log, which goes on while a replica is away: its end, and which of them are changes.
    pub fn set_log_tail(&self, tail: LogTail) {
        let head = tail.head();
        self.update(|facts| {
            facts.tail = tail;
            let sending = facts.links.iter_mut().filter(|((_, direction), _)| *direction == Direction::Send);
            sending.for_each(|(_, link)| link.head = Some(link.head.unwrap_or(head).max(head)));
            facts.outputs.values_mut().for_each(|output| output.heard_head(head));
        });
    }

    /// How many conflicts are recorded.
    pub fn set_conflicts(&self, conflicts: u64) {
        self.update(|facts| facts.conflicts = conflicts.cast_signed());
    }

    /// The rows that break a foreign key. They replace what was said before.
    pub fn set_foreign_keys(&self, broken: impl IntoIterator<Item = BrokenReport>) {
        let broken: Vec<BrokenReport> = broken.into_iter().take(BROKEN_SHOWN_MAX).collect();
        if self.facts().foreign_keys != broken {
            self.update(|facts| facts.foreign_keys = broken);
        }
    }

    /// So many more conflicts are recorded.
    pub fn add_conflicts(&self, more: u64) {
        self.update(|facts| facts.conflicts = facts.conflicts.saturating_add_unsigned(more));
    }

    /// So many conflicts were settled.
    pub fn settle_conflicts(&self, settled: u64) {
        self.update(|facts| facts.conflicts = facts.conflicts.saturating_sub_unsigned(settled));
    }

    /// Something that happened and that a person should know. The newest 50 are kept for a day, each once.
    pub fn note(&self, note: impl Into<String>) {
        let (text, at_ms) = (note.into(), self.shared.clock.now_ms());
        self.update(|facts| {
            facts.notes.retain(|known| known.about.is_some() || known.text != text);
            facts.notes.push(Note { about: None, text, at_ms });
            let events = facts.notes.iter().filter(|note| note.about.is_none()).count();
            let mut surplus = events.saturating_sub(NOTES_MAX);
            facts.notes.retain(|note| {
                let goes = note.about.is_none() && surplus > 0;
                surplus -= usize::from(goes);
                !goes
            });
        });
    }

    /// What a person should know of something for as long as nothing else is said of it: these replace what was said of
    /// `about` before, and none ends it.
    pub fn stands(&self, about: &str, notes: impl IntoIterator<Item = String>) {
        let notes: Vec<String> = notes.into_iter().collect();
        let is_it = |note: &Note| note.about.as_deref() == Some(about);
        if self.facts().notes.iter().filter(|note| is_it(note)).map(|note| &note.text).eq(&notes) {
            return;
        }
        let at_ms = self.shared.clock.now_ms();
        self.update(|facts| {
            facts.notes.retain(|note| !is_it(note));
            facts.notes.extend(notes.into_iter().map(|text| Note { about: Some(about.to_owned()), text, at_ms }));
        });
    }

    /// Wakes at every change of the board but a sign of life that tells nothing new: those come every second, also while
    /// nothing happens. What it carries counts the changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// How the node is doing now.
    pub fn report(&self) -> StatusReport {
        let now_ms = self.shared.clock.now_ms();
        let metrics = self.metrics().values().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let facts = self.facts();
        StatusReport {
            format: FORMAT,
            node: NodeReport {
                name: facts.name.clone(),
                id: facts.id.map(|id| id.to_string()),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                database: facts.database.clone(),
            },
            healthy: facts.links_are_healthy(now_ms) && facts.outputs.values().all(|output| output.is_healthy(now_ms)),
            links: facts
                .links
                .iter()
                .map(|((name, direction), link)| link.report(name, (*direction, &facts.tail), now_ms))
                .collect(),
            events: facts.outputs.iter().map(|(name, output)| output.report(name, &facts.tail)).collect(),
            tables: facts.tables(),
            log: facts.log,
            conflicts: facts.conflicts.max(0).unsigned_abs(),
            foreign_keys: facts.foreign_keys.clone(),
            notes: facts.notes.iter().filter_map(|note| note.shown(now_ms)).collect(),
            metrics,
        }
    }

    /// Whether no link is halted and none that receives has been without its peer for [`PEER_GONE_MS`]: the part of health
    /// that readers of this database depend on.
    pub fn links_are_healthy(&self) -> bool {
        self.facts().links_are_healthy(self.shared.clock.now_ms())
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        // Every update leaves the facts whole, so a panic elsewhere while the lock was held breaks nothing.
        self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts());
        self.tell();
    }

    fn tell(&self) {
        self.shared.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

impl Facts {
    fn links_are_healthy(&self, now_ms: i64) -> bool {
        self.links.iter().all(|((_, direction), link)| link.is_healthy(*direction, now_ms))
    }

    /// What travels by a link, then what is captured and travels by none (yet), then what is skipped.
    fn tables(&self) -> Vec<TableReport> {
        let mut tables: Vec<TableReport> = self.links.values().flat_map(|link| link.tables.values().cloned()).collect();
        let said = |name: &str| tables.iter().any(|table| table.name == name);
        let alone: Vec<_> = self.captured.iter().filter(|table| !said(&table.name)).cloned().collect();
        tables.extend(alone);
        tables.extend(self.skipped.iter().cloned());
        tables
    }
}
