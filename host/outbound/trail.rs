//! The trail of a request: through how many hosts like this one it has come, so that a circle ends.
//!
//! It is the header field `CDN-Loop` (RFC 8586), to which every host adds its name and which none
//! removes. A client that sets it itself shortens the way of its own requests and nobody else's, so
//! it need not be protected.

use http::{HeaderMap, HeaderName, HeaderValue};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// The name that this host adds.
const NAME: &str = "guesthouse";
/// How often a request may have come through hosts of that name.
pub const HOPS_MAX: usize = 8;

/// The trail that a request has come with.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    value: Option<HeaderValue>,
    /// How often it has come through hosts of this name.
    hops: usize,
}

/// The request has come round too often.
#[derive(Clone, Copy, Debug)]
pub struct Circle;

impl Trail {
    /// # Errors
    /// [`Circle`].
    pub fn of(headers: &HeaderMap) -> Result<Trail, Circle> {
        let mut values = headers.get_all(CDN_LOOP).iter();
        let Some(first) = values.next() else { return Ok(Trail::default()) };
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
            return Err(Circle);
        }
        Ok(Trail { value: HeaderValue::from_maybe_shared(bytes::Bytes::from(all)).ok(), hops })
    }

    /// How often it has come through hosts of this name.
    pub fn hops(&self) -> usize {
        self.hops
    }

    /// Marks a request that follows from the one with this trail, whatever its maker says.
    pub fn mark(&self, headers: &mut HeaderMap) {
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
