//! SQLite, as we use it: how a database is opened, the thread it lives on, what its catalog says, how names are quoted,
//! and the tables of our own.
//!
//! Nothing outside this module opens a connection, and nothing touches one outside a [`Db`]'s thread.

pub mod authorizer;
pub mod catalog;
mod db;
pub mod ddl;
mod error;
pub mod generations;
pub mod lexer;
mod log_op;
mod open;
pub mod quote;
pub mod range_sql;
pub mod row_sql;
pub mod store;
pub mod trigger_writes;
mod value;

pub use db::{Closed, Db};
pub use error::{Error, advice, is_refusal, said, said_with_advice, still_in_transaction, word_of};
pub use log_op::LogOp;
pub use open::{BUSY_TIMEOUT, Company, Role, in_memory, in_memory_as, look, open};
pub use quote::{ident, literal};
pub use value::{Bind, borrowed, value_of};
