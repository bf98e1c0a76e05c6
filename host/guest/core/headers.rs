//! The ABI's header functions: reading and changing the fields of requests, responses and trailers.
//!
//! Owns which fields may be changed when, and the limits on them.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};
use wasmtime::Linker;

use super::access::{CoreCaller, MODULE, Result, memory, no_request, range, write_limited};
use super::state::{BUFFER_RESPONSE, CallPhase, CoreState, TRAILERS};
use crate::guest::engine::fault::{invalid, misuse, or_stop};
use crate::guest::services::header;
use crate::guest::services::header::FIELD_BYTES;
use crate::guest::services::header_charge::Part;
use crate::message::fields::FIELDS_MAX;

/// Adds the header functions to a linker.
pub fn add_to_linker(linker: &mut Linker<CoreState>) -> Result<()> {
    linker.func_wrap(MODULE, "get_header_names", get_header_names)?;
    linker.func_wrap(MODULE, "get_header_values", get_header_values)?;
    for (name, put) in
        [("set_header_value", HeaderEdit::Set), ("add_header_value", HeaderEdit::Add)]
    {
        linker.func_wrap(
            MODULE,
            name,
            move |mut guest: CoreCaller<'_>,
                  kind: i32,
                  name: u32,
                  len: u32,
                  value: u32,
                  size: u32| {
                put_header(&mut guest, kind, (name, len), (value, size), put)
            },
        )?;
    }
    linker.func_wrap(MODULE, "remove_header", remove_header)?;
    Ok(())
}

/// The four kinds of header fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeaderKind {
    Request,
    Response,
    RequestTrailers,
    ResponseTrailers,
}

impl HeaderKind {
    fn from_abi(kind: i32) -> Result<Self> {
        match kind {
            0 => Ok(HeaderKind::Request),
            1 => Ok(HeaderKind::Response),
            2 => Ok(HeaderKind::RequestTrailers),
            3 => Ok(HeaderKind::ResponseTrailers),
            _ => Err(misuse(format!("{kind} is not a kind of header (0 to 3)"))),
        }
    }

    /// The fields of this kind; `None` if there are none yet, or trailers are not enabled.
    fn fields(self, call: &CoreState) -> Result<Option<&HeaderMap>> {
        let exchange = call.exchange.as_ref().ok_or_else(no_request)?;
        Ok(match self {
            HeaderKind::Request => Some(&exchange.request.headers),
            HeaderKind::Response => Some(&exchange.headers),
            HeaderKind::RequestTrailers if call.has(TRAILERS) => exchange.request.body.trailers(),
            HeaderKind::ResponseTrailers if call.has(TRAILERS) => exchange.trailers.as_deref(),
            HeaderKind::RequestTrailers | HeaderKind::ResponseTrailers => None,
        })
    }

    /// The fields of this kind for a change.
    ///
    /// # Errors
    /// A trap if they cannot be changed now.
    fn fields_mut(self, call: &mut CoreState) -> Result<&mut HeaderMap> {
        let trailers = call.has(TRAILERS);
        let late = call.phase == CallPhase::Response;
        let response_open = !late || call.has(BUFFER_RESPONSE);
        let exchange = call.exchange.as_mut().ok_or_else(no_request)?;
        match self {
            HeaderKind::Request if late => {
                Err(misuse("request headers: the request was passed on already"))
            }
            HeaderKind::Request => Ok(&mut exchange.request.headers),
            HeaderKind::Response if response_open => Ok(&mut exchange.headers),
            HeaderKind::ResponseTrailers if !trailers => {
                Err(misuse("response trailers need the feature trailers (4)"))
            }
            HeaderKind::ResponseTrailers if response_open => {
                Ok(exchange.trailers.get_or_insert_default())
            }
            HeaderKind::RequestTrailers => Err(misuse("request trailers cannot be changed")),
            HeaderKind::Response | HeaderKind::ResponseTrailers => Err(misuse(
                "the response can be changed after next only with the feature buffer_response (2)",
            )),
        }
    }
}

fn count_len((used, count): (u32, u32)) -> i64 {
    (i64::from(count) << 32) | i64::from(used)
}

fn get_header_names(mut guest: CoreCaller<'_>, kind: i32, buf: u32, limit: u32) -> Result<i64> {
    let kind = HeaderKind::from_abi(kind)?;
    write_limited(&mut guest, (buf, limit), |call, out| {
        for name in kind.fields(call)?.into_iter().flat_map(HeaderMap::keys) {
            out.item(&[name.as_str().as_bytes()]);
        }
        if kind == HeaderKind::Request {
            let request = &call.exchange.as_ref().ok_or_else(no_request)?.request;
            header::host_made(request, |prefix, name, _| {
                out.item(&[prefix.as_bytes(), name.as_bytes()]);
            });
        }
        Ok(())
    })
    .map(count_len)
}

fn get_header_values(
    mut guest: CoreCaller<'_>,
    kind: i32,
    name: u32,
    name_len: u32,
    buf: u32,
    limit: u32,
) -> Result<i64> {
    let kind = HeaderKind::from_abi(kind)?;
    let (bytes, _) = memory(&mut guest)?;
    // A name that HTTP does not allow cannot be that of a field.
    let Ok(name) = HeaderName::from_bytes(range(bytes, name, name_len)?) else { return Ok(0) };
    write_limited(&mut guest, (buf, limit), |call, out| {
        for value in kind.fields(call)?.into_iter().flat_map(|map| map.get_all(&name)) {
            out.item(&[value.as_bytes()]);
        }
        if kind == HeaderKind::Request && name.as_str().starts_with("guesthouse-") {
            let request = &call.exchange.as_ref().ok_or_else(no_request)?.request;
            header::host_made(request, |prefix, made, value| {
                if name.as_str().strip_prefix(prefix) == Some(made) {
                    out.item(&[value.as_bytes()]);
                }
            });
        }
        Ok(())
    })
    .map(count_len)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HeaderEdit {
    Set,
    Add,
}

fn put_header(
    guest: &mut CoreCaller<'_>,
    kind: i32,
    name: (u32, u32),
    value: (u32, u32),
    put: HeaderEdit,
) -> Result<()> {
    let kind = HeaderKind::from_abi(kind)?;
    let (memory, call) = memory(guest)?;
    let name = field_name(range(memory, name.0, name.1)?)?;
    let value = range(memory, value.0, value.1)?;
    let bytes_max = call.limiter.guest_info.grants.limits.header_bytes_max;
    if value.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    let value = HeaderValue::from_bytes(value).map_err(|_| {
        invalid(format!("header {name}: the value has a control character, a line break or a NUL"))
    })?;
    let added = header::field_bytes(&name, &value);
    let fields = kind.fields_mut(call)?;
    if fields.len() >= FIELDS_MAX {
        return Err(invalid(format!("more than {FIELDS_MAX} header fields")));
    }
    let is_host = kind == HeaderKind::Request && name == HOST;
    match put {
        HeaderEdit::Set => drop(fields.insert(name, value)),
        HeaderEdit::Add => drop(
            fields.try_append(name, value).map_err(|_| invalid("more headers than can be held"))?,
        ),
    }
    let count = fields.len();
    if is_host && let Some(exchange) = &mut call.exchange {
        exchange.request.is_host_set = true;
    }
    bound_headers(call, kind, added, bytes_max)?;
    charge_headers(call, kind, count)
}

fn too_large(bytes_max: usize) -> wasmtime::Error {
    invalid(format!("more than {bytes_max} bytes of headers (--header-max)"))
}

/// Stops a guest that sets more header bytes than the limit. The running sum never shrinks, so the
/// bytes are counted anew before the guest is stopped.
fn bound_headers(
    call: &mut CoreState,
    kind: HeaderKind,
    added: usize,
    bytes_max: usize,
) -> Result<()> {
    let exchange = call.exchange.as_mut().ok_or_else(no_request)?;
    let set = &mut exchange.header_bytes[kind as usize];
    *set += added;
    if *set <= bytes_max {
        return Ok(());
    }
    let fields = kind.fields_mut(call)?;
    let sum: usize = fields.iter().map(|(name, value)| header::field_bytes(name, value)).sum();
    if sum > bytes_max {
        return Err(too_large(bytes_max));
    }
    if let Some(exchange) = call.exchange.as_mut() {
        exchange.header_bytes[kind as usize] = sum;
    }
    Ok(())
}

/// Charges what the host keeps for the fields, which is more than their bytes. Fields that were
/// there before the guest are not charged.
fn charge_headers(call: &mut CoreState, kind: HeaderKind, count: usize) -> Result<()> {
    let exchange = call.exchange.as_mut().ok_or_else(no_request)?;
    let before = exchange.fields_before;
    let (part, before, copies) = match kind {
        // The next handler gets a copy, which may be sent twice.
        HeaderKind::Request => (Part::Request, before[0], 2),
        HeaderKind::Response => (Part::Response, before[1], 1),
        HeaderKind::RequestTrailers | HeaderKind::ResponseTrailers => (Part::Trailers, 0, 1),
    };
    let fields = count.saturating_sub(before) * FIELD_BYTES * copies;
    let bytes = fields + exchange.header_bytes[kind as usize];
    or_stop(exchange.header_charge.note(&call.limiter.guest_info.memory, part, bytes))
}

fn remove_header(mut guest: CoreCaller<'_>, kind: i32, name: u32, name_len: u32) -> Result<()> {
    let kind = HeaderKind::from_abi(kind)?;
    let (memory, call) = memory(&mut guest)?;
    let name = field_name(range(memory, name, name_len)?)?;
    kind.fields_mut(call)?.remove(&name);
    Ok(())
}

fn field_name(bytes: &[u8]) -> Result<HeaderName> {
    HeaderName::from_bytes(bytes)
        .map_err(|_| invalid(format!("\"{}\" is not a header name", crate::log::escape(bytes, 64))))
}
