//! `twinlite cdc` killed at every step and at any moment: whoever drops repeats by position has everything in the end.

use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt as _;

use rusqlite::Connection;

use crate::cdc_input::THEIRS;
use crate::support::{
    Place,
    hook::{Hook, Post, Rows, receive},
    open, open_reader,
    process::{Process, setup},
    random::Random,
    wait::{pause, until},
};

/// Where a consumer can be made to kill itself. `src/telemetry/failpoint.rs` has the same names.
const FAILPOINTS: [&str; 4] = ["events_before_batch", "events_after_batch", "events_before_note", "events_after_note"];

fn app(place: &Place) -> Connection {
    let conn = open(&place.source());
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO t SELECT i, hex(randomblob(8)) FROM n",
    )
    .unwrap();
    conn
}

/// Rows anywhere come, go and move, so that each boundary of a bootstrap is crossed.
fn write(conn: &Connection, random: &mut Random) {
    let (id, to) = (random.below(3_500), random.below(3_500));
    let sql = match random.below(4) {
        0 => format!("DELETE FROM t WHERE id BETWEEN {id} AND {id} + 3"),
        1 => format!("UPDATE OR REPLACE t SET id = {to} WHERE id = {id}"),
        2 => format!("REPLACE INTO t VALUES ({id}, 'new')"),
        _ => format!("UPDATE t SET v = v || '!' WHERE id = {id}"),
    };
    conn.execute_batch(&sql).unwrap();
}

fn rows(place: &Place) -> Rows {
    let conn = open_reader(&place.source());
    let mut all = conn.prepare("SELECT id, json_object('id', id, 'v', v) FROM t").unwrap();
    let found = all.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).unwrap();
    found.map(Result::unwrap).map(|(id, row)| (("t".to_owned(), id), serde_json::from_str(&row).unwrap())).collect()
}

#[track_caller]
fn until_received(place: &Place, hook: &Hook) {
    until("the receiver to have every row", || {
        let (has, wanted) = (receive(&hook.taken()), rows(place));
        match has == wanted {
            true => Ok(()),
            false => {
                let wrong = has.iter().find(|(key, row)| wanted.get(*key) != Some(row));
                let missing = wanted.iter().find(|(key, _)| !has.contains_key(*key));
                Err(format!("{} rows of {}; wrong {wrong:?}, missing {missing:?}", has.len(), wanted.len()))
            }
        }
    });
}

/// What entries of the log carry.
const IMAGES: [&str; 2] = ["full", "key"];

fn start(place: &Place, hook: &Hook, env: &[(&str, &str)], images: &str) -> Process {
    setup(&place.source(), images);
    let flags = ["--bootstrap", "--cdc", "--batch-size", "20", "-o", &hook.url];
    Process::cdc(&place.source(), &place.file("out"), &flags, env)
}

/// Goes on with a bootstrap that was not finished, or with what it had; never begins another one.
fn go_on(place: &Place, hook: &Hook, env: &[(&str, &str)]) -> Process {
    Process::cdc(&place.source(), &place.file("out"), &["--cdc", "--batch-size", "20", "-o", &hook.url], env)
}

#[test]
fn killed_at_every_step_a_consumer_goes_on_and_its_receiver_has_everything() {
    for (failpoint, images) in FAILPOINTS.iter().flat_map(|failpoint| IMAGES.map(|images| (failpoint, images))) {
        let (place, hook, mut random) = (Place::new(), Hook::start(), Random::new(3));
        let conn = app(&place);
        for count in [1, 2, 9, 40] {
            let armed = format!("{failpoint}={count}");
            let env = [("TWINLITE_FAILPOINT", armed.as_str())];
            let mut process = if count == 1 { start(&place, &hook, &env, images) } else { go_on(&place, &hook, &env) };
            let status = until(&format!("failpoint {armed} to be reached"), || match process.ended() {
                Some(status) => Ok(status),
                None => {
                    write(&conn, &mut random);
                    pause(std::time::Duration::from_millis(5));
                    Err("it runs on".to_owned())
                }
            });
            assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{armed}: {}", process.said());
        }
        let process = go_on(&place, &hook, &[]);
        (0..20).for_each(|_| write(&conn, &mut random));
        until_received(&place, &hook);
        process.stop();
    }
}

/// Killed while it gives three thousand rows, again and again, and while changes come.
#[test]
fn killed_at_any_moment_of_a_bootstrap_it_resumes_and_a_row_that_went_meanwhile_goes() {
    IMAGES.iter().for_each(|images| killed_at_any_moment_of_a_bootstrap(images));
}

fn killed_at_any_moment_of_a_bootstrap(images: &str) {
    let (place, hook, mut random) = (Place::new(), Hook::start(), Random::new(4));
    let conn = app(&place);
    let mut process = start(&place, &hook, &[], images);
    for _ in 0..12 {
        let posts = hook.posts().len() + 1 + random.below(25);
        until("more posts", || {
            write(&conn, &mut random);
            if hook.posts().len() >= posts { Ok(()) } else { Err(format!("{} posts", hook.posts().len())) }
        });
        process.kill();
        (0..20).for_each(|_| write(&conn, &mut random));
        process = go_on(&place, &hook, &[]);
    }
    until_received(&place, &hook);
    process.stop();
    // The first batch is noted at once.
    let begun = hook.taken();
    let begun = begun.iter().flat_map(|post| post.changes()).filter(|(_, change)| {
        change["operation"] == "INSERT" && change["after"]["id"].as_i64().is_some_and(|id| (1..=20).contains(&id))
    });
    assert!(begun.count() < 100, "it began anew each time");
}

/// Where a take-over can be made to kill itself, and at which hits: the last ones are reached while it goes on in our log.
const TAKE_OVER_FAILPOINTS: [(&str, &[u32]); 7] = [
    ("take_over_before_commit", &[1, 1]),
    ("take_over_after_commit", &[1]),
    ("events_before_batch", &[1, 2, 5, 9]),
    ("events_after_batch", &[1, 2, 5, 9]),
    ("events_after_forget", &[1, 2, 5]),
    ("events_before_note", &[1]),
    ("events_after_note", &[1]),
];

/// Triggers on the table, as sqlite-cdc names them, and as we do.
fn triggers(conn: &Connection) -> (i64, i64) {
    let count = |whose: &str| {
        let sql = format!("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 't' AND {whose}");
        conn.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    (count("name LIKE 't\\_\\_cdc\\_%' ESCAPE '\\'"), count("name LIKE '\\_\\_cdc%' ESCAPE '\\'"))
}

/// Killed between the commit and its first note, a consumer began at the end of our log: what was written meanwhile was
/// lost.
#[test]
fn killed_at_every_step_of_a_take_over_nothing_is_lost_and_one_batch_at_most_comes_twice() {
    for (failpoint, hits) in TAKE_OVER_FAILPOINTS {
        let (place, hook) = (Place::new(), Hook::start());
        let conn = open(&place.source());
        conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v)").unwrap();
        conn.execute_batch(THEIRS).unwrap();
        let insert = |rows: u32| (0..rows).for_each(|_| conn.execute_batch("INSERT INTO t(v) VALUES ('x')").unwrap());
        insert(200);
        let flags = ["--setup", "--take-over", "--cdc", "--batch-size", "10", "-o", &hook.url];
        for hit in hits {
            let armed = format!("{failpoint}={hit}");
            let env = [("TWINLITE_FAILPOINT", armed.as_str())];
            let mut process = Process::cdc(&place.source(), &place.file("out"), &flags, &env);
            let status = until(&format!("failpoint {armed} to be reached"), || match process.ended() {
                Some(status) => Ok(status),
                None => {
                    insert(1);
                    pause(std::time::Duration::from_millis(5));
                    Err("it runs on".to_owned())
                }
            });
            assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{armed}: {}", process.said());
            let (theirs, ours) = triggers(&conn);
            assert!((theirs == 3 && ours == 0) || (theirs == 0 && ours > 0), "{armed}: {theirs} and {ours} triggers");
            insert(7);
        }
        let process = Process::cdc(&place.source(), &place.file("out"), &flags, &[]);
        insert(7);
        let wanted: i64 = conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        let given = until(&format!("every row after {failpoint}"), || {
            let given = each_once(&hook.taken(), hits.len());
            if given.last() == Some(&wanted) { Ok(given) } else { Err(format!("{:?} of {wanted}", given.last())) }
        });
        assert_eq!(given, (1..=wanted).collect::<Vec<_>>(), "{failpoint}");
        process.stop();
    }
}

/// The rows that were inserted, in the order in which they were said to be. What sqlite-cdc had logged comes in the same
/// batches again, one for each time that somebody was killed; of our log, what is not above the highest position does.
#[track_caller]
fn each_once(posts: &[Post], killed: usize) -> Vec<i64> {
    let (mut highest, mut repeats, mut last, mut ids) = (i64::MIN, 0, "", Vec::new());
    for post in posts {
        let first = post.changes().next().map_or(0, |(position, _)| position);
        if first < 0 && first <= highest {
            assert_eq!(post.id, last, "the batch at hand comes again, and no other");
            repeats += 1;
        }
        for (position, change) in post.changes() {
            if position <= highest {
                continue;
            }
            assert_eq!(change["operation"], "INSERT");
            ids.push(change["after"]["id"].as_i64().unwrap());
            highest = position;
        }
        last = &post.id;
    }
    assert!(repeats <= killed, "{repeats} repeats");
    ids
}
