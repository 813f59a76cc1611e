//! The way to a plugin: its address, the connection, and whether it speaks our version.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::{Answer, Error};
use crate::cloudquery::proto::{discovery, discovery_v0};

/// The version of the plugin protocol that is spoken here.
const PROTOCOL_VERSION: i32 = 3;

/// How long connecting may take: a plugin is here or nearby.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a plugin may take to say which versions it supports, which needs no work at all.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// What may be under way to us in one stream before we read it: enough to keep a fast source busy, and no more than a
/// small part of one message of the greatest size.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// The same for a connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// After which silence the system asks a peer whether it is there. It is the system that asks, not HTTP/2: plugins made
/// with Go and Python close connections on which they are pinged more often than every five minutes.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Where a plugin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// A socket file.
    Unix(PathBuf),
}

impl Address {
    /// An address as people write it: `host:port`, `unix:///path`, `unix:path`; `dns:///host:port` too, as gRPC has it.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return (!path.is_empty()).then(|| Self::Unix(path.into()));
        }
        let text = ["dns:///", "passthrough:///"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let plausible = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c)),
        };
        let host = if host.is_empty() { "localhost" } else { host };
        plausible.then(|| Self::Tcp(format!("{host}:{port}")))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => f.write_str(host),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Connects. That something accepted the connection does not say that it is a plugin: see [`discover`].
pub(super) async fn dial(plugin: &str, address: &Address) -> Result<Channel, Error> {
    let origin = match address {
        Address::Tcp(host) => format!("http://{host}"),
        // What stands in `:authority`; a path would be no valid one.
        Address::Unix(_) => "http://localhost".to_owned(),
    };
    let bad = |_| Error::Address { plugin: plugin.to_owned(), address: address.to_string() };
    let endpoint = Endpoint::from_shared(origin)
        .map_err(bad)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let connecting = async {
        match address {
            Address::Tcp(_) => endpoint.connect().await,
            Address::Unix(path) => {
                let path = path.clone();
                let connector = tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                endpoint.connect_with_connector(connector).await
            }
        }
    };
    let late = || Error::Deadline { plugin: plugin.to_owned(), call: "connect", after: CONNECT_TIMEOUT };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, Box::pin(connecting)).await.map_err(|_| late())?;
    connected.map_err(|source| Error::Connect { plugin: plugin.to_owned(), address: address.to_string(), source })
}

/// Asks for the versions that a plugin supports; ours must be among them.
pub(super) async fn discover(plugin: &str, address: &Address, channel: &Channel) -> Result<(), Error> {
    let late = || Error::Deadline { plugin: plugin.to_owned(), call: "GetVersions", after: DISCOVERY_TIMEOUT };
    let asked = tokio::time::timeout(DISCOVERY_TIMEOUT, Box::pin(versions(channel))).await.map_err(|_| late())?;
    let versions = match asked {
        Ok(versions) => versions,
        Err(status) if status.code() == Code::Unimplemented => {
            return Err(Error::NotAPlugin { plugin: plugin.to_owned(), address: address.to_string() });
        }
        Err(status) => {
            let source = Answer::from(status);
            return Err(Error::Call { plugin: plugin.to_owned(), call: "GetVersions", source });
        }
    };
    if versions.contains(&PROTOCOL_VERSION) {
        return Ok(());
    }
    Err(Error::Version { plugin: plugin.to_owned(), versions })
}

async fn versions(channel: &Channel) -> Result<Vec<i32>, tonic::Status> {
    let mut client = discovery::discovery_client::DiscoveryClient::new(channel.clone());
    match client.get_versions(discovery::get_versions::Request {}).await {
        Ok(answer) => return Ok(answer.into_inner().versions),
        Err(status) if status.code() == Code::Unimplemented => {}
        Err(status) => return Err(status),
    }
    let mut client = discovery_v0::discovery_client::DiscoveryClient::new(channel.clone());
    let answer = client.get_versions(discovery_v0::get_versions::Request {}).await?.into_inner();
    let number = |version: String| version.strip_prefix('v').and_then(|number| number.parse().ok());
    Ok(answer.versions.into_iter().filter_map(number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let tcp = |host: &str| Some(Address::Tcp(host.to_owned()));
        let unix = |path: &str| Some(Address::Unix(path.into()));
        for (text, wanted) in [
            ("localhost:7777", tcp("localhost:7777")),
            ("[::1]:7777", tcp("[::1]:7777")),
            (":7777", tcp("localhost:7777")),
            ("dns:///db.example:1", tcp("db.example:1")),
            ("unix:///tmp/a.sock", unix("/tmp/a.sock")),
            ("unix:a.sock", unix("a.sock")),
            ("unix:", None),
            ("localhost", None),
            ("localhost:0", None),
            ("localhost:70000", None),
            ("http://localhost:1", None),
            ("a b:1", None),
            ("./plugin", None),
        ] {
            assert_eq!(Address::parse(text), wanted, "{text}");
        }
        assert_eq!(Address::Unix("/tmp/a.sock".into()).to_string(), "unix:///tmp/a.sock");
    }
}
