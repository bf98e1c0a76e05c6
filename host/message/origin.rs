//! The origin of a request: what its connection shows and no header field can forge.

use std::net::SocketAddr;

use http::uri;

/// The connection by which a request has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The scheme of the connection.
    pub scheme: Scheme,
    /// The address that the client has connected to.
    pub local: SocketAddr,
    /// The client.
    pub peer: Peer,
}

/// The client of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The address and port of the client's socket.
    pub address: SocketAddr,
}

/// The scheme of requests on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// The name as in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

impl From<Scheme> for uri::Scheme {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Http => uri::Scheme::HTTP,
            Scheme::Https => uri::Scheme::HTTPS,
        }
    }
}
