//! A server that the host itself sends requests to: one place by HTTP/1.1, which whoever runs the
//! host has named, so that no address of it is prohibited.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Shared;
use super::connections::{Connections, Lent};
use super::failure::{Ended, Failure};
use super::link::{self, Link, Sent, Tls};
use super::policy::Destination;
use super::resolve::Resolver;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Its part of the lookups is that of a guest of this name, which no file can have.
const ASKER: &str = "@upstream";

/// See the file. `B` is the body of requests.
pub struct Service<B> {
    destination: Destination,
    connections: Connections<B>,
    /// Bytes that the head of a response may have.
    header_bytes_max: usize,
    /// How long it may take nothing of what it is sent.
    untaken_max: Duration,
    tls: Tls,
    resolver: Arc<Resolver>,
}

impl<B: Sent> Service<B> {
    /// The server at this place, to which so many connections are kept without a request.
    pub fn new(
        shared: &Shared,
        authority: &Authority,
        idle_count_max: usize,
        header_bytes_max: usize,
        untaken_max: Duration,
    ) -> Self {
        Service {
            destination: Destination::named(authority),
            connections: Connections::new(idle_count_max, false),
            header_bytes_max,
            untaken_max,
            tls: shared.tls.clone(),
            resolver: shared.resolver.clone(),
        }
    }

    /// Sends a request, up to the response's head. Dropping what is lent closes the connection.
    pub async fn send(&self, request: Request<B>) -> Result<(Response<Incoming>, Lent<B>), Ended> {
        let open = async || self.open().await;
        let send = async |link: &mut Link<B>, request| link.send(request).await;
        self.connections.exchange(request, open, send).await
    }

    /// Takes a connection back whose response is complete, once its request is.
    pub async fn give_back(&self, lent: Lent<B>) {
        self.connections.give_back(lent, None).await;
    }

    /// Closes what has been idle for long or is closed by the server.
    pub fn sweep(&self) {
        self.connections.sweep();
    }

    async fn open(&self) -> Result<Link<B>, Failure> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let Destination { host, port, .. } = &self.destination;
        let found = self.resolver.addresses(ASKER, host, deadline).await?;
        let addresses = link::admitted(&found, *port, |_| true)?;
        let config = link::Config {
            tls: &self.tls,
            header_bytes_max: self.header_bytes_max,
            untaken_max: Some(self.untaken_max),
        };
        link::connect(&self.destination, &addresses, &config, (), deadline).await
    }
}
