//! Golden scenarios: what a person can follow by reading, in `tests/it/scripts/`.
//!
//! A script is blocks of commands; below `---` stands what they print. `UPDATE_SCRIPTS=1` writes it anew, for a reader of
//! the change to judge. Lines that begin with `#` say why.
//!
//! * `source: SQL`, `replica: SQL`: what an application does there; prints the error, if there is one.
//! * `sync`: replicates until the replica has caught up; prints the error, if there is one. `sync safe` in safe mode.
//! * `dump TABLE`: its rows in the replica, in the order of its rowid or key.
//! * `schema`: what the replica holds.

use std::{fmt::Write as _, fs, path::Path};

use rusqlite::Connection;

use crate::support::{
    Place, open, open_reader,
    oracle::{Oracle, quoted, shown},
    process::twinlite,
};

#[test]
fn every_script_prints_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/scripts");
    let mut scripts: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(scripts.len() >= 5);
    let mut faults = Vec::new();
    for path in scripts {
        let expected = fs::read_to_string(&path).unwrap();
        let actual = play(&expected);
        if expected == actual {
            continue;
        }
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            fs::write(&path, actual).unwrap();
        } else {
            faults.push(format!("{} prints:\n{actual}", path.display()));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n\n"));
}

/// Runs a script; returns it with what its commands print now.
fn play(script: &str) -> String {
    let place = Place::new();
    let mut out = String::new();
    for block in script.split("\n\n") {
        let commands = block.split("\n---").next().unwrap_or_default();
        let printed: String =
            commands.lines().filter(|line| !line.starts_with('#')).map(|line| command(&place, line.trim())).collect();
        let _ = write!(out, "{}\n---\n{printed}\n", commands.trim_end());
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn command(place: &Place, line: &str) -> String {
    let execute = |conn: Connection, sql: &str| match conn.execute_batch(sql) {
        Ok(()) => String::new(),
        Err(error) => format!("{error}\n"),
    };
    if let Some(sql) = line.strip_prefix("source: ") {
        execute(open(&place.source()), sql)
    } else if let Some(sql) = line.strip_prefix("replica: ") {
        execute(open(&place.replica()), sql)
    } else if line == "sync" || line == "sync safe" {
        sync(place, if line == "sync" { "forced" } else { "safe" })
    } else if let Some(table) = line.strip_prefix("dump ") {
        dump(place, table)
    } else if line == "schema" {
        schema(&open_reader(&place.replica()))
    } else {
        panic!("no such command: {line:?}");
    }
}

fn sync(place: &Place, mode: &str) -> String {
    let (source, replica) = (place.source(), place.replica());
    let args = [
        "replicate".as_ref(),
        source.as_os_str(),
        replica.as_os_str(),
        "--once".as_ref(),
        "--migrate-mode".as_ref(),
        mode.as_ref(),
    ];
    let output = twinlite(&args);
    if output.status.success() {
        let differences = Oracle { sequences: false, ..Oracle::default() }.differences(&source, &replica);
        return if differences.is_empty() { "equal\n".to_owned() } else { "caught up, not equal\n".to_owned() };
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    // What the message says besides is for the message's own tests: here it only counts that it was refused.
    format!("refused (exit {})\n", output.status.code().unwrap_or(-1))
}

fn dump(place: &Place, table: &str) -> String {
    let conn = open_reader(&place.replica());
    let mut statement = match conn.prepare(&format!("SELECT * FROM {} ORDER BY 1", quoted(table))) {
        Ok(statement) => statement,
        Err(error) => return format!("{error}\n"),
    };
    let width = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut out = String::new();
    while let Some(row) = rows.next().unwrap() {
        let cells: Vec<String> = (0..width).map(|at| shown(row.get_ref(at).unwrap())).collect();
        let _ = writeln!(out, "{}", cells.join(" | "));
    }
    out
}

fn schema(conn: &Connection) -> String {
    let sql = "SELECT type || ' ' || name FROM sqlite_schema WHERE sql IS NOT NULL \
               AND name NOT LIKE '\\_\\_cdc\\_%' ESCAPE '\\' AND tbl_name NOT LIKE '\\_\\_cdc\\_%' ESCAPE '\\' \
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1";
    let mut statement = conn.prepare(sql).unwrap();
    statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(|row| row.unwrap() + "\n").collect()
}
