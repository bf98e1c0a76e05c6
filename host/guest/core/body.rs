//! The ABI's body functions: reading and writing the bodies of requests and responses.
//!
//! Owns the limits on both. Reading a request's body is the one host function that waits.

use guesthouse_module::interrupt::PIECE_BYTES;
use wasmtime::Linker;

use super::access::{CoreCaller, MODULE, Result, exchange, memory, no_request, range};
use super::state::{BUFFER_REQUEST, BUFFER_RESPONSE, CallPhase, CoreState};
use crate::guest::engine::fault::Fault;
use crate::guest::engine::fault::{invalid, misuse, or_stop};

/// Adds the body functions to a linker.
pub fn add_to_linker(linker: &mut Linker<CoreState>) -> Result<()> {
    linker.func_wrap_async(MODULE, "read_body", |guest, (kind, buf, limit): (i32, u32, u32)| {
        Box::new(read_body(guest, kind, buf, limit))
    })?;
    linker.func_wrap(MODULE, "write_body", write_body)?;
    Ok(())
}

/// The result of `read_body`: whether this was the end, and how many bytes were written.
fn eof_len(eof: bool, len: usize) -> i64 {
    (i64::from(eof) << 32) | len as i64
}

async fn read_body(mut guest: CoreCaller<'_>, kind: i32, buf: u32, limit: u32) -> Result<i64> {
    if limit == 0 {
        return Err(misuse("read_body: the limit is 0"));
    }
    let (bytes, _) = memory(&mut guest)?;
    range(bytes, buf, limit)?;
    // Copying cannot be interrupted: a guest yields only between calls.
    let limit = limit.min(PIECE_BYTES);
    match kind {
        0 => read_request_body(guest, buf, limit).await,
        1 => read_response_body(guest, buf, limit),
        _ => Err(misuse(format!("{kind} is not a kind of body (0 or 1)"))),
    }
}

async fn read_request_body(mut guest: CoreCaller<'_>, buf: u32, limit: u32) -> Result<i64> {
    let keep = guest.data().has(BUFFER_REQUEST);
    let exchange = exchange(&mut guest)?;
    let read = exchange.request.body.read(limit as usize).await;
    let bytes = read.map_err(|reject| wasmtime::Error::new(Fault::Reject(reject)))?;
    let eof = exchange.request.body.is_end();
    let (memory, call) = memory(&mut guest)?;
    if keep && let Some(exchange) = &mut call.exchange {
        or_stop(exchange.buffer_request(&call.limiter.guest_info, &bytes))?;
    }
    memory[buf as usize..][..bytes.len()].copy_from_slice(&bytes);
    Ok(eof_len(eof, bytes.len()))
}

fn read_response_body(mut guest: CoreCaller<'_>, buf: u32, limit: u32) -> Result<i64> {
    let (memory, call) = memory(&mut guest)?;
    if call.phase != CallPhase::Response || !call.has(BUFFER_RESPONSE) {
        return Err(misuse(
            "read_body: the response can be read in handle_response, \
             with the feature buffer_response (2)",
        ));
    }
    let body = &mut call.exchange.as_mut().ok_or_else(no_request)?.body;
    let rest = body.buffered.get(body.read_bytes..).unwrap_or_default();
    let len = rest.len().min(limit as usize);
    memory[buf as usize..][..len].copy_from_slice(&rest[..len]);
    body.read_bytes += len;
    Ok(eof_len(len == rest.len(), len))
}

fn write_body(mut guest: CoreCaller<'_>, kind: i32, ptr: u32, len: u32) -> Result<()> {
    let (memory, call) = memory(&mut guest)?;
    let bytes = range(memory, ptr, len)?;
    match kind {
        0 => write_request_body(call, bytes),
        1 => write_response_body(call, bytes),
        _ => Err(misuse(format!("{kind} is not a kind of body (0 or 1)"))),
    }
}

fn write_request_body(call: &mut CoreState, bytes: &[u8]) -> Result<()> {
    if call.phase == CallPhase::Response {
        return Err(misuse("write_body: the request was passed on already"));
    }
    let bytes_max = call.limiter.guest_info.grants.limits.buffered_bytes_max();
    let exchange = call.exchange.as_mut().ok_or_else(no_request)?;
    let body = exchange.request_written.get_or_insert_default();
    if (body.len() + bytes.len()) as u64 > bytes_max {
        return Err(invalid(format!(
            "write_body: a request of over {bytes_max} bytes (--body-max)"
        )));
    }
    or_stop(body.extend(&call.limiter.guest_info.memory, bytes))
}

fn write_response_body(call: &mut CoreState, bytes: &[u8]) -> Result<()> {
    if call.phase == CallPhase::Response && !call.has(BUFFER_RESPONSE) {
        return Err(misuse(
            "write_body: the response can be changed after next only with the feature \
             buffer_response (2)",
        ));
    }
    let bytes_max = call.limiter.guest_info.grants.limits.response_bytes_max;
    let body = &mut call.exchange.as_mut().ok_or_else(no_request)?.body;
    let written = body.written.get_or_insert_default();
    if written.len() + bytes.len() > bytes_max {
        return Err(invalid(format!(
            "write_body: a response of over {bytes_max} bytes (--response-max)"
        )));
    }
    or_stop(written.extend(&call.limiter.guest_info.memory, bytes))
}
