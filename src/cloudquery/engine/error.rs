//! What can go wrong in a sync.

use std::fmt;
use std::path::PathBuf;

use super::BoxError;
use crate::cloudquery::{self, client};
use crate::model::Fault;

/// One thing that is wrong in a specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecFault {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where it is about the file as a whole.
    pub line: usize,
    /// The document in the file, from 1; 0 where it is about none of them.
    pub document: usize,
    /// The key, with dots, as in `spec.tables[0]`; empty for the document as a whole.
    pub key: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for SpecFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.document > 0 {
            write!(f, ": document {}", self.document)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

/// A sync that cannot begin, or did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The specification cannot be read.
    #[error("{path}: read the specification")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The specification says what it should not. All of it.
    #[error("{}", lines(faults))]
    Spec {
        /// Every fault, in the file's order.
        faults: Vec<SpecFault>,
    },
    /// A plugin failed.
    #[error(transparent)]
    Plugin(Box<client::Error>),
    /// A program that we started ended in the middle.
    #[error("{plugin} ended by itself ({status}); its last lines are in the log above")]
    Died {
        /// Who.
        plugin: String,
        /// How.
        status: std::process::ExitStatus,
        /// What we were doing.
        #[source]
        source: Box<Error>,
    },
    /// Twinlite's own plugin did not start.
    #[error("{plugin}: start Twinlite's own plugin")]
    Embedded {
        /// Who.
        plugin: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// There is none in this build.
    #[error("{plugin}: `registry: embedded` is not provided here; use grpc or local")]
    NotProvided {
        /// Who.
        plugin: String,
    },
    /// A record cannot be rewritten for a destination.
    #[error("{source_name}: table {table:?}: rewrite it for {destination}")]
    Rewrite {
        /// The source.
        source_name: String,
        /// The destination.
        destination: String,
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: Box<cloudquery::Error>,
    },
    /// What a source says of where to go on next time cannot be kept.
    #[error("source {source_name:?}: read its checkpoint")]
    Checkpoint {
        /// The source.
        source_name: String,
        /// Why.
        #[source]
        source: Box<cloudquery::Error>,
    },
    /// A row is too large for one message.
    #[error("table {table:?}: one row takes {bytes} bytes, and no plugin takes a message of more than {max}")]
    RowTooLarge {
        /// The table.
        table: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The summary cannot be written where it should be.
    #[error("write the summary to {path}")]
    SummaryFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody asked to stop.
    #[error("stopped before the end: run it again, which begins anew")]
    Stopped,
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        Self::Plugin(Box::new(error))
    }
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Spec { .. } => Fault::Usage,
            Self::Plugin(error) => error.fault(),
            Self::Died { .. }
            | Self::Embedded { .. }
            | Self::NotProvided { .. }
            | Self::Rewrite { .. }
            | Self::Checkpoint { .. }
            | Self::RowTooLarge { .. }
            | Self::SummaryFile { .. }
            | Self::Stopped => Fault::Halt,
        }
    }
}

fn lines(faults: &[SpecFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
