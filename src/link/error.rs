//! What can go wrong between two nodes.

use std::io;

use super::Address;
use crate::model::{Fault, Trouble};

/// A connection that cannot be had, or that ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address that is none.
    #[error("`{given}` is not an address: write host:port, [ipv6]:port or unix:/path")]
    Address {
        /// What was given.
        given: String,
    },
    /// Nobody answers there.
    #[error("cannot connect to {address}; is the peer running, and is this where it listens?")]
    Connect {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody answers there, but does not take the stream.
    #[error("{address} answers, but not as a Twinlite node that takes connections")]
    Refused {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: tonic::Status,
    },
    /// The connection could not be set up.
    #[error("{address} is reachable, but does not speak HTTP/2")]
    Handshake {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// Another process listens there.
    #[error("{address} is taken: another process listens there; stop it, or set another `listen` address")]
    Taken {
        /// Where.
        address: Address,
    },
    /// One cannot listen there.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The listener failed.
    #[error("listening on {address} ended")]
    Serve {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The connection broke.
    #[error("lost the connection to {peer}")]
    Lost {
        /// Whose.
        peer: String,
        /// Why.
        #[source]
        source: tonic::Status,
    },
    /// The other side ended the connection.
    #[error("the connection to {peer} is closed")]
    Closed {
        /// Whose.
        peer: String,
    },
    /// The other side takes no more frames, though control frames never wait.
    #[error("{peer} does not read: its queue of acknowledgements and requests is full")]
    Overrun {
        /// Whose.
        peer: String,
    },
    /// Bytes that are no frame.
    #[error("a frame cannot be read")]
    Decode(#[from] prost::DecodeError),
    /// A frame that lacks what it must have.
    #[error("a frame is malformed: {0}")]
    Malformed(&'static str),
    /// A frame that no peer would take.
    #[error(
        "a frame of {bytes} bytes is larger than a peer takes ({} bytes); lower batch_size_bytes, or store the large \
         values outside of the database",
        super::FRAME_BYTES_MAX
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// No version of the protocol in common.
    #[error(
        "the peer speaks protocol versions {theirs:?}, this node {ours:?}; run Twinlite releases next to each other on \
         both ends"
    )]
    Version {
        /// Ours.
        ours: Vec<u32>,
        /// The peer's.
        theirs: Vec<u32>,
    },
    /// The temporary file of a window failed.
    #[error("keep a window in a temporary file; is there room in its folder?")]
    Spool(#[source] io::Error),
}

impl Error {
    /// What this failure asks of the caller.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Address { .. } | Self::Taken { .. } | Self::Bind { .. } => Fault::Usage,
            // A frame that arrives broken may arrive well over the next connection, and the window is sent again.
            Self::Connect { .. }
            | Self::Refused { .. }
            | Self::Handshake { .. }
            | Self::Serve { .. }
            | Self::Lost { .. }
            | Self::Closed { .. }
            | Self::Overrun { .. }
            | Self::Decode(_)
            | Self::Malformed(_)
            | Self::Spool(_) => Fault::Retry,
            Self::TooLarge { .. } | Self::Version { .. } => Fault::Halt,
        }
    }

    /// As `status` and a peer see it: in our words, and the causes that are words for people. Whoever logs the failure
    /// has all of them.
    pub fn trouble(&self) -> Trouble {
        let code = match self {
            Self::Address { .. } => "address",
            Self::Connect { .. } | Self::Refused { .. } | Self::Handshake { .. } => "unreachable",
            Self::Taken { .. } | Self::Bind { .. } | Self::Serve { .. } => "listen",
            Self::Lost { .. } | Self::Closed { .. } | Self::Overrun { .. } => "connection_lost",
            Self::Decode(_) | Self::Malformed(_) => "malformed_frame",
            Self::TooLarge { .. } => "too_large",
            Self::Version { .. } => "protocol_version",
            Self::Spool(_) => "spool",
        };
        let message = match self {
            // What the HTTP/2 library has to say of its frames tells a person nothing; it is for the log.
            Self::Refused { .. } | Self::Handshake { .. } | Self::Lost { .. } => self.to_string(),
            Self::Address { .. }
            | Self::Connect { .. }
            | Self::Taken { .. }
            | Self::Bind { .. }
            | Self::Serve { .. }
            | Self::Closed { .. }
            | Self::Overrun { .. }
            | Self::Decode(_)
            | Self::Malformed(_)
            | Self::TooLarge { .. }
            | Self::Version { .. }
            | Self::Spool(_) => chain(self),
        };
        Trouble { code: code.to_owned(), message, hint: String::new() }
    }
}

/// The error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
