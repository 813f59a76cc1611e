//! Consumers of events in `twinlite status`.

use std::fmt::Write as _;

use rusqlite::Connection;

use super::output;
use super::status::{person_position, time_of_day};
use crate::model::{Epoch, Position};
use crate::telemetry::{EventsReport, EventsState};

/// The consumers of events that the database knows, whose log ends at `end`.
///
/// # Errors
/// SQLite's.
pub(super) fn offline(connection: &Connection, end: Position) -> rusqlite::Result<Vec<EventsReport>> {
    let sql = "SELECT name, epoch, seq, at FROM __cdc_consumers WHERE kind = 'events' ORDER BY name";
    let mut consumers = connection.prepare(sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        let (epoch, seq): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
        let position = epoch.zip(seq).map(|(epoch, seq)| Position { epoch: Epoch(epoch), seq });
        Ok(EventsReport {
            name: row.get(0)?,
            output: None,
            state: EventsState::Offline,
            position: position.map(Into::into),
            head: Some(end.seq),
            // Noted now and then: what was taken since is not known here, unless nothing was left then.
            changes_behind: (position == Some(end)).then_some(0),
            noted_ms: row.get(3)?,
            events: 0,
            last_success_ms: None,
            failing_since_ms: None,
            failed_tries: 0,
            last_error: None,
        })
    };
    consumers.query_map([], read)?.collect()
}

/// One consumer as a person reads it.
pub(super) fn person(events: &EventsReport) -> String {
    let mut text = String::new();
    let to = match events.output.as_deref() {
        None => String::new(),
        Some("-") => " to stdout".to_owned(),
        Some("json") => " to stdout as JSON".to_owned(),
        Some(url) => format!(" to {url}"),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  events {}{to}: {}", events.name, events.state.word());
    if let Some(position) = &events.position {
        text.push_str(&person_position(position.seq, (events.head, events.changes_behind), events.noted_ms));
    }
    if let Some(since_ms) = events.failing_since_ms {
        let (since, tries) = (time_of_day(since_ms), output::thousands(events.failed_tries));
        let last = events.last_success_ms.map(|ms| format!("; the last batch that was at {}", time_of_day(ms)));
        let _ = writeln!(text, "    not taken since {since}, tried {tries} times{}", last.unwrap_or_default());
    }
    if let Some(error) = &events.last_error {
        let _ = writeln!(text, "    error ({}): {}", error.code, error.message);
        if !error.hint.is_empty() {
            let _ = writeln!(text, "    to do: {}", error.hint);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{ManualClock, Trouble};
    use crate::telemetry::Board;

    #[test]
    fn a_person_reads_since_when_a_webhook_does_not_answer_and_what_to_do() {
        let clock = Arc::new(ManualClock::at(50_587_400));
        let board = Board::new("a", "a.db", Arc::<ManualClock>::clone(&clock));
        let handle = board.events("search", "https://example.org/hook");
        handle.progress((EventsState::Live, 1), Position { epoch: Epoch(1), seq: 7 }, 2_007);
        clock.set(50_588_400);
        handle.failed(Trouble {
            code: "webhook_status".into(),
            message: "answered 500".into(),
            hint: "mend it".into(),
        });
        let wanted = "  events search to https://example.org/hook: retrying
    position 7 of 2007, 2,000 changes behind
    not taken since 14:03:08 UTC, tried 1 times; the last batch that was at 14:03:07 UTC
    error (webhook_status): answered 500
    to do: mend it
";
        assert_eq!(person(&board.report().events[0]), wanted);
    }

    #[test]
    fn without_an_owner_the_database_tells_where_its_consumers_are() {
        let connection = crate::sqlite::in_memory().expect("memory");
        connection.execute_batch(crate::sqlite::store::CAPTURE_TABLES).expect("tables");
        let rows = "INSERT INTO __cdc_consumers(name, kind, peer, epoch, seq, at) VALUES
                    ('b', 'events', NULL, 255, 3, 86400000), ('a', 'events', NULL, NULL, NULL, 0), ('c', 'link', 7, 255, 1, 0)";
        connection.execute_batch(rows).expect("rows");
        let at = |seq| Position { epoch: Epoch(255), seq };
        let found = offline(&connection, at(9)).expect("reads");
        let names: Vec<_> = found.iter().map(|events| (events.name.as_str(), events.changes_behind)).collect();
        assert_eq!(names, [("a", None), ("b", None)]);
        let noted =
            "position 3 of 9 as noted last, at 1970-01-02 00:00:00 UTC; how far behind now is unknown, at most 6";
        assert!(person(&found[1]).contains(noted), "{}", person(&found[1]));
        assert_eq!(person(&found[0]), "  events a: offline\n");
        assert_eq!(offline(&connection, at(3)).expect("reads")[1].changes_behind, Some(0), "nothing was left");
    }
}
