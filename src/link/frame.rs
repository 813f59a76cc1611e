//! What two nodes say to each other.
//!
//! The replicate layer makes and reads [`Frame`]s; [`super::to_wire`] and [`super::from_wire`] translate them to and
//! from the messages of `link.proto`. The bytes of batches are never copied in between.

use bytes::Bytes;
use prost::Message;

use super::{Error, proto};
use crate::model::{
    Checkpoint, Epoch, Key, NodeId, Position, SchemaKinds, TableId, TableProgress, Trouble, WindowEnd, WindowItem,
};

/// One thing that a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "frames are moved through channels encoded, not as this")]
pub enum Frame {
    /// The first frame of each side.
    Hello(Hello),
    /// The second frame of each side, where both send.
    Verdict(Verdict),
    /// What follows from the verdicts is durably kept here: now the other end may.
    Kept,
    /// Begins a window.
    Begin(Begin),
    /// Something in the window.
    Item(WindowItem),
    /// Ends the window.
    Commit(Commit),
    /// A window is durably applied. Control.
    Ack(Ack),
    /// A range is wanted, row by row. Control.
    Need(Need),
    /// How things stand; in order with the windows.
    Heartbeat(Heartbeat),
    /// Why the sender ends the connection, or does not go on. Control.
    Fault(Trouble),
}

/// Who the sender is, what it wants, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Versions of the protocol that it speaks; see [`super::common_version`].
    pub versions: Vec<u32>,
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The name of the peer that it means to talk to; empty for any.
    pub to_name: String,
    /// Whether it sends changes.
    pub sends: bool,
    /// Whether it takes changes.
    pub receives: bool,
    /// The globs of the link's tables: wanted, unwanted.
    pub tables: (Vec<String>, Vec<String>),
    /// Which schema objects travel.
    pub kinds: SchemaKinds,
    /// What both sides must have alike, as JSON.
    pub policies: String,
    /// How two databases that both hold rows are joined.
    pub seed: Option<String>,
    /// Whether its database holds no table of the link.
    pub empty: bool,
    /// The compressions that it reads.
    pub compressions: Vec<String>,
    /// What it holds of the receiver's; `None` where it takes no changes.
    pub held: Option<Held>,
    /// Its own log; `None` where it sends no changes.
    pub log: Option<LogHello>,
    /// Whether it copies everything again, instead of halting, where its checkpoint is none that the peer's log produced.
    pub on_divergence_resnapshot: bool,
}

/// What a node makes of what its peer says that it has applied of the node's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the log goes on from there.
    pub known: bool,
    /// Why this log did not produce it, where it did not; otherwise what follows is merely gone.
    pub diverged: Option<String>,
    /// The end of the log.
    pub head: Checkpoint,
}

/// What a node holds of its peer's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Up to where; `None` if nothing was ever applied.
    pub checkpoint: Option<Checkpoint>,
    /// How far each table is copied.
    pub tables: Vec<HeldTable>,
    /// Whether everything is to be copied, and nothing of it has come yet.
    pub lost_history: bool,
    /// Whether that copy, or the one under way, leaves what only this node has.
    pub union: bool,
}

/// How far one table is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldTable {
    /// How far, by the peer's id of the table.
    pub progress: TableProgress,
    /// The table's name at the holder.
    pub name: String,
    /// An estimate of the rows that the holder has.
    pub rows: u64,
}

/// The ends of a node's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHello {
    /// Which log.
    pub epoch: Epoch,
    /// Its newest entry.
    pub head: i64,
    /// The oldest entry that is still held.
    pub oldest: i64,
}

/// Begins a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// From 1, per session.
    pub number: u64,
    /// The receiver's checkpoint; with `lost_history`, where the receiver is to move it.
    pub from: Position,
    /// Whether history between the receiver's checkpoint and `from` is missing.
    pub lost_history: bool,
    /// Whether the window holds the catalog.
    pub catalog: bool,
}

/// Ends a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The window's number.
    pub number: u64,
    /// How it ends.
    pub end: WindowEnd,
}

/// A window is durably applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The window's number.
    pub number: u64,
    /// The receiver's checkpoint after it.
    pub position: Position,
}

/// A range is wanted, row by row: because its digest differs, or because the receiver copies the table again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Which table.
    pub table: TableId,
    /// Below the first key; `None` is open.
    pub low: Option<Key>,
    /// The last key; `None` is open.
    pub high: Option<Key>,
}

/// How things stand at the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its log's newest entry.
    pub head: i64,
    /// How far it has applied the receiver's log.
    pub seen: i64,
    /// Its clock.
    pub now_ms: i64,
    /// When the oldest change was made that is not acknowledged, as far as the sender knows.
    pub behind_since_ms: Option<i64>,
}

impl Frame {
    /// Whether it may overtake the frames of windows.
    pub fn is_control(&self) -> bool {
        match self {
            Self::Ack(_) | Self::Need(_) | Self::Fault(_) => true,
            Self::Hello(_)
            | Self::Verdict(_)
            | Self::Kept
            | Self::Begin(_)
            | Self::Item(_)
            | Self::Commit(_)
            | Self::Heartbeat(_) => false,
        }
    }

    /// Its bytes, as [`super::FrameSink::encoded`] takes them.
    pub fn encode(&self) -> Bytes {
        proto::Frame { kind: Some(self.into()) }.encode_to_vec().into()
    }

    /// The frame that these bytes are. Batches in it share the bytes.
    ///
    /// # Errors
    /// [`Error::Decode`] and [`Error::Malformed`] if they are none.
    pub fn decode(bytes: Bytes) -> Result<Self, Error> {
        proto::Frame::decode(bytes)?.try_into()
    }
}
