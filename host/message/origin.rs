//! How a request has come: what its connection tells of it, and no header could.

use std::net::SocketAddr;

use http::uri;

/// How a request has come.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub scheme: Scheme,
    /// The address that its client has connected to.
    pub local: SocketAddr,
    pub peer: Peer,
}

/// What is known of who has sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The address of its socket.
    pub address: SocketAddr,
}

/// By which scheme a connection is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
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
