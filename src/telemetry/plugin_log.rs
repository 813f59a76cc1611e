//! Log lines of a CloudQuery plugin, which go to stdout, for the CLI that started it reads them there.
//!
//! A line is one JSON object of at most [`LINE_BYTES_MAX`] bytes with `level`, `module` and `message`, the event's
//! fields, and `invocation_id` once a client has said its own; level names are in lower case, for the CLI counts others as
//! errors. Spans are left out.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{PoisonError, RwLock};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::logging::{Error, Format, filter};

/// What the CLI reads of a line; a longer one is cut by it, and is no JSON then.
pub const LINE_BYTES_MAX: usize = 4096;

/// Which run of the CLI's this plugin works for.
static INVOCATION: RwLock<String> = RwLock::new(String::new());

/// Says which run of the CLI's the lines from here on belong to; empty where that is not known.
pub fn set_invocation(id: &str) {
    id.clone_into(&mut INVOCATION.write().unwrap_or_else(PoisonError::into_inner));
}

/// Starts logging to stdout, once a process, for the module of that name.
///
/// # Errors
/// [`Error::Level`].
pub fn init(level: &str, format: Format, module: &'static str) -> Result<(), Error> {
    let registry = tracing_subscriber::registry().with(filter(level)?);
    // The one failure is that logging has begun already, as in a test binary: its first caller's settings stay.
    let _ = match format {
        Format::Json => registry.with(JsonLines { module, out: io::stdout }).try_init(),
        Format::Text => {
            let lines = tracing_subscriber::fmt::layer().with_writer(io::stdout).log_internal_errors(false);
            registry.with(lines.with_ansi(io::stdout().is_terminal()).with_target(false)).try_init()
        }
    };
    Ok(())
}

struct JsonLines<W> {
    module: &'static str,
    out: W,
}

impl<S: Subscriber, W: for<'a> MakeWriter<'a> + 'static> Layer<S> for JsonLines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let invocation = INVOCATION.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut object = Map::new();
        object.insert("level".to_owned(), event.metadata().level().as_str().to_ascii_lowercase().into());
        object.insert("module".to_owned(), self.module.into());
        if !invocation.is_empty() {
            object.insert("invocation_id".to_owned(), invocation.into());
        }
        let line = line(object, fields);
        // In one write, so that lines of several threads stay whole. Where nobody reads any more there is nobody to tell.
        let _ = self.out.make_writer().write_all(line.as_bytes());
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            return value.clone_into(&mut self.message);
        }
        self.set(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// The line of an event: whole where it fits, else without its fields, and with the message cut until it does.
fn line(head: Map<String, Value>, fields: Fields) -> String {
    let Fields { mut message, mut others } = fields;
    loop {
        let mut object = others.clone();
        object.extend(head.clone());
        object.insert("message".to_owned(), message.clone().into());
        let line = Value::Object(object).to_string();
        if line.len() < LINE_BYTES_MAX {
            return line + "\n";
        }
        if others.is_empty() && message.is_empty() {
            // Only an invocation's id can be that long.
            return String::new();
        }
        if others.is_empty() {
            let end = (0..=message.len() / 2).rev().find(|at| message.is_char_boundary(*at));
            message.truncate(end.unwrap_or_default());
        }
        others.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let out = kept.clone();
        let layer = JsonLines { module: "m", out: move || out.clone() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let text = String::from_utf8(kept.0.lock().expect("whole").clone()).expect("UTF-8");
        assert!(text.lines().all(|line| line.len() < LINE_BYTES_MAX) && text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn lines_are_as_the_cli_reads_them() {
        let found = lines(|| {
            tracing::warn!(rows = 7, ratio = 0.5, ok = true, error = %"a\nb", level = "mine", "it was {}", "said");
            tracing::trace!(debug = ?Some(1));
            set_invocation("run-1");
            tracing::info!("after");
            set_invocation("");
        });
        let expected = serde_json::json!([
            {"level": "warn", "module": "m", "message": "it was said", "rows": 7, "ratio": 0.5, "ok": true, "error": "a\nb"},
            {"level": "trace", "module": "m", "message": "", "debug": "Some(1)"},
            {"level": "info", "module": "m", "message": "after", "invocation_id": "run-1"},
        ]);
        assert_eq!(Value::from(found), expected);
    }

    #[test]
    fn a_long_line_is_cut_and_still_json() {
        let found = lines(|| {
            tracing::info!(long = "x".repeat(5000), "short");
            tracing::info!("{}", "\u{1}é".repeat(3000));
        });
        assert_eq!(found[0], serde_json::json!({"level": "info", "module": "m", "message": "short"}));
        assert!(
            found[1]["message"].as_str().is_some_and(|message| message.starts_with("\u{1}é") && message.len() > 300)
        );
    }
}
