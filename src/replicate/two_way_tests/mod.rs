//! The rules for both ways, on real databases: random histories of nodes that write, lose connections, prune, miss changes
//! and are copied again; and the mutants of those rules, which must be caught.
//!
//! * [`world`]: nodes with their databases, and links that carry encoded frames in memory;
//! * [`history`]: one random history, and what must hold at its end; [`shrink`]: one that fails, without what it does not
//!   need;
//! * [`scenes`]: what random histories meet too rarely;
//! * [`mutants`]: each rule left out once.

mod history;
mod link;
mod mutants;
mod node;
mod oracle;
mod random;
mod scenes;
mod shrink;
mod world;
