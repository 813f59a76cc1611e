//! `twinlite status`: how a node is doing, for a person or (`-o json`) as a contract.
//!
//! The process that owns the database is asked; without one, what the database itself holds is told and every link is
//! `offline`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Context;
use rusqlite::Connection;

use super::args::{Output, Status};
use super::{Outcome, output, status_events};
use crate::admin::{self, Request};
use crate::apply;
use crate::capture;
use crate::config::NodeConfig;
use crate::events::reports;
use crate::model::{Epoch, NodeId, Position};
use crate::node::broken_report;
use crate::sqlite::store;
use crate::sqlite::{self, Role};
use crate::telemetry::report::FORMAT;
use crate::telemetry::{
    BROKEN_SHOWN_MAX, Direction, LinkReport, LinkState, LogReport, NodeReport, StatusReport, TableReport, TableState,
    utc,
};

/// Tables shown in full to a person; beyond, those that are live are counted.
const TABLES_SHOWN_MAX: usize = 40;

/// Runs the command.
///
/// # Errors
/// A database that is not there, or an owner that does not answer.
pub async fn run(args: &Status, form: Output) -> anyhow::Result<Outcome> {
    let mut reports = Vec::new();
    for node in args.target.nodes()? {
        reports.push(report(&node).await?);
    }
    match (form, reports.as_slice()) {
        (Output::Json, [report]) => output::json(report)?,
        (Output::Json, reports) => output::json(&reports)?,
        (Output::Table, reports) => {
            let texts: Vec<String> = reports.iter().map(person).collect();
            output::print(&texts.join("\n"))?;
        }
    }
    Ok(if reports.iter().all(|report| report.healthy) { Outcome::Done } else { Outcome::Found })
}

async fn report(node: &NodeConfig) -> anyhow::Result<StatusReport> {
    let answer = admin::ask(&node.database, &Request::Status).await?;
    match answer {
        None => offline(node),
        Some(answer) => {
            let why = || {
                anyhow::anyhow!("the owner of {} gave no status: {}", node.database.display(), answer.lines.join("; "))
            };
            answer.report.clone().ok_or_else(why)
        }
    }
}

/// What the database says by itself.
///
/// # Errors
/// A file that is not there or is no database, or of a newer format.
pub fn offline(node: &NodeConfig) -> anyhow::Result<StatusReport> {
    let connection = sqlite::open(&node.database, Role::Reader, false)?;
    store::check_format(&connection).with_context(|| node.database.display().to_string())?;
    let mut report = StatusReport {
        format: FORMAT,
        node: NodeReport {
            name: node.name.clone(),
            id: store::node_id(&connection)?.map(|id: NodeId| id.to_string()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            database: node.database.display().to_string(),
        },
        healthy: true,
        links: Vec::new(),
        events: Vec::new(),
        tables: Vec::new(),
        log: None,
        conflicts: 0,
        foreign_keys: Vec::new(),
        notes: Vec::new(),
        metrics: std::collections::BTreeMap::new(),
    };
    if !store::exists(&connection)? {
        report.notes.push("nothing of Twinlite's is in this database; see `twinlite plan`".to_owned());
        return Ok(report);
    }
    let doing = || format!("{}: read what Twinlite keeps there", node.database.display());
    read_received(&connection, &mut report).with_context(doing)?;
    read_captured(&connection, &mut report).with_context(doing)?;
    if report.log.is_some() {
        report.events = reports::consumers(&connection, &node.database).with_context(doing)?;
    }
    report.conflicts = apply::conflicts::count(&connection).with_context(doing)?;
    let broken = apply::broken(&connection).with_context(doing)?;
    report.foreign_keys = broken.iter().take(BROKEN_SHOWN_MAX).map(broken_report).collect();
    // Nobody is there to receive: a replica that nothing feeds is what this command is asked to find.
    report.healthy = report.links.iter().all(|link| link.direction != Direction::Receive);
    Ok(report)
}

fn read_received(connection: &Connection, report: &mut StatusReport) -> rusqlite::Result<()> {
    let mut links =
        connection.prepare("SELECT name, epoch, seq FROM __cdc_checkpoints WHERE epoch NOT NULL ORDER BY name")?;
    let links = links.query_map([], |row| {
        let (name, position): (String, _) = (row.get(0)?, position(row.get(1)?, row.get(2)?));
        Ok(offline_link(name, Direction::Receive, position))
    })?;
    report.links.extend(links.collect::<rusqlite::Result<Vec<_>>>()?);
    // What was copied to a CloudQuery destination or an event consumer is kept beside what was copied here.
    let received = match store::table_exists(connection, "__cdc_consumers")? {
        true => "WHERE peer NOT IN (SELECT peer FROM __cdc_consumers WHERE kind <> 'link' AND peer IS NOT NULL)",
        false => "",
    };
    let mut tables = connection.prepare(&format!(
        "SELECT c.name, c.id, c.state, c.rows, c.rows_estimate, p.name
         FROM __cdc_copies c LEFT JOIN __cdc_checkpoints p USING (peer) {received} ORDER BY p.name, c.name"
    ))?;
    let tables = tables.query_map([], |row| {
        let state = match row.get::<_, String>(2)?.as_str() {
            "done" | "left" => TableState::Live,
            "pending" => TableState::Pending,
            _ => TableState::Snapshot,
        };
        let total = row.get::<_, i64>(4)?.unsigned_abs();
        Ok(TableReport {
            generation: row.get(1)?,
            rows_copied: row.get::<_, i64>(3)?.unsigned_abs(),
            rows_total: (total > 0).then_some(total),
            link: row.get(5)?,
            ..TableReport::new(row.get::<_, String>(0)?, state)
        })
    })?;
    report.tables.extend(tables.collect::<rusqlite::Result<Vec<_>>>()?);
    Ok(())
}

fn position(epoch: Option<i64>, seq: Option<i64>) -> Option<Position> {
    Some(Position { epoch: Epoch(epoch?), seq: seq? })
}

fn read_captured(connection: &Connection, report: &mut StatusReport) -> Result<(), capture::Error> {
    if store::epoch(connection)?.is_none() {
        return Ok(());
    }
    let log = capture::log_state(connection)?;
    report.log = Some(LogReport { rows: log.rows, bytes: log.bytes });
    // Where both ends write, a table is received as well as captured.
    let listed: BTreeSet<String> = report.tables.iter().map(|table| table.name.to_lowercase()).collect();
    let captured = reports::tables(connection)?.into_iter();
    report.tables.extend(captured.filter(|table| !listed.contains(&table.name.to_lowercase())));
    let end = log.head.position;
    let sql =
        "SELECT name, epoch, seq, at FROM __cdc_consumers WHERE peer IS NOT NULL AND kind <> 'events' ORDER BY name";
    let mut consumers = connection.prepare(sql)?;
    let links = consumers.query_map([], |row| {
        let position = position(row.get(1)?, row.get(2)?);
        let link = offline_link(row.get(0)?, Direction::Send, position);
        // Noted now and then: what the peer has applied since is not known here, unless nothing was left then.
        let changes_behind = (position == Some(end)).then_some(0);
        Ok(LinkReport { head: Some(end.seq), changes_behind, noted_ms: row.get(3)?, ..link })
    })?;
    report.links.extend(links.collect::<rusqlite::Result<Vec<_>>>()?);
    Ok(())
}

fn offline_link(name: String, direction: Direction, position: Option<Position>) -> LinkReport {
    LinkReport {
        name,
        peer: None,
        direction,
        state: LinkState::Offline,
        connected: false,
        position: position.map(Into::into),
        head: None,
        changes_behind: None,
        noted_ms: None,
        seconds_behind: None,
        as_of_ms: None,
        last_error: None,
    }
}

/// The report as a person reads it.
pub fn person(report: &StatusReport) -> String {
    let mut text = String::new();
    let health = if report.healthy { "" } else { " (unhealthy)" };
    let node = &report.node;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} {}{health}", node.name, node.database);
    for link in &report.links {
        text.push_str(&person_link(link));
    }
    for events in &report.events {
        text.push_str(&status_events::person(events));
    }
    if report.links.is_empty() && report.events.is_empty() {
        text.push_str("  no links\n");
    }
    if let Some(log) = report.log {
        let _ = writeln!(text, "  log: {} entries, {}", output::thousands(log.rows), output::bytes(log.bytes));
    }
    if report.conflicts > 0 {
        let _ = writeln!(text, "  conflicts recorded: {}", output::thousands(report.conflicts));
        let _ = writeln!(text, "    to do: twinlite conflicts list --db {}", node.database);
    }
    for row in &report.foreign_keys {
        let _ = writeln!(
            text,
            "  broken foreign key: {} {} refers to {}, where that row is not",
            row.table, row.key, row.refers_to
        );
    }
    text.push_str(&person_tables(&report.tables));
    for note in &report.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    text
}

fn person_link(link: &LinkReport) -> String {
    let mut text = String::new();
    let (arrow, end) = match link.direction {
        Direction::Send => ("to", "replica"),
        Direction::Receive => ("from", "this database"),
    };
    let state = link.state.word().replace('_', " ");
    let at = link.peer.as_deref().map(|peer| format!(" at {peer}")).unwrap_or_default();
    let _ = writeln!(text, "  {arrow} {}{at}: {state}", link.name);
    match (link.as_of_ms, link.seconds_behind) {
        _ if link.state == LinkState::Snapshot => {
            text.push_str("    the copy is not complete: see the tables\n");
        }
        (Some(ms), Some(seconds)) => {
            let _ = writeln!(text, "    {end} as of {}, {} ago", time_of_day(ms), output::span(seconds));
        }
        _ if link.state == LinkState::Offline => {
            text.push_str("    no process owns the database; start it with `twinlite run` or `twinlite replicate`\n");
        }
        _ => text.push_str("    how far behind is not known: nothing was heard from the peer yet\n"),
    }
    if let Some(position) = &link.position {
        text.push_str(&person_position(position.seq, (link.head, link.changes_behind), link.noted_ms));
    }
    if let Some(error) = &link.last_error {
        let _ = writeln!(text, "    error ({}): {}", error.code, error.message);
        if !error.hint.is_empty() {
            let _ = writeln!(text, "    to do: {}", error.hint);
        }
    }
    text
}

/// Where a reader of the log is, of where it ends: what is behind, or, of what was only noted, when and what may be.
pub(super) fn person_position(seq: i64, (head, behind): (Option<i64>, Option<u64>), noted_ms: Option<i64>) -> String {
    let end = head.map(|head| format!(" of {head}")).unwrap_or_default();
    let more = match (behind, noted_ms, head) {
        (Some(changes), _, _) => format!(", {} changes behind", output::thousands(changes)),
        (None, Some(ms), Some(head)) => {
            let most = output::thousands(u64::try_from(head - seq).unwrap_or(0));
            format!(" as noted last, at {}; how far behind now is unknown, at most {most} changes", utc(ms))
        }
        (None, _, _) => String::new(),
    };
    format!("    position {seq}{end}{more}\n")
}

/// Hours, minutes and seconds, UTC: the standard library knows no time zones, and logs are in UTC too.
pub(super) fn time_of_day(ms: i64) -> String {
    let seconds = ms.div_euclid(1_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02} UTC", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn person_tables(tables: &[TableReport]) -> String {
    let mut text = String::new();
    if tables.is_empty() {
        return text;
    }
    let is_quiet = |table: &&TableReport| table.state == TableState::Live;
    let live = tables.iter().filter(is_quiet).count();
    let all = tables.len() <= TABLES_SHOWN_MAX;
    let _ = writeln!(text, "  tables: {live} live of {}", tables.len());
    let rows = tables.iter().filter(|table| all || !is_quiet(table)).map(person_table).collect::<Vec<_>>();
    text.push_str(&output::columns(&rows));
    text
}

fn person_table(table: &TableReport) -> Vec<String> {
    let progress = match (table.state, table.rows_total) {
        (TableState::Snapshot, Some(total)) => {
            let percent = (table.rows_copied.saturating_mul(100) / total.max(1)).min(100);
            format!("{} of about {} rows ({percent} %)", output::thousands(table.rows_copied), output::thousands(total))
        }
        (TableState::Snapshot, None) => format!("{} rows", output::thousands(table.rows_copied)),
        _ => table.skipped_because.clone().unwrap_or_default(),
    };
    vec![format!("    {}", table.name), table.state.word().to_owned(), progress]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{ManualClock, Trouble};
    use crate::telemetry::{Board, Heard};

    #[test]
    fn a_person_reads_where_it_is_and_what_to_do() {
        let clock = Arc::new(ManualClock::at(50_587_400));
        let board = Board::new("replica", "/data/replica.db", clock);
        let link = board.link("source", Direction::Receive, Some("source:7745"));
        link.connected(true);
        link.position(Position { epoch: Epoch(1), seq: 1_990 });
        link.heartbeat(Heard {
            head: 3_990,
            behind_since_ms: Some(50_587_000),
            sent_ms: 50_587_400,
            at_ms: 50_587_400,
        });
        let trouble = Trouble {
            code: "constraint".into(),
            message: "apply 1991..=3990 from \"source\": table \"a\" key 77: NOT NULL".into(),
            hint: "drop the NOT NULL".into(),
        };
        link.trouble(&trouble, LinkState::Halted, None);
        link.table(TableReport {
            rows_copied: 500,
            rows_total: Some(1_000),
            ..TableReport::new("a", TableState::Snapshot)
        });
        board.set_skipped([("v".to_owned(), "it is virtual".to_owned())]);
        let wanted = "replica /data/replica.db (unhealthy)
  from source at source:7745: halted
    this database as of 14:03:07 UTC, 0.4 s ago
    position 1990 of 3990, 2,000 changes behind
    error (constraint): apply 1991..=3990 from \"source\": table \"a\" key 77: NOT NULL
    to do: drop the NOT NULL
  tables: 0 live of 2
    a  snapshot  500 of about 1,000 rows (50 %)
    v  skipped   it is virtual
";
        assert_eq!(person(&board.report()), wanted);
    }

    fn database() -> (tempfile::TempDir, NodeConfig) {
        let folder = tempfile::tempdir().expect("folder");
        let node = NodeConfig::defaults("replica", folder.path().join("replica.db"));
        sqlite::open(&node.database, Role::Applier, true).expect("creates");
        (folder, node)
    }

    #[test]
    fn without_an_owner_the_database_speaks_for_itself() {
        let (_folder, node) = database();
        let report = offline(&node).expect("readable");
        assert!(report.healthy && report.links.is_empty() && report.notes[0].contains("nothing of Twinlite's"));
        assert!(!person(&report).contains("tables:"), "there are none: {}", person(&report));

        let connection = sqlite::open(&node.database, Role::Applier, false).expect("opens");
        let id = store::ensure_node(&connection).expect("makes the tables");
        connection.execute_batch(store::CAPTURE_TABLES).expect("tables");
        connection
            .execute_batch(
                "INSERT INTO __cdc_checkpoints(peer, name, epoch, seq) VALUES (7, 'source', 255, 12);
                 INSERT INTO __cdc_copies(peer, id, name, state, rows, rows_estimate) VALUES
                   (7, 3, 'b', 'copying', 10, 40), (7, 2, 'a', 'done', 5, 5), (7, 4, 'l', 'left', 5, 5), (7, 5, 'C', 'done', 1, 1);
                 CREATE TABLE __cdc_log(seq INTEGER PRIMARY KEY, ts, tbl, op);
                 INSERT INTO __cdc_log(seq, ts, op) VALUES (4, 1, 0), (9, 1, 0);
                 INSERT INTO __cdc_tables(id, name, columns, key, ddl, indexes) VALUES (1, 'c', '[]', '[]', '', '[]');
                 INSERT INTO __cdc_tables(id, name, replaces, columns, key, ddl, indexes) VALUES (2, 'c', 1, '[]', '[]', '', '[]');
                 INSERT INTO __cdc_consumers(name, kind, peer, epoch, seq, at) VALUES ('archive', 'link', 8, 1, 7, 86400000);",
            )
            .expect("rows");
        store::set_meta(&connection, store::meta_key::EPOCH, 1).expect("epoch");
        store::set_meta(&connection, store::meta_key::LOG_TABLE, "__cdc_log").expect("log");
        store::set_meta(&connection, store::meta_key::SKIPPED, "{\"v\": \"it is virtual\"}").expect("skipped");
        let report = offline(&node).expect("readable");
        assert_eq!(report.node.id, Some(id.to_string()));
        assert!(!report.healthy, "nobody feeds the replica");
        let links: Vec<_> = report.links.iter().map(|link| (link.name.as_str(), link.direction, link.state)).collect();
        let offline = LinkState::Offline;
        assert_eq!(links, [("source", Direction::Receive, offline), ("archive", Direction::Send, offline)]);
        // It told what was noted last as if it were so now.
        assert_eq!((report.links[0].seconds_behind, report.links[1].changes_behind), (None, None));
        assert_eq!((report.links[1].head, report.links[1].noted_ms), (Some(9), Some(86_400_000)));
        let noted =
            "position 7 of 9 as noted last, at 1970-01-02 00:00:00 UTC; how far behind now is unknown, at most 2";
        assert!(person(&report).contains(noted), "{}", person(&report));
        assert_eq!(report.links[0].position.as_ref().expect("known").epoch, "00000000000000ff");
        let tables: Vec<_> = report.tables.iter().map(|table| (table.name.as_str(), table.state)).collect();
        let (live, snapshot, skipped) = (TableState::Live, TableState::Snapshot, TableState::Skipped);
        assert_eq!(tables, [("C", live), ("a", live), ("b", snapshot), ("l", live), ("v", skipped)]);
        assert_eq!(report.log.expect("captures").rows, 6);
    }

    #[tokio::test]
    async fn the_owner_is_asked_where_there_is_one() {
        let (_folder, node) = database();
        let owner = admin::Owner::acquire(&node.database).expect("owner");
        let board = Board::new("asked", "x", Arc::new(ManualClock::at(0)));
        let shutdown = tokio_util::sync::CancellationToken::new();
        let (socket, token) = (owner.socket().to_owned(), shutdown.clone());
        let answer = move |_| {
            let report = board.report();
            async move { admin::Response::status(report) }
        };
        let task = tokio::spawn(async move { admin::serve_control(&socket, answer, token).await });
        while !owner.socket().exists() {
            tokio::task::yield_now().await;
        }
        assert_eq!(report(&node).await.expect("answers").node.name, "asked");
        shutdown.cancel();
        task.await.expect("joins").expect("ends well");
    }
}
