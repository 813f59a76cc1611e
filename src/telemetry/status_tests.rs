//! What the status says, by what it was told.

use std::sync::Arc;

use super::status::{PEER_GONE_MS, SILENCE_MS};
use super::{Board, Direction, Heard, LinkState, StatusReport, TableReport, TableState};
use crate::model::{Epoch, LogTail, ManualClock, NodeId, Position, Trouble};

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

fn trouble(code: &str) -> Trouble {
    Trouble { code: code.to_owned(), message: "x".to_owned(), hint: "y".to_owned() }
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
fn the_first_change_after_a_pause_is_not_as_old_as_the_pause() {
    let (board, clock) = board();
    let link = board.link("source", Direction::Receive, None);
    link.connected(true);
    link.applied(at(5), 3_600_000 + 1_000_000);
    clock.set(2_000_000);
    link.heartbeat(heard(5, None, 2_000_000));
    clock.set(2_000_300);
    link.head(6);
    assert_eq!(behind(&board), Some(0.3), "when the peer was last heard, nothing waited");
}

#[test]
fn our_log_goes_on_while_a_replica_is_away() {
    let (board, _) = board();
    let link = board.link("replica", Direction::Send, None);
    let _other = board.link("source", Direction::Receive, None);
    link.position(at(5));
    board.set_log_tail(LogTail::new((1, 9), vec![1, 3, 5, 7, 8]));
    let heads: Vec<_> = board.report().links.iter().map(|link| (link.head, link.changes_behind)).collect();
    assert_eq!(heads, [(Some(9), Some(2)), (None, None)], "an update of two entries, and an insert of two");
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
    assert!(!board.report().healthy, "it connects, and that is all");
    receive.heartbeat(heard(7, None, 1_000_000 + PEER_GONE_MS));
    assert!(!board.report().healthy, "there are changes, and none was applied");
    receive.position(at(7));
    receive.heartbeat(heard(7, None, 1_000_000 + PEER_GONE_MS));
    assert!(board.report().healthy, "the archive is away, and that is its own affair");
    receive.trouble(&trouble("divergence"), LinkState::Halted, None);
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
    link.goes_on(LinkState::BetweenTransactions, true);
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

/// A command may settle what a window recorded before the receiver has told of it: the count stayed one too high.
#[test]
fn conflicts_that_are_settled_before_they_are_told_of_are_not_counted() {
    let (board, _) = board();
    board.set_conflicts(2);
    board.settle_conflicts(3);
    assert_eq!(board.report().conflicts, 0);
    board.add_conflicts(1);
    assert_eq!(board.report().conflicts, 0);
}

/// Two heartbeats a second woke whoever watched the board, who then made a report of every table to find nothing new.
#[test]
fn a_heartbeat_that_tells_nothing_new_wakes_nobody() {
    let (board, _) = board();
    let link = board.link("peer", Direction::Receive, None);
    let say = |head, at_ms| {
        link.goes_on(LinkState::Live, false);
        link.head(head);
        link.position(at(5));
        link.heartbeat(heard(head, None, at_ms));
    };
    say(5, 1_000);
    let mut changes = board.subscribe();
    changes.mark_unchanged();
    say(5, 2_000);
    assert!(!changes.has_changed().expect("the board lives"));
    say(6, 3_000);
    assert!(changes.has_changed().expect("the board lives"));
}

/// A session begins well on a full disk each time, and where both ends write the other direction goes well: the status said
/// "connecting" and the log that the link was live, again and again.
#[test]
fn what_stopped_a_direction_is_told_at_both_until_that_one_has_gone_on() {
    let (board, _) = board();
    let [send, receive] = [Direction::Send, Direction::Receive].map(|way| board.link("peer", way, None));
    let said = || board.report().links.iter().map(|link| (link.state, link.last_error.is_some())).collect::<Vec<_>>();
    let session = |reached: i64, brought: bool| {
        for link in [&send, &receive] {
            link.connected(true);
        }
        send.head(3);
        send.position(at(3));
        send.goes_on(LinkState::Live, false);
        receive.head(9);
        receive.position(at(reached));
        receive.goes_on(LinkState::Live, brought);
    };
    let fail = |state, failed| {
        for link in [&send, &receive] {
            assert!(link.connected(false), "there was a session");
            link.trouble(&trouble("disk_full"), state, failed);
        }
    };
    for stopped in [LinkState::Waiting, LinkState::Halted] {
        session(9, true);
        assert_eq!(said(), [(LinkState::Live, false); 2]);
        fail(stopped, Some(Direction::Receive));
        for _ in 0..3 {
            session(5, false);
            assert_eq!(said(), [(stopped, true); 2], "only the other direction went on");
            fail(stopped, Some(Direction::Receive));
        }
        // Once with rows, once with nothing left.
        session(if stopped == LinkState::Waiting { 7 } else { 9 }, stopped == LinkState::Waiting);
        assert_eq!(said(), [(LinkState::Live, false); 2]);
    }
    fail(LinkState::Connecting, None);
    send.connected(true);
    send.goes_on(LinkState::Live, false);
    assert_eq!(said(), [(LinkState::Live, false), (LinkState::Connecting, true)], "each for itself");
}

/// What had been so once was told for as long as the process ran, and nothing said when it was.
#[test]
fn what_stands_goes_when_it_is_over_and_what_happened_has_its_time_and_goes_after_a_day() {
    let (board, clock) = board();
    board.stands("t", Some("table t is too large".to_owned()));
    board.note("table t was made anew");
    let event = "1970-01-01 00:16:40 UTC: table t was made anew";
    assert_eq!(board.report().notes, ["table t is too large", event]);
    let mut changes = board.subscribe();
    changes.mark_unchanged();
    board.stands("t", Some("table t is too large".to_owned()));
    assert!(!changes.has_changed().expect("the board lives"), "that is known");
    board.stands("t", None);
    assert_eq!(board.report().notes, [event]);
    board.stands("u", (0..60).map(|number| number.to_string()));
    (0..60).for_each(|number| board.note(format!("event {number}")));
    assert_eq!(board.report().notes.len(), 60 + 50, "of events only the newest are kept");
    clock.set(1_000_000 + 24 * 3_600_000);
    assert_eq!(board.report().notes.len(), 60);
}
