//! The board on which every part of a node writes how it is doing.
//!
//! `replicate` feeds it through a [`LinkHandle`] for each link and direction; the command line, the admin socket and HTTP
//! read a [`StatusReport`] from it. Setters are cheap (a short lock, no allocation to speak of), so that they can be
//! called for every window; readers wait on [`Board::subscribe`].
//!
//! Invariants:
//! * A lag of 0 is said only while the peer is heard from and everything it told of is applied. Silence counts as lag.
//! * A link is unhealthy while it is halted, and a receiving one also when its peer has been gone for [`PEER_GONE_MS`].
//!   A sender whose receiver is away is healthy, and its lag says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Metrics;
use super::report::{
    Direction, FORMAT, LinkReport, LinkState, LogReport, NodeReport, StatusReport, TableReport, TableState,
};
use crate::model::{Clock, NodeId, Position, Trouble};

/// For how long a receiving link may be without its peer before the node counts as unhealthy.
pub const PEER_GONE_MS: i64 = 60_000;

/// A connected peer that says nothing for this long counts, for the lag, as one that is not connected. Heartbeats come
/// every second; a busy machine may lose a few.
pub const SILENCE_MS: i64 = 5_000;

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
    captured: Vec<TableReport>,
    skipped: Vec<TableReport>,
    log: Option<LogReport>,
    conflicts: u64,
    notes: Vec<String>,
}

struct Link {
    peer: Option<String>,
    state: LinkState,
    /// Since when there has been a session, or none.
    connected: bool,
    since_ms: i64,
    position: Option<Position>,
    applied_ts_ms: Option<i64>,
    head: Option<i64>,
    heard: Option<Heard>,
    error: Option<Trouble>,
    tables: BTreeMap<String, TableReport>,
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
            captured: Vec::new(),
            skipped: Vec::new(),
            log: None,
            conflicts: 0,
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
        LinkHandle { board: self.clone(), key }
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

    /// How many conflicts are recorded.
    pub fn set_conflicts(&self, conflicts: u64) {
        self.update(|facts| facts.conflicts = conflicts);
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

    /// Wakes at every change of the board. What it carries counts the changes.
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
            healthy: facts.links.iter().all(|((_, direction), link)| link.is_healthy(*direction, now_ms)),
            links: facts.links.iter().map(|((name, direction), link)| link.report(name, *direction, now_ms)).collect(),
            tables: facts.tables(),
            log: facts.log,
            conflicts: facts.conflicts,
            notes: facts.notes.clone(),
            metrics,
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        // Every update leaves the facts whole, so a panic elsewhere while the lock was held breaks nothing.
        self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts());
        self.shared.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

impl Facts {
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
}

impl LinkHandle {
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
        self.update(|link, _| link.state = state);
    }

    /// Up to where the sender's log is applied, where the time of that entry is not known.
    pub fn position(&self, position: Position) {
        self.update(|link, _| link.position = Some(position));
    }

    /// Up to where the sender's log is applied, and the time of that entry by the sender's clock.
    pub fn applied(&self, position: Position, ts_ms: i64) {
        self.update(|link, _| (link.position, link.applied_ts_ms) = (Some(position), Some(ts_ms)));
    }

    /// The end of the sender's log, as a window said it.
    pub fn head(&self, head: i64) {
        self.update(|link, _| link.head = Some(head));
    }

    /// The peer gave a sign of life that says how far its log goes: on a receiving link its heartbeat, on a sending one
    /// what our own log says when an acknowledgement or a heartbeat came.
    pub fn heartbeat(&self, heard: Heard) {
        self.update(|link, _| (link.head, link.heard) = (Some(heard.head), Some(heard)));
    }

    /// What went wrong, or `None` once it is over.
    pub fn error(&self, error: Option<Trouble>) {
        self.update(|link, _| link.error = error);
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
        self.update(|link, _| link.tables = tables);
    }

    /// One table of the link.
    pub fn table(&self, table: TableReport) {
        let table = TableReport { link: Some(self.key.0.clone()), ..table };
        self.update(|link, _| {
            link.tables.insert(table.name.clone(), table);
        });
    }

    fn update(&self, change: impl FnOnce(&mut Link, i64)) {
        let now_ms = self.board.shared.clock.now_ms();
        self.board.update(|facts| change(facts.links.get_mut(&self.key).expect("links are never removed"), now_ms));
    }
}

impl Link {
    fn new(peer: Option<String>, now_ms: i64) -> Self {
        Self {
            peer,
            state: LinkState::Connecting,
            connected: false,
            since_ms: now_ms,
            position: None,
            applied_ts_ms: None,
            head: None,
            heard: None,
            error: None,
            tables: BTreeMap::new(),
        }
    }

    fn is_healthy(&self, direction: Direction, now_ms: i64) -> bool {
        let gone = !self.connected && now_ms - self.since_ms >= PEER_GONE_MS;
        self.state != LinkState::Halted && !(direction == Direction::Receive && gone)
    }

    fn changes_behind(&self) -> Option<u64> {
        let behind = self.head?.saturating_sub(self.position?.seq);
        Some(u64::try_from(behind).unwrap_or(0))
    }

    /// The age in ms of the oldest change that is not applied, never less than what is known.
    fn behind_ms(&self, now_ms: i64) -> Option<i64> {
        let heard = self.heard?;
        let silence_ms = (now_ms - heard.at_ms).max(0);
        let lag_ms = match self.changes_behind()? {
            0 => 0,
            _ => self.oldest_age_ms(heard, silence_ms),
        };
        let is_heard = self.connected && silence_ms < SILENCE_MS;
        Some(if is_heard { lag_ms } else { lag_ms.max(silence_ms) })
    }

    /// Two upper bounds of the same: what the sender said was waiting, and that nothing which waits is older than what
    /// is applied. Both in the sender's clock, carried on by ours.
    fn oldest_age_ms(&self, heard: Heard, silence_ms: i64) -> i64 {
        let age_ms = |ts_ms: i64| (heard.sent_ms - ts_ms + silence_ms).max(0);
        let told = heard.behind_since_ms.map(age_ms);
        let applied = self.applied_ts_ms.map(age_ms);
        told.into_iter().chain(applied).min().unwrap_or(silence_ms)
    }

    #[expect(clippy::cast_precision_loss, reason = "a lag in ms is far below 2^53")]
    fn report(&self, name: &str, direction: Direction, now_ms: i64) -> LinkReport {
        let behind_ms = self.behind_ms(now_ms);
        LinkReport {
            name: name.to_owned(),
            peer: self.peer.clone(),
            direction,
            state: self.state,
            connected: self.connected,
            position: self.position.map(Into::into),
            head: self.head,
            changes_behind: self.changes_behind(),
            seconds_behind: behind_ms.map(|ms| ms as f64 / 1_000.0),
            as_of_ms: behind_ms.map(|ms| now_ms - ms),
            last_error: self.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, ManualClock};

    fn board() -> (Board, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(1_000_000));
        (Board::new("replica", "/data/replica.db", clock.clone()), clock)
    }

    fn at(seq: i64) -> Position {
        Position { epoch: Epoch(7), seq }
    }

    fn behind(board: &Board) -> Option<f64> {
        board.report().links[0].seconds_behind
    }

    fn heard(head: i64, behind_since_ms: Option<i64>, at_ms: i64) -> Heard {
        // The peer's clock is an hour ahead, which must not matter.
        let ahead = 3_600_000;
        Heard { head, behind_since_ms: behind_since_ms.map(|ms| ms + ahead), sent_ms: at_ms + ahead, at_ms }
    }

    #[test]
    fn lag_is_unknown_until_the_peer_is_heard() {
        let (board, _) = board();
        let link = board.link("source", Direction::Receive, None);
        assert_eq!(behind(&board), None);
        link.connected(true);
        link.position(at(5));
        assert_eq!(behind(&board), None, "a connection says nothing about the log");
        link.heartbeat(heard(5, None, 1_000_000));
        assert_eq!(behind(&board), Some(0.0));
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_change_that_is_not_applied() {
        let (board, clock) = board();
        let link = board.link("source", Direction::Receive, None);
        link.connected(true);
        link.applied(at(5), 3_600_000 + 990_000);
        link.heartbeat(heard(8, Some(998_000), 1_000_000));
        clock.set(1_000_500);
        let report = &board.report().links[0];
        assert_eq!((report.seconds_behind, report.changes_behind), (Some(2.5), Some(3)));
        assert_eq!(report.as_of_ms, Some(998_000));
        link.applied(at(7), 3_600_000 + 999_900);
        assert_eq!(behind(&board), Some(0.6), "what is applied by now was not the oldest one");
        link.applied(at(8), 3_600_000 + 999_950);
        assert_eq!(behind(&board), Some(0.0));
    }

    #[test]
    fn a_silent_or_absent_peer_is_lag() {
        let (board, clock) = board();
        let link = board.link("source", Direction::Receive, None);
        link.connected(true);
        link.applied(at(8), 4_000_000);
        link.heartbeat(heard(8, None, 1_000_000));
        clock.set(1_000_000 + SILENCE_MS - 1);
        assert_eq!(behind(&board), Some(0.0));
        clock.set(1_000_000 + SILENCE_MS);
        assert_eq!(behind(&board), Some(5.0), "connected, but nothing is heard");
        clock.set(1_002_000);
        link.connected(false);
        assert_eq!(behind(&board), Some(2.0));
        assert_eq!(board.report().links[0].state, LinkState::Connecting);
    }

    #[test]
    fn only_a_halt_and_a_receiver_without_its_peer_are_unhealthy() {
        let (board, clock) = board();
        let receive = board.link("source", Direction::Receive, None);
        let _send = board.link("archive", Direction::Send, None);
        clock.set(1_000_000 + PEER_GONE_MS - 1);
        assert!(board.report().healthy);
        clock.set(1_000_000 + PEER_GONE_MS);
        assert!(!board.report().healthy);
        receive.connected(true);
        assert!(board.report().healthy, "the archive is away, and that is its own affair");
        receive.halt(Trouble { code: "divergence".into(), message: "x".into(), hint: "y".into() });
        assert!(!board.report().healthy);
        receive.connected(false);
        assert_eq!(board.report().links[1].state, LinkState::Halted, "a halt outlives its session");
    }

    #[test]
    fn a_table_is_listed_once_and_skipped_ones_say_why() {
        let (board, _) = board();
        board.set_captured([("a".to_owned(), Some(1)), ("b".to_owned(), Some(2))]);
        board.set_skipped([("v".to_owned(), "it is virtual".to_owned())]);
        let link = board.link("replica", Direction::Send, None);
        link.table(TableReport { rows_copied: 3, ..TableReport::new("a", TableState::Snapshot) });
        let tables = board.report().tables;
        let said: Vec<_> = tables.iter().map(|table| (table.name.as_str(), table.state)).collect();
        assert_eq!(said, [("a", TableState::Snapshot), ("b", TableState::Live), ("v", TableState::Skipped)]);
        assert_eq!(tables[0].link.as_deref(), Some("replica"));
        assert_eq!(tables[2].skipped_because.as_deref(), Some("it is virtual"));
    }

    #[test]
    fn the_contract_is_spelled_as_promised() {
        let (board, _) = board();
        board.set_node(NodeId(0x2a));
        let link = board.link("source", Direction::Receive, Some("source:7745"));
        link.position(at(5));
        link.state(LinkState::BetweenTransactions);
        let json = serde_json::to_value(board.report()).expect("serializes");
        assert_eq!(json["format"], 1);
        assert_eq!(json["node"]["id"], "000000000000002a");
        assert_eq!(json["links"][0]["direction"], "receive");
        assert_eq!(json["links"][0]["state"], "between_transactions");
        assert_eq!(json["links"][0]["position"]["seq"], 5);
        assert!(json["links"][0]["seconds_behind"].is_null());
        assert!(json["log"].is_null());
        let back: StatusReport = serde_json::from_value(json).expect("reads its own words");
        assert_eq!(back, board.report());
    }

    #[test]
    fn a_change_of_the_board_wakes_its_readers() {
        let (board, _) = board();
        let mut changes = board.subscribe();
        changes.mark_unchanged();
        board.set_conflicts(1);
        assert!(changes.has_changed().expect("the board lives"));
    }
}
