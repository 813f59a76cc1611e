//! Dialling a peer.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};

use super::channel::outgoing;
use super::server::{CONNECTION_WINDOW_BYTES, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES};
use super::service::link_client::LinkClient;
use super::{Address, Connection, Error, FrameStream};

/// How a peer is dialled.
#[derive(Clone, Copy, Debug)]
pub struct DialOptions {
    /// How long connecting may take, from name to stream.
    pub connect_timeout: Duration,
    /// How often a silent peer is asked whether it is there.
    pub keepalive_interval: Duration,
    /// How long it may take to answer that.
    pub keepalive_timeout: Duration,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(30),
        }
    }
}

/// Connects to the node that listens there.
///
/// # Errors
/// [`Error::Connect`] if nobody does, or not within the time; [`Error::Handshake`] and [`Error::Refused`] if somebody
/// else does.
pub async fn dial(address: &Address, options: DialOptions) -> Result<Connection, Error> {
    let failed = |source| Error::Connect { address: address.clone(), source };
    let dialled = tokio::time::timeout(options.connect_timeout, Box::pin(connect(address, options)));
    dialled.await.unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut.into())))
}

async fn connect(address: &Address, options: DialOptions) -> Result<Connection, Error> {
    let failed = |source| Error::Connect { address: address.clone(), source };
    let (channel, local) = match address {
        Address::Tcp(host) => {
            let stream = TcpStream::connect(host.as_str()).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            let local = stream.peer_addr().map_err(failed)?.ip().to_canonical().is_loopback();
            (over(stream, options).await, local)
        }
        Address::Unix(path) => (over(UnixStream::connect(path).await.map_err(failed)?, options).await, true),
    };
    let channel = channel.map_err(|source| Error::Handshake { address: address.clone(), source })?;
    open(channel, address, local).await
}

/// HTTP/2 over a stream that is connected. The connection is used once: who reconnects also says Hello anew.
async fn over<S>(stream: S, options: DialOptions) -> Result<Channel, tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_| {
        let taken = stream.take().ok_or_else(|| io::Error::other("the connection is used up"));
        std::future::ready(taken)
    });
    Endpoint::from_static("http://twinlite")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .connect_with_connector(once)
        .await
}

async fn open(channel: Channel, address: &Address, local: bool) -> Result<Connection, Error> {
    let peer = address.to_string();
    let (sink, outgoing) = outgoing(&peer);
    let mut client = LinkClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let answer = client.replicate(outgoing).await;
    let messages = answer.map_err(|source| Error::Refused { address: address.clone(), source })?.into_inner();
    let from = peer.clone();
    let stream = FrameStream::new(messages.map(move |message| {
        // The client stays with the stream: without it the connection may end.
        let _ = &client;
        message.map_err(|source| Error::Lost { peer: from.clone(), source })
    }));
    Ok(Connection { sink, stream, peer, local })
}
