//! Windows merged one by one: clocks that are ahead, set back or standing still, and an index that only one end has. Time here
//! is what a test says it is.

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization, TransactionOperation};

use super::super::testing::{Peer, Replica, Said};
use super::super::{Recapture, SourceError};
use super::{How, MergeRules, Policies, Policy};
use crate::model::{Fault, Key, NodeId, Value, Version};
use crate::sqlite;
use crate::sqlite::store::{self, meta_key};

/// How far ahead a change may be.
const SKEW_MS: i64 = 1_000;

/// Two nodes that both write `t`. The replica is a hub, so that what it accepts is in its log.
struct Pair {
    peer: Peer,
    replica: Replica,
}

impl Pair {
    fn new() -> Self {
        let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";
        let (peer, mut replica) = (Peer::new(ddl), Replica::new());
        let policies = Policies { default: Policy::LastWriteWins, tables: Vec::new() };
        replica.rules.adopt = true;
        let our_name = "us".to_owned();
        let rules = MergeRules { our_name, forwards: true, one_way: false, policies, clock_skew_max_ms: SKEW_MS };
        replica.rules.merge = Some(rules);
        replica.run(&format!(
            "{ddl}; {}
             CREATE TABLE __cdc_log(seq INTEGER PRIMARY KEY, ts, tbl, op, origin, oseq, via, k0);
             INSERT INTO __cdc_tables(id, name, columns, key, ddl, indexes) VALUES (1, 't', '', 'id', '', '');",
            store::CAPTURE_TABLES
        ));
        let look = replica.look();
        store::set_meta(&look, meta_key::EPOCH, 1).expect("epoch");
        store::set_meta(&look, meta_key::LOG_TABLE, "__cdc_log").expect("log");
        let mut pair = Self { peer, replica };
        let first = pair.peer.first(pair.peer.catalog());
        pair.replica.apply(first).expect("first contact");
        // A process that has just begun: what it keeps in temporary tables is still to be made.
        pair.replica.reopen();
        pair
    }

    /// The same with a peer that only sends.
    fn with_a_sender() -> Self {
        let mut pair = Self::new();
        pair.replica.rules.merge.as_mut().expect("it merges").one_way = true;
        pair
    }

    fn conflicts(&self) -> i64 {
        self.number("SELECT count(*) FROM __cdc_conflicts")
    }

    /// What the peer says, which has seen nothing of ours, is applied.
    fn hear(&mut self, row: (i64, &str), at_ms: i64) {
        let window = self.said(row, at_ms, 0);
        self.replica.apply(window).expect("apply");
    }

    /// An application's write at the replica, logged as the triggers log it.
    fn write(&self, id: i64, v: &str) -> Version {
        let look = self.replica.look();
        look.execute("INSERT OR REPLACE INTO t VALUES (?1, ?2)", (id, v)).expect("write");
        let time = "max(?2, coalesce((SELECT value FROM __cdc_meta WHERE key = 'hlc'), 0),
            coalesce((SELECT ts FROM __cdc_log ORDER BY seq DESC LIMIT 1), 0))";
        let sql = format!("INSERT INTO __cdc_log(ts, tbl, op, k0) VALUES ({time}, 1, 2, ?1)");
        look.execute(&sql, (id, self.replica.now_ms)).expect("log");
        self.versions(id).pop().expect("it was just logged")
    }

    /// What the peer says, in a session of its own, of a row that it changed at that time, having seen our log up to `seen`.
    fn said(&mut self, (id, v): (i64, &str), at_ms: i64, seen: i64) -> Said {
        self.peer.at_ms = at_ms;
        self.peer.conn.execute("INSERT OR REPLACE INTO t VALUES (?1, ?2)", (id, v)).expect("the peer writes");
        let mut items = self.peer.catalog();
        items.push(self.peer.upserts("t", &format!("id = {id}")));
        let mut window = self.peer.next(items);
        window.end.seen = seen;
        window
    }

    fn number(&self, sql: &str) -> i64 {
        self.replica.look().query_row(sql, [], |row| row.get(0)).expect("a number")
    }

    fn head(&self) -> i64 {
        self.number("SELECT coalesce(max(seq), 0) FROM __cdc_log")
    }

    fn row(&self, id: i64) -> String {
        self.replica.look().query_row("SELECT v FROM t WHERE id = ?1", [id], |row| row.get(0)).expect("a row")
    }

    /// The versions of a key in the order of our log.
    fn versions(&self, id: i64) -> Vec<Version> {
        let us = self.number("SELECT value FROM __cdc_meta WHERE key = 'node_id'");
        let look = self.replica.look();
        let sql = "SELECT ts, coalesce(origin, ?2), coalesce(oseq, seq) FROM __cdc_log WHERE k0 = ?1 ORDER BY seq";
        let mut statement = look.prepare(sql).expect("prepare");
        let read =
            |row: &rusqlite::Row<'_>| Ok(Version { ts_ms: row.get(0)?, origin: NodeId(row.get(1)?), seq: row.get(2)? });
        statement.query_map([id, us], read).expect("query").collect::<Result<_, _>>().expect("versions")
    }
}

#[test]
fn a_change_from_the_future_halts_and_goes_on_when_the_clock_is_right() {
    let mut pair = Pair::new();
    pair.replica.now_ms = 10_000;
    let held = pair.replica.held();
    let window = pair.said((1, "x"), 10_000 + SKEW_MS + 1, 0);
    for _ in 0..2 {
        let error = pair.replica.apply(window.clone()).expect_err("too far ahead");
        assert_eq!((error.word(), error.fault()), ("clock_ahead", Fault::Halt));
        let said = sqlite::said(&error);
        assert!(
            said.contains("key (1)") && said.contains("1001 ms ahead") && said.contains("max_clock_skew"),
            "{said}"
        );
        assert_eq!((pair.replica.held(), pair.number("SELECT count(*) FROM t")), (held.clone(), 0));
    }
    pair.replica.now_ms += 1;
    pair.replica.apply(window).expect("the clock has caught up");
    assert_eq!(pair.row(1), "x");
    let hlc = pair.number("SELECT value FROM __cdc_meta WHERE key = 'hlc'");
    assert!(hlc > 11_001, "what is written here from now on is later: {hlc}");
}

#[test]
fn a_wall_clock_that_is_set_back_makes_no_change_older() {
    let mut pair = Pair::new();
    pair.replica.now_ms = 50_000;
    pair.write(1, "ours");
    pair.replica.now_ms = 1_000;
    assert!(pair.write(2, "after").ts_ms >= 50_000);
    let window = pair.said((1, "older"), 1_900, 0);
    let applied = pair.replica.apply(window).expect("apply");
    assert_eq!((pair.row(1).as_str(), applied.conflicts.total()), ("ours", 1), "the versions decide, not this clock");
    // The peer has seen ours by now, and its own clock was set back as well.
    let seen = pair.head();
    let window = pair.said((1, "newer"), 1_950, seen);
    let applied = pair.replica.apply(window).expect("apply");
    assert_eq!((pair.row(1).as_str(), applied.conflicts.total()), ("newer", 0));
    let versions = pair.versions(1);
    assert!(versions.len() > 1 && versions.is_sorted() && versions[1] > versions[0], "{versions:?}");
    assert!(pair.write(1, "again") > *versions.last().expect("some"));
}

#[test]
fn a_clock_that_stands_still_orders_what_follows_all_the_same() {
    let mut pair = Pair::new();
    pair.replica.now_ms = 5_000;
    let mut last = pair.write(1, "begin");
    for round in 0..20 {
        let seen = pair.head();
        // The peer's stands still as well; like ours, it is raised by what it applied.
        let window = pair.said((1, &format!("theirs {round}")), last.ts_ms + 1, seen);
        pair.replica.apply(window).expect("apply");
        assert_eq!(pair.row(1), format!("theirs {round}"));
        let theirs = pair.versions(1).pop().expect("a hub logs it");
        let ours = pair.write(1, &format!("ours {round}"));
        assert!(theirs > last && ours > theirs, "{last:?} {theirs:?} {ours:?}");
        last = ours;
    }
    // Concurrent, at one moment: the nodes decide, and both ends alike.
    let window = pair.said((1, "last"), last.ts_ms, 0);
    let applied = pair.replica.apply(window).expect("apply");
    let wins = NodeId(5) > last.origin;
    assert_eq!((pair.row(1) == "last", applied.conflicts.total()), (wins, 1));
    assert_eq!(pair.number("SELECT count(*) FROM __cdc_conflicts"), 1);
}

#[test]
fn two_rows_that_only_an_index_of_this_end_keeps_apart_halt_the_link() {
    let mut pair = Pair::new();
    pair.replica.run("CREATE UNIQUE INDEX only_here ON t(v)");
    let window = |pair: &mut Pair| {
        pair.peer.run("INSERT OR REPLACE INTO t VALUES (1, 'x'), (2, 'x')");
        let mut items = pair.peer.catalog();
        items.push(pair.peer.upserts("t", "1"));
        pair.peer.next(items)
    };
    let window = window(&mut pair);
    let error = pair.replica.apply(window.clone()).expect_err("one of the two would go unrecorded");
    assert_eq!((error.word(), error.fault()), ("unique_only_here", Fault::Halt));
    pair.replica.run("DROP INDEX only_here");
    pair.replica.apply(window).expect("goes on");
    assert_eq!(pair.number("SELECT count(*) FROM t"), 2);
}

/// Of a peer that only sends, every window says that it has seen nothing of ours. What came from it is no conflict all the
/// same, and what did not is one.
#[test]
fn of_a_peer_that_only_sends_its_own_rows_are_no_conflict_and_all_others_are() {
    let mut pair = Pair::with_a_sender();
    pair.replica.now_ms = 1_000;
    for round in 0..5 {
        pair.hear((1, &format!("theirs {round}")), 1_000 + round);
    }
    assert_eq!((pair.conflicts(), pair.row(1).as_str()), (0, "theirs 4"));
    // What is kept of it may be pruned.
    pair.replica.run("DELETE FROM __cdc_log WHERE seq < (SELECT max(seq) FROM __cdc_log)");
    pair.write(7, "something else");
    pair.replica.run("DELETE FROM __cdc_log WHERE seq < (SELECT max(seq) FROM __cdc_log)");
    pair.hear((1, "theirs again"), 1_010);
    assert_eq!(pair.conflicts(), 0);
    // Ours, over theirs, of which it never hears; whichever is newer wins, and the other is kept.
    pair.write(1, "ours");
    pair.hear((1, "older"), 500);
    assert_eq!((pair.conflicts(), pair.row(1).as_str()), (1, "ours"));
    pair.hear((1, "newer"), 1_900);
    assert_eq!((pair.conflicts(), pair.row(1).as_str()), (2, "newer"));
    pair.hear((1, "and on"), 1_950);
    assert_eq!((pair.conflicts(), pair.row(1).as_str()), (2, "and on"), "it came from the peer");
}

/// Such a peer has seen nothing of ours, so whatever our log had of a row counted as not seen, and stayed without a word.
#[test]
fn where_a_peer_that_only_sends_wins_the_first_contact_its_rows_replace_what_was_logged_here() {
    let mut pair = Pair::with_a_sender();
    pair.replica.now_ms = 1_000;
    pair.write(1, "ours");
    pair.write(2, "ours alone");
    let peer = pair.peer.id;
    pair.replica.applier().meet_sender(peer, true, How::Replace).expect("told that it wins");
    pair.write(3, "since");
    pair.peer.run("INSERT INTO t VALUES (1, 'theirs'), (3, 'theirs')");
    let mut items = pair.peer.catalog();
    items.push(pair.peer.range("t", None, None, true));
    let window = pair.peer.next(items);
    pair.replica.apply(window).expect("the copy");
    assert_eq!(
        (pair.row(1).as_str(), pair.row(3).as_str()),
        ("theirs", "since"),
        "what was written since it was told stays"
    );
    assert_eq!((pair.number("SELECT count(*) FROM t"), pair.conflicts()), (2, 2), "what gave way is kept");
}

/// A later copy of a peer that only sends removed what had been here before anything was logged.
#[test]
fn a_copy_takes_away_what_came_from_a_peer_that_only_sends_and_not_what_nobody_knows() {
    let mut pair = Pair::with_a_sender();
    pair.replica.now_ms = 1_000;
    pair.replica.run("INSERT INTO t VALUES (7, 'from before the log')");
    for id in [1, 2] {
        pair.hear((id, "theirs"), 1_000);
    }
    pair.peer.run("DELETE FROM t WHERE id = 2");
    let whole = pair.peer.range("t", None, None, true);
    let window = pair.peer.next(vec![whole]);
    pair.replica.apply(window).expect("a repair");
    assert_eq!((pair.row(1).as_str(), pair.row(7).as_str()), ("theirs", "from before the log"));
    assert_eq!(pair.number("SELECT count(*) FROM t"), 2, "what it sent and has deleted is gone");
}

/// Blindness ended when a window had seen the copy. Such a peer never sees it, and everything that it changed ever after was
/// recorded.
#[test]
fn blindness_towards_a_peer_that_only_sends_is_over_row_by_row_and_with_the_retention() {
    let mut pair = Pair::with_a_sender();
    pair.replica.now_ms = 1_000;
    for id in [1, 2] {
        pair.hear((id, "theirs"), 1_000);
    }
    // Unlogged, and noticed.
    pair.replica.run("UPDATE t SET v = 'unlogged' WHERE id = 1");
    store::begin_blindness(&pair.replica.look(), pair.head()).expect("blind");
    pair.hear((1, "theirs again"), 1_001);
    assert_eq!((pair.conflicts(), pair.row(1).as_str()), (1, "theirs again"), "what was overwritten is kept");
    pair.hear((1, "and again"), 1_002);
    assert_eq!(pair.conflicts(), 1, "it knows what it sent since");
    pair.replica.run("DELETE FROM __cdc_log WHERE seq < (SELECT max(seq) FROM __cdc_log)");
    pair.hear((2, "theirs again"), 1_003);
    assert_eq!(pair.conflicts(), 1, "the log does not reach back that far");
}

/// A leaf writes a copy as it is where nothing is and nothing was: a unique value that moved between two pieces goes with its
/// row, and one that only an index of this end keeps apart halts.
#[test]
fn a_copy_into_an_empty_table_with_a_unique_index_loses_no_row() {
    let mut pair = Pair::new();
    pair.replica.rules.merge.as_mut().expect("it merges").forwards = false;
    pair.replica.run("CREATE UNIQUE INDEX v_is_unique ON t(v)");
    pair.peer.run("INSERT INTO t VALUES (1, 'x'), (2, 'y')");
    let key = |number| Some(Key(vec![Value::Integer(number)]));
    let mut items = pair.peer.catalog();
    items.push(pair.peer.range("t", None, key(2), false));
    let first = pair.peer.next(items);
    pair.replica.apply(first).expect("the first piece");
    pair.peer.run("UPDATE t SET v = 'z' WHERE id = 1; INSERT INTO t VALUES (3, 'x')");
    let second = pair.peer.range("t", key(2), None, true);
    let second = pair.peer.next(vec![second]);
    pair.replica.apply(second).expect("the second piece, in which the value has moved");
    assert_eq!((pair.row(3).as_str(), pair.number("SELECT count(*) FROM t")), ("x", 2));
    let changed = pair.peer.upserts("t", "id = 1");
    let changed = pair.peer.next(vec![changed]);
    pair.replica.apply(changed).expect("what became of the row that gave way");
    assert_eq!((pair.row(1).as_str(), pair.number("SELECT count(*) FROM t")), ("z", 3));
    assert_eq!(pair.number("SELECT count(*) FROM __cdc_conflicts"), 0);

    pair.replica.run("DELETE FROM t");
    pair.peer.run("INSERT INTO t VALUES (4, 'x')");
    let mut items = pair.peer.catalog();
    items.push(pair.peer.range("t", None, None, true));
    let window = pair.peer.first(items);
    let error = pair.replica.apply(window).expect_err("the peer has x twice");
    assert_eq!(error.word(), "unique_only_here");
}

/// Each conflict over a unique value was judged with the rows that had given way to the ones before it, too: a thousand took
/// minutes, under the lock that the application waits for.
#[test]
fn rows_that_gave_way_before_are_not_in_the_way_again() {
    let mut pair = Pair::new();
    pair.replica.run("CREATE UNIQUE INDEX v_is_unique ON t(v)");
    pair.peer.run("CREATE UNIQUE INDEX v_is_unique ON t(v)");
    pair.replica.now_ms = 2_000;
    for id in 1..=4 {
        pair.write(id, &format!("v{id}"));
    }
    // Concurrent, and written later.
    pair.peer.at_ms = 2_900;
    pair.peer.run("INSERT INTO t VALUES (11, 'v1'), (12, 'v2'), (13, 'v3')");
    let mut items = pair.peer.catalog();
    items.push(pair.peer.upserts("t", "1"));
    let mut window = pair.peer.next(items);
    window.end.seen = 0;
    let applied = pair.replica.apply(window).expect("apply");
    assert_eq!(applied.conflicts.total(), 3, "one for each value, and no more");
    let rows = pair.replica.look().query_row(
        "SELECT group_concat(id || v, ' ') FROM (SELECT * FROM t ORDER BY id)",
        [],
        |row| row.get(0),
    );
    assert_eq!(rows, Ok("4v4 11v1 12v2 13v3".to_owned()));
    assert_eq!(pair.number("SELECT count(*) FROM __cdc_log WHERE op = 3"), 3, "each removal is logged once");
}

/// Before the applier begins its n-th transaction from here on, the application does something.
fn before_transactions(pair: &mut Pair, meanwhile: impl Fn(u32, &Connection) + Send + 'static) {
    let (app, mut begun) = (pair.replica.look(), 0);
    let hook = move |context: AuthContext<'_>| {
        if matches!(context.action, AuthAction::Transaction { operation: TransactionOperation::Begin }) {
            begun += 1;
            meanwhile(begun, &app);
        }
        Authorization::Allow
    };
    pair.replica.applier().connection().authorizer(Some(hook)).expect("authorizer");
}

const LOGGED: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO __cdc_log(ts, tbl, op, k0) SELECT 5, 1, 2, i FROM n";

/// The log held millions of entries, kept for a peer that was away, and the first window of the node read all of it while
/// the application waited for the write lock, longer than its busy timeout.
#[test]
fn under_the_lock_only_what_came_since_is_read() {
    let mut pair = Pair::new();
    pair.replica.run(LOGGED);
    let mut round = 0;
    let mut absorbed = |pair: &mut Pair, seen| {
        round += 1;
        let window = pair.said((1, &format!("x{round}")), 10, seen);
        pair.replica.apply(window).expect("apply").absorbed
    };
    assert_eq!(absorbed(&mut pair, 0), 0, "the first window of a process");
    let head = pair.head();
    pair.write(2, "ours");
    assert_eq!(absorbed(&mut pair, head), 1, "the tail");
    pair.replica.run(LOGGED);
    assert_eq!(absorbed(&mut pair, 0), 0, "a long tail");
    pair.replica.run("VACUUM");
    assert_eq!(absorbed(&mut pair, 0), 0, "the schema moved");

    // The application writes between the transaction that reads and the one that writes.
    pair.replica.run("VACUUM");
    before_transactions(&mut pair, |nth, app| {
        if nth == 2 {
            app.execute_batch("INSERT INTO __cdc_log(ts, tbl, op, k0) VALUES (20, 1, 2, 1)").expect("log");
        }
    });
    let (conflicts, head) = (pair.conflicts(), pair.head());
    assert_eq!(absorbed(&mut pair, head), 1);
    assert_eq!(pair.conflicts(), conflicts + 1, "what came between is concurrent");
}

#[test]
fn what_moves_between_the_reading_and_the_lock_is_read_again_but_not_for_ever() {
    let pruned = "DELETE FROM __cdc_log WHERE seq < 4000";
    let anew = "CREATE TEMP TABLE kept AS SELECT * FROM __cdc_log ORDER BY seq DESC LIMIT 10;
        DROP TABLE __cdc_log; CREATE TABLE __cdc_log(seq INTEGER PRIMARY KEY, ts, tbl, op, origin, oseq, via, k0);
        INSERT INTO __cdc_log SELECT * FROM kept; UPDATE __cdc_meta SET value = 2 WHERE key = 'epoch'";
    let another = "UPDATE __cdc_meta SET value = 2 WHERE key = 'epoch'; DELETE FROM __cdc_log WHERE seq < 5000";
    for (meanwhile, concurrent) in [("VACUUM", 1), (LOGGED, 1), (pruned, 0), (anew, 0), (another, 0)] {
        let mut pair = Pair::new();
        pair.replica.run(LOGGED);
        before_transactions(&mut pair, move |nth, app| {
            if nth == 2 {
                app.execute_batch(meanwhile).expect(meanwhile);
            }
        });
        let window = pair.said((7, "x"), 10, 0);
        let applied = pair.replica.apply(window).expect("apply");
        assert_eq!((applied.absorbed, applied.conflicts.total()), (0, concurrent), "{meanwhile}");
    }
    let mut pair = Pair::new();
    pair.replica.run(LOGGED);
    before_transactions(&mut pair, |_, app| app.execute_batch("VACUUM").expect("VACUUM"));
    let window = pair.said((7, "x"), 10, 0);
    let applied = pair.replica.apply(window).expect("apply");
    assert_eq!((applied.absorbed, applied.conflicts.total()), (5000, 1), "at last it is read under the lock");
}

/// Tells where capture is put right: before the transaction, or inside.
struct Told(std::sync::mpsc::Sender<&'static str>);

impl Recapture for Told {
    fn recapture(&mut self, _: &Connection, _: bool) -> Result<(), SourceError> {
        self.0.send("inside").map_err(SourceError::from)
    }

    fn recapture_ahead(&mut self, conn: &mut Connection) -> Result<(), SourceError> {
        assert!(conn.is_autocommit());
        store::set_meta(conn, meta_key::SCHEMA_VERSION, sqlite::catalog::schema_version(conn)?)?;
        self.0.send("before").map_err(SourceError::from)
    }
}

/// Whether appended columns are filled was looked up in whole tables while the write lock was held.
#[test]
fn after_somebody_elses_change_of_the_schema_capture_is_put_right_before_the_lock_is_taken() {
    let mut pair = Pair::new();
    let (told, heard) = std::sync::mpsc::channel();
    pair.replica.applier().set_recapture(Box::new(Told(told)));
    pair.hear((1, "a"), 10);
    assert!(heard.try_iter().next().is_none(), "nothing is captured yet");
    let look = pair.replica.look();
    let version = sqlite::catalog::schema_version(&look).expect("version");
    store::set_meta(&look, meta_key::SCHEMA_VERSION, version).expect("captured");
    pair.hear((1, "b"), 11);
    pair.replica.run("VACUUM");
    pair.hear((1, "c"), 12);
    pair.hear((1, "d"), 13);
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["before"]);
}

/// The peer sent and received, met us, and only sends since before its first window came. Each session began with nothing held,
/// so that all was copied again, and a copy was due for ever.
#[test]
fn what_was_agreed_on_while_both_sent_is_forgotten_where_one_sends_alone() {
    for merges in [true, false] {
        let mut pair = Pair::with_a_sender();
        if !merges {
            pair.replica.rules.merge = None;
        }
        let kept = [(meta_key::COPY_DUE, store::UNSETTLED), (meta_key::SEED_WON, 1)];
        let kept = kept.map(|(key, value)| (format!("{key}{}", pair.peer.id.0), value));
        for (key, value) in &kept {
            store::set_meta(&pair.replica.look(), key, value).expect("meta");
        }
        let held = pair.replica.held();
        assert!(held.checkpoint.is_none() && held.copy_due, "what is kept of it says nothing to the peer: {held:?}");
        let window = pair.peer.next(pair.peer.catalog());
        pair.replica.apply(window).expect("the first window");
        let held = pair.replica.held();
        assert!(held.checkpoint.is_some() && !held.copy_due, "{held:?}");
        let left = |(key, _): &(String, i64)| store::meta::<i64>(&pair.replica.look(), key).expect("meta");
        assert_eq!(kept.each_ref().map(left), [None, None]);
    }
}

/// Whoever read the touch had found the row still there, and told the peer nothing: the two differed for good.
#[test]
fn who_loses_to_a_row_that_is_gone_after_a_touch_alone_is_told_of_its_deletion_where_capture_missed_something() {
    for missed in [false, true] {
        let mut pair = Pair::new();
        pair.replica.run("INSERT INTO __cdc_log(ts, tbl, op, k0) VALUES (50, 1, 4, 1)");
        if missed {
            store::set_meta(&pair.replica.look(), meta_key::MISSED, "[1]").expect("missed");
        }
        pair.hear((1, "older"), 10);
        assert_eq!((pair.number("SELECT count(*) FROM t"), pair.conflicts()), (0, 1));
        let told = pair.number("SELECT count(*) FROM __cdc_log WHERE op = 3 AND k0 = 1 AND via IS NULL AND ts >= 50");
        assert_eq!(told, i64::from(missed));
        // Once: from then on its own deletion stands there.
        pair.hear((1, "older still"), 9);
        assert_eq!(pair.number("SELECT count(*) FROM __cdc_log WHERE op = 3"), told);
    }
}
