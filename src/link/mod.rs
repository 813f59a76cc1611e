//! The connection between two nodes: frames, and how they travel.
//!
//! [`dial`] and [`serve`] make [`Connection`]s over one bidirectional gRPC stream, [`pair`] makes two of them in memory;
//! all carry the same frames, encoded. The replicate layer owns a connection's two halves: it sends through the
//! [`FrameSink`] and receives from the [`FrameStream`], and says what frames mean. A window is gathered in a [`Spool`],
//! at the sender before it is sent and at the receiver before it is applied.
//!
//! Promised: data frames arrive whole, once and in the order in which they were sent, or the stream ends or fails.
//! Control frames (Ack, Need, Fault) keep their order among themselves and overtake data that still waits here. A peer
//! cannot make this module panic, hold more than [`FRAME_BYTES_MAX`] for unfinished frames, or wait for anything but its
//! own silence, which keepalive ends.
//!
//! Not promised: that a frame which was sent has arrived. Only an Ack says so.

mod address;
mod channel;
mod client;
mod error;
mod frame;
mod from_wire;
mod parts;
mod raw;
mod server;
mod spool;
mod to_wire;

#[cfg(test)]
mod tests;

pub use address::Address;
#[cfg(test)]
pub(crate) use channel::slow_line;
pub use channel::{Connection, FrameSink, FrameStream, pair};
pub use client::{DialOptions, dial};
pub use error::Error;
pub use frame::{Ack, Begin, Commit, Frame, Heartbeat, Held, HeldTable, Hello, LogHello, Need};
pub use parts::{FRAME_BYTES_MAX, PART_BYTES_MAX};
pub use server::{Listener, bind, serve};
pub use spool::{SPOOL_MEMORY_BYTES_MAX, Spool, Spooled};

/// The version of the protocol that this program prefers.
pub const PROTOCOL: u32 = 1;

/// All versions that it speaks: this one, and the one before where there is one.
pub const VERSIONS: &[u32] = &[PROTOCOL];

/// The newest version that both sides speak.
///
/// # Errors
/// [`Error::Version`] if there is none.
pub fn common_version(theirs: &[u32]) -> Result<u32, Error> {
    let common = VERSIONS.iter().copied().filter(|version| theirs.contains(version)).max();
    common.ok_or_else(|| Error::Version { ours: VERSIONS.to_vec(), theirs: theirs.to_vec() })
}

/// The messages of `proto/twinlite/link/v1/link.proto`.
#[allow(missing_docs, reason = "the file says what they are")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/twinlite.link.v1.rs"));
}

/// The service of the same file, over bytes.
#[allow(missing_docs, clippy::default_constructed_unit_structs, reason = "it is generated; the file says what it is")]
mod service {
    include!(concat!(env!("OUT_DIR"), "/twinlite.link.v1.Link.rs"));
}
