//! Log lines: always to stderr, so that stdout is for results alone.
//!
//! Lines are lower-case with fields, inside spans that name the link; they never hold a row's value.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::model::Fault;

/// Logging cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The level is no filter.
    #[error("log.level {level:?}: want error, warn, info, debug, trace, or a filter such as info,twinlite::link=debug")]
    Level {
        /// As it was given.
        level: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Level { .. } => Fault::Usage,
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the configuration")]
pub enum Format {
    Text,
    Json,
}

/// Starts logging, once a process; a second call changes nothing. A level of the user's own names (`info`) is for
/// Twinlite; libraries are heard from `warn` on.
///
/// # Errors
/// [`Error::Level`].
pub fn init(level: &str, format: Format) -> Result<(), Error> {
    let filter = filter(level)?;
    // A line that cannot be written (whoever read stderr has gone) is lost, not an error: to say so on stderr would panic.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    // The one failure is that logging has begun already, as in a test binary: its first caller's settings stay.
    let _ = match format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

pub(super) fn filter(level: &str) -> Result<EnvFilter, Error> {
    let is_word = level.chars().all(|c| c.is_ascii_alphabetic());
    let directives = if is_word { format!("warn,twinlite={level}") } else { level.to_owned() };
    // `twinlite=inof` alone would be read as the name of a span.
    let known = ["error", "warn", "info", "debug", "trace", "off"];
    let directives = if is_word && !known.contains(&level.to_ascii_lowercase().as_str()) {
        format!("twinlite={level}=")
    } else {
        directives
    };
    EnvFilter::builder().parse(directives).map_err(|source| Error::Level { level: level.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_a_filter() {
        for right in ["info", "off", "DEBUG", "info,twinlite::link=debug"] {
            assert!(filter(right).is_ok(), "{right}");
        }
        for wrong in ["inof", "", "twinlite=loud"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
