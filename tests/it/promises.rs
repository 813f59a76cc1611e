//! Promises that nothing else here covers, a test each.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::{
    Place, StopOnDrop,
    nodes::{Nodes, Settings},
    open, open_reader,
    oracle::assert_equal,
    pair::{Options, Pair, running},
    process::{Process, expect_code, expect_failure, free_port, http_get, quiesce, replicate_once, status, twinlite},
    proxy::Proxy,
    skipped,
    wait::{pause, until},
};

fn fill(conn: &Connection, rows: usize) {
    conn.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS a(id INTEGER PRIMARY KEY, v TEXT, u UNIQUE);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO a(v) SELECT hex(randomblob(50)) FROM n"
    ))
    .unwrap();
}

fn one(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    format!("{}{suffix}", path.display()).into()
}

#[test]
fn a_stalled_peer_pins_no_wal() {
    let mut pair = Pair::new(Place::new(), &Options::default());
    let conn = open(&pair.place.source());
    fill(&conn, 100);
    pair.start_source(&[]);
    pair.start_replica(&[("TWINLITE_FAILPOINT", "apply_before_commit=2:pause")]);
    until("the replica to hold its first window", || {
        conn.execute_batch("INSERT INTO a(v) VALUES ('again')").unwrap();
        if pair.replica.as_ref().unwrap().said().contains("apply_before_commit") {
            Ok(())
        } else {
            Err("not yet".into())
        }
    });
    fill(&conn, 20_000);
    until("a checkpoint that empties the WAL", || {
        let row: (i64, i64, i64) = conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap();
        let size = fs::metadata(beside(&pair.place.source(), "-wal")).unwrap().len();
        if row.0 == 0 && size == 0 { Ok(()) } else { Err(format!("{row:?}, {size} bytes")) }
    });
    pair.replica.take().unwrap().kill();
    pair.start_replica(&[]);
    pair.assert_equal();
    pair.stop();
}

#[test]
fn a_writer_with_little_patience_is_never_kept_out() {
    let place = Place::new();
    let conn = open(&place.source());
    fill(&conn, 30_000);
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    until("capture to be installed", || {
        conn.query_row("SELECT 1 FROM __cdc_meta WHERE key = 'epoch'", [], |_| Ok(()))
            .map_err(|error| error.to_string())
    });
    // Locks are held for 10 ms at most; twenty times that is for a machine that stalls.
    conn.busy_timeout(std::time::Duration::from_millis(200)).unwrap();
    for number in 0..3_000 {
        conn.execute("UPDATE a SET v = ?1 WHERE id = ?1 * 7 % 30000 + 1", [number]).unwrap();
    }
    quiesce(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
    process.assert_running();
    process.stop();
}

#[test]
fn the_log_is_pruned_when_it_is_quiet() {
    let mut pair = running(filled(2_000), &Options::default());
    let conn = open(&pair.place.source());
    fill(&conn, 5_000);
    pair.quiesce();
    until("the log to be pruned", || {
        let rows = one(&open_reader(&pair.place.source()), "SELECT count(*) FROM __cdc_log");
        if rows < 100 { Ok(()) } else { Err(format!("{rows} rows")) }
    });
    // Each time that we held the write lock for it was counted.
    until("the prune to be counted", || {
        let metrics = crate::support::process::status(&pair.place.source())["metrics"].clone();
        let counted = |name: &str| metrics[name].as_u64().unwrap_or(0);
        if counted("write_locks_total") > 0 && counted("log_pruned_total") > 4_000 {
            return Ok(());
        }
        Err(metrics.to_string())
    });
    let head = one(&conn, "SELECT max(seq) FROM __cdc_log");
    conn.execute_batch("INSERT INTO a(v) VALUES ('one more')").unwrap();
    assert!(one(&conn, "SELECT max(seq) FROM __cdc_log") > head, "a sequence number was used again");
    pair.assert_equal();
    pair.stop();
}

fn filled(rows: usize) -> Place {
    let place = Place::new();
    fill(&open(&place.source()), rows);
    place
}

#[test]
fn we_never_checkpoint_the_wal_of_a_source() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    fill(&conn, 100);
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    for _ in 0..5 {
        fill(&conn, 20_000);
        quiesce(&place.source(), &place.replica());
    }
    process.assert_running();
    process.stop();
    // The index of the WAL says at byte 96 how many frames a checkpoint has copied into the database.
    let index = fs::read(beside(&place.source(), "-shm")).unwrap();
    assert_eq!(
        u32::from_ne_bytes(index[96..100].try_into().unwrap()),
        0,
        "frames were checkpointed, not by the application"
    );
    assert!(fs::metadata(beside(&place.source(), "-wal")).unwrap().len() > 8 << 20);
}

#[test]
fn a_window_that_is_split_says_so() {
    let source = "window_rows: 500\n".to_owned();
    let mut pair = running(filled(10), &Options { source, ..Options::default() });
    pair.proxy.delay(std::time::Duration::from_millis(60));
    fill(&open(&pair.place.source()), 40_000);
    let admin = pair.replica_admin.clone();
    until("the status to say so", || {
        let (_, body) = http_get(&admin, "/status.json")?;
        if body.contains("\"between_transactions\"") { Ok(()) } else { Err(body) }
    });
    pair.proxy.heal();
    pair.assert_equal();
    pair.stop();
}

const SMALL_LOG: &str = "capture: { retention: { rows: 1000 } }\n";

#[test]
fn the_triggers_bound_the_log_while_nobody_runs_and_the_next_run_heals() {
    let mut pair = running(filled(500), &Options { source: SMALL_LOG.to_owned(), ..Options::default() });
    for node in [pair.source.take(), pair.replica.take()] {
        node.unwrap().stop();
    }
    let conn = open(&pair.place.source());
    let epoch = one(&conn, "SELECT value FROM __cdc_meta WHERE key = 'epoch'");
    for _ in 0..10 {
        fill(&conn, 1_000);
    }
    let rows = one(&conn, "SELECT count(*) FROM __cdc_log");
    assert!(rows <= 2_500, "the log has {rows} rows, its bound is 1000 and what one statement adds");
    pair.start();
    pair.assert_equal();
    assert_ne!(one(&conn, "SELECT value FROM __cdc_meta WHERE key = 'epoch'"), epoch);
    pair.stop();
}

#[test]
fn a_replica_that_was_away_too_long_is_repaired_by_itself() {
    let mut pair = running(filled(500), &Options { source: SMALL_LOG.to_owned(), ..Options::default() });
    pair.replica.take().unwrap().stop();
    let conn = open(&pair.place.source());
    let oldest = one(&conn, "SELECT min(seq) FROM __cdc_log");
    for round in 1..=3 {
        fill(&conn, 1_500);
        conn.execute_batch("DELETE FROM a WHERE id % 3 = 0").unwrap();
        until("the log to be pruned past the replica, when it is quiet", || {
            let now = one(&conn, "SELECT min(seq) FROM __cdc_log");
            if now > oldest + round * 500 { Ok(()) } else { Err(format!("from {oldest} to {now}")) }
        });
    }
    pair.start_replica(&[]);
    pair.assert_equal();
    pair.stop();
}

/// The log's bound is far below what is written at once, so the triggers stop. That must be noticed, and healed, though
/// the application never rests.
#[test]
fn a_full_log_is_healed_under_a_writer_that_never_rests() {
    let mut pair = running(filled(500), &Options { source: SMALL_LOG.to_owned(), ..Options::default() });
    let (source, replica) = (pair.place.source(), pair.place.replica());
    let (stop, number) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|scope| {
        let guard = StopOnDrop(&stop);
        scope.spawn(|| {
            let conn = open(&source);
            conn.execute_batch("CREATE TABLE IF NOT EXISTS ticks(n INTEGER PRIMARY KEY)").unwrap();
            while !stop.load(Ordering::SeqCst) {
                let now = number.fetch_add(1, Ordering::SeqCst);
                conn.execute("INSERT INTO ticks VALUES (?1)", [now]).unwrap();
                conn.execute("DELETE FROM ticks WHERE n < ?1 - 100", [now]).unwrap();
                pause(std::time::Duration::from_millis(20));
            }
        });
        fill(&open(&source), 3_000);
        let epoch = one(&open(&source), "SELECT value FROM __cdc_meta WHERE key = 'epoch'");
        for _ in 0..3 {
            let written = number.load(Ordering::SeqCst);
            let seen = || {
                let newest =
                    open_reader(&replica).query_row("SELECT max(n) FROM ticks", [], |row| row.get::<_, i64>(0));
                match newest {
                    Ok(newest) if newest > written => Ok(()),
                    other => Err(format!("{other:?}, {written} was written")),
                }
            };
            until("the replica to follow again", seen);
            fill(&open(&source), 3_000);
        }
        assert_ne!(one(&open(&source), "SELECT value FROM __cdc_meta WHERE key = 'epoch'"), epoch, "it was never full");
        drop(guard);
    });
    pair.assert_equal();
    pair.stop();
}

/// The same where both halves are one process, which opens both databases anew.
#[test]
fn a_log_that_fills_under_replicate_is_begun_anew_without_a_gap() {
    let place = filled(500);
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    let conn = open(&place.source());
    // In one transaction, so that nobody moves the limit before it is met.
    conn.execute_batch(
        "BEGIN IMMEDIATE;
         UPDATE __cdc_meta SET value = (SELECT max(seq) + 5 FROM __cdc_log) WHERE key = 'capture_limit';
         UPDATE a SET v = v || 'x' WHERE id % 10 = 0;
         DELETE FROM a WHERE id % 50 = 1;
         COMMIT",
    )
    .unwrap();
    let began = || process.said().contains("the change log was full").then_some(()).ok_or_else(|| process.said());
    until("the log to be begun anew", began);
    fill(&conn, 10);
    quiesce(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
    process.assert_running();
    process.stop();
}

#[test]
fn one_source_feeds_two_replicas() {
    let place = filled(1_000);
    let (listen, admin) = (free_port(), free_port());
    let source = format!(
        "name: source\nspec: {{ connection_string: {} }}\nlisten: 127.0.0.1:{listen}\nadmin: {{ listen: 127.0.0.1:{admin} }}\n\
         links:\n  - {{ name: one, directions: send }}\n  - {{ name: two, directions: send }}\n",
        place.source().display()
    );
    // The replicas are two nodes of one process.
    let node = |name: &str| {
        format!(
            "  - name: {name}\n    spec: {{ connection_string: {} }}\n    links: [{{ name: source, directions: receive, peer: 127.0.0.1:{listen} }}]\n",
            place.file(&format!("{name}.db")).display()
        )
    };
    let replicas = format!("nodes:\n{}{}", node("one"), node("two"));
    fs::write(place.file("source.yaml"), source).unwrap();
    fs::write(place.file("replicas.yaml"), replicas).unwrap();
    let mut source = Process::run(&place.file("source.yaml"), &[]);
    let mut replicas = Process::run(&place.file("replicas.yaml"), &[]);
    let conn = open(&place.source());
    for _ in 0..5 {
        fill(&conn, 300);
        conn.execute_batch("DELETE FROM a WHERE id % 5 = 0; UPDATE a SET v = v || '.' WHERE id % 7 = 0").unwrap();
        for name in ["one.db", "two.db"] {
            quiesce(&place.source(), &place.file(name));
            assert_equal(&place.source(), &place.file(name));
        }
        source.assert_running();
        replicas.assert_running();
    }
    // From here on both links want the same windows, so what is read once is sent twice.
    let before = counters(&place.source());
    for round in 0..20 {
        conn.execute("INSERT INTO a(v) VALUES (?1)", [format!("round {round}")]).unwrap();
        for name in ["one.db", "two.db"] {
            quiesce(&place.source(), &place.file(name));
        }
    }
    let after = counters(&place.source());
    let (read, sent) = (after.0 - before.0, after.1 - before.1);
    assert!(sent >= 40 && read * 4 <= sent * 3, "{read} windows were read and {sent} sent");
    source.stop();
    replicas.stop();
}

/// How many windows a node has read and sent.
/// Two replicas of one name took the link from each other at every dial, and each let the log be pruned for the other.
#[test]
fn a_second_replica_of_a_name_is_refused_and_the_first_goes_on() {
    let place = filled(100);
    let listen = free_port();
    let source = format!(
        "name: source\nspec: {{ connection_string: {} }}\nlisten: 127.0.0.1:{listen}\nlinks: [{{ name: replica, directions: send }}]\n",
        place.source().display()
    );
    fs::write(place.file("source.yaml"), source).unwrap();
    let replica = |file: &str| {
        let text = format!(
            "name: replica\nspec: {{ connection_string: {} }}\nlinks: [{{ name: source, directions: receive, peer: '127.0.0.1:{listen}' }}]\n",
            place.file(file).display()
        );
        let config = place.file(&format!("{file}.yaml"));
        fs::write(&config, text).unwrap();
        Process::run(&config, &[])
    };
    let source = Process::run(&place.file("source.yaml"), &[]);
    let mut first = replica("first.db");
    quiesce(&place.source(), &place.file("first.db"));
    let second = replica("second.db");
    let refused = || second.said().contains("name_taken").then_some(()).ok_or_else(|| second.said());
    until("the second one to be refused", refused);
    open(&place.source()).execute_batch("UPDATE a SET v = 'new'").unwrap();
    quiesce(&place.source(), &place.file("first.db"));
    assert_equal(&place.source(), &place.file("first.db"));
    first.assert_running();
    assert_eq!(first.said().matches("connected").count(), 1, "{}", first.said());
    first.stop();
    // The name is free now: the second one looks again by itself.
    quiesce(&place.source(), &place.file("second.db"));
    assert_equal(&place.source(), &place.file("second.db"));
    second.stop();
    source.stop();
}

/// One node's teardown ended every node of its process, with exit code 0.
#[test]
fn tearing_down_one_node_leaves_the_others_of_its_process_alone() {
    let place = filled(10);
    fill(&open(&place.file("other.db")), 10);
    let node = |name: &str, file: &Path| {
        let port = free_port();
        format!(
            "  - name: {name}\n    spec: {{ connection_string: {} }}\n    listen: 127.0.0.1:{port}\n    links: [{{ name: r, directions: send }}]\n",
            file.display()
        )
    };
    let config = place.file("nodes.yaml");
    fs::write(&config, format!("nodes:\n{}{}", node("one", &place.source()), node("two", &place.file("other.db"))))
        .unwrap();
    let mut process = Process::run(&config, &[]);
    let captured = |file: &Path| {
        let objects = open_reader(file).query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_\\_cdc%' ESCAPE '\\'",
            [],
            |row| row.get(0),
        );
        objects.is_ok_and(|objects: i64| objects > 0)
    };
    until("both to be captured", || {
        (captured(&place.source()) && captured(&place.file("other.db"))).then_some(()).ok_or_else(|| process.said())
    });
    expect_code(0, &["teardown", "--db", &place.source().display().to_string()]);
    assert!(!captured(&place.source()));
    let socket = beside(&place.source(), "-twinlite.sock");
    until("the first node to end", || if socket.exists() { Err(process.said()) } else { Ok(()) });
    until("the other one to answer", || {
        let status = twinlite(&["status", "--db", &place.file("other.db").display().to_string()]);
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        if text.contains("no process owns") || text.is_empty() { Err(text) } else { Ok(()) }
    });
    process.assert_running();
    process.stop();
}

/// The slower replica got windows that the faster one's link had read before the newest commit, and waited for a tick that
/// had come already: it stayed behind, and both ends said that it did not. A replica that is away holds the log, so that
/// no commit of ours ticks either.
#[test]
fn the_slower_of_two_replicas_does_not_stay_behind() {
    let place = filled(100);
    let listen = free_port();
    let proxy = Proxy::start(format!("127.0.0.1:{listen}").parse().unwrap());
    let source = format!(
        "name: source\nspec: {{ connection_string: {} }}\nlisten: 127.0.0.1:{listen}\nlinks:\n  - {{ name: one, directions: send \
         }}\n  - {{ name: two, directions: send }}\n  - {{ name: away, directions: send }}\n",
        place.source().display()
    );
    fs::write(place.file("source.yaml"), source).unwrap();
    let replica = |name: &str, peer: String| {
        let text = format!(
            "name: {name}\nspec: {{ connection_string: {} }}\nlinks: [{{ name: source, directions: receive, peer: '{peer}' }}]\n",
            place.file(&format!("{name}.db")).display()
        );
        fs::write(place.file(&format!("{name}.yaml")), text).unwrap();
        Process::run(&place.file(&format!("{name}.yaml")), &[])
    };
    let source = Process::run(&place.file("source.yaml"), &[]);
    let away = replica("away", format!("127.0.0.1:{listen}"));
    quiesce(&place.source(), &place.file("away.db"));
    away.stop();
    let one = replica("one", format!("127.0.0.1:{listen}"));
    let two = replica("two", proxy.address().to_string());
    quiesce(&place.source(), &place.file("one.db"));
    quiesce(&place.source(), &place.file("two.db"));
    proxy.delay(Duration::from_millis(40));
    let conn = open(&place.source());
    for burst in 0..12 {
        for change in 0..8 {
            conn.execute("UPDATE a SET v = ?1 WHERE id = ?2", (burst, change)).unwrap();
            pause(Duration::from_millis(11));
        }
        quiesce(&place.source(), &place.file("two.db"));
    }
    assert_equal(&place.source(), &place.file("two.db"));
    for process in [one, two, source] {
        process.stop();
    }
}

fn counters(database: &std::path::Path) -> (u64, u64) {
    let metrics = &crate::support::process::status(database)["metrics"];
    let count = |name: &str| metrics[name].as_u64().unwrap_or_else(|| panic!("no {name} in {metrics}"));
    (count("windows_read_total"), count("windows_sent_total"))
}

#[test]
fn new_files_take_the_group_of_their_folder_and_are_for_owner_and_group() {
    let place = filled(10);
    let folder = place.file("data");
    fs::create_dir(&folder).unwrap();
    // Only root can give a folder to a group that is not its own.
    let _ = std::os::unix::fs::chown(&folder, None, Some(12_345));
    let replica = folder.join("replica.db");
    replicate_once(&place.source(), &replica);
    let (file, group) = (fs::metadata(&replica).unwrap(), fs::metadata(&folder).unwrap().gid());
    assert_eq!(file.permissions().mode() & 0o777, 0o660);
    assert_eq!(file.gid(), group);
}

/// A configuration that is refused, and the words that the message must have.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "name: x\nspec: { connection_string: /tmp/x.db }\nlisten: 0.0.0.0:7745\nlinks: [{ name: y, directions: send }]\n",
        &["listen", "insecure"],
    ),
    (
        "name: x\nspec: { connection_string: /tmp/x.db, conection: 1 }\nbatch_size: many\nbatchsize: 3\ngrace: 10\n\
         links: [{ name: y, directions: sideways, peer: 'h:1' }]\n",
        &["spec.conection", "batch_size", "batchsize", "grace", "directions", "config.yaml"],
    ),
    (
        "name: x\nspec: { connection_string: /tmp/x.db }\nlinks: [{ name: y, directions: send, peer: 'h:1', write_mode: append }]\n",
        &["write_mode"],
    ),
    ("name: x\nspec: { connection_string: '${NO_SUCH_VARIABLE}' }\n", &["NO_SUCH_VARIABLE"]),
    ("name: [\n", &["config.yaml"]),
];

#[test]
fn a_wrong_configuration_is_refused_with_every_fault_at_once() {
    for (config, words) in REFUSED {
        let place = Place::new();
        let path = place.file("config.yaml");
        fs::write(&path, config).unwrap();
        let error = expect_failure(2, &["run".as_ref(), "--config".as_ref(), path.as_os_str()]);
        for word in *words {
            assert!(error.contains(word), "no {word} in:\n{error}");
        }
    }
}

#[test]
fn the_environment_reaches_the_configuration() {
    let place = filled(100);
    let mut pair = Pair::new(place, &Options::default());
    let config = fs::read_to_string(pair.source_config()).unwrap();
    let database = pair.place.source().display().to_string();
    fs::write(pair.source_config(), config.replace(&database, "\"${THE_DATABASE}\"")).unwrap();
    pair.start_source(&[
        ("THE_DATABASE", &database),
        ("TWINLITE__LOG__FORMAT", "json"),
        ("TWINLITE__LOG__LEVEL", "info"),
    ]);
    pair.start_replica(&[]);
    pair.assert_equal();
    let said = pair.source.as_ref().unwrap().said();
    assert!(said.lines().any(|line| line.starts_with('{')), "no JSON in the log:\n{said}");
    pair.stop();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let mut pair = running(filled(10), &Options::default());
    let config = fs::read_to_string(pair.source_config()).unwrap();
    let port = config.lines().find_map(|line| line.strip_prefix("listen: ")).unwrap().to_owned();
    let other = pair.place.file("other.db");
    drop(open(&other));
    let config = config.replace(&pair.place.source().display().to_string(), &other.display().to_string());
    let path = pair.place.file("other.yaml");
    fs::write(&path, config).unwrap();
    let error = expect_failure(1, &["run".as_ref(), "--config".as_ref(), path.as_os_str()]);
    assert!(error.contains(&port), "{error}");
    pair.assert_equal();
    pair.stop();
}

/// A file system of so many bytes, gone when dropped.
pub struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let options = format!("size={size}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        status.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    pub fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_at_the_replica_is_waited_out() {
    let place = filled(2_000);
    let Some(disk) = SmallDisk::mount(&place.file("small"), "3m") else {
        return skipped("a_full_disk_at_the_replica_is_waited_out", "a small disk can only be mounted by root");
    };
    let replica = place.file("small").join("replica.db");
    let mut process = Process::replicate(&place.source(), &replica, &[]);
    let conn = open(&place.source());
    fill(&conn, 40_000);
    until("the disk to be full", || {
        let said = process.said();
        if said.contains("full") { Ok(()) } else { Err(said) }
    });
    // The application goes on, and so does the process.
    fill(&conn, 100);
    process.assert_running();
    disk.resize("200m");
    quiesce(&place.source(), &replica);
    assert_equal(&place.source(), &replica);
    process.stop();
}

/// The other direction went well each time, so the status said "connecting" and "live" in turn, and the log that the link
/// was live.
#[test]
fn a_full_disk_of_one_of_two_that_both_write_is_told_until_a_window_is_in() {
    let mut nodes = Nodes::new(Place::new(), 2, &Settings::default());
    let small = nodes.place.file("small").join("b.db");
    let Some(disk) = SmallDisk::mount(small.parent().unwrap(), "3m") else {
        let test = "a_full_disk_of_one_of_two_that_both_write_is_told_until_a_window_is_in";
        return skipped(test, "a small disk can only be mounted by root");
    };
    let b = &mut nodes.nodes[1];
    let config = fs::read_to_string(&b.config).unwrap();
    fs::write(&b.config, config.replace(b.database.to_str().unwrap(), small.to_str().unwrap())).unwrap();
    b.database = small;
    fill(&nodes.nodes[0].app(), 200);
    nodes.start();
    nodes.quiesce();
    let links = |nodes: &Nodes| nodes.nodes.iter().flat_map(|node| node.links()).collect::<Vec<_>>();
    let all = |links: &[Value], state: &str, error: &Value| {
        let is_so = |link: &Value| link["state"] == state && link["last_error"]["code"] == *error;
        if links.len() == 4 && links.iter().all(is_so) { Ok(()) } else { Err(format!("{links:?}")) }
    };
    until("all to be live", || all(&links(&nodes), "live", &Value::Null));
    fill(&nodes.nodes[0].app(), 40_000);
    until("the full disk to be told", || all(&links(&nodes), "waiting", &Value::from("disk_full")));
    let live = |nodes: &Nodes| -> usize {
        let said = nodes.nodes.iter().map(|node| node.process.as_ref().unwrap().said());
        said.map(|said| said.matches("link is live").count()).sum()
    };
    let tries = |nodes: &Nodes| status(&nodes.nodes[1].database)["metrics"]["reconnects_total"].as_u64().unwrap();
    let (was_live, first) = (live(&nodes), tries(&nodes));
    until("it to be tried again", || {
        all(&links(&nodes), "waiting", &Value::from("disk_full")).unwrap();
        let tries = tries(&nodes) - first;
        if tries >= 3 { Ok(()) } else { Err(format!("{tries} tries")) }
    });
    assert_eq!(live(&nodes), was_live);
    disk.resize("200m");
    nodes.assert_equal();
    until("all to be live again", || all(&links(&nodes), "live", &Value::Null));
    nodes.stop();
}

#[test]
fn a_full_disk_at_the_source_stops_nobody_for_good() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place.file("small"), "3m") else {
        return skipped("a_full_disk_at_the_source_stops_nobody_for_good", "a small disk can only be mounted by root");
    };
    let source = place.file("small").join("source.db");
    let conn = open(&source);
    fill(&conn, 200);
    let mut process = Process::replicate(&source, &place.replica(), &[]);
    quiesce(&source, &place.replica());
    until("the application to see that the disk is full", || {
        let rows = "INSERT INTO a(v) SELECT hex(randomblob(500)) FROM a LIMIT 100";
        conn.execute_batch(rows).map_or(Ok(()), |()| Err("not yet".to_owned()))
    });
    process.assert_running();
    disk.resize("200m");
    fill(&conn, 1_000);
    quiesce(&source, &place.replica());
    assert_equal(&source, &place.replica());
    process.assert_running();
    process.stop();
}
