//! Moves data between the two ends of a stream of bytes or of a future.
//!
//! Owns the copying between a guest's memory and the bodies of requests and responses.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, FieldMap};

use super::body_channel::Completion;
use super::ends::{
    ComponentFuture, FutureReader, FutureValue, FutureWriter, Stream, StreamReader, StreamWriter,
};
use super::error::FlatErrorCode;
use super::lower::store;
use super::memory::{Result, flag, range};
use super::tasks::{BLOCKED, CopyResult, EventCode, Tasks};
use crate::guest::component::limits::CHUNK_BYTES_MAX;
use crate::guest::component::state::ComponentState;
use crate::guest::engine::fault::misuse;

/// Bytes in memory of a future's value, which is one of two types.
const VALUE_BYTES: u32 = 40;

/// Starts a copy to or from a guest's end. Returns its result, or [`BLOCKED`].
pub fn stream_copy(
    memory: &mut [u8],
    state: &mut ComponentState,
    (at, is_read): (u32, bool),
    (ptr, len): (u32, u32),
) -> Result<u32> {
    if memory.get(ptr as usize..).is_none_or(|tail| tail.len() < len as usize) {
        return Err(misuse(format!("pointer {ptr} with length {len} is outside of its memory")));
    }
    let stream = state.canon.tasks.streams.get(at)?;
    let end = stream.end(is_read)?;
    let handle = end.handle;
    if end.buffer.is_some() || state.canon.tasks.has_pending_event(handle) {
        return Err(misuse("a stream is used twice at once"));
    }
    if len == 0 {
        return Ok(CopyResult::Completed.with(0));
    }
    state.canon.tasks.streams.get(at)?.end(is_read)?.buffer = Some((ptr, len));
    advance_stream(memory, &mut state.canon.tasks, at)?;
    Ok(state.canon.tasks.take_pending_event(handle).unwrap_or(BLOCKED))
}

/// Copies what can be copied now between the two ends of a stream.
pub fn advance_stream(memory: &mut [u8], tasks: &mut Tasks, at: u32) -> Result<()> {
    let Tasks { waker, streams, .. } = tasks;
    let Stream { writer, reader } = streams.get(at)?;
    match (writer, reader) {
        (StreamWriter::Guest(end), StreamReader::Response(sender)) => {
            let Some((ptr, len)) = end.buffer else { return Ok(()) };
            let copied = if sender.is_dropped() {
                CopyResult::Dropped.with(0)
            } else if sender.has_capacity(waker) {
                let len = len.min(CHUNK_BYTES_MAX as u32);
                sender.put(Bytes::copy_from_slice(range(memory, ptr, len)?));
                CopyResult::Completed.with(len)
            } else {
                return Ok(());
            };
            end.buffer = None;
            let handle = end.handle;
            tasks.set_event(handle, EventCode::StreamWrite, copied);
        }
        (StreamWriter::Request(request_body), StreamReader::Guest(end)) => {
            let Some((ptr, len)) = end.buffer else { return Ok(()) };
            let Poll::Ready(ended) = request_body.poll(&mut Context::from_waker(waker)) else {
                return Ok(());
            };
            let some = request_body.rest.split_to(request_body.rest.len().min(len as usize));
            let place = memory.get_mut(ptr as usize..).and_then(|tail| tail.get_mut(..some.len()));
            place
                .ok_or_else(|| misuse("a buffer is outside of its memory"))?
                .copy_from_slice(&some);
            let copied = match some.len() as u32 {
                0 => CopyResult::Dropped.with(0),
                len => CopyResult::Completed.with(len),
            };
            end.buffer = None;
            let handle = end.handle;
            let ended = ended.and_then(|value| Some((request_body.take_trailers()?, value)));
            tasks.set_event(handle, EventCode::StreamRead, copied);
            if let Some((trailers, value)) = ended {
                tasks.resolve(trailers, value);
            }
        }
        (StreamWriter::Guest(from), StreamReader::Guest(to)) => {
            let (Some(source), Some(target)) = (from.buffer, to.buffer) else { return Ok(()) };
            let len = source.1.min(target.1).min(CHUNK_BYTES_MAX as u32);
            memory.copy_within(source.0 as usize..(source.0 + len) as usize, target.0 as usize);
            (from.buffer, to.buffer) = (None, None);
            let (from, to) = (from.handle, to.handle);
            tasks.set_event(from, EventCode::StreamWrite, CopyResult::Completed.with(len));
            tasks.set_event(to, EventCode::StreamRead, CopyResult::Completed.with(len));
        }
        (StreamWriter::Guest(end), StreamReader::Gone) if end.buffer.is_some() => {
            end.buffer = None;
            let handle = end.handle;
            tasks.set_event(handle, EventCode::StreamWrite, CopyResult::Dropped.with(0));
        }
        (StreamWriter::Gone, StreamReader::Guest(end)) if end.buffer.is_some() => {
            end.buffer = None;
            let handle = end.handle;
            tasks.set_event(handle, EventCode::StreamRead, CopyResult::Dropped.with(0));
        }
        _ => {}
    }
    Ok(())
}

/// Starts to read or write a future's value. Returns the result, or [`BLOCKED`].
pub fn future_copy(
    memory: &mut [u8],
    state: &mut ComponentState,
    (at, is_read): (u32, bool),
    ptr: u32,
) -> Result<u32> {
    range(memory, ptr, VALUE_BYTES)?;
    let future = state.canon.tasks.futures.get(at)?;
    let end = match (is_read, &mut future.writer, &mut future.reader) {
        (true, _, FutureReader::Guest(end)) | (false, FutureWriter::Guest(end), _) => end,
        _ => return Err(misuse("a future is used after its value")),
    };
    if end.buffer.is_some() {
        return Err(misuse("a future is used twice at once"));
    }
    end.buffer = Some((ptr, VALUE_BYTES));
    let handle = end.handle;
    advance_future(memory, state, at)?;
    Ok(state.canon.tasks.take_pending_event(handle).unwrap_or(BLOCKED))
}

/// Moves a future's value, if both ends are ready.
pub fn advance_future(memory: &mut [u8], state: &mut ComponentState, at: u32) -> Result<()> {
    let Tasks { waker, futures, .. } = &mut state.canon.tasks;
    let ComponentFuture { writer, reader } = futures.get(at)?;
    match (&mut *writer, &mut *reader) {
        (FutureWriter::Guest(end), FutureReader::Gone) if end.buffer.is_some() => {
            end.buffer = None;
            let handle = end.handle;
            state.canon.tasks.set_event(
                handle,
                EventCode::FutureWrite,
                CopyResult::Dropped.with(0),
            );
        }
        (FutureWriter::Guest(end), FutureReader::Ignored) if end.buffer.is_some() => {
            let handle = end.handle;
            *writer = FutureWriter::Gone;
            state.canon.tasks.set_completed(handle, EventCode::FutureWrite);
        }
        (FutureWriter::Guest(end), FutureReader::Response(sender)) => {
            let Some((ptr, _)) = end.buffer else { return Ok(()) };
            let (handle, sender) = (end.handle, sender.clone());
            (*writer, *reader) = (FutureWriter::Gone, FutureReader::Gone);
            sender.end(trailers(memory, state, ptr)?);
            state.canon.tasks.set_completed(handle, EventCode::FutureWrite);
        }
        (FutureWriter::Guest(from), FutureReader::Guest(to)) => {
            let (Some((source, len)), Some((target, _))) = (from.buffer, to.buffer) else {
                return Ok(());
            };
            memory.copy_within(source as usize..(source + len) as usize, target as usize);
            let (from, to) = (from.handle, to.handle);
            (*writer, *reader) = (FutureWriter::Gone, FutureReader::Gone);
            state.canon.tasks.set_completed(from, EventCode::FutureWrite);
            state.canon.tasks.set_completed(to, EventCode::FutureRead);
        }
        (giver, FutureReader::Guest(end)) => {
            let Some((ptr, _)) = end.buffer else { return Ok(()) };
            let value = match giver {
                FutureWriter::Response(watch) => match watch.completion(waker) {
                    Completion::Open => return Ok(()),
                    Completion::Read => FutureValue::Sent(Ok(())),
                    Completion::Dropped => FutureValue::Sent(Err(ErrorCode::ConnectionTerminated)),
                },
                FutureWriter::Value(_) => match std::mem::replace(giver, FutureWriter::Gone) {
                    FutureWriter::Value(value) => value,
                    _ => return Ok(()),
                },
                _ => return Ok(()),
            };
            let handle = end.handle;
            (*writer, *reader) = (FutureWriter::Gone, FutureReader::Gone);
            give(memory, state, ptr, value)?;
            state.canon.tasks.set_completed(handle, EventCode::FutureRead);
        }
        _ => {}
    }
    Ok(())
}

/// Stores a future's value in the guest's memory.
fn give(memory: &mut [u8], state: &mut ComponentState, ptr: u32, value: FutureValue) -> Result<()> {
    match value {
        FutureValue::Sent(sent) => store(memory, ptr, sent),
        FutureValue::Trailers(Err(code)) => store(memory, ptr, Err::<(), _>(code)),
        FutureValue::Trailers(Ok(None)) => store(memory, ptr, Ok::<_, ErrorCode>(None::<u32>)),
        FutureValue::Trailers(Ok(Some(fields))) => {
            let fields = state.fields(fields)?;
            let handle = state.give(fields)?;
            store(memory, ptr, Ok::<_, ErrorCode>(Some(handle)))
        }
    }
}

/// Reads a value `result<option<trailers>, error-code>` from the guest's memory.
fn trailers(
    memory: &[u8],
    state: &mut ComponentState,
    ptr: u32,
) -> Result<Result<Option<HeaderMap>, Error>> {
    let bytes = range(memory, ptr, VALUE_BYTES)?;
    if flag(u32::from(bytes[0]))? {
        let code = FlatErrorCode { case: u32::from(bytes[8]), values: (0, 0, 0, 0, 0, 0) };
        return Ok(Err(code.lift(memory)?.into()));
    }
    if !flag(u32::from(bytes[8]))? {
        return Ok(Ok(None));
    }
    let handle = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    let fields = state.canon.handles.take::<FieldMap>(handle)?;
    Ok(Ok(Some(state.table.delete(fields)?.into())))
}

impl Tasks {
    /// Gives a future the value that the host owes it. Until then the future exists, even if the
    /// guest has dropped its end.
    pub fn resolve(&mut self, at: u32, value: FutureValue) {
        self.resolve_with(at, FutureWriter::Value(value));
    }

    /// As [`Tasks::resolve`], with a value that depends on how a response's body ends.
    pub fn resolve_with(&mut self, at: u32, giver: FutureWriter) {
        match self.futures.get(at) {
            Ok(ComponentFuture { writer: FutureWriter::Host, reader: FutureReader::Gone }) => {
                drop(self.futures.remove(at));
            }
            Ok(future) if matches!(future.writer, FutureWriter::Host) => future.writer = giver,
            // It has a value already.
            _ => {}
        }
    }
}

/// Advances all timers, streams and futures. `cx` is woken when one of them can go on.
pub fn advance_all(
    memory: &mut [u8],
    state: &mut ComponentState,
    cx: &mut Context<'_>,
) -> Result<()> {
    if !state.canon.tasks.waker.will_wake(cx.waker()) {
        state.canon.tasks.waker = cx.waker().clone();
    }
    state.canon.tasks.poll_timers(cx);
    for at in state.canon.tasks.streams.indexes() {
        if state.canon.tasks.streams.get(at).is_ok() {
            advance_stream(memory, &mut state.canon.tasks, at)?;
        }
    }
    for at in state.canon.tasks.futures.indexes() {
        if state.canon.tasks.futures.get(at).is_ok() {
            advance_future(memory, state, at)?;
        }
    }
    Ok(())
}
