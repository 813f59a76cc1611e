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
use super::copying::{Copied, Copying};
use super::outputs::{EventsHandle, Output};
use super::report::{
    BROKEN_SHOWN_MAX, BrokenReport, Direction, FORMAT, LinkReport, LinkState, LogReport, NodeReport, StatusReport,
    TableReport, TableState,
};
use crate::model::{Clock, LogTail, NodeId, Position, Trouble};

/// For how long a receiving link may be without its peer before the node counts as unhealthy.
pub const PEER_GONE_MS: i64 = 60_000;

/// A connected peer that says nothing for this long counts, for the lag, as one that is not connected. Heartbeats come
/// every second; a busy machine may lose a few.
pub const SILENCE_MS: i64 = 5_000;

/// How old a session is when a heartbeat alone shows that it goes well, though nothing was applied: what fails at once
/// each time fails sooner.
const SESSION_GOOD_MS: i64 = 10_000;

/// Notes that are kept at most; older ones are in the log.
const NOTES_MAX: usize = 50;

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
    links: BTreeMap<(String, Direction), Link>,
    outputs: BTreeMap<String, Output>,
    captured: Vec<TableReport>,
    skipped: Vec<TableReport>,
    log: Option<LogReport>,
    tail: LogTail,
    /// Below 0 for a moment where some are settled before it is told here that they were recorded.
    conflicts: i64,
    foreign_keys: Vec<BrokenReport>,
    notes: Vec<String>,
}

struct Link {
    peer: Option<String>,
    state: LinkState,
    /// Since when there has been a session, or none.
    connected: bool,
    since_ms: i64,
    /// When it last went well: something was applied, or the peer said that nothing is to be.
    well_ms: i64,
    position: Option<Position>,
    applied_ts_ms: Option<i64>,
    head: Option<i64>,
    heard: Option<Heard>,
    error: Option<Trouble>,
    tables: BTreeMap<String, TableReport>,
    copying: Copying,
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
        let key = (name.to_owned(), direction);
        let now_ms = self.shared.clock.now_ms();
        self.update(|facts| {
            facts.links.entry(key.clone()).or_insert_with(|| Link::new(peer.map(str::to_owned), now_ms));
        });
        LinkHandle { board: self.clone(), key, logs: true }
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

    /// The end of our own log, which goes on while a replica is away.
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

    /// Something that a person should know. The newest 50 are kept, each once.
    pub fn note(&self, note: impl Into<String>) {
        let note = note.into();
        self.update(|facts| {
            facts.notes.retain(|known| *known != note);
            facts.notes.push(note);
            let surplus = facts.notes.len().saturating_sub(NOTES_MAX);
            facts.notes.drain(..surplus);
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
            notes: facts.notes.clone(),
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

/// Where one direction of one link says how it is doing.
#[derive(Clone)]
pub struct LinkHandle {
    board: Board,
    key: (String, Direction),
    logs: bool,
}

impl LinkHandle {
    /// The same, but says nothing in the log: the peer's end does, and logs into the same place.
    #[must_use]
    pub fn quietly(self) -> Self {
        Self { logs: false, ..self }
    }

    /// The board that it writes on.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Where the peer is.
    pub fn peer(&self, address: &str) {
        self.update(|link, _| link.peer = Some(address.to_owned()));
    }

    /// A session began, or ended. Ending one leaves a link that is not halted `connecting`.
    pub fn connected(&self, connected: bool) {
        self.update(|link, now_ms| {
            if link.connected != connected {
                (link.connected, link.since_ms) = (connected, now_ms);
            }
            if !connected && link.state != LinkState::Halted {
                link.state = LinkState::Connecting;
            }
        });
    }

    /// What the link is doing.
    pub fn state(&self, state: LinkState) {
        let before = self.update_if(|link, _| {
            let before = std::mem::replace(&mut link.state, state);
            (before != state).then_some(before)
        });
        let between = [LinkState::Live, LinkState::BetweenTransactions];
        if self.logs && state == LinkState::Live && before.is_some_and(|before| !between.contains(&before)) {
            tracing::info!(link = self.key.0, "link is live: every table is copied, changes follow");
        }
    }

    /// Up to where the sender's log is applied, where the time of that entry is not known.
    pub fn position(&self, position: Position) {
        self.update_if(|link, _| (link.position.replace(position) != Some(position)).then_some(()));
    }

    /// Up to where the sender's log is applied, and the time of that entry by the sender's clock.
    pub fn applied(&self, position: Position, ts_ms: i64) {
        self.update(|link, now_ms| {
            link.well_ms = now_ms;
            (link.position, link.applied_ts_ms) = (Some(position), Some(ts_ms));
        });
    }

    /// The end of the sender's log, as a window said it.
    pub fn head(&self, head: i64) {
        self.update_if(|link, _| (link.head.replace(head) != Some(head)).then_some(()));
    }

    /// The peer gave a sign of life that says how far its log goes: on a receiving link its heartbeat, on a sending one
    /// what our own log says when an acknowledgement or a heartbeat came.
    pub fn heartbeat(&self, heard: Heard) {
        self.update_if(|link, now_ms| {
            let is_up_to_date = link.position.map_or(0, |position| position.seq) >= heard.head;
            if is_up_to_date || (link.connected && now_ms - link.since_ms >= SESSION_GOOD_MS) {
                link.well_ms = now_ms;
            }
            let is_first = link.heard.replace(heard).is_none();
            (link.head.replace(heard.head) != Some(heard.head) || is_first).then_some(())
        });
    }

    /// What went wrong, or `None` once it is over.
    pub fn error(&self, error: Option<Trouble>) {
        self.update_if(|link, _| (std::mem::replace(&mut link.error, error.clone()) != error).then_some(()));
    }

    /// Halts the link: the state, and why.
    pub fn halt(&self, error: Trouble) {
        self.update(|link, _| (link.state, link.error) = (LinkState::Halted, Some(error)));
    }

    /// All tables of the link; they replace what was said before.
    pub fn tables(&self, tables: impl IntoIterator<Item = TableReport>) {
        let by_name =
            |table: TableReport| (table.name.clone(), TableReport { link: Some(self.key.0.clone()), ..table });
        let tables = tables.into_iter().map(by_name).collect();
        let mut copied = Vec::new();
        self.update(|link, now_ms| {
            let before = std::mem::replace(&mut link.tables, tables);
            copied = link.copying.whole(&before, &link.tables, (link.connected, now_ms));
        });
        for Copied { table, rows, seconds } in copied.into_iter().filter(|_| self.logs) {
            tracing::info!(link = self.key.0, table, rows, seconds, "table is copied");
        }
    }

    /// One table of the link.
    pub fn table(&self, table: TableReport) {
        let table = TableReport { link: Some(self.key.0.clone()), ..table };
        self.update(|link, _| {
            link.tables.insert(table.name.clone(), table);
        });
    }

    fn update(&self, change: impl FnOnce(&mut Link, i64)) {
        self.update_if(|link, now_ms| {
            change(link, now_ms);
            Some(())
        });
    }

    /// Changes the link, and wakes readers where `change` says what is new.
    fn update_if<T>(&self, change: impl FnOnce(&mut Link, i64) -> Option<T>) -> Option<T> {
        let now_ms = self.board.shared.clock.now_ms();
        let new = change(self.board.facts().links.get_mut(&self.key).expect("links are never removed"), now_ms);
        if new.is_some() {
            self.board.tell();
        }
        new
    }
}

impl Link {
    fn new(peer: Option<String>, now_ms: i64) -> Self {
        Self {
            peer,
            state: LinkState::Connecting,
            connected: false,
            since_ms: now_ms,
            well_ms: now_ms,
            position: None,
            applied_ts_ms: None,
            head: None,
            heard: None,
            error: None,
            tables: BTreeMap::new(),
            copying: Copying::default(),
        }
    }

    fn is_healthy(&self, direction: Direction, now_ms: i64) -> bool {
        let gone = now_ms - self.well_ms >= PEER_GONE_MS;
        self.state != LinkState::Halted && !(direction == Direction::Receive && gone)
    }

    fn changes_behind(&self, log: &LogTail) -> Option<u64> {
        Some(log.changes(self.position?.seq, self.head?))
    }

    /// The age in ms of the oldest change that is not applied, never less than what is known.
    fn behind_ms(&self, now_ms: i64) -> Option<i64> {
        let heard = self.heard?;
        let silence_ms = (now_ms - heard.at_ms).max(0);
        let lag_ms = match self.changes_behind(&LogTail::default())? {
            0 => 0,
            _ => self.oldest_age_ms(heard, silence_ms),
        };
        let is_heard = self.connected && silence_ms < SILENCE_MS;
        Some(if is_heard { lag_ms } else { lag_ms.max(silence_ms) })
    }

    /// Upper bounds of the same: what the sender said was waiting or that nothing was, and that nothing which waits is older than what
    /// is applied. Both in the sender's clock, carried on by ours.
    fn oldest_age_ms(&self, heard: Heard, silence_ms: i64) -> i64 {
        let age_ms = |ts_ms: i64| (heard.sent_ms - ts_ms + silence_ms).max(0);
        // Where nothing waited when it was said, what waits now is younger than that.
        let nothing_waited = self.position.is_some_and(|position| position.seq >= heard.head) || heard.head == 0;
        let told = heard.behind_since_ms.or(nothing_waited.then_some(heard.sent_ms)).map(age_ms);
        let applied = self.applied_ts_ms.map(age_ms);
        told.into_iter().chain(applied).min().unwrap_or(silence_ms)
    }

    #[expect(clippy::cast_precision_loss, reason = "a lag in ms is far below 2^53")]
    fn report(&self, name: &str, (direction, ours): (Direction, &LogTail), now_ms: i64) -> LinkReport {
        // Of a peer's log only its end is known.
        let theirs = LogTail::default();
        let log = if direction == Direction::Send { ours } else { &theirs };
        let behind_ms = self.behind_ms(now_ms);
        LinkReport {
            name: name.to_owned(),
            peer: self.peer.clone(),
            direction,
            state: self.state,
            connected: self.connected,
            position: self.position.map(Into::into),
            head: self.head,
            changes_behind: self.changes_behind(log),
            seconds_behind: behind_ms.map(|ms| ms as f64 / 1_000.0),
            as_of_ms: behind_ms.map(|ms| now_ms - ms),
            last_error: self.error.clone(),
        }
    }
}
