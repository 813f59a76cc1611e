//! Both ways beside one way, in the same run: 500 commits a second at each writing end, each of a key of its own.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::process;

const COMMITS: i64 = 5_000;
const EVERY: Duration = Duration::from_millis(2);
/// Where the second end's keys begin.
const SECOND: i64 = 1_000_000_000;

pub fn run() {
    let one = measure(&[], 1);
    let both = measure(&["--two-way"], 2);
    for (what, (lags, seconds)) in [("one way", one), ("both ways", both)] {
        let at = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize];
        println!(
            "{what} at 500 commits/s an end: lag p50 {:.2} ms, p99 {:.2} ms, {:.0} changes/s arrived",
            at(0.5),
            at(0.99),
            lags.len() as f64 / seconds
        );
    }
}

/// The lags of all changes in ms, in order, and how long it took until the last had arrived.
fn measure(flags: &[&str], ends: usize) -> (Vec<f64>, f64) {
    let folder = super::folder(false);
    let files: [PathBuf; 2] = ["a.db", "b.db"].map(|name| folder.path().join(name));
    let first = open(&files[0]);
    first.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, a)").unwrap();
    let (a, b) = (process::text(&files[0]), process::text(&files[1]));
    let child = process::spawn(&[&["replicate"], flags, &[&a, &b]].concat());
    super::lag::wait_until_copied(&files[1]);
    let begin = Instant::now();
    let lags: Vec<f64> = thread::scope(|scope| {
        let ends: Vec<_> = (0..ends)
            .map(|end| {
                let (from, to) = (&files[end], &files[1 - end]);
                let low = if end == 0 { 0 } else { SECOND };
                let seen = scope.spawn(move || watch(to, low));
                let committed = scope.spawn(move || write(from, low));
                (seen, committed)
            })
            .collect();
        let lags = ends.into_iter().flat_map(|(seen, committed)| {
            let (seen, committed) = (seen.join().unwrap(), committed.join().unwrap());
            seen.into_iter().zip(committed).map(|(seen, at)| seen.saturating_duration_since(at).as_secs_f64() * 1e3)
        });
        lags.collect()
    });
    let seconds = begin.elapsed().as_secs_f64();
    process::stop(child);
    let mut lags = lags;
    lags.sort_by(f64::total_cmp);
    (lags, seconds)
}

fn open(file: &Path) -> Connection {
    let conn = Connection::open(file).unwrap();
    conn.busy_timeout(Duration::from_secs(30)).unwrap();
    conn.execute_batch("PRAGMA synchronous = NORMAL").unwrap();
    conn
}

fn write(file: &Path, low: i64) -> Vec<Instant> {
    let conn = open(file);
    let (begin, mut committed) = (Instant::now(), Vec::new());
    for number in 0..COMMITS {
        while begin.elapsed() < EVERY * u32::try_from(number).unwrap() {
            thread::sleep(Duration::from_micros(50));
        }
        conn.prepare_cached("INSERT INTO t VALUES (?1, 'a')").unwrap().execute([low + number]).unwrap();
        committed.push(Instant::now());
    }
    committed
}

/// When each row of the other end was first visible.
fn watch(file: &Path, low: i64) -> Vec<Instant> {
    let conn = open(file);
    let mut newest = conn.prepare("SELECT coalesce(max(id), ?1 - 1) FROM t WHERE id BETWEEN ?1 AND ?2").unwrap();
    let mut seen = Vec::new();
    while seen.len() < usize::try_from(COMMITS).unwrap() {
        let last: i64 = newest.query_row([low, low + COMMITS], |row| row.get(0)).unwrap();
        let now = Instant::now();
        while low + i64::try_from(seen.len()).unwrap() <= last {
            seen.push(now);
        }
        thread::sleep(Duration::from_micros(100));
    }
    seen
}
