//! The http-wasm handler ABI: the host functions that a core guest imports from `http_handler`.
//!
//! Owns what each function checks and copies (<https://http-wasm.io/http-handler-abi/>). All
//! pointers and lengths are i32, read as unsigned; every misuse traps. Nothing is copied into the
//! guest unless it asks for it. Knows nothing of how an instance was made.

pub mod access;
pub mod body;
pub mod code;
pub mod headers;
pub mod poll;
pub mod state;
pub mod store;

use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use wasmtime::Linker;

pub use code::{CoreCode, Exports, Startup};
pub use state::CoreState;
pub use store::{run_start, store};

use crate::guest::engine::fault::{invalid, misuse, or_stop};
use access::{CoreCaller, MODULE, Result, exchange, memory, no_request, range, write_exchange};
use state::{BUFFER_RESPONSE, CallPhase, CoreExchange, FEATURES_KNOWN};

use super::engine::guest_info::GuestInfo;
use super::services::header_charge::Part;
use super::services::log::Level;
use crate::message::fields::METHOD_BYTES_MAX;
use crate::message::path;

/// Adds the interface to a linker.
pub fn add_to_linker(linker: &mut Linker<CoreState>) -> Result<()> {
    linker.func_wrap(MODULE, "enable_features", enable_features)?;
    linker.func_wrap(MODULE, "get_config", |mut guest: CoreCaller<'_>, buf: u32, limit: u32| {
        write_exchange(&mut guest, buf, limit, |_, out| out.text(b""))
    })?;
    linker.func_wrap(MODULE, "log_enabled", |_: CoreCaller<'_>, level: i32| {
        i32::from(Level::from_abi(level).is_some_and(Level::is_enabled))
    })?;
    linker.func_wrap(MODULE, "log", log)?;
    add_request_line(linker)?;
    headers::add_to_linker(linker)?;
    body::add_to_linker(linker)?;
    linker.func_wrap(MODULE, "get_status_code", |mut guest: CoreCaller<'_>| {
        exchange(&mut guest).map(|exchange| i32::from(exchange.status.as_u16()))
    })?;
    linker.func_wrap(MODULE, "set_status_code", set_status_code)?;
    Ok(())
}

fn add_request_line(linker: &mut Linker<CoreState>) -> Result<()> {
    linker.func_wrap(MODULE, "get_method", |mut guest: CoreCaller<'_>, buf: u32, limit: u32| {
        write_exchange(&mut guest, buf, limit, |exchange, out| {
            out.text(exchange.request.method.as_str().as_bytes());
        })
    })?;
    linker.func_wrap(MODULE, "set_method", |mut guest: CoreCaller<'_>, ptr: u32, len: u32| {
        let (exchange, _, bytes) = request_change(&mut guest, "set_method", ptr, len)?;
        exchange.request.method = method(bytes)?;
        Ok::<(), wasmtime::Error>(())
    })?;
    linker.func_wrap(MODULE, "get_uri", |mut guest: CoreCaller<'_>, buf: u32, limit: u32| {
        write_exchange(&mut guest, buf, limit, |exchange, out| {
            out.text(exchange.request.uri.as_str().as_bytes());
        })
    })?;
    linker.func_wrap(MODULE, "set_uri", |mut guest: CoreCaller<'_>, ptr: u32, len: u32| {
        let (exchange, info, bytes) = request_change(&mut guest, "set_uri", ptr, len)?;
        let uri = uri(bytes)?;
        let bytes = uri.as_str().len() * TARGET_COPIES;
        or_stop(exchange.header_charge.note(&info.memory, Part::Target, bytes))?;
        exchange.request.set_uri(uri);
        Ok(())
    })?;
    linker.func_wrap(
        MODULE,
        "get_protocol_version",
        |mut guest: CoreCaller<'_>, buf: u32, limit: u32| {
            write_exchange(&mut guest, buf, limit, |exchange, out| {
                let version = exchange.request.version;
                out.text(if version == http::Version::HTTP_10 { b"HTTP/1.0" } else { b"HTTP/1.1" });
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "get_source_addr",
        |mut guest: CoreCaller<'_>, buf: u32, limit: u32| {
            write_exchange(&mut guest, buf, limit, |exchange, out| {
                out.text(exchange.request.origin.peer.address.to_string().as_bytes());
            })
        },
    )?;
    Ok(())
}

/// A method that may be passed on. `CONNECT` may not: it has no body, so what follows it would be
/// read as another request.
fn method(bytes: &[u8]) -> Result<Method> {
    if bytes.len() > METHOD_BYTES_MAX {
        return Err(invalid(format!("set_method: over {METHOD_BYTES_MAX} bytes")));
    }
    match Method::from_bytes(bytes) {
        Ok(Method::CONNECT) => Err(invalid("set_method: CONNECT is not passed on")),
        Ok(method) => Ok(method),
        Err(_) => Err(invalid("set_method: not an HTTP method (letters and digits, no spaces)")),
    }
}

/// A target that may be passed on. A guest may not ask for what a client may not ask for, either.
fn uri(bytes: &[u8]) -> Result<PathAndQuery> {
    let uri = match bytes {
        b"" => return Ok(PathAndQuery::from_static("/")),
        [b'/', ..] if !bytes.contains(&b'#') => PathAndQuery::try_from(bytes),
        _ => return Err(invalid(SET_URI)),
    };
    let uri = uri.map_err(|_| invalid(SET_URI))?;
    path::check(uri.path()).map_err(|bad| invalid(format!("set_uri: {bad}")))?;
    Ok(uri)
}

/// A target is charged this many times: it is copied when it is passed on, and may be sent twice.
const TARGET_COPIES: usize = 3;
const SET_URI: &str = "set_uri: not a path and query (it must begin with / and be percent-encoded)";

fn enable_features(mut guest: CoreCaller<'_>, features: u32) -> i32 {
    let call = guest.data_mut();
    call.features |= features & FEATURES_KNOWN;
    call.features as i32
}

fn log(mut guest: CoreCaller<'_>, level: i32, ptr: u32, len: u32) -> Result<()> {
    let (memory, call) = memory(&mut guest)?;
    let text = range(memory, ptr, len)?;
    if let Some(level) = Level::from_abi(level).filter(|level| level.is_enabled()) {
        call.log().with(|sink| sink.line(level, "log", text));
    }
    Ok(())
}

/// The exchange, the guest's info, and the bytes in memory for a change of the request. Such
/// changes are allowed only before `next`.
fn request_change<'a>(
    guest: &'a mut CoreCaller<'_>,
    function: &str,
    ptr: u32,
    len: u32,
) -> Result<(&'a mut CoreExchange, &'a GuestInfo, &'a [u8])> {
    let (memory, call) = memory(guest)?;
    let bytes = range(memory, ptr, len)?;
    if call.phase == CallPhase::Response {
        return Err(misuse(format!("{function}: the request was passed on already")));
    }
    let bytes_max = call.limiter.guest_info.grants.limits.header_bytes_max;
    if bytes.len() > bytes_max {
        return Err(invalid(format!("{function}: more than {bytes_max} bytes (--header-max)")));
    }
    let exchange = call.exchange.as_mut().ok_or_else(no_request)?;
    Ok((exchange, &call.limiter.guest_info, bytes))
}

fn set_status_code(mut guest: CoreCaller<'_>, status: i32) -> Result<()> {
    let call = guest.data_mut();
    if call.phase == CallPhase::Response && !call.has(BUFFER_RESPONSE) {
        return Err(misuse(
            "set_status_code: the response can be changed after next only with the feature \
             buffer_response (2)",
        ));
    }
    // The host itself answers with 1xx, and above 599 HTTP defines nothing.
    let valid = u16::try_from(status).ok().filter(|status| (200..=599).contains(status));
    let status = valid
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| invalid(format!("{status} is not a status of a response (200 to 599)")))?;
    call.exchange.as_mut().ok_or_else(no_request)?.status = status;
    Ok(())
}
