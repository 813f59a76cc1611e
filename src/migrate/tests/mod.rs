//! Migration through its front door, between two databases.

mod changes;
mod hostile;
mod objects;
mod pairing;
mod support;
