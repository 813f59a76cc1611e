//! Listening for peers.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Response, Status, Streaming};

use super::channel::outgoing;
use super::service::link_server::{Link, LinkServer};
use super::{Address, Connection, Error, FrameStream, PART_BYTES_MAX};

/// A part, and what stands around it.
pub(super) const MESSAGE_BYTES_MAX: usize = PART_BYTES_MAX + (1 << 16);

/// What may be on the wire of one stream: a round trip of 30 ms at 1 Gbit/s. More would only delay control frames.
pub(super) const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// The same for a connection, which carries one stream.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES;

/// How often a silent peer is asked whether it is there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long it may take to answer: on a slow line the question waits behind what the kernel has queued.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long connections may take to end after `shutdown`. Who owns them ends them; this is for those who forget.
const END_GRACE: Duration = Duration::from_secs(5);

/// A bound socket that peers can connect to already; [`serve`] answers them.
pub struct Listener {
    socket: Socket,
    address: Address,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Removes the socket's file at the end.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have cleaned up before us.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Where it listens; with the port that was given out where 0 was asked for.
    pub fn local_address(&self) -> &Address {
        &self.address
    }
}

/// Listens there. A unix socket that nobody answers at any more is replaced; a new one is for its user and group.
///
/// # Errors
/// [`Error::Taken`] if another process listens there; [`Error::Bind`].
pub async fn bind(address: &Address) -> Result<Listener, Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Taken { address: address.clone() },
        _ => Error::Bind { address: address.clone(), source },
    };
    match address {
        Address::Tcp(host) => {
            let socket = TcpListener::bind(host.as_str()).await.map_err(failed)?;
            let address = Address::Tcp(socket.local_addr().map_err(failed)?.to_string());
            Ok(Listener { socket: Socket::Tcp(socket), address })
        }
        Address::Unix(path) => {
            remove_stale(path).await.map_err(failed)?;
            let socket = UnixListener::bind(path).map_err(failed)?;
            let file = SocketFile(path.clone());
            std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
            Ok(Listener { socket: Socket::Unix(socket, file), address: address.clone() })
        }
    }
}

/// Removes the socket that a killed process left behind, and nothing else.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Takes peers' connections until `shutdown`, and hands each to `incoming`. Then no new one is taken, and it returns when
/// those who own the connections have ended them, or after a grace period.
///
/// # Errors
/// [`Error::Serve`] if the socket fails.
pub async fn serve(
    listener: Listener,
    incoming: mpsc::Sender<Connection>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let Listener { socket, address } = listener;
    let service =
        LinkServer::new(Peers { incoming, address: address.to_string() }).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(END_GRACE).await;
    };
    let end = shutdown.clone().cancelled_owned();
    let served = async {
        match socket {
            Socket::Tcp(socket) => {
                let streams = TcpListenerStream::new(socket).inspect(|stream| {
                    // Without it small frames wait for the peer's acknowledgement of the ones before.
                    let _ = stream.as_ref().map(|stream| stream.set_nodelay(true));
                });
                server.serve_with_incoming_shutdown(service, streams, end).await
            }
            Socket::Unix(socket, file) => {
                let ended = server.serve_with_incoming_shutdown(service, UnixListenerStream::new(socket), end).await;
                drop(file);
                ended
            }
        }
    };
    tokio::select! {
        served = Box::pin(served) => served.map_err(|source| Error::Serve { address, source }),
        () = overdue => Ok(()),
    }
}

/// Makes a connection of each stream that a peer opens.
struct Peers {
    incoming: mpsc::Sender<Connection>,
    address: String,
}

#[tonic::async_trait]
impl Link for Peers {
    type ReplicateStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

    async fn replicate(&self, request: Request<Streaming<Bytes>>) -> Result<Response<Self::ReplicateStream>, Status> {
        let remote: Option<SocketAddr> =
            request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let peer = remote.map_or_else(|| self.address.clone(), |remote| remote.to_string());
        let local = remote.is_none_or(|remote| remote.ip().to_canonical().is_loopback());
        let (sink, outgoing) = outgoing(&peer);
        let from = peer.clone();
        let messages = request.into_inner();
        let stream = FrameStream::new(
            messages.map(move |message| message.map_err(|source| Error::Lost { peer: from.clone(), source })),
        );
        let connection = Connection { sink, stream, peer, local };
        self.incoming.send(connection).await.map_err(|_| Status::unavailable("this node is stopping"))?;
        Ok(Response::new(Box::pin(outgoing.map(Ok))))
    }
}
