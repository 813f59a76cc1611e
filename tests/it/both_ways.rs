//! Nodes that both take writes, as processes: over cuts and kills, with conflicts, first contacts and lost history.

use std::{fs, sync::atomic::AtomicU64, sync::atomic::Ordering, thread, time::Instant};

use rusqlite::Connection;

use crate::promises::SmallDisk;
use crate::support::{
    Place, env_number,
    nodes::{Nodes, Settings},
    open,
    process::{Process, expect_code, expect_failure},
    random::Random,
    skipped,
    wait::until,
};

const TABLES: &str = "
CREATE TABLE t(id INTEGER PRIMARY KEY, v, u UNIQUE);
CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
";

fn seed_by_a() -> Settings {
    Settings { link: "    seed: a\n".to_owned(), ..Settings::default() }
}

fn run(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[test]
fn what_either_writes_is_there_at_both_and_nothing_comes_back() {
    for user_triggers in ["off", "on"] {
        let settings = Settings { link: format!("    user_triggers: {user_triggers}\n"), ..Settings::default() };
        let mut nodes = Nodes::running(2, TABLES, &settings);
        let [a, b] = [0, 1].map(|node| nodes.nodes[node].app());
        run(&a, "INSERT INTO t VALUES (1, 'a', 'x'), (2, 'a', 'y')");
        run(&b, "INSERT INTO w VALUES ('k', 1), ('l', 2)");
        nodes.assert_equal();
        run(
            &b,
            "UPDATE t SET v = 'b', u = NULL WHERE id = 1; DELETE FROM t WHERE id = 2; UPDATE w SET k = 'm' WHERE k = 'l'",
        );
        run(&a, "DELETE FROM w WHERE k = 'k'");
        nodes.assert_equal();
        // One writer a row: no conflict, and a leaf logs nothing of what it applied.
        for node in &nodes.nodes {
            assert_eq!(node.number("SELECT count(*) FROM __cdc_conflicts"), 0, "{}", node.name);
            assert_eq!(node.number("SELECT count(*) FROM __cdc_log WHERE via IS NOT NULL"), 0, "{}", node.name);
        }
        nodes.stop();
    }
}

#[test]
fn a_hub_forwards_what_its_spokes_write() {
    let mut nodes = Nodes::running(4, TABLES, &Settings::default());
    for (number, node) in nodes.nodes.iter().enumerate() {
        run(&node.app(), &format!("INSERT INTO t VALUES ({number}, 'by {}', {number})", node.name));
    }
    nodes.assert_equal();
    assert_eq!(nodes.nodes[3].number("SELECT count(*) FROM t"), 4);
    run(&nodes.nodes[2].app(), "UPDATE t SET v = 'all' WHERE id < 4");
    nodes.assert_equal();
    assert_eq!(nodes.nodes[1].number("SELECT count(*) FROM t WHERE v = 'all'"), 4);
    nodes.stop();
}

#[test]
fn the_newest_write_wins_and_the_other_is_kept() {
    let mut nodes = Nodes::running(2, TABLES, &Settings::default());
    let [a, b] = [0, 1].map(|node| nodes.nodes[node].app());
    run(&a, "INSERT INTO t VALUES (1, 'old', NULL), (2, 'old', NULL)");
    nodes.assert_equal();
    nodes.stop();
    run(&a, "UPDATE t SET v = 'from a' WHERE id = 1; UPDATE t SET v = 'from a' WHERE id = 2");
    until("a later millisecond", || {
        let later = "SELECT (julianday('now') - 2440587.5) * 86400000.0 > (SELECT max(ts) + 1 FROM __cdc_log)";
        if a.query_row(later, [], |row| row.get(0)).unwrap() { Ok(()) } else { Err("the same".to_owned()) }
    });
    run(&b, "UPDATE t SET v = 'from b' WHERE id = 1; DELETE FROM t WHERE id = 2");
    nodes.start();
    nodes.assert_equal();
    let rows = "SELECT count(*) FROM t WHERE v = 'from b' AND id = 1";
    assert_eq!((nodes.nodes[0].number(rows), nodes.nodes[0].number("SELECT count(*) FROM t")), (1, 1));
    for node in &nodes.nodes {
        assert_eq!(node.number("SELECT count(*) FROM __cdc_conflicts"), 2, "{}: both of a's rows are kept", node.name);
    }
    nodes.stop();
}

/// Random statements, at both ends of which the other wants the same rows and values.
fn write(conn: &Connection, random: &mut Random, by: &str, statements: usize) {
    for _ in 0..statements {
        let (id, other, value) = (random.below(40), random.below(40), random.below(30));
        let or = random.pick(&["OR REPLACE", "OR IGNORE"]);
        let tag = random.below(1_000_000);
        let sql = match random.below(8) {
            0 => format!("DELETE FROM t WHERE id = {id}"),
            1 => format!("UPDATE {or} t SET id = {other}, v = '{by}{tag}' WHERE id = {id}"),
            2 => format!("UPDATE {or} t SET u = 'u{value}', v = '{by}{tag}' WHERE id = {id}"),
            3 => format!("DELETE FROM w WHERE k = 'k{id}'"),
            4 | 5 => format!("INSERT OR REPLACE INTO w VALUES ('k{id}', '{by}{tag}')"),
            _ => format!("INSERT {or} INTO t VALUES ({id}, '{by}{tag}', 'u{value}')"),
        };
        run(conn, &sql);
    }
}

#[test]
fn killed_and_cut_at_random_both_end_equal() {
    let rounds = env_number("TWINLITE_ROUNDS", 50);
    let seed = env_number("TWINLITE_SEED", 1);
    eprintln!("TWINLITE_SEED={seed}");
    let mut random = Random::new(seed);
    let mut nodes = Nodes::running(2, TABLES, &seed_by_a());
    let apps = [0, 1].map(|node| nodes.nodes[node].app());
    for round in 0..rounds {
        for (app, by) in apps.iter().zip(["a", "b"]) {
            write(app, &mut random, by, 6);
        }
        match random.below(5) {
            0 | 1 => {
                let victim = random.below(2);
                nodes.nodes[victim].kill();
                write(&apps[1 - victim], &mut random, "x", 6);
                let points =
                    ["apply_before_commit=2", "apply_after_commit=1", "receiver_before_ack=1", "link_after_send=2"];
                let point = *random.one(&points);
                // Killed again, at a step of its own, if it comes there.
                nodes.nodes[victim].start(&[("TWINLITE_FAILPOINT", point)]);
                write(&apps[0], &mut random, "y", 4);
                write(&apps[1], &mut random, "z", 4);
            }
            2 => nodes.proxies[0].cut(),
            3 => {
                let way = *random.one(&[crate::support::proxy::Way::Out, crate::support::proxy::Way::Back]);
                nodes.proxies[0].drop_after(way, random.below(20_000) as u64);
            }
            _ => {}
        }
        for node in &mut nodes.nodes {
            if node.process.as_mut().is_some_and(|process| process.ended().is_some()) {
                node.process = None;
            }
        }
        nodes.start();
        if round % 10 == 9 {
            nodes.proxies[0].heal();
            restart_the_failing(&mut nodes);
            nodes.assert_equal();
        }
    }
    nodes.proxies[0].heal();
    restart_the_failing(&mut nodes);
    nodes.assert_equal();
    nodes.stop();
}

/// A process with a failpoint may die of it while all is waited for; it is started again without one.
fn restart_the_failing(nodes: &mut Nodes) {
    for node in &mut nodes.nodes {
        let runs = node.process.as_mut().is_some_and(|process| process.ended().is_none());
        if runs {
            node.kill();
        }
        node.start(&[]);
    }
}

#[test]
fn a_storm_of_conflicts_converges() {
    let updates = env_number("TWINLITE_STORM", 10_000);
    let mut nodes = Nodes::running(2, TABLES, &Settings::default());
    run(
        &nodes.nodes[0].app(),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO t SELECT i, 0, NULL FROM n",
    );
    nodes.assert_equal();
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        for node in &nodes.nodes {
            let (app, done) = (node.app(), &done);
            let seed = u64::from(node.name == "a");
            scope.spawn(move || {
                run(&app, "PRAGMA synchronous = NORMAL");
                let mut random = Random::new(seed);
                for update in 0..updates {
                    app.execute(
                        "UPDATE t SET v = ?1 WHERE id = ?2",
                        (i64::try_from(update).unwrap(), 1 + random.below(100) as i64),
                    )
                    .unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // As often as once a second, at the pace of a disk that syncs.
        for cut in 1..10 {
            until("some updates", || {
                let so_far = done.load(Ordering::Relaxed);
                if so_far * 10 >= updates * 2 * cut { Ok(()) } else { Err(format!("{so_far}")) }
            });
            nodes.proxies[0].cut();
        }
    });
    let healed = Instant::now();
    nodes.assert_equal();
    let conflicts: i64 = nodes.nodes.iter().map(|node| node.number("SELECT count(*) FROM __cdc_conflicts")).sum();
    eprintln!(
        "{updates} updates of 100 rows at each end: equal {:?} after the last; {conflicts} conflicts",
        healed.elapsed()
    );
    assert!(conflicts > 0, "there was no storm");
    nodes.stop();
}

#[test]
fn two_full_databases_are_joined_as_the_config_says_and_not_without() {
    let fill = |nodes: &Nodes| {
        for node in &nodes.nodes {
            run(&node.app(), TABLES);
        }
        run(&nodes.nodes[0].app(), "INSERT INTO t VALUES (1, 'a', 'x'), (2, 'a', 'y'), (5, 'same', NULL)");
        run(
            &nodes.nodes[1].app(),
            "INSERT INTO t VALUES (1, 'b', 'p'), (3, 'b', 'y'), (5, 'same', NULL); INSERT INTO w VALUES ('b', 1)",
        );
    };
    let mut nodes = Nodes::new(Place::new(), 2, &Settings::default());
    fill(&nodes);
    nodes.start();
    until("both to refuse", || {
        let codes: Vec<String> = nodes
            .nodes
            .iter()
            .flat_map(|node| node.links())
            .map(|link| link["last_error"]["code"].to_string())
            .collect();
        if codes.len() == 4 && codes.iter().all(|code| code == "\"seed_needed\"") {
            Ok(())
        } else {
            Err(format!("{codes:?}"))
        }
    });
    assert_eq!(nodes.nodes[1].number("SELECT count(*) FROM t WHERE v = 'b'"), 2, "nothing is changed");
    nodes.stop();
    let cases = [
        ("    seed: b\n", "1b 3b 5same", 2, "seed: b"),
        ("    seed: a\n", "1a 2a 5same", 3, "seed: a"),
        ("    seed: merge\n    seed_prefer: a\n", "1a 2a 5same", 2, "seed: merge, prefer a"),
    ];
    for (link, rows, conflicts, policy) in cases {
        let mut nodes = Nodes::new(Place::new(), 2, &Settings { link: link.to_owned(), ..Settings::default() });
        fill(&nodes);
        nodes.start();
        nodes.assert_equal();
        let found: String = nodes.nodes[1]
            .app()
            .query_row("SELECT group_concat(id || v, ' ' ORDER BY id) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(found, rows, "{link}");
        let lost: i64 = nodes.nodes.iter().map(|node| node.number("SELECT count(*) FROM __cdc_conflicts")).sum();
        assert!(lost >= conflicts, "{link}: {lost}");
        // They said that the last write had won, whichever was the last.
        let otherwise = format!("SELECT count(*) FROM __cdc_conflicts WHERE policy <> '{policy}'");
        assert_eq!(everywhere(&nodes, &otherwise), 0, "{policy}");
        let kept = i64::from(!link.contains("seed: a"));
        assert_eq!(nodes.nodes[0].number("SELECT count(*) FROM w"), kept, "{link}");
        nodes.stop();
    }
}

#[test]
fn a_peer_that_was_away_for_too_long_is_copied_again_and_keeps_its_own() {
    let settings = Settings { node: "capture: { retention: { rows: 50 } }\n".to_owned(), ..Settings::default() };
    let mut nodes = Nodes::running(2, TABLES, &settings);
    let [a, b] = [0, 1].map(|node| nodes.nodes[node].app());
    run(&a, "INSERT INTO t VALUES (1, 'old', NULL), (2, 'old', NULL)");
    nodes.assert_equal();
    nodes.nodes[1].stop();
    run(&b, "INSERT INTO t VALUES (900, 'own', NULL); UPDATE t SET v = 'own' WHERE id = 2");
    for id in 100..300 {
        run(&a, &format!("INSERT INTO t VALUES ({id}, 'a', NULL)"));
    }
    run(&a, "DELETE FROM t WHERE id = 1; UPDATE t SET v = 'a' WHERE id = 2");
    until("the log to be pruned", || {
        match nodes.nodes[0].number("SELECT count(*) FROM __cdc_consumers WHERE cut_off") {
            1 => Ok(()),
            _ => Err("the peer is not cut off".to_owned()),
        }
    });
    nodes.start();
    nodes.assert_equal();
    assert_eq!(
        nodes.nodes[0].number("SELECT count(*) FROM t WHERE v = 'own'"),
        2,
        "its own changes win over what it missed"
    );
    assert_eq!(nodes.nodes[1].number("SELECT count(*) FROM t"), 202);
    let lost: i64 =
        nodes.nodes.iter().map(|node| node.number("SELECT count(*) FROM __cdc_conflicts WHERE tbl = 't'")).sum();
    assert!(lost >= 1, "the row that contradicts is kept");
    nodes.stop();
}

#[test]
fn a_restored_database_halts_its_link_until_the_other_is_named() {
    let mut nodes = Nodes::running(2, TABLES, &Settings::default());
    let b = nodes.nodes[1].app();
    run(&b, "INSERT INTO t VALUES (1, 'before', NULL)");
    nodes.assert_equal();
    let backup = nodes.place.file("backup.db");
    run(&b, &format!("VACUUM INTO '{}'", backup.display()));
    run(&b, "INSERT INTO t VALUES (2, 'after', NULL)");
    nodes.assert_equal();
    nodes.stop();
    drop(b);
    nodes.nodes[1].restore(&backup);
    run(&nodes.nodes[1].app(), "INSERT INTO t VALUES (3, 'since', NULL)");
    nodes.start();
    until("the links to halt", || {
        let halted =
            nodes.nodes.iter().flat_map(|node| node.links()).filter(|link| link["last_error"]["code"] == "divergence");
        if halted.count() == 4 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    nodes.stop();
    nodes.let_win("a");
    nodes.start();
    // The restored log is as long as the one that was lost, so its length alone does not tell that it was noticed.
    nodes.await_links();
    nodes.assert_equal();
    assert_eq!(
        nodes.nodes[1].number("SELECT count(*) FROM t WHERE id IN (1, 2)"),
        2,
        "what only the other held is back"
    );
    let kept = nodes.nodes[1].number("SELECT count(*) FROM __cdc_conflicts WHERE policy = 'seed: a'");
    assert_eq!(
        (nodes.nodes[0].number("SELECT count(*) FROM t WHERE id = 3"), kept),
        (0, 1),
        "what it wrote since is kept"
    );
    nodes.stop();
}

#[test]
fn ends_that_would_decide_differently_do_not_begin() {
    let mut nodes = Nodes::new(
        Place::new(),
        2,
        &Settings { link: "    policy: { prefer: a }\n".to_owned(), ..Settings::default() },
    );
    run(&nodes.nodes[0].app(), TABLES);
    let text = fs::read_to_string(&nodes.nodes[1].config).unwrap();
    fs::write(&nodes.nodes[1].config, text.replace("prefer: a", "prefer: b")).unwrap();
    nodes.start();
    until("both to refuse", || {
        let refused =
            nodes.nodes.iter().flat_map(|node| node.links()).filter(|link| link["last_error"]["code"] == "policies");
        if refused.count() == 4 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    nodes.stop();
}

#[test]
fn one_command_joins_two_databases_and_keeps_them_equal() {
    let place = Place::new();
    let files = ["a.db", "b.db"].map(|name| place.file(name));
    let [a, b] = files.each_ref().map(|file| open(file));
    for conn in [&a, &b] {
        run(conn, TABLES);
    }
    run(&a, "INSERT INTO t VALUES (1, 'a', NULL), (2, 'a', NULL)");
    run(&b, "INSERT INTO t VALUES (2, 'b', NULL), (3, 'b', NULL)");
    let [first, second] = files.each_ref().map(|file| file.to_str().unwrap());
    let base = ["replicate", "--two-way", "--once", "--verify", first, second];
    let said = expect_failure(1, &base);
    assert!(said.contains("both hold rows") && said.contains("seed"), "{said}");
    let said = expect_failure(2, &[&base[..], &["--seed", "merge"]].concat());
    assert!(said.contains("--seed-prefer"), "{said}");
    let said = expect_failure(2, &[&base[..], &["--seed-prefer", "a"]].concat());
    assert!(said.contains("--seed merge"), "{said}");
    let said = expect_code(0, &[&base[..], &["--seed", "merge", "--seed-prefer", "b"]].concat());
    assert!(said.contains("2 tables, 3 rows: equal"), "{said}");
    let rows = |conn: &Connection| -> String {
        conn.query_row("SELECT group_concat(id || v, ' ' ORDER BY id) FROM t", [], |row| row.get(0)).unwrap()
    };
    assert_eq!((rows(&a), rows(&b)), ("1a 2b 3b".to_owned(), "1a 2b 3b".to_owned()));
    run(&a, "UPDATE t SET v = 'A' WHERE id = 3");
    run(&b, "DELETE FROM t WHERE id = 1");
    expect_code(0, &base);
    assert_eq!((rows(&a), rows(&b)), ("2b 3A".to_owned(), "2b 3A".to_owned()));
}

#[test]
fn once_ends_where_both_made_a_table_that_contradicts_the_other() {
    let place = Place::new();
    let files = ["a.db", "b.db"].map(|name| place.file(name));
    let [a, b] = files.each_ref().map(|file| open(file));
    run(&a, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
    run(&b, "CREATE TABLE t(v TEXT PRIMARY KEY, id)");
    let [first, second] = files.each_ref().map(|file| file.to_str().unwrap());
    let said = expect_failure(1, &["replicate", "--two-way", "--once", first, second]);
    let last = said.lines().last().unwrap();
    for word in ["table \"t\"", "made at both ends with different definitions", "v TEXT PRIMARY KEY", "twinlite ddl"] {
        assert!(last.contains(word), "no {word} in: {last}");
    }
    let rows = |conn: &Connection| conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((rows(&a), rows(&b)), (1, 0), "nothing is changed");
}

/// It waits a minute for the failure to pass, as long as it says; one direction comes up again and again meanwhile.
#[test]
fn once_gives_up_both_ways_where_a_full_disk_stays_full() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place.file("small"), "3m") else {
        return skipped(
            "once_gives_up_both_ways_where_a_full_disk_stays_full",
            "a small disk can only be mounted by root",
        );
    };
    let files = [place.file("a.db"), place.file("small").join("b.db")];
    let rows = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
        INSERT INTO t SELECT value, randomblob(1000000) FROM json_each('[1, 2, 3, 4, 5, 6, 7, 8]')";
    run(&open(&files[0]), rows);
    let [first, second] = files.each_ref().map(|file| file.to_str().unwrap());
    let words = ["replicate", "--two-way", "--once", first, second];
    let mut process = Process::start("replicate", &words, &[]);
    until("the disk to be full", || match process.said() {
        said if said.contains("disk is full") => Ok(()),
        said => Err(said),
    });
    assert_eq!(process.wait().code(), Some(1));
    let said = process.said();
    let last = said.lines().last().unwrap();
    assert!(last.contains("b.db") && last.contains("disk is full") && last.contains("make room"), "{last}");
    disk.resize("200m");
    expect_code(0, &words);
    let all: i64 = open(&files[1]).query_row("SELECT sum(length(v)) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(all, 8_000_000, "with room it goes on where it was");
}

fn everywhere(nodes: &Nodes, sql: &str) -> i64 {
    nodes.nodes.iter().map(|node| node.number(sql)).sum()
}

/// The triggers have reached their limit while no node ran: a new epoch begins. What was written unlogged is copied, what
/// the peer has written meanwhile comes as always, and what the two contradict each other in is kept; nobody has to say
/// whose rows win.
#[test]
fn a_log_that_filled_up_while_nobody_ran_is_copied_and_the_peer_keeps_its_own() {
    for hub in [false, true] {
        let settings = Settings { node: "capture: { retention: { rows: 50 } }\n".to_owned(), ..Settings::default() };
        let mut nodes = Nodes::running(if hub { 3 } else { 2 }, TABLES, &settings);
        let [a, b] = [0, 1].map(|node| nodes.nodes[node].app());
        run(&a, "INSERT INTO t VALUES (1, 'old', NULL), (2, 'old', NULL), (3, 'old', 'three'), (4, 'old', NULL)");
        nodes.assert_equal();
        nodes.stop();
        for id in 100..300 {
            run(&a, &format!("INSERT INTO t VALUES ({id}, 'a', NULL)"));
        }
        let unlogged = "SELECT count(*) FROM t WHERE id BETWEEN 100 AND 299 AND id NOT IN (SELECT k0 FROM __cdc_log WHERE k0 NOTNULL)";
        assert!(nodes.nodes[0].number(unlogged) > 0, "the triggers have stopped");
        run(&a, "UPDATE t SET v = 'unlogged' WHERE id = 1; DELETE FROM t WHERE id = 4");
        run(
            &b,
            "UPDATE t SET v = 'b' WHERE id IN (1, 2); INSERT INTO t VALUES (900, 'b', 'nine'); DELETE FROM t WHERE id = 3",
        );
        let epoch = "SELECT value FROM __cdc_meta WHERE key = 'epoch'";
        let before = nodes.nodes[0].number(epoch);
        nodes.start();
        nodes.assert_equal();
        assert_ne!(nodes.nodes[0].number(epoch), before);
        let a = &nodes.nodes[0];
        assert_eq!(a.number("SELECT count(*) FROM t WHERE v = 'a'"), 200, "what went unlogged is everywhere");
        assert_eq!(a.number("SELECT count(*) FROM t WHERE v = 'b'"), 3, "what the peer wrote is, too");
        assert_eq!(a.number("SELECT count(*) FROM t WHERE id IN (3, 4)"), 0, "both deletions are");
        assert_eq!(a.number("SELECT count(*) FROM t WHERE v = 'unlogged'"), 0, "the peer's change came as always");
        let kept = a.number(
            "SELECT count(*) FROM __cdc_conflicts WHERE why = 'lost_history' AND instr(loser, x'756e6c6f67676564')",
        );
        assert_eq!(kept, 1, "and what it overwrote is kept");
        let said_again = "SELECT count(*) FROM __cdc_log WHERE k0 BETWEEN 100 AND 299";
        assert_eq!(nodes.nodes[1].number(said_again), 0, "what is copied to a leaf is not its own");
        // Nobody is blind any more, so what one writes and then the other is no conflict.
        let conflicts = everywhere(&nodes, "SELECT count(*) FROM __cdc_conflicts");
        run(&nodes.nodes[1].app(), "UPDATE t SET v = 'then b' WHERE id BETWEEN 100 AND 110");
        nodes.assert_equal();
        run(&nodes.nodes[0].app(), "UPDATE t SET v = 'then a' WHERE id BETWEEN 100 AND 110");
        nodes.assert_equal();
        assert_eq!(everywhere(&nodes, "SELECT count(*) FROM __cdc_conflicts"), conflicts);
        nodes.stop();
    }
}

/// The log was dropped by hand, and made anew under the old epoch: what the peer held of it fitted nothing, or another
/// entry than the one that it had been.
#[test]
fn a_log_that_somebody_dropped_begins_a_new_epoch() {
    for runs in [false, true] {
        let mut nodes = Nodes::running(2, TABLES, &Settings::default());
        let [a, b] = [0, 1].map(|node| nodes.nodes[node].app());
        run(&a, "INSERT INTO t VALUES (1, 'a', NULL), (2, 'a', NULL)");
        run(&b, "INSERT INTO t VALUES (3, 'b', NULL)");
        nodes.assert_equal();
        let epoch = "SELECT value FROM __cdc_meta WHERE key = 'epoch'";
        let before = nodes.nodes[0].number(epoch);
        if !runs {
            nodes.stop();
            run(&a, "INSERT INTO t VALUES (4, 'never sent', NULL)");
        }
        // By a connection of its own: the one that dropped it would not see that it is there again.
        run(&nodes.nodes[0].app(), "DROP TABLE __cdc_log");
        if !runs {
            run(&b, "UPDATE t SET v = 'own' WHERE id = 2");
            let database = nodes.nodes[0].database.to_str().unwrap().to_owned();
            expect_code(0, &["setup", "--db", &database]);
            assert_ne!(nodes.nodes[0].number(epoch), before, "setup says that it is another log");
            nodes.start();
        } else {
            until("the log to be there again", || {
                let count = "SELECT count(*) FROM sqlite_schema WHERE name = '__cdc_log'";
                if nodes.nodes[0].number(count) == 1 { Ok(()) } else { Err("not yet".to_owned()) }
            });
        }
        run(&a, "INSERT INTO t VALUES (5, 'after', NULL)");
        nodes.assert_equal();
        assert_ne!(nodes.nodes[0].number(epoch), before);
        let rows = if runs { 4 } else { 5 };
        assert_eq!(nodes.nodes[1].number("SELECT count(*) FROM t"), rows);
        assert_eq!(nodes.nodes[1].number("SELECT count(*) FROM t WHERE v = 'own'"), i64::from(!runs));
        run(&b, "DELETE FROM t WHERE id = 1");
        nodes.assert_equal();
        assert_eq!(nodes.nodes[0].number("SELECT count(*) FROM t"), rows - 1);
        nodes.stop();
    }
}
