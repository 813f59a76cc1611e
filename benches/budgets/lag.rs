//! From a commit at the source to the same row visible on the replica; and what an idle pair costs.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::process;

const COMMITS: i64 = 10_000;
const EVERY: Duration = Duration::from_millis(1);

pub fn run() {
    let folder = super::folder(false);
    let (source, replica) = (folder.path().join("app.db"), folder.path().join("replica.db"));
    let writer = Connection::open(&source).unwrap();
    writer
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE t(id INTEGER PRIMARY KEY, a);",
        )
        .unwrap();
    let child = process::spawn(&["replicate", &process::text(&source), &process::text(&replica)]);
    wait_until_copied(&replica);
    let reader = std::thread::spawn(move || watch(&replica));
    let mut committed = Vec::new();
    let begin = Instant::now();
    for id in 0..COMMITS {
        while begin.elapsed() < EVERY * u32::try_from(id).unwrap() {
            std::hint::spin_loop();
        }
        writer.prepare_cached("INSERT INTO t VALUES (?1, 'a')").unwrap().execute([id]).unwrap();
        committed.push(Instant::now());
    }
    let seen = reader.join().unwrap();
    let mut lags: Vec<f64> =
        seen.iter().zip(&committed).map(|(seen, at)| seen.saturating_duration_since(*at).as_secs_f64() * 1e3).collect();
    lags.sort_by(f64::total_cmp);
    let at = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize];
    println!(
        "lag at 1,000 commits/s: p50 {:.2} ms, p99 {:.2} ms; one fsync here {:.2} ms",
        at(0.5),
        at(0.99),
        fsync_ms(folder.path())
    );
    process::stop(child);
}

pub fn idle() {
    let folder = super::folder(false);
    let (source, replica) = (folder.path().join("app.db"), folder.path().join("replica.db"));
    let writer = Connection::open(&source).unwrap();
    writer
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 1);",
        )
        .unwrap();
    let child = process::spawn(&["replicate", &process::text(&source), &process::text(&replica)]);
    wait_until_copied(&replica);
    std::thread::sleep(Duration::from_secs(5));
    let before = process::cpu_ms(child.id());
    std::thread::sleep(Duration::from_secs(60));
    println!("idle for a minute: {:.0} ms of CPU for both halves (aim 10 each)", process::cpu_ms(child.id()) - before);
    process::stop(child);
}

pub(super) fn wait_until_copied(replica: &std::path::Path) {
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < Duration::from_secs(60), "the replica did not come up");
        if let Ok(reader) = Connection::open(replica)
            && reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).is_ok()
            && reader
                .query_row("SELECT count(*) FROM __cdc_copies WHERE state <> 'done'", [], |row| row.get::<_, i64>(0))
                == Ok(0)
        {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// When each row was first visible.
fn watch(replica: &std::path::Path) -> Vec<Instant> {
    let reader = Connection::open(replica).unwrap();
    let mut newest = reader.prepare("SELECT coalesce(max(id), -1) FROM t").unwrap();
    let mut seen = Vec::new();
    while seen.len() < usize::try_from(COMMITS).unwrap() {
        let last: i64 = newest.query_row([], |row| row.get(0)).unwrap();
        let now = Instant::now();
        while i64::try_from(seen.len()).unwrap() <= last {
            seen.push(now);
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    seen
}

fn fsync_ms(folder: &std::path::Path) -> f64 {
    use std::io::Write as _;
    let mut file = std::fs::File::create(folder.join("fsync")).unwrap();
    let times = (0..200).map(|_| {
        file.write_all(&[0; 4096]).unwrap();
        let started = Instant::now();
        file.sync_data().unwrap();
        started.elapsed().as_secs_f64() * 1e3
    });
    super::median(times.collect())
}
