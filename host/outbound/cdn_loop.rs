//! Ends request loops: counts how many hosts like this one a request has passed.
//!
//! The count is in the header field `CDN-Loop` (RFC 8586): every host adds its name, and none
//! removes it. The field needs no protection: a client that sets it itself only lowers the hop
//! limit of its own requests.

use http::{HeaderMap, HeaderName, HeaderValue};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// The name that this host adds.
const NAME: &str = "guesthouse";
/// How many hosts of that name a request may have passed.
pub const HOPS_MAX: usize = 8;

/// The `CDN-Loop` field of a request.
#[derive(Clone, Debug, Default)]
pub struct CdnLoop {
    value: Option<HeaderValue>,
    /// How many hosts of this name are in it.
    hops: usize,
}

/// The request has passed too many hosts of this name, so it is refused.
#[derive(Clone, Copy, Debug)]
pub struct HopLimit;

impl CdnLoop {
    /// Reads the field of a request with these header fields.
    ///
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

    /// How many hosts of this name the request has passed.
    pub fn hops(&self) -> usize {
        self.hops
    }

    /// Sets the field of an outbound request: the value of the original request with this host
    /// added. A value that the guest has set is overwritten.
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
