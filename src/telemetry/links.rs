//! How links are doing, each direction of one: their part of the status board.
//!
//! Invariants:
//! * What stopped a direction stays on the board, at both directions of its link, until that direction has gone on: a
//!   window that brought something was committed, or nothing is left to come. That the next session begins well says
//!   nothing: on a full disk it does each time.

use std::collections::BTreeMap;

use super::copying::{Copied, Copying};
use super::report::{Direction, LinkReport, LinkState, TableReport};
use super::status::{Board, Heard, PEER_GONE_MS, SILENCE_MS};
use crate::model::{LogTail, Position, Trouble};

/// How old a session is when a heartbeat alone shows that it goes well, though nothing was applied: what fails at once
/// each time fails sooner.
const SESSION_GOOD_MS: i64 = 10_000;

/// What is known of one direction of a link.
pub(super) struct Link {
    peer: Option<String>,
    state: LinkState,
    /// Since when there has been a session, or none.
    connected: bool,
    since_ms: i64,
    /// When it last went well: something was applied, or the peer said that nothing is to be.
    well_ms: i64,
    position: Option<Position>,
    applied_ts_ms: Option<i64>,
    pub(super) head: Option<i64>,
    heard: Option<Heard>,
    error: Option<Trouble>,
    held: Option<Held>,
    pub(super) tables: BTreeMap<String, TableReport>,
    copying: Copying,
    /// Whether the log says how it is doing.
    logs: bool,
}

/// Every direction of every link.
pub(super) type Links = BTreeMap<(String, Direction), Link>;

/// Why a direction's error does not go away by itself.
struct Held {
    /// The direction that failed, and must go on first.
    by: Direction,
    /// What this one does from then on.
    then: LinkState,
}

/// Where one direction of one link says how it is doing.
#[derive(Clone)]
pub struct LinkHandle {
    board: Board,
    key: (String, Direction),
}

impl LinkHandle {
    pub(super) fn new(board: Board, name: &str, direction: Direction, peer: Option<&str>) -> Self {
        let key = (name.to_owned(), direction);
        board.update_links(|links, now_ms| {
            links.entry(key.clone()).or_insert_with(|| Link::new(peer.map(str::to_owned), now_ms));
            Some(())
        });
        Self { board, key }
    }

    /// The same; from now on the log says nothing of this direction: the peer's end does, and logs into the same place.
    #[must_use]
    pub fn quietly(self) -> Self {
        self.update_if(|link, _| {
            link.logs = false;
            None::<()>
        });
        self
    }

    /// The board that it writes on.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Where the peer is.
    pub fn peer(&self, address: &str) {
        self.update(|link, _| link.peer = Some(address.to_owned()));
    }

    /// A session began, or ended. Ending one leaves a link that neither waits nor is halted `connecting`. Says whether there
    /// was one.
    pub fn connected(&self, connected: bool) -> bool {
        let mut was = false;
        self.update(|link, now_ms| {
            was = link.connected;
            if was != connected {
                (link.connected, link.since_ms) = (connected, now_ms);
            }
            if !connected && ![LinkState::Halted, LinkState::Waiting].contains(&link.state) {
                link.state = LinkState::Connecting;
            }
            if let Some(held) = link.held.as_mut().filter(|_| !connected) {
                held.then = LinkState::Connecting;
            }
        });
        was
    }

    fn tell_live(&self) {
        tracing::info!(link = self.key.0, "link is live: every table is copied, changes follow");
    }

    /// What stands in the way, and what the link does meanwhile. `failed`: the direction that met it while windows flowed;
    /// then it stays until that one has gone on ([`Self::goes_on`]).
    pub fn trouble(&self, trouble: &Trouble, state: LinkState, failed: Option<Direction>) {
        self.update(|link, _| {
            link.held = failed.map(|by| Held { by, then: LinkState::Connecting });
            (link.state, link.error) = (state, Some(trouble.clone()));
        });
    }

    /// A window was committed: what the link does now. `brought`: whether rows came with one, or it led further in the log.
    /// What stood in the way of this direction is over then, or where nothing is left to come; for the other one, too.
    pub fn goes_on(&self, state: LinkState, brought: bool) {
        let is_live = self.board.update_links(|links, _| {
            let (name, direction) = &self.key;
            let link = links.get_mut(&self.key).expect("links are never removed");
            let is_over = brought || (state == LinkState::Live && link.is_up_to_date());
            match &mut link.held {
                Some(held) if held.by != *direction || !is_over => {
                    held.then = state;
                    return None;
                }
                Some(_) | None => {}
            }
            let (was_held, had_error) = (link.held.take().is_some(), link.error.take().is_some());
            let mut changes = [had_error.then_some(false), link.becomes(state), None];
            let other = [Direction::Send, Direction::Receive].into_iter().find(|other| other != direction);
            let other = other.and_then(|other| links.get_mut(&(name.clone(), other))).filter(|_| was_held);
            if let Some(other) = other
                && let Some(held) = other.held.take()
            {
                other.error = None;
                changes[2] = other.becomes(held.then);
            }
            changes.into_iter().flatten().reduce(|one, other| one || other)
        });
        if is_live == Some(true) {
            self.tell_live();
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

    /// All tables of the link; they replace what was said before.
    pub fn tables(&self, tables: impl IntoIterator<Item = TableReport>) {
        let by_name =
            |table: TableReport| (table.name.clone(), TableReport { link: Some(self.key.0.clone()), ..table });
        let tables = tables.into_iter().map(by_name).collect();
        let mut copied = Vec::new();
        self.update(|link, now_ms| {
            let before = std::mem::replace(&mut link.tables, tables);
            copied = link.copying.whole(&before, &link.tables, (link.connected, now_ms));
            copied.retain(|_| link.logs);
        });
        for Copied { table, rows, seconds } in copied {
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
        self.board
            .update_links(|links, now_ms| change(links.get_mut(&self.key).expect("links are never removed"), now_ms))
    }
}

impl Link {
    /// Says, where it did something else before, whether the log is to tell that it is live.
    fn becomes(&mut self, state: LinkState) -> Option<bool> {
        let before = std::mem::replace(&mut self.state, state);
        let flowed = [LinkState::Live, LinkState::BetweenTransactions].contains(&before);
        (before != state).then_some(self.logs && state == LinkState::Live && !flowed)
    }

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
            held: None,
            tables: BTreeMap::new(),
            copying: Copying::default(),
            logs: true,
        }
    }

    pub(super) fn is_healthy(&self, direction: Direction, now_ms: i64) -> bool {
        let gone = now_ms - self.well_ms >= PEER_GONE_MS;
        self.state != LinkState::Halted && !(direction == Direction::Receive && gone)
    }

    fn changes_behind(&self, log: &LogTail) -> Option<u64> {
        Some(log.changes(self.position?.seq, self.head?))
    }

    /// Whether nothing is left to come, as far as is known.
    fn is_up_to_date(&self) -> bool {
        self.changes_behind(&LogTail::default()) == Some(0)
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
    pub(super) fn report(&self, name: &str, (direction, ours): (Direction, &LogTail), now_ms: i64) -> LinkReport {
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
            noted_ms: None,
            last_error: self.error.clone(),
        }
    }
}
