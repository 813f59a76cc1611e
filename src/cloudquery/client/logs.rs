//! What a plugin that we started prints: its log, line by line, told again in ours.
//!
//! A line is a JSON object with a `level`, or any text. What is read of one is bounded, and what is counted (warnings and
//! errors) is what the `cloudquery` CLI counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// The longest line that is read whole.
const LINE_BYTES_MAX: usize = 4_096;
/// What is kept of a longer one.
const LINE_BYTES_KEPT: usize = 1_000;

/// How much a plugin complained.
#[derive(Debug, Default)]
pub struct LogTally {
    warnings: AtomicU64,
    errors: AtomicU64,
}

impl LogTally {
    /// Lines at level `warn`.
    pub fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Relaxed)
    }

    /// Lines at level `error`.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}

/// How a line is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    /// A JSON line with another level, or none.
    Unknown,
    /// No JSON.
    Text,
}

/// A line, read.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    level: Level,
    message: String,
    /// The other fields, as JSON; empty where there are none.
    fields: String,
}

/// Tells every line until there are no more. A line that cannot be read ends it: the plugin goes on without us.
pub(super) async fn follow(plugin: String, mut stdout: impl AsyncBufRead + Unpin, tally: std::sync::Arc<LogTally>) {
    while let Ok(Some((line, cut))) = next_line(&mut stdout).await {
        let text = String::from_utf8_lossy(&line);
        if cut {
            // Cut short it is no JSON, and counts for nothing.
            tracing::info!(plugin, "{text}...");
        } else if !text.trim().is_empty() {
            tell(&plugin, &parse(&text), &tally);
        }
    }
}

/// A line, and whether it was cut short. However long it is, no more than a line's maximum is held.
async fn next_line(stdout: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<(Vec<u8>, bool)>> {
    let (mut line, mut cut, mut any) = (Vec::new(), false, false);
    loop {
        let chunk = stdout.fill_buf().await?;
        if chunk.is_empty() {
            break;
        }
        any = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        cut |= line.len() + part.len() > LINE_BYTES_MAX;
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = end.map_or(chunk.len(), |end| end + 1);
        stdout.consume(used);
        if end.is_some() {
            break;
        }
    }
    if cut {
        line.truncate(LINE_BYTES_KEPT);
    }
    Ok(any.then_some((line, cut)))
}

fn parse(text: &str) -> Line {
    let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(text) else {
        return Line { level: Level::Text, message: text.trim_end().to_owned(), fields: String::new() };
    };
    let level = match fields.remove("level").as_ref().and_then(Value::as_str) {
        Some("trace") => Level::Trace,
        Some("debug") => Level::Debug,
        Some("info") => Level::Info,
        Some("warn") => Level::Warn,
        Some("error") => Level::Error,
        _ => Level::Unknown,
    };
    for known in ["time", "timestamp"] {
        fields.remove(known);
    }
    // `event` is what Python's SDK calls it.
    let message = ["message", "event"].iter().find_map(|key| Some(fields.remove(*key)?.as_str()?.to_owned()));
    let rest = if fields.is_empty() { String::new() } else { Value::Object(fields).to_string() };
    Line { level, message: message.unwrap_or_default(), fields: rest }
}

fn tell(plugin: &str, line: &Line, tally: &LogTally) {
    let Line { level, message, fields } = line;
    match level {
        Level::Trace => tracing::trace!(plugin, fields, "{message}"),
        Level::Debug => tracing::debug!(plugin, fields, "{message}"),
        Level::Info | Level::Text => tracing::info!(plugin, fields, "{message}"),
        Level::Warn => {
            tally.warnings.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(plugin, fields, "{message}");
        }
        Level::Error => {
            tally.errors.fetch_add(1, Ordering::Relaxed);
            tracing::error!(plugin, fields, "{message}");
        }
        Level::Unknown => tracing::error!(plugin, fields, "unknown level: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_the_cli_reads_it() {
        for (text, level, message, fields) in [
            (r#"{"level":"info","module":"m","message":"hi"}"#, Level::Info, "hi", r#"{"module":"m"}"#),
            (r#"{"level":"warn","event":"hm","timestamp":"x"}"#, Level::Warn, "hm", ""),
            (r#"{"level":"WARN","message":"hm"}"#, Level::Unknown, "hm", ""),
            (r#"{"message":7}"#, Level::Unknown, "", ""),
            ("[1]", Level::Text, "[1]", ""),
            ("Traceback\r", Level::Text, "Traceback", ""),
        ] {
            assert_eq!(parse(text), Line { level, message: message.to_owned(), fields: fields.to_owned() }, "{text}");
        }
    }

    #[tokio::test]
    async fn only_warnings_and_errors_count_and_long_lines_are_cut() {
        let error = r#"{"level":"error","message":"x"}"#;
        let long = format!(r#"{{"level":"error","message":"{}"}}"#, "x".repeat(LINE_BYTES_MAX));
        let text = format!("{error}\n{{\"level\":\"warn\"}}\n\n{long}\n{{\"level\":\"warning\"}}\nplain\n{error}");
        let tally = std::sync::Arc::<LogTally>::default();
        follow("p".to_owned(), text.as_bytes(), std::sync::Arc::clone(&tally)).await;
        assert_eq!((tally.warnings(), tally.errors()), (1, 2));
        let lines = format!("{long}\nnext\n");
        // Chunks of any size: a small buffer meets the end of a line anywhere.
        let mut stdout = tokio::io::BufReader::with_capacity(7, lines.as_bytes());
        let (line, cut) = next_line(&mut stdout).await.expect("read").expect("a line");
        assert_eq!((line.len(), cut), (LINE_BYTES_KEPT, true));
        assert_eq!(next_line(&mut stdout).await.expect("read"), Some((b"next".to_vec(), false)));
        assert_eq!(next_line(&mut stdout).await.expect("read"), None);
    }
}
