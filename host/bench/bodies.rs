//! Learns which bodies the answers of a stream may have.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail};

use super::body_check::BodyCheck;
use super::load::Bodies;
use super::probe::{self, PROBE_BODY_BYTES_MAX};
use super::published_versions::PublishedVersions;
use super::response::{body_hash, is_expected};
use super::stream::Destination;
use super::suite::Stream;

/// The check for a stream, or `None` if its answers may have any body. `versions` are those of the
/// file that answers, if it is swapped during the load. For [`Bodies::AsBefore`] without swaps,
/// this asks for each path once and blocks until then.
///
/// # Errors
/// A path has no answer, one with an unexpected status, or one that is too long to be compared.
pub fn check_of(
    stream: &Stream,
    destination: &Destination,
    versions: Option<&Arc<PublishedVersions>>,
    stop: &AtomicBool,
) -> anyhow::Result<Option<BodyCheck>> {
    let request = &stream.request;
    match (&request.bodies, versions) {
        (Bodies::Any, _) => Ok(None),
        (Bodies::Each(bodies), _) => {
            Ok(Some(BodyCheck::Each(bodies.iter().map(|body| body_hash(body)).collect())))
        }
        (Bodies::AsBefore, Some(versions)) => Ok(Some(BodyCheck::Versions(Arc::clone(versions)))),
        (Bodies::AsBefore, None) => {
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
            Ok(Some(BodyCheck::Each(each)))
        }
    }
}
