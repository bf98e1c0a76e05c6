//! How many hosts like this one a request has come through (`CDN-Loop`, RFC 8586), so that a loop
//! ends.
//!
//! It is the header field `CDN-Loop` (RFC 8586), to which every host adds its name and which none
//! removes. A client that sets it itself lets its own requests go through fewer hosts and nobody
//! else's, so it need not be protected.

use http::{HeaderMap, HeaderName, HeaderValue};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// The name that this host adds.
const NAME: &str = "guesthouse";
/// How often a request may have come through hosts of that name.
pub const HOPS_MAX: usize = 8;

/// The field that a request has come with.
#[derive(Clone, Debug, Default)]
pub struct CdnLoop {
    value: Option<HeaderValue>,
    /// How often it has come through hosts of this name.
    hops: usize,
}

/// The request has come round too often.
#[derive(Clone, Copy, Debug)]
pub struct HopLimit;

impl CdnLoop {
    /// # Errors
    /// [`HopLimit`].
    pub fn of(headers: &HeaderMap) -> Result<CdnLoop, HopLimit> {
        let mut values = headers.get_all(CDN_LOOP).iter();
        let Some(first) = values.next() else { return Ok(CdnLoop::default()) };
        let mut all = first.as_bytes().to_vec();
        for value in values {
            all.extend_from_slice(b", ");
            all.extend_from_slice(value.as_bytes());
        }
        let names = all.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let names = names.map(|entry| entry.split(|byte| *byte == b';').next().unwrap_or(entry));
        let is_own = |name: &&[u8]| name.trim_ascii().eq_ignore_ascii_case(NAME.as_bytes());
        let hops = names.filter(is_own).count();
        if hops >= HOPS_MAX {
            return Err(HopLimit);
        }
        Ok(CdnLoop { value: HeaderValue::from_maybe_shared(bytes::Bytes::from(all)).ok(), hops })
    }

    /// How often it has come through hosts of this name.
    pub fn hops(&self) -> usize {
        self.hops
    }

    /// Adds this host to the field, for a request that follows from the one that had it. What a
    /// guest says in its place does not count.
    pub fn append(&self, headers: &mut HeaderMap) {
        let mut all = self.value.as_ref().map_or_else(Vec::new, |value| value.as_bytes().to_vec());
        if !all.is_empty() {
            all.extend_from_slice(b", ");
        }
        all.extend_from_slice(NAME.as_bytes());
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(all)) {
            headers.insert(CDN_LOOP, value);
        }
    }
}
