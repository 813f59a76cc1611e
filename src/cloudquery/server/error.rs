//! What keeps a server from serving at all.

use std::io;

use crate::model::Fault;

/// The server cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody listens there already.
    #[error("listen at {address}: another process listens there; stop it, or choose another --address")]
    Taken {
        /// Where.
        address: String,
    },
    /// The address cannot be listened at.
    #[error("listen at {address}")]
    Bind {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket failed while it was served.
    #[error("serve at {address}")]
    Serve {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

impl Error {
    /// What this failure asks of the caller.
    pub fn fault(&self) -> Fault {
        match self {
            // Whoever has it may be about to end, as may whatever broke the socket.
            Self::Taken { .. } | Self::Serve { .. } => Fault::Retry,
            Self::Bind { .. } => Fault::Halt,
        }
    }
}
