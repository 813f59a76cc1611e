//! Ctrl-C and SIGTERM, both of which mean: finish the transaction at hand and end.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, taken from the moment that this is made: before that, they kill.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Takes both from here on.
    ///
    /// # Errors
    /// The process cannot take signals.
    pub fn listen() -> Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("wait for Ctrl-C")?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for either.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
