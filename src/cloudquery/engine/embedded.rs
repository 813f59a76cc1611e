//! `registry: embedded`: Twinlite itself as a plugin, in this process.

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use crate::cloudquery::client::Address;

/// Any error of whoever provides the plugin.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Starts Twinlite's own plugin. The engine only connects to it, as to any other, so that it and its state backend are
/// reached in one way; who has a server passes it in.
pub trait Embedded: Send + Sync {
    /// Starts one, for itself, under the name that the specification gives it.
    fn start<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Running, BoxError>>;
}

/// A plugin that runs until this is dropped.
pub struct Running {
    /// Where it listens: other processes may be told (a state backend).
    pub address: Address,
    /// What asks it to end when it is dropped.
    pub guard: DropGuard,
    /// Ends when it has; it bounds by itself how long that takes.
    pub ended: JoinHandle<()>,
}

impl Running {
    /// Ends it, and waits until it has.
    pub(super) async fn stop(self) {
        drop(self.guard);
        // A task that panicked has ended, too.
        let _ = self.ended.await;
    }
}
