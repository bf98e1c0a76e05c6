//! wasi:http's errors, in a module's memory and as parameters.

use wasmtime_wasi_http::p2::bindings::http::types::{
    DnsErrorPayload, ErrorCode, FieldSizePayload, HeaderError, TlsAlertReceivedPayload,
};

use wasmtime_wasi_http::FieldMapError;

use super::lower::{At, Layout, Lower};
use super::memory::{Result, flag, string};
use crate::guest::engine::fault::misuse;

/// The error that a guest gets when a change of fields is refused.
pub trait FieldChangeError: Lower + 'static {
    /// Converts wasmtime's error.
    ///
    /// # Errors
    /// The interface has no such error, so the guest is stopped.
    fn of(error: FieldMapError) -> Result<Self>
    where
        Self: Sized;
}

/// The error type of 0.2.
impl FieldChangeError for HeaderError {
    fn of(error: FieldMapError) -> Result<Self> {
        match error {
            FieldMapError::InvalidHeaderName | FieldMapError::InvalidHeaderValue => {
                Ok(HeaderError::InvalidSyntax)
            }
            FieldMapError::Forbidden => Ok(HeaderError::Forbidden),
            FieldMapError::Immutable => Ok(HeaderError::Immutable),
            FieldMapError::TooManyFields | FieldMapError::TotalSizeTooBig => Err(error.into()),
        }
    }
}

impl Lower for HeaderError {
    const SIZE: usize = 1;
    const ALIGN: usize = 1;
    fn lower(self, out: &mut Layout, at: At) {
        let case: u8 = match self {
            HeaderError::InvalidSyntax => 0,
            HeaderError::Forbidden => 1,
            HeaderError::Immutable => 2,
        };
        case.lower(out, at);
    }
}

/// The error type of 0.3: one of four cases without a value, or `other` with a text, which the host
/// never returns.
pub struct FieldsError(FieldMapError);

impl FieldChangeError for FieldsError {
    fn of(error: FieldMapError) -> Result<Self> {
        Ok(FieldsError(error))
    }
}

impl Lower for FieldsError {
    const SIZE: usize = 16;
    const ALIGN: usize = 4;
    fn lower(self, out: &mut Layout, at: At) {
        let case: u8 = match self.0 {
            FieldMapError::InvalidHeaderName | FieldMapError::InvalidHeaderValue => 0,
            FieldMapError::Forbidden => 1,
            FieldMapError::Immutable => 2,
            FieldMapError::TooManyFields | FieldMapError::TotalSizeTooBig => 3,
        };
        case.lower(out, at);
    }
}

/// Where the payload begins, after the number of the case.
const PAYLOAD: usize = 8;

impl Lower for ErrorCode {
    const SIZE: usize = 32;
    const ALIGN: usize = 8;
    fn lower(self, out: &mut Layout, at: At) {
        use ErrorCode as E;
        let value = at.plus(PAYLOAD);
        let case: u8 = match self {
            E::DnsTimeout => 0,
            E::DnsError(DnsErrorPayload { rcode, info_code }) => {
                rcode.lower(out, value);
                info_code.lower(out, value.plus(12));
                1
            }
            E::DestinationNotFound => 2,
            E::DestinationUnavailable => 3,
            E::DestinationIpProhibited => 4,
            E::DestinationIpUnroutable => 5,
            E::ConnectionRefused => 6,
            E::ConnectionTerminated => 7,
            E::ConnectionTimeout => 8,
            E::ConnectionReadTimeout => 9,
            E::ConnectionWriteTimeout => 10,
            E::ConnectionLimitReached => 11,
            E::TlsProtocolError => 12,
            E::TlsCertificateError => 13,
            E::TlsAlertReceived(TlsAlertReceivedPayload { alert_id, alert_message }) => {
                alert_id.lower(out, value);
                alert_message.lower(out, value.plus(4));
                14
            }
            E::HttpRequestDenied => 15,
            E::HttpRequestLengthRequired => 16,
            E::HttpRequestBodySize(size) => with(size, out, value, 17),
            E::HttpRequestMethodInvalid => 18,
            E::HttpRequestUriInvalid => 19,
            E::HttpRequestUriTooLong => 20,
            E::HttpRequestHeaderSectionSize(size) => with(size, out, value, 21),
            E::HttpRequestHeaderSize(field) => with(field, out, value, 22),
            E::HttpRequestTrailerSectionSize(size) => with(size, out, value, 23),
            E::HttpRequestTrailerSize(field) => with(field, out, value, 24),
            E::HttpResponseIncomplete => 25,
            E::HttpResponseHeaderSectionSize(size) => with(size, out, value, 26),
            E::HttpResponseHeaderSize(field) => with(field, out, value, 27),
            E::HttpResponseBodySize(size) => with(size, out, value, 28),
            E::HttpResponseTrailerSectionSize(size) => with(size, out, value, 29),
            E::HttpResponseTrailerSize(field) => with(field, out, value, 30),
            E::HttpResponseTransferCoding(coding) => with(coding, out, value, 31),
            E::HttpResponseContentCoding(coding) => with(coding, out, value, 32),
            E::HttpResponseTimeout => 33,
            E::HttpUpgradeFailed => 34,
            E::HttpProtocolError => 35,
            E::LoopDetected => 36,
            E::ConfigurationError => 37,
            E::InternalError(text) => with(text, out, value, 38),
        };
        case.lower(out, at);
    }
}

fn with(value: impl Lower, out: &mut Layout, at: At, case: u8) -> u8 {
    value.lower(out, at);
    case
}

impl Lower for FieldSizePayload {
    const SIZE: usize = 20;
    const ALIGN: usize = 4;
    fn lower(self, out: &mut Layout, at: At) {
        self.field_name.lower(out, at);
        self.field_size.lower(out, at.plus(12));
    }
}

/// An error code as parameters: the case, and its flattened payload.
pub struct FlatErrorCode {
    pub case: u32,
    pub values: (u32, u64, u32, u32, u32, u32),
}

impl FlatErrorCode {
    /// Reads the error code that the guest answers with.
    pub fn lift(self, memory: &[u8]) -> Result<ErrorCode> {
        use ErrorCode as E;
        let (a, b, c, d, e, f) = self.values;
        let b32 = b as u32;
        let text = |some: u32, ptr: u32, len: u32| -> Result<Option<String>> {
            flag(some)?.then(|| string(memory, ptr, len)).transpose()
        };
        let size = || -> Result<Option<u32>> { Ok(flag(a)?.then_some(b32)) };
        let field = |name: Option<String>, some: u32, size: u32| -> Result<FieldSizePayload> {
            Ok(FieldSizePayload { field_name: name, field_size: flag(some)?.then_some(size) })
        };
        Ok(match self.case {
            0 => E::DnsTimeout,
            1 => E::DnsError(DnsErrorPayload {
                rcode: text(a, b32, c)?,
                info_code: flag(d)?.then_some(e as u16),
            }),
            2 => E::DestinationNotFound,
            3 => E::DestinationUnavailable,
            4 => E::DestinationIpProhibited,
            5 => E::DestinationIpUnroutable,
            6 => E::ConnectionRefused,
            7 => E::ConnectionTerminated,
            8 => E::ConnectionTimeout,
            9 => E::ConnectionReadTimeout,
            10 => E::ConnectionWriteTimeout,
            11 => E::ConnectionLimitReached,
            12 => E::TlsProtocolError,
            13 => E::TlsCertificateError,
            14 => E::TlsAlertReceived(TlsAlertReceivedPayload {
                alert_id: flag(a)?.then_some(b as u8),
                alert_message: text(c, d, e)?,
            }),
            15 => E::HttpRequestDenied,
            16 => E::HttpRequestLengthRequired,
            17 => E::HttpRequestBodySize(flag(a)?.then_some(b)),
            18 => E::HttpRequestMethodInvalid,
            19 => E::HttpRequestUriInvalid,
            20 => E::HttpRequestUriTooLong,
            21 => E::HttpRequestHeaderSectionSize(size()?),
            22 if flag(a)? => E::HttpRequestHeaderSize(Some(field(text(b32, c, d)?, e, f)?)),
            22 => E::HttpRequestHeaderSize(None),
            23 => E::HttpRequestTrailerSectionSize(size()?),
            24 => E::HttpRequestTrailerSize(field(text(a, b32, c)?, d, e)?),
            25 => E::HttpResponseIncomplete,
            26 => E::HttpResponseHeaderSectionSize(size()?),
            27 => E::HttpResponseHeaderSize(field(text(a, b32, c)?, d, e)?),
            28 => E::HttpResponseBodySize(flag(a)?.then_some(b)),
            29 => E::HttpResponseTrailerSectionSize(size()?),
            30 => E::HttpResponseTrailerSize(field(text(a, b32, c)?, d, e)?),
            31 => E::HttpResponseTransferCoding(text(a, b32, c)?),
            32 => E::HttpResponseContentCoding(text(a, b32, c)?),
            33 => E::HttpResponseTimeout,
            34 => E::HttpUpgradeFailed,
            35 => E::HttpProtocolError,
            36 => E::LoopDetected,
            37 => E::ConfigurationError,
            38 => E::InternalError(text(a, b32, c)?),
            case => return Err(misuse(format!("{case} is not a case of error-code"))),
        })
    }
}
