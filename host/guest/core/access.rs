//! How a host function of the http-wasm ABI gets at the guest's memory and at the exchange that it
//! serves, and how it stops the guest.

use guesthouse_module::interfaces::modules::HTTP_HANDLER;
use wasmtime::Caller;

use super::state::{CallPhase, CoreExchange, CoreState};
use crate::guest::engine::fault::misuse;

pub type CoreCaller<'a> = Caller<'a, CoreState>;
pub use wasmtime::Result;

/// The module under which the functions are imported.
pub const MODULE: &str = HTTP_HANDLER.name;

/// The guest's memory beside the rest of its store's data.
#[inline]
pub fn memory<'a>(guest: &'a mut CoreCaller<'_>) -> Result<(&'a mut [u8], &'a mut CoreState)> {
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

pub fn exchange<'a>(guest: &'a mut CoreCaller<'_>) -> Result<&'a mut CoreExchange> {
    guest.data_mut().exchange.as_mut().ok_or_else(no_request)
}

pub fn no_request() -> wasmtime::Error {
    misuse("there is no request during start-up")
}

/// A range of the guest's memory.
pub fn range(memory: &[u8], ptr: u32, len: u32) -> Result<&[u8]> {
    memory.get(ptr as usize..).and_then(|tail| tail.get(..len as usize)).ok_or_else(|| {
        misuse(format!(
            "pointer {ptr} with length {len} is outside of the memory of {} bytes",
            memory.len()
        ))
    })
}

/// Where a result for the guest goes: written whole if it fits the limit, else only measured.
pub struct OutputBuffer<'a> {
    buffer: &'a mut [u8],
    used: usize,
    count: u32,
}

impl OutputBuffer<'_> {
    pub fn text(&mut self, text: &[u8]) {
        if let Some(target) = self.buffer.get_mut(self.used..self.used + text.len()) {
            target.copy_from_slice(text);
        }
        self.used += text.len();
    }

    /// One NUL-terminated string of a list.
    pub fn item(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.text(part);
        }
        self.text(b"\0");
        self.count += 1;
    }
}

/// Hands a result to the guest. If it is longer than `limit`, nothing is written. Returns its
/// length and count.
pub fn write_limited(
    guest: &mut CoreCaller<'_>,
    (buf, limit): (u32, u32),
    write: impl Fn(&CoreState, &mut OutputBuffer<'_>) -> Result<()>,
) -> Result<(u32, u32)> {
    let (memory, call) = memory(guest)?;
    range(memory, buf, limit)?;
    // Nothing may be written unless all of it fits, so it is measured first.
    let mut measured = OutputBuffer { buffer: &mut [], used: 0, count: 0 };
    write(call, &mut measured)?;
    let (used, count) = (measured.used, measured.count);
    if used <= limit as usize {
        let start = buf as usize;
        write(
            call,
            &mut OutputBuffer { buffer: &mut memory[start..start + used], used: 0, count: 0 },
        )?;
    }
    Ok((used as u32, count))
}

/// Hands one text about the current exchange to the guest.
pub fn write_exchange(
    guest: &mut CoreCaller<'_>,
    buf: u32,
    limit: u32,
    write: impl Fn(&CoreExchange, &mut OutputBuffer<'_>),
) -> Result<i32> {
    let (used, _) = write_limited(guest, (buf, limit), |call, out| {
        match &call.exchange {
            Some(exchange) => write(exchange, out),
            None if call.phase == CallPhase::StartUp => {}
            None => return Err(no_request()),
        }
        Ok(())
    })?;
    Ok(used as i32)
}
