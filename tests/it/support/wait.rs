//! Waiting for another process, bounded.
//!
//! A process of its own cannot signal a condition variable here, so what it does is looked at, at short intervals; no
//! test waits longer than its condition takes.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up, unless `TWINLITE_PATIENCE_SECONDS` says more (for runs on databases
/// of gigabytes). Generous: CI machines stall.
const PATIENCE_SECONDS: u64 = 90;

/// How long anything may take before a test gives up.
pub fn patience() -> Duration {
    Duration::from_secs(super::env_number("TWINLITE_PATIENCE_SECONDS", PATIENCE_SECONDS))
}

const INTERVAL: Duration = Duration::from_millis(15);

/// Waits until `look` returns something, or panics with what was last seen.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let patience = patience();
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if Instant::now() > deadline => panic!("waited {patience:?} for {what}; last: {last}"),
            Err(_) => pause(INTERVAL),
        }
    }
}

/// Gives up the processor for a while.
pub fn pause(time: Duration) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}
