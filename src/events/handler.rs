//! What takes events.

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::model::Changes;
use crate::telemetry::EventsHandle;

/// Why a handler did not take a batch, in words for a person. The engine stops with the batch unacknowledged.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// Takes batches of events.
///
/// One call at a time, batches in change order. `Ok` acknowledges the whole batch: it is not handed over again, but after a
/// crash or a power failure shortly afterwards (at least once). An error stops the engine and leaves the batch
/// unacknowledged, so retries are the handler's own.
pub trait ChangesHandler: Send {
    /// Takes one batch.
    ///
    /// # Errors
    /// What stops the engine.
    fn handle_changes<'a>(&'a mut self, changes: &'a Changes) -> BoxFuture<'a, Result<(), HandlerError>>;

    /// An engine begins to run it. `status`: where it may say how it is doing, for `twinlite status`. `cancel`: cancelled when
    /// what is not taken yet is not to be tried again. A handler that tries nothing again needs neither.
    fn begins(&mut self, status: &EventsHandle, cancel: &CancellationToken) {
        let _ = (status, cancel);
    }
}
