//! How outputs of events are doing: their part of the status board.

use super::report::{EventsReport, EventsState};
use super::status::{Board, PEER_GONE_MS};
use crate::model::{Position, Trouble};

/// What is known of one output.
pub(super) struct Output {
    to: String,
    state: EventsState,
    position: Option<Position>,
    head: Option<i64>,
    events: u64,
    last_success_ms: Option<i64>,
    failing_since_ms: Option<i64>,
    failed_tries: u64,
    error: Option<Trouble>,
}

impl Output {
    fn new(to: &str) -> Self {
        Self {
            to: to.to_owned(),
            state: EventsState::Starting,
            position: None,
            head: None,
            events: 0,
            last_success_ms: None,
            failing_since_ms: None,
            failed_tries: 0,
            error: None,
        }
    }

    /// The log goes on up to there.
    pub(super) fn heard_head(&mut self, head: i64) {
        self.head = Some(self.head.unwrap_or(head).max(head));
    }

    /// Neither stopped, nor failing for a minute: as for links, what passes by itself is no illness.
    pub(super) fn is_healthy(&self, now_ms: i64) -> bool {
        let failing = self.failing_since_ms.is_some_and(|since_ms| now_ms - since_ms >= PEER_GONE_MS);
        self.state != EventsState::Stopped && !failing
    }

    pub(super) fn report(&self, name: &str) -> EventsReport {
        let behind = self.head.zip(self.position).map(|(head, position)| head.saturating_sub(position.seq));
        let retrying = self.failing_since_ms.is_some() && self.state != EventsState::Stopped;
        EventsReport {
            name: name.to_owned(),
            output: Some(self.to.clone()),
            state: if retrying { EventsState::Retrying } else { self.state },
            position: self.position.map(Into::into),
            head: self.head,
            changes_behind: behind.map(|behind| u64::try_from(behind).unwrap_or(0)),
            noted_ms: None,
            events: self.events,
            last_success_ms: self.last_success_ms,
            failing_since_ms: self.failing_since_ms,
            failed_tries: self.failed_tries,
            last_error: self.error.clone(),
        }
    }

    fn is_over(&mut self) {
        (self.failing_since_ms, self.failed_tries, self.error) = (None, 0, None);
    }
}

/// Where one output says how it is doing.
#[derive(Clone)]
pub struct EventsHandle {
    board: Board,
    name: String,
}

impl EventsHandle {
    pub(super) fn new(board: Board, name: &str, to: &str) -> Self {
        board.update_outputs(|outputs, _| {
            outputs.entry(name.to_owned()).or_insert_with(|| Output::new(to));
        });
        Self { board, name: name.to_owned() }
    }

    /// What it is doing. From [`EventsState::Stopped`] it comes back only by this.
    pub fn state(&self, state: EventsState) {
        self.update(|output, _| {
            if output.state == EventsState::Stopped {
                output.is_over();
            }
            output.state = state;
        });
    }

    /// It goes well: what it is doing, how many more events were taken, up to where in the log, and where that ends.
    pub fn progress(&self, (state, more): (EventsState, u64), position: Position, head: i64) {
        self.update(|output, now_ms| {
            (output.state, output.position) = (state, Some(position));
            output.heard_head(head);
            output.events = output.events.saturating_add(more);
            output.is_over();
            if more > 0 {
                output.last_success_ms = Some(now_ms);
            }
        });
    }

    /// A try to hand over a batch failed, and will be repeated, or has been for as long as was said.
    pub fn failed(&self, trouble: Trouble) {
        self.update(|output, now_ms| {
            output.failing_since_ms.get_or_insert(now_ms);
            output.failed_tries = output.failed_tries.saturating_add(1);
            output.error = Some(trouble);
        });
    }

    /// A batch was taken: what failed before it is over.
    pub fn taken(&self) {
        self.update(|output, now_ms| {
            output.last_success_ms = Some(now_ms);
            output.is_over();
        });
    }

    /// It stopped, and why.
    pub fn stopped(&self, trouble: Trouble) {
        self.update(|output, _| (output.state, output.error) = (EventsState::Stopped, Some(trouble)));
    }

    fn update(&self, change: impl FnOnce(&mut Output, i64)) {
        self.board.update_outputs(|outputs, now_ms| {
            change(outputs.get_mut(&self.name).expect("outputs are never removed"), now_ms);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Epoch, ManualClock};

    fn trouble(message: &str) -> Trouble {
        Trouble { code: "webhook_status".into(), message: message.into(), hint: String::new() }
    }

    fn board() -> (Arc<ManualClock>, Board, EventsHandle) {
        let clock = Arc::new(ManualClock::at(1_000));
        let board = Board::new("a", "a.db", Arc::<ManualClock>::clone(&clock));
        let handle = board.events("search", "https://example.org/hook");
        (clock, board, handle)
    }

    fn report(board: &Board) -> (bool, EventsReport) {
        let mut report = board.report();
        assert_eq!(report.events.len(), 1);
        (report.healthy, report.events.remove(0))
    }

    #[test]
    fn an_outage_is_told_with_its_beginning_and_its_tries_until_a_batch_is_taken() {
        let (clock, board, handle) = board();
        handle.state(EventsState::Live);
        handle.failed(trouble("answered 500"));
        clock.set(60_999);
        handle.failed(trouble("answered 503"));
        let (healthy, events) = report(&board);
        assert!(healthy, "it may pass by itself");
        assert_eq!(
            (events.state, events.failing_since_ms, events.failed_tries),
            (EventsState::Retrying, Some(1_000), 2)
        );
        assert_eq!(events.last_error, Some(trouble("answered 503")));
        clock.set(61_000);
        assert!(!report(&board).0, "it lasts");
        handle.taken();
        let (healthy, events) = report(&board);
        assert!(healthy);
        assert_eq!((events.state, events.last_success_ms, events.failed_tries), (EventsState::Live, Some(61_000), 0));
        assert_eq!((events.failing_since_ms, events.last_error), (None, None));
    }

    #[test]
    fn a_stopped_output_is_unhealthy_until_it_is_started_again() {
        let (_clock, board, handle) = board();
        handle.failed(trouble("answered 500"));
        handle.stopped(trouble("gave up"));
        let (healthy, events) = report(&board);
        assert_eq!((healthy, events.state, events.last_error), (false, EventsState::Stopped, Some(trouble("gave up"))));
        handle.state(EventsState::Starting);
        let (healthy, events) = report(&board);
        assert_eq!((healthy, events.state, events.last_error), (true, EventsState::Starting, None));
    }

    #[test]
    fn how_far_it_is_behind_grows_with_the_log() {
        let (_clock, board, handle) = board();
        assert_eq!(report(&board).1.changes_behind, None, "nothing is known");
        let position = Position { epoch: Epoch(1), seq: 7 };
        handle.progress((EventsState::Bootstrap, 5), position, 8);
        handle.progress((EventsState::Live, 2), position, 8);
        board.set_log_head(10);
        let events = report(&board).1;
        assert_eq!((events.head, events.changes_behind, events.events), (Some(10), Some(3), 7));
        assert_eq!((events.state, events.last_success_ms), (EventsState::Live, Some(1_000)));
    }
}
