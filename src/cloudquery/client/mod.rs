//! A client for CloudQuery plugins of any make: connecting, one method a call, and starting those that are programs.
//!
//! It knows the protocol and nothing of why it is called: the one-shot engine and a node's link both stand on it.
//!
//! Promises:
//! * every call of one answer has a deadline; streams have none, for a sync takes as long as it takes;
//! * nothing larger than [`super::MESSAGE_BYTES_MAX`] is received or sent, and what waits to be sent is bounded by
//!   [`WRITE_QUEUE_MESSAGES`] and in bytes;
//! * an error says which plugin, which call and why, and where it can, what to do about it;
//! * a program that was started is stopped again, and its socket removed, with what it started, also where this is dropped.

mod connect;
mod error;
mod logs;
mod plugin;
mod spawn;
mod stream;
mod write;

pub use connect::Address;
pub use error::{Answer, Error};
pub use logs::LogTally;
pub use plugin::{Initialized, PluginClient, Tested};
pub use spawn::{LocalOptions, LocalPlugin};
pub use stream::{ReadStream, SyncMessage, SyncStream};
pub use write::{WRITE_QUEUE_MESSAGES, WriteSession};
