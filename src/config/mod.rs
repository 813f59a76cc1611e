//! The configuration: read from YAML, the environment and what values refer to, checked whole, and said as structs.
//!
//! The way of a file: the crate `config` merges it with `TWINLITE__SECTION__KEY` from the environment (`load`), `${VAR}`
//! and `${file:PATH}` in values are replaced (`expand`), a strict walk reads every key by the type that it wants
//! (`section`, `read`), and what one key alone cannot tell is checked at the end (`check`). Nothing is guessed, and all
//! faults are told at once. The command line feeds it; `node` is built from what it returns.

mod address;
mod check;
mod events;
mod expand;
mod load;
mod read;
mod section;
mod settings;
mod units;

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::model::Fault;

pub use address::is_loopback;
pub use events::{
    BlobEncoding, EVENT_BATCH_SIZE, EventOutput, EventsConfig, Header, HttpUrl, ID_HEADER, OnGap, WEBHOOK_TIMEOUT,
};
pub use load::{load, parse};
pub use settings::{
    CaptureConfig, Compression, Config, Directions, Images, LOG_TABLE, LinkConfig, LogConfig, LogFormat, MigrateMode,
    NodeConfig, OnDivergence, OnTypeMismatch, Policy, Retention, Seed,
};
pub use units::{duration, size};

/// One thing that is wrong in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// The file, or `environment`.
    pub file: String,
    /// The key, with dots, as in `links[0].peer`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.file, self.what),
            key => write!(f, "{}: {key}: {}", self.file, self.what),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("{path}: read the configuration")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML, or cannot be merged with the environment.
    #[error("{file}: not valid YAML")]
    Syntax {
        /// The file.
        file: String,
        /// Where in it and why.
        #[source]
        source: config::ConfigError,
    },
    /// The file is YAML, and says what it should not. All of it.
    #[error("{}", lines(faults))]
    Invalid {
        /// Every fault, in the order of the file's sections.
        faults: Vec<ConfigFault>,
    },
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Syntax { .. } | Self::Invalid { .. } => Fault::Usage,
        }
    }
}

fn lines(faults: &[ConfigFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
