//! A server while it is measured.

use super::process::Server;
use super::stream::Destination;

/// A server that is up.
pub struct Target<'a> {
    /// The server's address.
    pub destination: Destination,
    /// The server's process, if it is known.
    pub pid: Option<u32>,
    /// The server, if this program has started it.
    pub server: Option<&'a Server>,
}
