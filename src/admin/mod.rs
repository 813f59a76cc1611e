//! How others on the machine find and ask the process that owns a database.
//!
//! [`owner`] makes it the only one, by a lock file beside the database; [`control`] is the unix socket through which
//! commands such as `status --db` and `ddl` reach it; [`http`] serves the status to health checks. `node` feeds all three.
//! [`consumer`] keeps two event consumers of one name apart. Both locks are a `lock_file`.

pub mod consumer;
pub mod control;
pub mod http;
mod lock_file;
pub mod owner;

pub use consumer::ConsumerLock;
pub use control::{Request, Response, Settlement, SetupRequest, ask, own, serve_control};
pub use http::{Health, serve_http};
pub use owner::{Owner, Ownership, Standing, find_owner, standing, sweep};

use std::path::PathBuf;

use thiserror::Error;

use crate::model::Fault;

/// What can go wrong between a process, its database's files beside it, and whoever asks.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process owns the database.
    #[error(
        "{database}: owned by another Twinlite process (pid {pid}); stop that one first, or ask it: `twinlite status --db {database}`"
    )]
    Owned {
        /// The database.
        database: PathBuf,
        /// The owner's process id; 0 where its lock file does not say.
        pid: u32,
    },
    /// An event consumer of that name runs already.
    #[error(
        "{database}: event consumer \"{consumer}\" runs already (pid {pid}): stop that one first, or give this one a name \
         of its own with --consumer"
    )]
    ConsumerRuns {
        /// The database.
        database: PathBuf,
        /// Its name.
        consumer: String,
        /// Its process id; 0 where its lock file does not say.
        pid: u32,
    },
    /// A file beside the database cannot be made or read.
    #[error("{path}: {doing}; Twinlite needs to write beside the database: check owner and mode of the folder")]
    File {
        /// The file.
        path: PathBuf,
        /// A bare verb phrase.
        doing: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The owner cannot be asked, or went away while it was.
    #[error("{path}: ask the process that owns the database (pid {pid}); if it hangs, end it and try again")]
    Ask {
        /// Its socket.
        path: PathBuf,
        /// Its process id.
        pid: u32,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What came through the socket is not what we speak.
    #[error(
        "the owner's answer is not understood; run the same Twinlite version as the process that owns the database"
    )]
    Malformed(#[source] serde_json::Error),
    /// HTTP cannot listen.
    #[error("admin.listen {address}: listen for HTTP; is the port taken by another process?")]
    Listen {
        /// As configured.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Owned { .. }
            | Self::ConsumerRuns { .. }
            | Self::File { .. }
            | Self::Malformed(_)
            | Self::Listen { .. } => Fault::Halt,
            Self::Ask { .. } => Fault::Retry,
        }
    }
}
