//! Consumers of events in `twinlite status`.

use std::fmt::Write as _;

use super::output;
use super::status::{person_position, time_of_day};
use crate::telemetry::EventsReport;

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
        text.push_str(&person_position(position.seq, (events.head, events.changes_behind), None));
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
    use crate::model::{Epoch, ManualClock, Position, Trouble};
    use crate::telemetry::{Board, EventsState};

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
}
