//! Events a second to a pipe and to a local HTTP server, beside reading the same log with a plain SELECT.
//!
//! Inserts, updates and deletes of ten columns wait in the log before anything is measured. The program is timed from its
//! start to the last event's arrival, once with JSON lines into a pipe and once with POSTs; the SELECT reads every column of
//! every entry of that log. Reading is the least that anybody could do: what is above it is finding the images that belong
//! together, JSON, and the way to who takes them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::process;

const ROWS: i64 = 60_000;
const EVENTS: usize = 3 * ROWS as usize;
const ROWS_IN_A_TRANSACTION: i64 = 1_000;
const CONSUMERS: [&str; 2] = ["pipe", "http"];

pub fn run() {
    let folder = super::folder(true);
    let database = folder.path().join("app.db");
    let app = Connection::open(&database).unwrap();
    app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, d, e, f, g, h, i)")
        .unwrap();
    for consumer in CONSUMERS {
        process::run_to_end(&["cdc", "--db", &process::text(&database), "--setup", "--consumer", consumer]);
    }
    write(&app);
    let log = select(&database);
    let pipe = to_a_pipe(&database);
    let http = to_a_server(&database);
    let rate = |took: Duration| EVENTS as f64 / took.as_secs_f64();
    println!(
        "events: {EVENTS}: SELECT of the log {:.0}/s; to a pipe {:.0}/s ({:.2} of it); to a local HTTP server, 256 a POST, {:.0}/s ({:.2})",
        rate(log),
        rate(pipe),
        log.as_secs_f64() / pipe.as_secs_f64(),
        rate(http),
        log.as_secs_f64() / http.as_secs_f64(),
    );
}

/// Each row is inserted, changed and deleted.
fn write(app: &Connection) {
    let statements = [
        "INSERT INTO t VALUES (?1, ?1 * 7, 'a name of somebody', 0.5 * ?1, NULL, 'some street in some town', 1, 2, 'x', ?1)",
        "UPDATE t SET b = 'the name of another', i = i + 1 WHERE id = ?1",
        "DELETE FROM t WHERE id = ?1",
    ];
    for sql in statements {
        for first in (0..ROWS).step_by(ROWS_IN_A_TRANSACTION as usize) {
            let batch = app.unchecked_transaction().unwrap();
            for id in first..first + ROWS_IN_A_TRANSACTION {
                batch.prepare_cached(sql).unwrap().execute([id]).unwrap();
            }
            batch.commit().unwrap();
        }
    }
}

/// Reads every value of every entry.
fn select(database: &Path) -> Duration {
    let reader = Connection::open(database).unwrap();
    let started = Instant::now();
    let mut all = reader.prepare("SELECT * FROM __cdc_log ORDER BY seq").unwrap();
    let (columns, mut bytes) = (all.column_count(), 0);
    let mut rows = all.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        for column in 0..columns {
            bytes += match row.get_ref(column).unwrap() {
                ValueRef::Null => 0,
                ValueRef::Integer(_) | ValueRef::Real(_) => 8,
                ValueRef::Text(value) | ValueRef::Blob(value) => value.len(),
            };
        }
    }
    std::hint::black_box(bytes);
    started.elapsed()
}

fn command(database: &Path, consumer: &str, output: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinlite"));
    command.args(["cdc", "--db", &process::text(database), "--cdc", "--consumer", consumer, "--output", output]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn to_a_pipe(database: &Path) -> Duration {
    let started = Instant::now();
    let mut child = command(database, CONSUMERS[0], "json").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
    let mut line = Vec::new();
    for _ in 0..EVENTS {
        line.clear();
        assert!(lines.read_until(b'\n', &mut line).unwrap() > 0, "it ended before the last event");
    }
    let took = started.elapsed();
    process::stop(child);
    took
}

fn to_a_server(database: &Path) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (counted, counts) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream, &counted);
        }
    });
    let started = Instant::now();
    let child = command(database, CONSUMERS[1], &url).spawn().unwrap();
    let mut events = 0;
    while events < EVENTS {
        events += counts.recv_timeout(Duration::from_secs(120)).unwrap();
    }
    let took = started.elapsed();
    process::stop(child);
    took
}

/// Takes POSTs on one connection, and says how many events each has: as many as it has positions.
fn serve(stream: TcpStream, counted: &mpsc::Sender<usize>) {
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::with_capacity(1 << 20, stream);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some((_, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).unwrap();
        let positions = body.split(|byte| *byte == b'[').nth(1).unwrap().split(|byte| *byte == b']').next().unwrap();
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        counted.send(positions.split(|byte| *byte == b',').count()).unwrap();
    }
}
