//! Listens, and hands each call to the service that it is for.

use std::time::Duration;

use futures_util::StreamExt;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use super::authority::Shim;
use super::discovery::Discovery;
use super::listen::Socket;
use super::panics::CatchPanics;
use super::served::Plugin;
use super::{Calls, Error, Listener, MESSAGE_BYTES_MAX, Served, v0, v1};
use crate::cloudquery::proto::{destination_v0, destination_v1, discovery, discovery_v0, plugin};

/// What may be on the wire of one call before it is read: enough that a large record does not wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// How long open calls may take to end after `shutdown`, and as long again what outlives them: the CLI kills a plugin after
/// five seconds.
const END_GRACE: Duration = Duration::from_secs(2);

/// Serves until `shutdown`. Then open calls end UNAVAILABLE, with what they had received committed.
///
/// # Errors
/// [`Error::Serve`] if the socket fails.
pub async fn serve(listener: Listener, served: Served, shutdown: CancellationToken) -> Result<(), Error> {
    let address = listener.address().to_owned();
    let calls = Calls { plugin: Plugin::new(served), tasks: TaskTracker::new(), shutdown: shutdown.clone() };
    let tasks = calls.tasks.clone();
    let limit = MESSAGE_BYTES_MAX;
    let v3 = plugin::plugin_server::PluginServer::new(calls.clone());
    let v1 = destination_v1::destination_server::DestinationServer::new(v1::Destination::new(calls.clone()));
    let v0 = destination_v0::destination_server::DestinationServer::new(v0::Destination::new(calls));
    let router = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(STREAM_WINDOW_BYTES)
        .layer(CatchPanics)
        .add_service(v3.max_decoding_message_size(limit).max_encoding_message_size(limit))
        .add_service(discovery::discovery_server::DiscoveryServer::new(Discovery))
        .add_service(discovery_v0::discovery_server::DiscoveryServer::new(Discovery))
        .add_service(v1.max_decoding_message_size(limit).max_encoding_message_size(limit))
        .add_service(v0.max_decoding_message_size(limit).max_encoding_message_size(limit));
    let end = shutdown.clone().cancelled_owned();
    let serving = async {
        match listener.socket {
            Socket::Tcp(socket) => {
                let clients = TcpListenerStream::new(socket).inspect(|client| {
                    // Without it small answers wait for the client's acknowledgement of the ones before.
                    let _ = client.as_ref().map(|client| client.set_nodelay(true));
                });
                router.serve_with_incoming_shutdown(clients, end).await
            }
            Socket::Unix(socket, _file) => {
                let clients = UnixListenerStream::new(socket).map(|client| client.map(Shim::new));
                router.serve_with_incoming_shutdown(clients, end).await
            }
        }
    };
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(END_GRACE).await;
    };
    let ended = tokio::select! {
        ended = Box::pin(serving) => ended.map_err(|source| Error::Serve { address, source }),
        () = overdue => Ok(()),
    };
    tasks.close();
    // Those that do not end in time are cut, and their open transactions rolled back.
    let _ = tokio::time::timeout(END_GRACE, tasks.wait()).await;
    ended
}
