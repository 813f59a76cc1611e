//! Twinlite: live replication of SQLite databases, one way or both ways.

pub mod model;

pub mod codec;
pub mod sqlite;

pub mod config;
pub mod migrate;
pub mod telemetry;

pub mod admin;
pub mod apply;
pub mod capture;
pub mod link;

pub mod replicate;

pub mod cli;
