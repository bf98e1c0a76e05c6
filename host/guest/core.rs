//! The http-wasm handler ABI: the host functions that a core guest imports from `http_handler`.
//!
//! Owns what each function checks and copies (<https://http-wasm.io/http-handler-abi/>). All
//! pointers and lengths are i32, read as unsigned; every misuse traps. Nothing is copied into the
//! guest unless it asks. Knows nothing of how an instance was made.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use wasmtime::{Caller, Linker};

use super::call::{
    BUFFER_REQUEST, BUFFER_RESPONSE, Call, Exchange, FEATURES_KNOWN, Fault, Phase, TRAILERS,
};
use super::header;
use super::log::Level;

type Guest<'a> = Caller<'a, Call>;
type Result<T, E = wasmtime::Error> = std::result::Result<T, E>;

/// The module under which the functions are imported.
pub const MODULE: &str = "http_handler";

/// Adds the interface to a linker.
pub fn add_to_linker(linker: &mut Linker<Call>) -> Result<()> {
    linker.func_wrap(MODULE, "enable_features", enable_features)?;
    linker.func_wrap(MODULE, "get_config", |mut guest: Guest<'_>, buf: u32, limit: u32| {
        give(&mut guest, buf, limit, |_, out| out.text(b""))
    })?;
    linker.func_wrap(MODULE, "log_enabled", |_: Guest<'_>, level: i32| {
        i32::from(Level::from_abi(level).is_some_and(Level::is_enabled))
    })?;
    linker.func_wrap(MODULE, "log", log)?;
    add_request_line(linker)?;
    linker.func_wrap(MODULE, "get_header_names", get_header_names)?;
    linker.func_wrap(MODULE, "get_header_values", get_header_values)?;
    linker.func_wrap(
        MODULE,
        "set_header_value",
        |mut guest: Guest<'_>, kind: i32, name: u32, name_len: u32, value: u32, value_len: u32| {
            put_header(&mut guest, kind, (name, name_len), (value, value_len), Put::Set)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "add_header_value",
        |mut guest: Guest<'_>, kind: i32, name: u32, name_len: u32, value: u32, value_len: u32| {
            put_header(&mut guest, kind, (name, name_len), (value, value_len), Put::Add)
        },
    )?;
    linker.func_wrap(MODULE, "remove_header", remove_header)?;
    linker.func_wrap_async(MODULE, "read_body", |guest, (kind, buf, limit): (i32, u32, u32)| {
        Box::new(read_body(guest, kind, buf, limit))
    })?;
    linker.func_wrap(MODULE, "write_body", write_body)?;
    linker.func_wrap(MODULE, "get_status_code", |mut guest: Guest<'_>| {
        exchange(&mut guest).map(|exchange| i32::from(exchange.status.as_u16()))
    })?;
    linker.func_wrap(MODULE, "set_status_code", set_status_code)?;
    Ok(())
}

fn add_request_line(linker: &mut Linker<Call>) -> Result<()> {
    linker.func_wrap(MODULE, "get_method", |mut guest: Guest<'_>, buf: u32, limit: u32| {
        give(&mut guest, buf, limit, |exchange, out| {
            out.text(exchange.request.method.as_str().as_bytes())
        })
    })?;
    linker.func_wrap(MODULE, "set_method", |mut guest: Guest<'_>, ptr: u32, len: u32| {
        let (exchange, bytes) = request_change(&mut guest, "set_method", ptr, len)?;
        exchange.request.method = Method::from_bytes(bytes).map_err(|_| {
            invalid("set_method: not an HTTP method (letters and digits, no spaces)")
        })?;
        Ok::<(), wasmtime::Error>(())
    })?;
    linker.func_wrap(MODULE, "get_uri", |mut guest: Guest<'_>, buf: u32, limit: u32| {
        give(&mut guest, buf, limit, |exchange, out| {
            out.text(exchange.request.uri.as_str().as_bytes())
        })
    })?;
    linker.func_wrap(MODULE, "set_uri", |mut guest: Guest<'_>, ptr: u32, len: u32| {
        let (exchange, bytes) = request_change(&mut guest, "set_uri", ptr, len)?;
        let uri = match bytes {
            b"" => PathAndQuery::from_static("/"),
            [b'/', ..] => PathAndQuery::try_from(bytes).map_err(|_| invalid(SET_URI))?,
            _ => return Err(invalid(SET_URI)),
        };
        exchange.request.set_uri(uri);
        Ok(())
    })?;
    linker.func_wrap(
        MODULE,
        "get_protocol_version",
        |mut guest: Guest<'_>, buf: u32, limit: u32| {
            give(&mut guest, buf, limit, |exchange, out| {
                let version = exchange.request.version;
                out.text(if version == http::Version::HTTP_10 { b"HTTP/1.0" } else { b"HTTP/1.1" })
            })
        },
    )?;
    linker.func_wrap(MODULE, "get_source_addr", |mut guest: Guest<'_>, buf: u32, limit: u32| {
        give(&mut guest, buf, limit, |exchange, out| {
            out.text(exchange.request.peer.to_string().as_bytes())
        })
    })?;
    Ok(())
}

const SET_URI: &str = "set_uri: not a path and query (it must begin with / and be percent-encoded)";

/// An error that stops the guest because it broke the rules of the interface.
pub fn misuse(text: impl Into<String>) -> wasmtime::Error {
    wasmtime::Error::new(Fault::Misuse(text.into()))
}

/// An error that stops the guest because what it sets is forbidden by HTTP or by a limit.
pub fn invalid(text: impl Into<String>) -> wasmtime::Error {
    wasmtime::Error::new(Fault::Invalid(text.into()))
}

/// The guest's memory beside the rest of its store's data.
fn memory<'a>(guest: &'a mut Guest<'_>) -> Result<(&'a mut [u8], &'a mut Call)> {
    let memory = match guest.data().memory {
        Some(memory) => memory,
        // During the start function the instance does not exist yet, its exports do.
        None => guest
            .get_export("memory")
            .and_then(wasmtime::Extern::into_memory)
            .ok_or_else(|| misuse("the module exports no memory"))?,
    };
    Ok(memory.data_and_store_mut(guest))
}

fn exchange<'a>(guest: &'a mut Guest<'_>) -> Result<&'a mut Exchange> {
    guest.data_mut().exchange.as_mut().ok_or_else(no_request)
}

fn no_request() -> wasmtime::Error {
    misuse("there is no request during start-up")
}

/// A range of the guest's memory.
fn range(memory: &[u8], ptr: u32, len: u32) -> Result<&[u8]> {
    memory.get(ptr as usize..).and_then(|tail| tail.get(..len as usize)).ok_or_else(|| {
        misuse(format!(
            "pointer {ptr} with length {len} is outside of the memory of {} bytes",
            memory.len()
        ))
    })
}

/// Where a result for the guest goes: written whole if it fits the limit, else only measured.
struct Out<'a> {
    buffer: &'a mut [u8],
    used: usize,
    count: u32,
}

impl Out<'_> {
    fn text(&mut self, text: &[u8]) {
        if let Some(target) = self.buffer.get_mut(self.used..self.used + text.len()) {
            target.copy_from_slice(text);
        }
        self.used += text.len();
    }

    /// One NUL-terminated string of a list.
    fn item(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.text(part);
        }
        self.text(b"\0");
        self.count += 1;
    }
}

/// Hands a result to the guest. If it is longer than `limit`, nothing is written. Returns its
/// length and count.
fn hand(
    guest: &mut Guest<'_>,
    (buf, limit): (u32, u32),
    write: impl Fn(&Call, &mut Out<'_>) -> Result<()>,
) -> Result<(u32, u32)> {
    let (memory, call) = memory(guest)?;
    range(memory, buf, limit)?;
    // Nothing may be written unless all of it fits, so it is measured first.
    let mut measured = Out { buffer: &mut [], used: 0, count: 0 };
    write(call, &mut measured)?;
    let (used, count) = (measured.used, measured.count);
    if used <= limit as usize {
        let start = buf as usize;
        write(call, &mut Out { buffer: &mut memory[start..start + used], used: 0, count: 0 })?;
    }
    Ok((used as u32, count))
}

/// Hands one text about the current exchange to the guest.
fn give(
    guest: &mut Guest<'_>,
    buf: u32,
    limit: u32,
    write: impl Fn(&Exchange, &mut Out<'_>),
) -> Result<i32> {
    let (used, _) = hand(guest, (buf, limit), |call, out| {
        match &call.exchange {
            Some(exchange) => write(exchange, out),
            None if call.phase == Phase::StartUp => {}
            None => return Err(no_request()),
        }
        Ok(())
    })?;
    Ok(used as i32)
}

fn enable_features(mut guest: Guest<'_>, features: u32) -> i32 {
    let call = guest.data_mut();
    call.features |= features & FEATURES_KNOWN;
    call.features as i32
}

fn log(mut guest: Guest<'_>, level: i32, ptr: u32, len: u32) -> Result<()> {
    let (memory, call) = memory(&mut guest)?;
    let text = range(memory, ptr, len)?;
    if let Some(level) = Level::from_abi(level).filter(|level| level.is_enabled()) {
        call.log().with(|sink| sink.line(level, "log", text));
    }
    Ok(())
}

/// The exchange and the bytes for a change of the request, which is allowed before `next` only.
fn request_change<'a>(
    guest: &'a mut Guest<'_>,
    function: &str,
    ptr: u32,
    len: u32,
) -> Result<(&'a mut Exchange, &'a [u8])> {
    let (memory, call) = memory(guest)?;
    let bytes = range(memory, ptr, len)?;
    if call.phase == Phase::Response {
        return Err(misuse(format!("{function}: the request was passed on already")));
    }
    let exchange = call.exchange.as_mut().ok_or_else(no_request)?;
    Ok((exchange, bytes))
}

/// The four kinds of header fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
    RequestTrailers,
    ResponseTrailers,
}

impl Kind {
    fn from_abi(kind: i32) -> Result<Self> {
        match kind {
            0 => Ok(Kind::Request),
            1 => Ok(Kind::Response),
            2 => Ok(Kind::RequestTrailers),
            3 => Ok(Kind::ResponseTrailers),
            _ => Err(misuse(format!("{kind} is not a kind of header (0 to 3)"))),
        }
    }

    /// The fields of this kind; `None` where there are none yet or trailers are not enabled.
    fn fields(self, call: &Call) -> Result<Option<&HeaderMap>> {
        let exchange = call.exchange.as_ref().ok_or_else(no_request)?;
        Ok(match self {
            Kind::Request => Some(&exchange.request.headers),
            Kind::Response => Some(&exchange.headers),
            Kind::RequestTrailers if call.has(TRAILERS) => exchange.request.body.trailers(),
            Kind::ResponseTrailers if call.has(TRAILERS) => Some(&exchange.trailers),
            Kind::RequestTrailers | Kind::ResponseTrailers => None,
        })
    }

    /// The fields of this kind for a change.
    fn fields_mut(self, call: &mut Call) -> Result<&mut HeaderMap> {
        let trailers = call.has(TRAILERS);
        let late = call.phase == Phase::Response;
        let response_open = !late || call.has(BUFFER_RESPONSE);
        let exchange = call.exchange.as_mut().ok_or_else(no_request)?;
        match self {
            Kind::Request if late => {
                Err(misuse("request headers: the request was passed on already"))
            }
            Kind::Request => Ok(&mut exchange.request.headers),
            Kind::Response if response_open => Ok(&mut exchange.headers),
            Kind::ResponseTrailers if !trailers => {
                Err(misuse("response trailers need the feature trailers (4)"))
            }
            Kind::ResponseTrailers if response_open => Ok(&mut exchange.trailers),
            Kind::RequestTrailers => Err(misuse("request trailers cannot be changed")),
            Kind::Response | Kind::ResponseTrailers => Err(misuse(
                "the response can be changed after next only with the feature buffer_response (2)",
            )),
        }
    }
}

fn count_len((used, count): (u32, u32)) -> i64 {
    (i64::from(count) << 32) | i64::from(used)
}

fn get_header_names(mut guest: Guest<'_>, kind: i32, buf: u32, limit: u32) -> Result<i64> {
    let kind = Kind::from_abi(kind)?;
    hand(&mut guest, (buf, limit), |call, out| {
        for name in kind.fields(call)?.into_iter().flat_map(HeaderMap::keys) {
            out.item(&[name.as_str().as_bytes()]);
        }
        if kind == Kind::Request {
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
    mut guest: Guest<'_>,
    kind: i32,
    name: u32,
    name_len: u32,
    buf: u32,
    limit: u32,
) -> Result<i64> {
    let kind = Kind::from_abi(kind)?;
    let (bytes, _) = memory(&mut guest)?;
    // A name that HTTP does not allow names no field.
    let Ok(name) = HeaderName::from_bytes(range(bytes, name, name_len)?) else { return Ok(0) };
    hand(&mut guest, (buf, limit), |call, out| {
        for value in kind.fields(call)?.into_iter().flat_map(|map| map.get_all(&name)) {
            out.item(&[value.as_bytes()]);
        }
        if kind == Kind::Request && name.as_str().starts_with("guesthouse-") {
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
enum Put {
    Set,
    Add,
}

fn put_header(
    guest: &mut Guest<'_>,
    kind: i32,
    name: (u32, u32),
    value: (u32, u32),
    put: Put,
) -> Result<()> {
    let kind = Kind::from_abi(kind)?;
    let (memory, call) = memory(guest)?;
    let name = field_name(range(memory, name.0, name.1)?)?;
    let value = range(memory, value.0, value.1)?;
    let value = HeaderValue::from_bytes(value).map_err(|_| {
        invalid(format!("header {name}: the value has a control character, a line break or a NUL"))
    })?;
    let bytes_max = call.limits.header_bytes_max;
    let added = header::field_bytes(&name, &value);
    let fields = kind.fields_mut(call)?;
    match put {
        Put::Set => drop(fields.insert(name, value)),
        Put::Add => drop(
            fields.try_append(name, value).map_err(|_| invalid("more headers than can be held"))?,
        ),
    }
    bound_headers(call, kind, added, bytes_max)
}

/// Stops a guest that sets more header bytes than the limit. The running sum only grows, so it is
/// taken anew before the guest is stopped.
fn bound_headers(call: &mut Call, kind: Kind, added: usize, bytes_max: usize) -> Result<()> {
    let exchange = call.exchange.as_mut().ok_or_else(no_request)?;
    exchange.header_bytes += added;
    if exchange.header_bytes <= bytes_max {
        return Ok(());
    }
    let fields = kind.fields_mut(call)?;
    let sum: usize = fields.iter().map(|(name, value)| header::field_bytes(name, value)).sum();
    if sum > bytes_max {
        return Err(invalid(format!("more than {bytes_max} bytes of headers (--header-max)")));
    }
    if let Some(exchange) = call.exchange.as_mut() {
        exchange.header_bytes = sum;
    }
    Ok(())
}

fn remove_header(mut guest: Guest<'_>, kind: i32, name: u32, name_len: u32) -> Result<()> {
    let kind = Kind::from_abi(kind)?;
    let (memory, call) = memory(&mut guest)?;
    let name = field_name(range(memory, name, name_len)?)?;
    kind.fields_mut(call)?.remove(&name);
    Ok(())
}

fn field_name(bytes: &[u8]) -> Result<HeaderName> {
    HeaderName::from_bytes(bytes)
        .map_err(|_| invalid(format!("\"{}\" is not a header name", crate::log::escape(bytes, 64))))
}

/// The result of `read_body`: whether this was the end, and how many bytes were written.
fn eof_len(eof: bool, len: usize) -> i64 {
    (i64::from(eof) << 32) | len as i64
}

async fn read_body(mut guest: Guest<'_>, kind: i32, buf: u32, limit: u32) -> Result<i64> {
    if limit == 0 {
        return Err(misuse("read_body: the limit is 0"));
    }
    let (bytes, _) = memory(&mut guest)?;
    range(bytes, buf, limit)?;
    match kind {
        0 => read_request_body(guest, buf, limit).await,
        1 => read_response_body(guest, buf, limit),
        _ => Err(misuse(format!("{kind} is not a kind of body (0 or 1)"))),
    }
}

async fn read_request_body(mut guest: Guest<'_>, buf: u32, limit: u32) -> Result<i64> {
    let keep = guest.data().has(BUFFER_REQUEST);
    let exchange = exchange(&mut guest)?;
    let read = exchange.request.body.read(limit as usize).await;
    let bytes = read.map_err(|reject| wasmtime::Error::new(Fault::Reject(reject)))?;
    if keep {
        exchange.request_kept.extend_from_slice(&bytes);
    }
    let eof = exchange.request.body.is_end();
    let (memory, _) = memory(&mut guest)?;
    memory[buf as usize..][..bytes.len()].copy_from_slice(&bytes);
    Ok(eof_len(eof, bytes.len()))
}

fn read_response_body(mut guest: Guest<'_>, buf: u32, limit: u32) -> Result<i64> {
    let (memory, call) = memory(&mut guest)?;
    if call.phase != Phase::Response || !call.has(BUFFER_RESPONSE) {
        return Err(misuse(
            "read_body: the response can be read in handle_response, \
             with the feature buffer_response (2)",
        ));
    }
    let body = &mut call.exchange.as_mut().ok_or_else(no_request)?.body;
    let rest = body.bytes.get(body.read_bytes..).unwrap_or_default();
    let len = rest.len().min(limit as usize);
    memory[buf as usize..][..len].copy_from_slice(&rest[..len]);
    body.read_bytes += len;
    Ok(eof_len(len == rest.len(), len))
}

fn write_body(mut guest: Guest<'_>, kind: i32, ptr: u32, len: u32) -> Result<()> {
    let (memory, call) = memory(&mut guest)?;
    let bytes = range(memory, ptr, len)?;
    match kind {
        0 => write_request_body(call, bytes),
        1 => write_response_body(call, bytes),
        _ => Err(misuse(format!("{kind} is not a kind of body (0 or 1)"))),
    }
}

fn write_request_body(call: &mut Call, bytes: &[u8]) -> Result<()> {
    if call.phase == Phase::Response {
        return Err(misuse("write_body: the request was passed on already"));
    }
    let bytes_max = call.limits.body_bytes_max;
    let exchange = call.exchange.as_mut().ok_or_else(no_request)?;
    let body = exchange.request_written.get_or_insert_default();
    if (body.len() + bytes.len()) as u64 > bytes_max {
        return Err(invalid(format!(
            "write_body: a request of over {bytes_max} bytes (--body-max)"
        )));
    }
    body.extend_from_slice(bytes);
    Ok(())
}

fn write_response_body(call: &mut Call, bytes: &[u8]) -> Result<()> {
    if call.phase == Phase::Response && !call.has(BUFFER_RESPONSE) {
        return Err(misuse(
            "write_body: the response can be changed after next only with the feature \
             buffer_response (2)",
        ));
    }
    let bytes_max = call.limits.response_bytes_max;
    let body = &mut call.exchange.as_mut().ok_or_else(no_request)?.body;
    if !body.written {
        body.written = true;
        body.bytes.clear();
    }
    if body.bytes.len() + bytes.len() > bytes_max {
        return Err(invalid(format!(
            "write_body: a response of over {bytes_max} bytes (--response-max)"
        )));
    }
    body.bytes.extend_from_slice(bytes);
    Ok(())
}

fn set_status_code(mut guest: Guest<'_>, status: i32) -> Result<()> {
    let call = guest.data_mut();
    if call.phase == Phase::Response && !call.has(BUFFER_RESPONSE) {
        return Err(misuse(
            "set_status_code: the response can be changed after next only with the feature \
             buffer_response (2)",
        ));
    }
    // 1xx are the host's own, and above 599 HTTP defines nothing.
    let valid = u16::try_from(status).ok().filter(|status| (200..=599).contains(status));
    let status = valid
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| invalid(format!("{status} is not a status of a response (200 to 599)")))?;
    call.exchange.as_mut().ok_or_else(no_request)?.status = status;
    Ok(())
}
