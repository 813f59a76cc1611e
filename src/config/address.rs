//! Addresses, as far as a configuration can judge them: without asking the network.

use std::net::{IpAddr, SocketAddr};

/// What an address looks like.
pub(super) const FORM: &str = "host:port, as in 127.0.0.1:7745, or unix:/path";

/// Whether whoever can reach this address is on this machine: loopback, or a unix socket.
pub fn is_loopback(address: &str) -> bool {
    if address.starts_with("unix:") {
        return true;
    }
    if let Ok(address) = address.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether it is an address at all.
pub(super) fn is_address(address: &str) -> bool {
    if let Some(path) = address.strip_prefix("unix:") {
        return path.len() > 1 && path.starts_with('/');
    }
    if address.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let in_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !host.is_empty() && host.chars().all(in_host) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port_or_is_a_socket() {
        for right in ["0.0.0.0:7745", "[::1]:7745", "source:7745", "a-b.example.org:1", "unix:/run/x.sock"] {
            assert!(is_address(right), "{right}");
        }
        for wrong in
            ["", "7745", ":7745", "source", "source:port", "source:70000", "http://source:1", "unix:x", "::1:7"]
        {
            assert!(!is_address(wrong), "{wrong}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for near in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "localhost:1", "unix:/x"] {
            assert!(is_loopback(near), "{near}");
        }
        for far in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "source:1", "localhost.example.org:1"] {
            assert!(!is_loopback(far), "{far}");
        }
    }
}
