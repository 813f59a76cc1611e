//! What `status -o json` and `/status.json` say: a contract, `format: 1`.
//!
//! Fields are only ever added. Ids and epochs are 64-bit numbers and stand here as hexadecimal text, because many JSON
//! readers keep 53 bits of a number. `null` means "not known": a lag of 0 is only said where 0 is known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Position, Trouble};

/// The version of the contract.
pub const FORMAT: u32 = 1;

/// Everything about one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// [`FORMAT`].
    pub format: u32,
    /// Who it is.
    pub node: NodeReport,
    /// False where a link is halted, or a receiving link has been without its peer for 60 s; where an output of events is
    /// stopped, or has not been taking them for 60 s.
    pub healthy: bool,
    /// One entry for each link and direction.
    pub links: Vec<LinkReport>,
    /// One entry for each output or other consumer of events.
    #[serde(default)]
    pub events: Vec<EventsReport>,
    /// The tables that travel, and those that do not with the reason.
    pub tables: Vec<TableReport>,
    /// The change log; `null` on a node that captures nothing.
    pub log: Option<LogReport>,
    /// Conflicts recorded in the database.
    pub conflicts: u64,
    /// Rows that break a foreign key after a merge; they are among the conflicts. At most [`BROKEN_SHOWN_MAX`] are named.
    #[serde(default)]
    pub foreign_keys: Vec<BrokenReport>,
    /// What a person should know and nothing else says: what holds, and, each with its time at the front, what happened in
    /// the last day, such as a column of the replica's that did not survive.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The node's counters; empty where no process runs.
    #[serde(default)]
    pub metrics: BTreeMap<String, u64>,
}

/// Rows with broken foreign keys that are named; `twinlite conflicts list` has all.
pub const BROKEN_SHOWN_MAX: usize = 50;

/// A row that breaks a foreign key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenReport {
    /// Its table.
    pub table: String,
    /// Its key, as text.
    pub key: String,
    /// The table that it refers to.
    pub refers_to: String,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The configured name.
    pub name: String,
    /// The id that its database keeps; `null` before it has one.
    pub id: Option<String>,
    /// Of the binary.
    pub version: String,
    /// Its database.
    pub database: String,
}

/// Which way changes go, seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Ours go to the peer.
    Send,
    /// The peer's come here.
    Receive,
}

/// What a link is doing in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Without a session.
    Connecting,
    /// A table is being copied.
    Snapshot,
    /// Something stands in the way that may pass by itself, such as a full disk; the last error says what. It is tried again
    /// until it has passed.
    Waiting,
    /// Everything is copied; changes flow.
    Live,
    /// A window that was split is applied in part: a reader may see half of the source's transactions.
    BetweenTransactions,
    /// Stopped until a person acts; the last error says how.
    Halted,
    /// No process runs; what is said comes from the database alone.
    Offline,
}

impl LinkState {
    /// As in the contract.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Snapshot => "snapshot",
            Self::Waiting => "waiting",
            Self::Live => "live",
            Self::BetweenTransactions => "between_transactions",
            Self::Halted => "halted",
            Self::Offline => "offline",
        }
    }
}

/// One direction of one link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    /// The link's name, which is the peer node's.
    pub name: String,
    /// Where the peer is; `null` while a peer that dials us has not come.
    pub peer: Option<String>,
    /// Which way.
    pub direction: Direction,
    /// What it is doing.
    pub state: LinkState,
    /// Whether there is a session.
    pub connected: bool,
    /// Up to where the sender's log is applied at the receiver.
    pub position: Option<PositionReport>,
    /// The end of the sender's log, as last heard.
    pub head: Option<i64>,
    /// Changes between the two: where the sender's log has images, a receiver counts its entries. `null` where `position` is only
    /// what was noted, and that is not the end.
    pub changes_behind: Option<u64>,
    /// Where no process runs, and the peer may have more than is known here: when `position` was noted, ms since 1970.
    #[serde(default)]
    pub noted_ms: Option<i64>,
    /// The age of the oldest change that is not applied; without a connection at least the time since the last
    /// heartbeat; `null` where nothing is known.
    pub seconds_behind: Option<f64>,
    /// The moment whose state the receiver shows, ms since 1970 by this machine's clock.
    pub as_of_ms: Option<i64>,
    /// What went wrong last and still matters.
    pub last_error: Option<Trouble>,
}

/// What an output of events is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventsState {
    /// It has not begun to read.
    Starting,
    /// Rows that were there are handed over.
    Bootstrap,
    /// Changes are handed over as they come.
    Live,
    /// A batch was not taken and is tried again.
    Retrying,
    /// It ended until a person acts; the last error says how.
    Stopped,
    /// No process runs it; what is said comes from the database alone.
    Offline,
    /// Another process than the one that answers runs it, which alone knows how it is doing.
    Running,
}

impl EventsState {
    /// As in the contract.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Bootstrap => "bootstrap",
            Self::Live => "live",
            Self::Retrying => "retrying",
            Self::Stopped => "stopped",
            Self::Offline => "offline",
            Self::Running => "running",
        }
    }
}

/// One output of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsReport {
    /// The consumer's name.
    pub name: String,
    /// Where its events go: `-`, `json`, or a URL without its query; `null` where the process that answers does not run it.
    pub output: Option<String>,
    /// What it is doing.
    pub state: EventsState,
    /// Up to where in the log its events were taken.
    pub position: Option<PositionReport>,
    /// The end of the log.
    pub head: Option<i64>,
    /// Changes between the two, of whatever tables; estimated beyond the newest thousand entries.
    pub changes_behind: Option<u64>,
    /// Events that were taken since the process began.
    pub events: u64,
    /// When a batch was taken last, ms since 1970.
    pub last_success_ms: Option<i64>,
    /// Since when the batch at hand is not taken.
    pub failing_since_ms: Option<i64>,
    /// How often it was tried since then.
    pub failed_tries: u64,
    /// What went wrong last and still matters.
    pub last_error: Option<Trouble>,
}

/// A position, for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionReport {
    /// Which log, in hexadecimal.
    pub epoch: String,
    /// Which entry of it.
    pub seq: i64,
}

impl From<Position> for PositionReport {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch.to_string(), seq: position.seq }
    }
}

/// What is happening to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    /// Its copy has not begun.
    Pending,
    /// It is being copied.
    Snapshot,
    /// Whole; changes keep it equal.
    Live,
    /// It does not travel; `skipped_because` says why.
    Skipped,
    /// Dropped at the source, kept here (`migrate_mode: safe`).
    Kept,
}

impl TableState {
    /// As in the contract.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Snapshot => "snapshot",
            Self::Live => "live",
            Self::Skipped => "skipped",
            Self::Kept => "kept",
        }
    }
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    /// Its name.
    pub name: String,
    /// The link that it travels by; `null` for a table of this node's own.
    pub link: Option<String>,
    /// What is happening to it.
    pub state: TableState,
    /// Rows copied so far, where it is copied.
    pub rows_copied: u64,
    /// Rows that it has, an estimate; `null` where there is none.
    pub rows_total: Option<u64>,
    /// The id of its generation, in the database that owns it.
    pub generation: Option<i64>,
    /// Why it does not travel.
    pub skipped_because: Option<String>,
}

impl TableReport {
    /// A table in that state, nothing else known.
    pub fn new(name: impl Into<String>, state: TableState) -> Self {
        Self {
            name: name.into(),
            link: None,
            state,
            rows_copied: 0,
            rows_total: None,
            generation: None,
            skipped_because: None,
        }
    }

    /// A table that does not travel.
    pub fn skipped(name: impl Into<String>, because: impl Into<String>) -> Self {
        Self { skipped_because: Some(because.into()), ..Self::new(name, TableState::Skipped) }
    }
}

/// The change log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReport {
    /// Entries in it.
    pub rows: u64,
    /// What they occupy, an estimate.
    pub bytes: u64,
}

/// A moment as text, such as `2026-07-28 14:03:07 UTC`: the standard library knows no time zones, and logs are in UTC too.
pub fn utc(ms: i64) -> String {
    let moment = chrono::DateTime::from_timestamp_millis(ms).unwrap_or_default();
    moment.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
