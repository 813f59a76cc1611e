//! What can go wrong while a window is read.

use std::io;

use crate::model::Fault;
use crate::{codec, sqlite};

/// A window that could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database.
    #[error("read changes")]
    Sqlite(#[from] sqlite::Error),
    /// A batch could not be made.
    #[error("encode changes")]
    Codec(#[from] codec::Error),
    /// The window could not be kept until it is sent.
    #[error("spool a window; make room in spool_dir, or choose another")]
    Spool(#[source] io::Error),
    /// The log does not go on from where the link had got to.
    #[error(
        "entry {seq} of the change log, up to which the link has read, is gone or is another one; the link begins anew"
    )]
    PositionGone {
        /// Where the link had got to.
        seq: i64,
    },
    /// The log does not go on from where a consumer of events had got to.
    #[error(
        "the change log holds entries {oldest} to {head}, and events were read up to entry {after}: those in between are \
         lost; begin anew with --bootstrap"
    )]
    EventsLost {
        /// Up to where it was read.
        after: i64,
        /// The first entry that is there.
        oldest: i64,
        /// The last.
        head: i64,
    },
    /// Nothing captures here.
    #[error("the database has no change log; run `twinlite setup`, or start its node")]
    NotCaptured,
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error.into())
    }
}

impl Error {
    /// A short stable word for `status`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sqlite(error) => error.word(),
            Self::Codec(_) => "codec",
            Self::Spool(error) if error.kind() == io::ErrorKind::StorageFull => "disk_full",
            Self::Spool(_) => "spool",
            Self::PositionGone { .. } => "position_gone",
            Self::EventsLost { .. } => "events_lost",
            Self::NotCaptured => "not_captured",
        }
    }

    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Sqlite(error) => error.fault(),
            Self::Codec(error) => error.fault(),
            // A full disk is the usual cause, and it may pass.
            Self::Spool(_) => Fault::Retry,
            // The next session judges what became of the log: a copy, or a halt.
            Self::PositionGone { .. } => Fault::Retry,
            Self::EventsLost { .. } | Self::NotCaptured => Fault::Halt,
        }
    }
}
