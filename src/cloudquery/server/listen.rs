//! Where the server listens: a TCP address, or a unix socket at exactly the path that was asked for.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::Error;

/// Which kind of address it is, as Go's networks are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4 or IPv6.
    Tcp,
    /// IPv4 alone.
    Tcp4,
    /// IPv6 alone.
    Tcp6,
    /// A unix socket.
    Unix,
}

/// A bound socket; clients can connect already.
pub struct Listener {
    pub(super) socket: Socket,
    address: String,
    is_beyond_loopback: bool,
}

pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Removes the socket's file at the end.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Who started us may have removed it already.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Where it listens, with the port that was given out where 0 was asked for.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether other machines can connect. Nothing here asks who they are.
    pub fn is_beyond_loopback(&self) -> bool {
        self.is_beyond_loopback
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.address)
    }
}

/// Listens there. A unix socket that nobody answers at any more is replaced.
///
/// # Errors
/// [`Error::Taken`], where somebody answers; [`Error::Bind`].
pub async fn bind(network: Network, address: &str) -> Result<Listener, Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Taken { address: address.to_owned() },
        _ => Error::Bind { address: address.to_owned(), source },
    };
    let bound = match network {
        Network::Tcp | Network::Tcp4 | Network::Tcp6 => bind_tcp(network, address).await,
        Network::Unix => bind_unix(Path::new(address)).await,
    };
    bound.map_err(failed)
}

async fn bind_tcp(network: Network, address: &str) -> io::Result<Listener> {
    // As in Go, no host is every one.
    let every = match (network, address.starts_with(':')) {
        (Network::Tcp4, true) => format!("0.0.0.0{address}"),
        (Network::Tcp | Network::Tcp6, true) => format!("[::]{address}"),
        _ => address.to_owned(),
    };
    let fits = |found: &SocketAddr| match network {
        Network::Tcp => true,
        Network::Tcp4 => found.is_ipv4(),
        Network::Tcp6 => found.is_ipv6(),
        Network::Unix => false,
    };
    let mut found: Vec<SocketAddr> = tokio::net::lookup_host(every).await?.filter(fits).collect();
    // `localhost` is both; whoever dials it tries IPv4 in any case.
    found.sort_by_key(SocketAddr::is_ipv6);
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address of that network"));
    }
    let socket = TcpListener::bind(found.as_slice()).await?;
    let local = socket.local_addr()?;
    let is_beyond_loopback = !local.ip().to_canonical().is_loopback();
    Ok(Listener { socket: Socket::Tcp(socket), address: local.to_string(), is_beyond_loopback })
}

async fn bind_unix(path: &Path) -> io::Result<Listener> {
    remove_stale(path).await?;
    let socket = UnixListener::bind(path)?;
    let file = SocketFile(path.to_owned());
    std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
    let address = path.display().to_string();
    Ok(Listener { socket: Socket::Unix(socket, file), address, is_beyond_loopback: false })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cq.sock").display().to_string();
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        let listener = bind(Network::Unix, &path).await.expect("the stale one is replaced");
        assert_eq!(listener.address(), path);
        assert!(matches!(bind(Network::Unix, &path).await, Err(Error::Taken { .. })));
        drop(listener);
        assert!(!Path::new(&path).exists(), "the socket is removed at the end");
        std::fs::write(&path, "precious").expect("a file");
        assert!(bind(Network::Unix, &path).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[tokio::test]
    async fn networks_are_go_s() {
        let local = bind(Network::Tcp, "localhost:0").await.expect("bound");
        assert!(local.address().starts_with("127.0.0.1:") && !local.is_beyond_loopback());
        assert!(bind(Network::Tcp4, ":0").await.expect("bound").is_beyond_loopback());
        for (network, address) in
            [(Network::Tcp6, "127.0.0.1:0"), (Network::Tcp4, "[::1]:0"), (Network::Tcp, "nothing")]
        {
            assert!(matches!(bind(network, address).await, Err(Error::Bind { .. })), "{network:?} {address}");
        }
        assert!(matches!(bind(Network::Tcp, local.address()).await, Err(Error::Taken { .. })));
    }
}
