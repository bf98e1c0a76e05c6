//! A server that is measured.

use super::process::Server;
use super::stream::Destination;

/// A server that is up.
pub struct Target<'a> {
    pub destination: Destination,
    /// Its process, where that is known.
    pub pid: Option<u32>,
    /// Where this program has started it.
    pub server: Option<&'a Server>,
}
