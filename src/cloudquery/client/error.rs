//! What can go wrong between us and a plugin.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

use crate::cloudquery;
use crate::model::Fault;

/// What a plugin, or the way to it, answered in place of a result.
#[derive(Debug)]
pub struct Answer(Box<Status>);

impl Answer {
    /// Its code.
    pub fn code(&self) -> Code {
        self.0.code()
    }

    /// The plugin's words.
    pub fn message(&self) -> &str {
        self.0.message()
    }
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message() {
            "" => write!(f, "{:?}", self.code()),
            message => write!(f, "{message} ({:?})", self.code()),
        }
    }
}

impl std::error::Error for Answer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}

/// A failure of, or on the way to, a plugin. `plugin` is what its caller calls it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is none.
    #[error("{plugin}: {address:?} is no address: want host:port, or unix:///path/to/socket")]
    Address {
        /// Who.
        plugin: String,
        /// As it was given.
        address: String,
    },
    /// Nobody answers there.
    #[error("{plugin}: connect to {address} (is it running, and is that its address?)")]
    Connect {
        /// Who.
        plugin: String,
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// A call failed.
    #[error("{plugin}: {call}")]
    Call {
        /// Who.
        plugin: String,
        /// Which call.
        call: &'static str,
        /// Why.
        #[source]
        source: Answer,
    },
    /// No answer in time.
    #[error("{plugin}: {call}: no answer within {} s; look at the plugin's log, or start it anew", after.as_secs())]
    Deadline {
        /// Who.
        plugin: String,
        /// Which call.
        call: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// It answers, but not as a plugin.
    #[error(
        "{plugin}: {address} is no CloudQuery plugin: it does not know discovery.v1 nor discovery.v0; check the address"
    )]
    NotAPlugin {
        /// Who.
        plugin: String,
        /// Where.
        address: String,
    },
    /// A plugin of another age.
    #[error(
        "{plugin} does not support CloudQuery protocol version 3, but only {versions:?}; use a newer version of it"
    )]
    Version {
        /// Who.
        plugin: String,
        /// What it said it supports.
        versions: Vec<i32>,
    },
    /// What it sent is not what the protocol says.
    #[error("{plugin}: {call}: understand the answer")]
    Malformed {
        /// Who.
        plugin: String,
        /// Which call.
        call: &'static str,
        /// Why.
        #[source]
        source: cloudquery::Error,
    },
    /// What is to be sent cannot be written as Arrow.
    #[error("{plugin}: {call}: write it as Arrow")]
    Encode {
        /// Who.
        plugin: String,
        /// Which call.
        call: &'static str,
        /// Why.
        #[source]
        source: cloudquery::Error,
    },
    /// It ended a stream of writes before we did.
    #[error("{plugin}: Write ended before everything was sent{}", after(table.as_deref()))]
    WriteEnded {
        /// Who.
        plugin: String,
        /// The table of the last message that was sent.
        table: Option<String>,
        /// Why; nothing where it said that all is well.
        #[source]
        source: Option<Answer>,
    },
    /// What was written may not be committed.
    #[error("{plugin}: Write: not committed: {what}{}", tables_of(tables))]
    Flush {
        /// Who.
        plugin: String,
        /// The plugin's words.
        what: String,
        /// The tables that it names.
        tables: Vec<String>,
    },
    /// There is no such program.
    #[error("{plugin}: {path}: no program to run; `path` of a local plugin is a file, seen from the working directory")]
    NoProgram {
        /// Who.
        plugin: String,
        /// As it was given.
        path: PathBuf,
    },
    /// The program cannot be run.
    #[error("{plugin}: run {path}")]
    Spawn {
        /// Who.
        plugin: String,
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The program runs, or ran, and does not serve.
    #[error("{plugin}: {path} serve: {what}, in each of {tries} tries; run it by hand to see why")]
    NotServing {
        /// Who.
        plugin: String,
        /// The program.
        path: PathBuf,
        /// What was seen at last.
        what: String,
        /// How often it was started.
        tries: u32,
    },
}

fn after(table: Option<&str>) -> String {
    table.map_or_else(String::new, |table| format!(" (last sent: table {table:?})"))
}

fn tables_of(tables: &[String]) -> String {
    if tables.is_empty() { String::new() } else { format!(" (tables {})", tables.join(", ")) }
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Connect { .. } | Self::Deadline { .. } => Fault::Retry,
            Self::Call { source, .. } => by_code(source.code()),
            Self::WriteEnded { source, .. } => source.as_ref().map_or(Fault::Halt, |answer| by_code(answer.code())),
            // The same bytes, the same version or the same program will be wrong again, and what a plugin could not
            // commit a person must look at.
            Self::Address { .. }
            | Self::NotAPlugin { .. }
            | Self::Version { .. }
            | Self::Malformed { .. }
            | Self::Encode { .. }
            | Self::Flush { .. }
            | Self::NoProgram { .. }
            | Self::Spawn { .. }
            | Self::NotServing { .. } => Fault::Halt,
        }
    }
}

/// Plugins answer with codes that mean little (Go's says CANCELLED for any failure of an open Write): only what the way to
/// them says is worth another try at once.
fn by_code(code: Code) -> Fault {
    match code {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => Fault::Retry,
        _ => Fault::Halt,
    }
}
