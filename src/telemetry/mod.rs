//! telemetry

pub mod failpoint;
