//! Whether an answer has a body that it may have.
//!
//! Bodies are told apart by their hash, so that a check costs next to nothing while a server is
//! measured. Owns how the bodies are learned that are not known before.

use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail};

use super::load::Bodies;
use super::probe;
use super::response::{body_hash, is_expected};
use super::stream::Destination;
use super::suite::Stream;

/// The bodies that answers of one stream may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyCheck {
    /// By the number of the path.
    each: Vec<u64>,
    /// Of any path.
    any: Vec<u64>,
}

impl BodyCheck {
    /// What a stream's answers have to be; none where that does not matter. `versions` are the
    /// hashes of what the versions of a file answer that is swapped meanwhile.
    ///
    /// # Errors
    /// A path is not answered as it should be before the measurement.
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
                    each.push(body_hash(&answered.body));
                }
                Ok(Some(Self { each, any: Vec::new() }))
            }
        }
    }

    /// Whether the path of that number may have this answer.
    pub fn allows(&self, path: usize, hash: u64) -> bool {
        self.each.get(path) == Some(&hash) || self.any.contains(&hash)
    }
}
