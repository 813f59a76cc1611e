//! Two processes over a network that delays, cuts, swallows, and breaks off at any byte.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    Place, env_number, open,
    pair::{Dials, Options, Pair, running},
    process::{Process, http_get},
    proxy::Way,
    random::Random,
    shop::Writer,
    wait::until,
};

fn place() -> Place {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch(
        "CREATE TABLE a(id INTEGER PRIMARY KEY, v TEXT, u UNIQUE); CREATE TABLE b(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO a SELECT i, hex(randomblob(40)), i FROM n; INSERT INTO b SELECT v, id FROM a;",
    )
    .unwrap();
    place
}

#[test]
fn a_pair_replicates_whichever_side_dials() {
    for dials in [Dials::Source, Dials::Replica] {
        let mut pair = running(place(), &Options { dials, ..Options::default() });
        let conn = open(&pair.place.source());
        Writer::new(&conn, 1).write(&conn, 100);
        pair.assert_equal();
        for admin in [&pair.source_admin, &pair.replica_admin] {
            assert_eq!(http_get(admin, "/live").unwrap().0, 200);
            assert_eq!(http_get(admin, "/ready").unwrap().0, 200);
            let (code, body) = http_get(admin, "/status.json").unwrap();
            let status: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((code, status["format"].as_i64()), (200, Some(1)), "{body}");
            assert_eq!(status["links"][0]["state"], "live", "{body}");
        }
        pair.stop();
    }
}

#[test]
fn each_end_says_once_what_is_copied_and_that_it_is_live() {
    let mut pair = running(place(), &Options::default());
    let said = |pair: &Pair, line: &str| {
        let count = |process: &Option<Process>| process.as_ref().map_or(0, |one| one.said().matches(line).count());
        (count(&pair.source), count(&pair.replica))
    };
    let is_live = |pair: &Pair| {
        until("both ends to say that they are live", || match said(pair, "link is live") {
            (1.., 1..) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    is_live(&pair);
    let conn = open(&pair.place.source());
    Writer::new(&conn, 5).write(&conn, 50);
    pair.assert_equal();
    assert_eq!(said(&pair, "link is live"), (1, 1));
    let copied = |table: &str| format!("table is copied link=\"source\" table=\"{table}\" rows=5000 seconds=");
    for table in ["a", "b"] {
        assert_eq!(said(&pair, &copied(table)), (0, 1), "{}", pair.replica.as_ref().unwrap().said());
    }
    // What was copied once is not said again by the next process.
    pair.replica.take().unwrap().stop();
    pair.start_replica(&[]);
    is_live(&pair);
    pair.assert_equal();
    assert_eq!(said(&pair, "INFO table is copied"), (0, 0), "{}", pair.replica.as_ref().unwrap().said());
    pair.stop();
}

#[test]
fn a_node_that_is_told_to_end_finishes_its_transaction_and_ends_well() {
    let mut pair = running(place(), &Options::default());
    let conn = open(&pair.place.source());
    let mut writer = Writer::new(&conn, 6);
    for signal in [Signal::TERM, Signal::INT] {
        for ends_first in [Dials::Source, Dials::Replica] {
            writer.write(&conn, 100);
            let mut nodes = [pair.source.take().unwrap(), pair.replica.take().unwrap()];
            if ends_first == Dials::Replica {
                nodes.reverse();
            }
            for node in &mut nodes {
                node.signal(signal);
                let status = node.wait();
                assert!(status.success(), "{signal:?}: {status}; it said:\n{}", node.said());
                assert!(!node.said().contains("grace period"), "{}", node.said());
            }
            pair.start();
            pair.assert_equal();
        }
    }
    pair.stop();
}

#[test]
fn the_order_of_starts_does_not_matter() {
    for dials in [Dials::Source, Dials::Replica] {
        let mut pair = Pair::new(place(), &Options { dials, ..Options::default() });
        pair.start_replica(&[]);
        let (admin, mut looks) = (pair.replica_admin.clone(), 0);
        until("the replica to be up, alone", || {
            looks += 1;
            http_get(&admin, "/live").map(drop)
        });
        pair.start_source(&[]);
        pair.assert_equal();
        pair.stop();
    }
}

#[test]
fn a_connection_that_breaks_off_at_any_byte_loses_nothing() {
    let seed = env_number("TWINLITE_SEED", 9);
    let mut random = Random::new(seed);
    for dials in [Dials::Source, Dials::Replica] {
        let mut pair = Pair::new(place(), &Options { dials, ..Options::default() });
        let conn = open(&pair.place.source());
        let mut writer = Writer::new(&conn, seed);
        // The first connection breaks during the copy already.
        pair.proxy.drop_after(Way::Back, 30_000);
        pair.start();
        for round in 0..env_number("TWINLITE_CASES", 12) {
            let way = if random.chance(50) { Way::Out } else { Way::Back };
            // Of one side little comes: acknowledgements. Few bytes hit both.
            let bytes = random.below(if round % 2 == 0 { 300 } else { 20_000 }) as u64;
            let before = pair.proxy.dropped();
            pair.proxy.drop_after(way, bytes);
            until("the connection to break off", || {
                writer.write(&conn, 20);
                if pair.proxy.dropped() > before { Ok(()) } else { Err(format!("{way:?} after {bytes} bytes")) }
            });
        }
        pair.proxy.heal();
        pair.assert_equal();
        assert!(pair.proxy.accepted() > 10);
        pair.stop();
    }
}

#[test]
fn a_network_that_swallows_heals() {
    let mut pair = running(place(), &Options::default());
    let conn = open(&pair.place.source());
    let mut writer = Writer::new(&conn, 4);
    for ways in [&[Way::Out][..], &[Way::Back], &[Way::Out, Way::Back]] {
        for way in ways {
            pair.proxy.block(*way);
        }
        writer.write(&conn, 50);
        pair.proxy.cut();
        writer.write(&conn, 50);
        pair.proxy.heal();
        pair.assert_equal();
    }
    pair.proxy.refuse();
    pair.proxy.cut();
    writer.write(&conn, 50);
    pair.proxy.heal();
    pair.assert_equal();
    pair.stop();
}

#[test]
fn a_slow_network_is_only_slow() {
    let mut pair = running(place(), &Options::default());
    pair.proxy.delay(Duration::from_millis(40));
    let conn = open(&pair.place.source());
    Writer::new(&conn, 2).write(&conn, 60);
    pair.assert_equal();
    pair.stop();
}

#[test]
fn a_peer_that_is_gone_is_seen_in_the_status_of_the_other() {
    let mut pair = running(place(), &Options::default());
    pair.source.take().unwrap().stop();
    let admin = pair.replica_admin.clone();
    let link = until("the replica to see that the source is gone", || {
        let (_, body) = http_get(&admin, "/status.json")?;
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        let link = status["links"][0].clone();
        if link["state"] == "live" { Err(body) } else { Ok(link) }
    });
    assert!(link["seconds_behind"].as_f64().is_some_and(|seconds| seconds > 0.0), "{link}");
    pair.start_source(&[]);
    pair.assert_equal();
    pair.stop();
}

#[test]
fn a_source_restored_from_a_backup_and_written_past_is_noticed() {
    let mut pair = running(place(), &Options::default());
    let source = pair.place.source();
    let conn = open(&source);
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let backup = pair.place.file("backup.db");
    conn.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    conn.execute_batch("INSERT INTO b VALUES ('lost', 1); INSERT INTO b VALUES ('lost too', 1)").unwrap();
    pair.assert_equal();
    pair.source.take().unwrap().stop();
    drop(conn);
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", source.display()));
    }
    std::fs::rename(&backup, &source).unwrap();
    let conn = open(&source);
    for key in 0..20 {
        conn.execute("INSERT INTO b VALUES ('another ' || ?1, 2)", [key]).unwrap();
    }
    pair.start_source(&[]);
    for admin in [pair.replica_admin.clone(), pair.source_admin.clone()] {
        let said = until("the link to halt", || {
            let (_, body) = http_get(&admin, "/status.json")?;
            let status: serde_json::Value = serde_json::from_str(&body).unwrap();
            let link = status["links"][0].clone();
            if link["state"] == "halted" { Ok(link["last_error"].to_string()) } else { Err(body) }
        });
        assert!(said.contains("on_divergence"), "{said}");
    }
    // The way out that the message names.
    pair.replica.take().unwrap().stop();
    let config = std::fs::read_to_string(pair.replica_config()).unwrap();
    std::fs::write(pair.replica_config(), format!("{config}    on_divergence: resnapshot\n")).unwrap();
    pair.start_replica(&[]);
    pair.assert_equal();
    pair.stop();
}

#[test]
fn each_compression_carries_the_same() {
    for compression in ["auto", "none", "lz4", "zstd"] {
        let source_link = format!("    compression: {compression}\n");
        let mut pair = running(place(), &Options { source_link, ..Options::default() });
        let conn = open(&pair.place.source());
        Writer::new(&conn, 8).write(&conn, 100);
        pair.assert_equal();
        pair.stop();
    }
}
