//! What can go wrong between two nodes.

use thiserror::Error;

use crate::model::{Fault, Trouble};
use crate::telemetry::{Direction, LinkState};
use crate::{apply, capture, cloudquery, link, sqlite};

/// A failure of a link, with what the stages under it say.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading the log failed.
    #[error("read the change log")]
    Read(#[from] capture::ReadError),
    /// Keeping the capture in order failed.
    #[error("maintain the capture")]
    Capture(#[from] capture::Error),
    /// The connection failed.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// A window could not be applied.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// A database's thread is gone.
    #[error(transparent)]
    Sqlite(#[from] sqlite::Error),
    /// A window could not be kept until it was whole.
    #[error("write a window to the spool; make room in the spool folder (`spool_dir`)")]
    Spool(#[source] std::io::Error),
    /// The schema moves faster than a window is read.
    #[error("the schema changed each time that the log was read; is a migration running in a loop?")]
    SchemaRestless,
    /// The peer says what is wrong.
    #[error("{}", .0.message)]
    Peer(Trouble),
    /// A value that its column at a CloudQuery destination cannot hold.
    #[error(
        "table \"{table}\", key {key}: column \"{column}\" holds {found}, and the destination takes {wanted} there; \
         correct the value, declare the column as what it holds, or set `on_type_mismatch`"
    )]
    Value {
        /// The table.
        table: String,
        /// The row's key, as text.
        key: String,
        /// The column.
        column: String,
        /// The value's storage class.
        found: &'static str,
        /// What the column's type holds.
        wanted: &'static str,
    },
    /// Something cannot be said in CloudQuery's words.
    #[error(transparent)]
    CloudQuery(#[from] cloudquery::Error),
    /// A CloudQuery plugin, or the way to it, failed.
    #[error(transparent)]
    Plugin(#[from] cloudquery::client::Error),
    /// What a spec, a state or a database says makes a sync impossible.
    #[error("{0}")]
    Sync(String),
    /// The two ends do not fit together.
    #[error("{}", .0.message)]
    Mismatch(Trouble),
    /// The peer broke the protocol.
    #[error("the peer sent {what}; run the same Twinlite version on both ends, and report it")]
    Protocol {
        /// What was wrong with it.
        what: &'static str,
    },
    /// The peer said nothing for too long.
    #[error("no {what} from the peer in {seconds} s")]
    Silent {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
}

impl From<sqlite::Closed> for Error {
    fn from(closed: sqlite::Closed) -> Self {
        Self::Sqlite(closed.into())
    }
}

impl Error {
    /// What this failure asks of the link.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read(error) => error.fault(),
            Self::Capture(error) => error.fault(),
            Self::Link(error) => error.fault(),
            Self::Apply(error) => error.fault(),
            Self::Sqlite(error) => error.fault(),
            Self::Spool(_) | Self::SchemaRestless | Self::Silent { .. } => Fault::Retry,
            Self::Peer(trouble) if passing(trouble).is_some() => Fault::Retry,
            Self::CloudQuery(error) => error.fault(),
            // A destination's own words tell little of whether trying again helps: only a person can see.
            Self::Plugin(error) => error.fault(),
            Self::Peer(_) | Self::Mismatch(_) | Self::Protocol { .. } | Self::Value { .. } | Self::Sync(_) => {
                Fault::Halt
            }
        }
    }

    /// The direction, seen from here, whose windows this failure stops; none where it is the connection's, or the meeting's.
    pub fn direction(&self) -> Option<Direction> {
        match self {
            Self::Read(_) | Self::Capture(_) | Self::SchemaRestless => Some(Direction::Send),
            Self::Apply(_) | Self::Spool(_) => Some(Direction::Receive),
            // What halts a peer is, but for little, that it cannot apply what we send.
            Self::Peer(trouble) => passing(trouble).unwrap_or(Some(Direction::Send)),
            Self::Link(_)
            | Self::Sqlite(_)
            | Self::Value { .. }
            | Self::CloudQuery(_)
            | Self::Plugin(_)
            | Self::Sync(_)
            | Self::Mismatch(_)
            | Self::Protocol { .. }
            | Self::Silent { .. } => None,
        }
    }

    /// What a link does that this failure stopped.
    pub fn link_state(&self) -> LinkState {
        match (self.fault(), self.direction()) {
            (Fault::Halt | Fault::Usage, _) => LinkState::Halted,
            (Fault::Retry, Some(_)) => LinkState::Waiting,
            (Fault::Retry, None) | (Fault::CopyAgain, _) => LinkState::Connecting,
        }
    }

    /// This failure as `status` and the peer see it.
    pub fn trouble(&self) -> Trouble {
        if let Self::Peer(trouble) | Self::Mismatch(trouble) = self {
            return trouble.clone();
        }
        if let Self::Link(error) = self {
            return Trouble { hint: self.hint().to_owned(), ..error.trouble() };
        }
        let message = sqlite::said(self);
        Trouble { code: self.code().to_owned(), message, hint: self.hint().to_owned() }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Read(error) => error.word(),
            Self::Capture(error) => error.word(),
            Self::Link(_) => "connection",
            Self::Apply(error) => error.word(),
            Self::Sqlite(error) => error.word(),
            Self::Spool(error) if error.kind() == std::io::ErrorKind::StorageFull => "disk_full",
            Self::Spool(_) => "spool",
            Self::SchemaRestless => "schema_restless",
            Self::Peer(_) | Self::Mismatch(_) => "peer",
            Self::Protocol { .. } => "protocol",
            Self::Value { .. } => "type_mismatch",
            Self::CloudQuery(_) | Self::Plugin(_) => "cloudquery",
            Self::Sync(_) => "sync",
            Self::Silent { .. } => "silent",
        }
    }

    fn hint(&self) -> &'static str {
        match (self.code(), self.fault()) {
            ("disk_full", _) => "make room on that disk; the link goes on by itself",
            ("busy", _) => "another process holds the write lock for long; the link goes on when it ends",
            (_, Fault::Retry) => "the link tries again by itself",
            (_, Fault::Halt | Fault::Usage) => sqlite::advice(self).unwrap_or(HALTED),
            (_, Fault::CopyAgain) => "the tables are copied again by themselves",
        }
    }
}

/// What to do where the message says it.
pub const HALTED: &str = "act on the message; the link then goes on by itself within seconds";

/// Troubles of a peer that pass by themselves, each with the direction, seen from here, that it stops. A lock that is held
/// and a full disk stop the peer where it writes: what we send.
const PASSING: [(&str, Option<Direction>); 11] = [
    ("busy", Some(Direction::Send)),
    ("disk_full", Some(Direction::Send)),
    ("spool", Some(Direction::Send)),
    ("recapture", Some(Direction::Send)),
    ("schema_moved", Some(Direction::Send)),
    ("out_of_order", Some(Direction::Send)),
    ("unknown_table", Some(Direction::Send)),
    ("position_gone", Some(Direction::Receive)),
    ("schema_restless", Some(Direction::Receive)),
    ("closed", None),
    ("silent", None),
];

fn passing(trouble: &Trouble) -> Option<Option<Direction>> {
    PASSING.iter().find(|(code, _)| *code == trouble.code).map(|(_, stops)| *stops)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_cannot_read_stops_what_comes_from_it_and_what_it_cannot_write_what_goes_there() {
        let (send, receive) = (Some(Direction::Send), Some(Direction::Receive));
        for (code, state, stops) in [
            ("schema_restless", LinkState::Waiting, receive),
            ("position_gone", LinkState::Waiting, receive),
            ("disk_full", LinkState::Waiting, send),
            ("silent", LinkState::Connecting, None),
            ("constraint", LinkState::Halted, send),
        ] {
            let trouble = Trouble { code: code.to_owned(), message: String::new(), hint: String::new() };
            let error = Error::Peer(trouble);
            assert_eq!((error.link_state(), error.direction()), (state, stops), "{code}");
        }
        assert_eq!(Error::SchemaRestless.direction(), send, "at the peer");
    }
}
