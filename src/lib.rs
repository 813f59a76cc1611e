//! Twinlite: live replication of SQLite databases, one way or both ways.
//!
//! # The life of a change
//!
//! 1. An application commits. In its own transaction the triggers that [`capture::trigger_sql`] wrote append the key of
//!    each changed row to the change log, `__cdc_log`, and with `images: full` the row before and after.
//! 2. [`capture::wake`] sees SQLite write its WAL; `node::upkeep` checks that something was committed and ticks the
//!    [`replicate::feed`].
//! 3. [`replicate::sender`] asks the feed for a window. On the reader's thread [`capture::reader`] opens one read
//!    transaction, reads what is new in the log, reduces it to one change a key, reads those rows as they are now, adds
//!    the next range of a running copy (`capture::snapshot`), and lets [`codec`] make Arrow batches of it.
//! 4. [`link`] spools the window's frames, sends them over one gRPC stream, and spools them again at the other end until
//!    the window is whole.
//! 5. [`replicate::receiver`] hands the window to [`apply`], whose thread applies it in one transaction: first the schema
//!    ([`migrate`]), then deletions, rows and the range, last the checkpoint.
//! 6. Only then is it acknowledged. The acknowledgement lets the sender go on, and `node::upkeep` prune the log.
//!
//! What a failure means is decided where it is met: every module's `Error` has a `fault()`, and [`replicate::runner`]
//! retries, copies again, or halts the link and says why.
//!
//! Whoever reacts to changes rather than copies them reads the same log, with its images where it has them: [`capture::events`]
//! makes events of its entries, and an [`events::Engine`] hands them to a handler.
//!
//! ARCHITECTURE.md has the same from above, with the invariants and what is deliberately absent.

#[cfg(windows)]
compile_error!("Twinlite needs file locks and unix sockets as Linux and macOS have them; on Windows, run it in WSL 2");

pub mod model;

pub mod codec;
pub mod config;
pub mod migrate;
pub mod sqlite;
pub mod telemetry;

pub mod admin;
pub mod apply;
pub mod capture;
pub mod cloudquery;
pub mod link;

pub mod doctor;
pub mod events;
pub mod replicate;

pub mod node;

pub mod cli;
