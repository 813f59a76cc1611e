//! Where a node listens, as people write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::Error;

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `host:port`; the host is a name, an IPv4 address, or an IPv6 address in brackets.
    Tcp(String),
    /// `unix:/path`: a unix socket on this machine.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Address { given: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///path` is how other tools write it.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let host_is_one = bracketed || !host.contains([':', '/', ' ', '[', ']']);
        if host.is_empty() || !host_is_one || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for text in ["localhost:7171", "10.0.0.1:1", "[::1]:7171", "unix:/run/twinlite.sock", "unix:relative.sock"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        assert_eq!("unix:///run/a".parse::<Address>().expect("a path"), Address::Unix("/run/a".into()));
        for text in ["", "localhost", ":7171", "host:", "host:70000", "::1:7171", "http://a:1", "unix:"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
