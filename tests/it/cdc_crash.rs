//! `twinlite cdc` killed at every step and at any moment: whoever drops repeats by position has everything in the end.

use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt as _;

use rusqlite::Connection;

use crate::property::setup;
use crate::support::{
    Place,
    hook::{Hook, Rows, receive},
    open, open_reader,
    process::Process,
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
