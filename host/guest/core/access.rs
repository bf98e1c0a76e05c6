//! How a host function of the http-wasm ABI gets at the guest's memory and at the current exchange,
//! and how it returns results.

use guesthouse_module::interfaces::modules::HTTP_HANDLER;
use wasmtime::Caller;

use super::state::{CallPhase, CoreExchange, CoreState};
use crate::guest::engine::fault::misuse;

/// A host function's view of the guest that calls it.
pub type CoreCaller<'a> = Caller<'a, CoreState>;
pub use wasmtime::Result;

/// The module from which guests import these functions.
pub const MODULE: &str = HTTP_HANDLER.name;

/// The guest's memory, and the data of its store.
#[inline]
pub fn memory<'a>(guest: &'a mut CoreCaller<'_>) -> Result<(&'a mut [u8], &'a mut CoreState)> {
    let memory = match guest.data().memory {
        Some(memory) => memory,
        // During the start function the instance does not exist yet, but its exports do.
        None => guest
            .get_export("memory")
            .and_then(wasmtime::Extern::into_memory)
            .ok_or_else(|| misuse("the module exports no memory"))?,
    };
    Ok(memory.data_and_store_mut(guest))
}

/// The exchange of the current request.
///
/// # Errors
/// A trap during start-up, when there is no request.
pub fn exchange<'a>(guest: &'a mut CoreCaller<'_>) -> Result<&'a mut CoreExchange> {
    guest.data_mut().exchange.as_mut().ok_or_else(no_request)
}

/// The trap of a guest that asks for a request during start-up.
pub fn no_request() -> wasmtime::Error {
    misuse("there is no request during start-up")
}

/// A range of the guest's memory.
///
/// # Errors
/// A trap if any of it is outside of the memory.
pub fn range(memory: &[u8], ptr: u32, len: u32) -> Result<&[u8]> {
    memory.get(ptr as usize..).and_then(|tail| tail.get(..len as usize)).ok_or_else(|| {
        misuse(format!(
            "pointer {ptr} with length {len} is outside of the memory of {} bytes",
            memory.len()
        ))
    })
}

/// Collects a result for the guest: writes it if all of it fits, else only measures it.
pub struct OutputBuffer<'a> {
    buffer: &'a mut [u8],
    used: usize,
    count: u32,
}

impl OutputBuffer<'_> {
    /// Appends text if there is room for all of it. Counts its length either way.
    pub fn text(&mut self, text: &[u8]) {
        if let Some(target) = self.buffer.get_mut(self.used..self.used + text.len()) {
            target.copy_from_slice(text);
        }
        self.used += text.len();
    }

    /// Appends one NUL-terminated string of a list.
    pub fn item(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.text(part);
        }
        self.text(b"\0");
        self.count += 1;
    }
}

/// Writes a result to the guest's memory, unless it is longer than `limit`. Returns its length and
/// the number of its items.
pub fn write_limited(
    guest: &mut CoreCaller<'_>,
    (buf, limit): (u32, u32),
    write: impl Fn(&CoreState, &mut OutputBuffer<'_>) -> Result<()>,
) -> Result<(u32, u32)> {
    let (memory, call) = memory(guest)?;
    range(memory, buf, limit)?;
    // Nothing may be written unless all of it fits, so the result is measured first.
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

/// Writes a text about the current exchange, as [`write_limited`] does. Returns its length.
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
