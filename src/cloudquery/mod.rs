//! CloudQuery's plugin protocol, at both ends: what it says ([`proto`]), how tables and records are written in it
//! ([`table`], [`ipc`], [`delete`], [`selection`]), what a [`source`] is, the plugin that Twinlite is itself ([`server`],
//! [`destination`]), the client for plugins of any make ([`client`]), and the one-shot sync that stands on it ([`engine`]).
//!
//! Who is who: a *destination* is written into ([`proto::plugin`]'s Write), a *source* is synced from (Sync); one plugin
//! may be both. A table travels as an Arrow IPC stream of a schema alone, a record as one of a schema and a batch; name,
//! keys and flags are in the metadata of schema and fields.
//!
//! Bytes from a peer are data to check, never to trust: what is not as it says is [`Error::Malformed`].

pub mod changes;
mod civil;
pub mod client;
pub mod delete;
pub mod destination;
pub mod engine;
mod error;
pub mod ids;
pub mod ipc;
pub mod parse;
pub mod proto;
pub mod selection;
pub mod server;
pub mod source;
pub mod table;
pub mod text;
pub mod types;
pub mod value;

pub use delete::DeleteRecord;
pub use error::Error;
pub use table::{Column, Extension, Table};

/// The largest message that is received or sent: 200 MiB, as every plugin of CloudQuery's has it.
pub const MESSAGE_BYTES_MAX: usize = 200 << 20;
