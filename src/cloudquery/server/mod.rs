//! The plugin as a gRPC server: what CloudQuery's CLI, SDKs and older sources call.
//!
//! ```text
//!   socket ─▶ authority (unix sockets only) ─▶ HTTP/2 ─▶ panics ─┬▶ discovery
//!                                                                ├▶ plugin ─┬▶ write ──▶ destination::Writer
//!                                                                │          ├▶ stream ─▶ Destination::read, Source::sync
//!                                                                │          └▶ served: Init, Close, whose turn it is
//!                                                                └▶ v0, v1 ──▶ write
//! ```
//!
//! Promises:
//! * A call fails with the code and the words that CloudQuery's own server uses ([`status`]), and fails alone: a panic is
//!   INTERNAL, and the next call works.
//! * What a Write answered OK for is committed. A stream that is cut has the effect of what was received whole: it is
//!   written and committed, as if the client had ended it there.
//! * What a client sends is held once or twice, never more often: as it came, and as it was decoded.
//!
//! Not promised: that clients are who they say. There is no TLS and no login in this protocol; who can connect may write.
//! Tables are not validated in Init, as CloudQuery's server does it: a source is opened where it is first asked for.
//!
//! [`serve()`] is fed a [`Listener`] and what is [`Served`] by the command line or a node.

mod authority;
mod discovery;
mod error;
mod hpack;
mod huffman;
mod listen;
mod old;
mod panics;
mod plugin;
mod serve;
mod served;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod v0;
mod v0_rows;
mod v0_tables;
mod v1;
mod write;

use super::MESSAGE_BYTES_MAX;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use served::Plugin;

pub use error::Error;
pub use listen::{Listener, Network, bind};
pub use serve::serve;
pub use served::Served;

/// The plugin's name.
pub const NAME: &str = "sqlite";

/// Who makes it.
pub const TEAM: &str = "twinlite";

/// Its version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the services share.
#[derive(Clone)]
struct Calls {
    plugin: Plugin,
    /// What outlives the call that began it.
    tasks: TaskTracker,
    shutdown: CancellationToken,
}
