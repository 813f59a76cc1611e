//! The nouns of replication: plain data, no I/O. Imports nothing else of ours; everything else imports this.
//!
//! Start with [`value`] and [`key`] (what a row is), then [`table`] (what a table is), [`position`] (where in a log),
//! [`window`] (what travels) and [`progress`] (how far a copy is).

pub mod clock;
pub mod event;
pub mod fault;
pub mod key;
pub mod log_tail;
pub mod own;
pub mod position;
pub mod progress;
pub mod selection;
pub mod table;
pub mod value;
pub mod version;
pub mod window;

pub use clock::{Clock, ManualClock, SystemClock};
pub use event::{Changes, Event, EventTable, Operation};
pub use fault::{Fault, Trouble};
pub use key::{Collation, Key, NormalKey};
pub use log_tail::LogTail;
pub use own::{OURS, OWN_NAMES, is_log_name};
pub use position::{Checkpoint, Epoch, NodeId, Position};
pub use progress::{CopyState, CopyingBack, TableProgress};
pub use selection::{SchemaKinds, Selection};
pub use table::{Affinity, Column, Generated, Index, IndexColumn, IndexOrigin, KeyShape, TableId, TableSchema};
pub use value::Value;
pub use version::Version;
pub use window::{
    Digest, EncodedBatch, ObjectKind, Range, RangeMode, Rows, RowsOp, SchemaObject, TableDef, WindowEnd, WindowItem,
};
