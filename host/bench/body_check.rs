//! Checks whether an answer has one of the bodies that it may have.
//!
//! Compares hashes, so that a check costs next to nothing during a measurement. Owns how a check
//! learns bodies that it is not given.

use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail};

use super::load::Bodies;
use super::probe::{self, PROBE_BODY_BYTES_MAX};
use super::response::{body_hash, is_expected};
use super::stream::Destination;
use super::suite::Stream;

/// The bodies that the answers of one stream may have, as hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyCheck {
    /// One for each path, by the path's number.
    each: Vec<u64>,
    /// Those that every path may have.
    any: Vec<u64>,
}

impl BodyCheck {
    /// The check for a stream, or `None` if its answers may have any body. `versions` has the hash
    /// of each version's answer if a file is swapped during the load, else nothing. For
    /// [`Bodies::AsBefore`] without swaps, this asks for each path once and blocks until then.
    ///
    /// # Errors
    /// A path has no answer, or one with an unexpected status.
    pub fn of(
        stream: &Stream,
        destination: &Destination,
        versions: &[u64],
        stop: &AtomicBool,
    ) -> anyhow::Result<Option<Self>> {
        let request = &stream.request;
        match &request.bodies {
            Bodies::Any => Ok(None),
            Bodies::Each(bodies) => {
                let each = bodies.iter().map(|body| body_hash(body)).collect();
                Ok(Some(Self { each, any: Vec::new() }))
            }
            Bodies::AsBefore if !versions.is_empty() => {
                Ok(Some(Self { each: Vec::new(), any: versions.to_vec() }))
            }
            Bodies::AsBefore => {
                let mut one = request.clone();
                let mut each = Vec::new();
                for path in &request.paths {
                    one.paths = vec![path.clone()];
                    let answered = probe::ask(destination, &one, stream.load.timeout, stop);
                    let answered = answered.with_context(|| path.clone())?;
                    if !is_expected(request.status, answered.status) {
                        bail!("{path} is answered with {}", answered.status);
                    }
                    if answered.body.len() >= PROBE_BODY_BYTES_MAX {
                        bail!("{path}: a body of 64 MiB and more cannot be compared");
                    }
                    each.push(body_hash(&answered.body));
                }
                Ok(Some(Self { each, any: Vec::new() }))
            }
        }
    }

    /// Whether the path with this number may be answered with a body that has this hash.
    pub fn allows(&self, path: usize, hash: u64) -> bool {
        self.each.get(path) == Some(&hash) || self.any.contains(&hash)
    }
}
