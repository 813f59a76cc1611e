//! Killed at every step and at any moment: after a restart both databases are equal, and no window was applied twice.

use std::os::unix::process::ExitStatusExt as _;

use rusqlite::Connection;
use rustix::process::Signal;

use crate::support::{
    Place, env_number, open,
    oracle::assert_equal,
    pair::{Dials, Options, Pair},
    process::{Process, quiesce, replicate_once, status, windows_applied},
    random::Random,
    shop::Writer,
    wait::{pause, until},
};

/// Where a process can be made to kill itself, and whether it is the one that sends. `src/telemetry/failpoint.rs` has
/// the same names.
const FAILPOINTS: &[(&str, bool)] = &[
    ("capture_after_read", true),
    ("link_after_send", true),
    ("apply_before_commit", false),
    ("apply_after_commit", false),
    ("receiver_before_ack", false),
    ("sender_before_ack", true),
    ("sender_after_ack", true),
    ("snapshot_after_range_read", true),
    ("snapshot_after_range_sent", true),
    ("snapshot_after_range_applied", false),
];

const SCHEMA: &str = "
CREATE TABLE a(id INTEGER PRIMARY KEY, v TEXT, u UNIQUE);
CREATE TABLE b(x TEXT, y INT, v, PRIMARY KEY(x, y)) WITHOUT ROWID;
CREATE TABLE bare(v);
";

fn fill(conn: &Connection) {
    conn.execute_batch(SCHEMA).unwrap();
    conn.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO a SELECT i, hex(randomblob(20)), 'u' || i FROM n;
         INSERT INTO b SELECT 'x' || (id % 50), id, v FROM a; INSERT INTO bare SELECT v FROM a;",
    )
    .unwrap();
}

/// Writes until the process is gone, so that every step is reached again and again.
fn write_until_it_dies(conn: &Connection, process: &mut Process, failpoint: &str) {
    let mut writer = Writer::new(conn, 11);
    let status = until(&format!("failpoint {failpoint} to be reached"), || match process.ended() {
        Some(status) => Ok(status),
        None => {
            writer.write(conn, 8);
            pause(std::time::Duration::from_millis(10));
            Err("it runs on".to_owned())
        }
    });
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{failpoint}: it ended by itself: {}", process.said());
}

#[test]
fn killed_at_any_step_it_resumes_and_ends_equal() {
    for (failpoint, _) in FAILPOINTS {
        for hit in [1, 2, 5] {
            eprintln!("{failpoint} at hit {hit}");
            let place = Place::new();
            let conn = open(&place.source());
            fill(&conn);
            let spec = format!("{failpoint}={hit}");
            let mut process = Process::replicate(&place.source(), &place.replica(), &[("TWINLITE_FAILPOINT", &spec)]);
            if failpoint.starts_with("snapshot") && hit > 3 {
                // Three small tables have three ranges; further hits need copies that somebody asks for.
                process.kill();
            } else {
                write_until_it_dies(&conn, &mut process, failpoint);
            }
            let before = windows_applied(&place.replica());
            Writer::new(&conn, 12).write(&conn, 30);
            replicate_once(&place.source(), &place.replica());
            assert_equal(&place.source(), &place.replica());
            assert!(windows_applied(&place.replica()) >= before, "windows were forgotten");
        }
    }
}

#[test]
fn either_process_of_a_pair_may_be_killed_at_any_step() {
    for (number, (failpoint, sends)) in FAILPOINTS.iter().enumerate() {
        eprintln!("{failpoint} in a pair");
        let dials = if number % 2 == 0 { Dials::Source } else { Dials::Replica };
        let mut pair = Pair::new(Place::new(), &Options { dials, ..Options::default() });
        let conn = open(&pair.place.source());
        fill(&conn);
        let spec = format!("{failpoint}=2");
        let env = [("TWINLITE_FAILPOINT", spec.as_str())];
        pair.start_source(if *sends { &env } else { &[] });
        pair.start_replica(if *sends { &[] } else { &env });
        let mut victim = if *sends { pair.source.take() } else { pair.replica.take() }.unwrap();
        write_until_it_dies(&conn, &mut victim, failpoint);
        if *sends {
            pair.start_source(&[]);
        } else {
            pair.start_replica(&[]);
        }
        Writer::new(&conn, 13).write(&conn, 30);
        pair.assert_equal();
        pair.stop();
    }
}

/// Equal is what a window applied twice leaves too: here the rows that the next process writes are counted. Those of a
/// transaction that was not committed come again, those of one that was do not, acknowledged or not.
#[test]
fn a_window_that_was_committed_is_not_applied_again() {
    for (failpoint, again) in [
        ("apply_before_commit", 10),
        ("apply_after_commit", 0),
        ("receiver_before_ack", 0),
        ("sender_before_ack", 0),
        ("sender_after_ack", 0),
    ] {
        let place = Place::new();
        let conn = open(&place.source());
        fill(&conn);
        replicate_once(&place.source(), &place.replica());
        let before = windows_applied(&place.replica());
        // A session's first window tells what there is; the second one brings the change.
        let spec = format!("{failpoint}=2");
        let mut victim = Process::replicate(&place.source(), &place.replica(), &[("TWINLITE_FAILPOINT", &spec)]);
        until("the first window", || match windows_applied(&place.replica()) - before {
            1.. => Ok(()),
            _ => Err(victim.said()),
        });
        conn.execute_batch("UPDATE a SET v = 'changed' WHERE id BETWEEN 101 AND 110").unwrap();
        assert_eq!(victim.wait().signal(), Some(Signal::KILL.as_raw()), "{failpoint}: {}", victim.said());
        let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
        quiesce(&place.source(), &place.replica());
        let written = until("the process to have told what it applied", || {
            let metrics = status(&place.replica())["metrics"].clone();
            let count = |name: &str| metrics[name].as_i64().unwrap_or(0);
            match count("windows_applied_total") {
                1.. => Ok(count("rows_upserted_total") + count("rows_deleted_total")),
                _ => Err(metrics.to_string()),
            }
        });
        assert_eq!(written, again, "{failpoint}");
        assert_equal(&place.source(), &place.replica());
        process.assert_running();
        process.stop();
    }
}

#[test]
fn killed_at_random_moments_it_ends_equal() {
    let seed = env_number("TWINLITE_SEED", 5);
    let mut random = Random::new(seed);
    let place = Place::new();
    let conn = open(&place.source());
    fill(&conn);
    let mut writer = Writer::new(&conn, seed);
    let mut applied = 0;
    for _ in 0..env_number("TWINLITE_CASES", 8) {
        let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
        for _ in 0..random.below(12) {
            writer.write(&conn, 10);
            pause(std::time::Duration::from_millis(random.below(40) as u64));
        }
        if random.chance(20) {
            writer.rebuild(&conn);
        }
        process.assert_running();
        process.kill();
        if place.replica().exists() {
            let now = windows_applied(&place.replica());
            assert!(now >= applied, "seed {seed}: {applied} windows, then {now}");
            applied = now;
        }
    }
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
    process.assert_running();
    process.stop();
}
