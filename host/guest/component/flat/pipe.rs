//! What happens where the two ends of a stream of bytes or of a future meet.
//!
//! Owns the copying between a guest's memory and a request's or a response's body.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, FieldMap};

use super::ends::{Giver, Promise, Reader, Stream, Taker, Value, Writer};
use super::error::Flattened;
use super::lower::store;
use super::memory::{Result, flag, range};
use super::outlet::Fate;
use super::tasks::{BLOCKED, Copied, Event, Tasks};
use crate::guest::component::limits::CHUNK_BYTES_MAX;
use crate::guest::component::state::State;
use crate::guest::engine::fault::misuse;

/// Bytes of either value in memory.
const VALUE_BYTES: u32 = 40;

/// Copies to or from a guest's end, at once if that is possible.
pub fn copy(
    memory: &mut [u8],
    state: &mut State,
    (at, is_read): (u32, bool),
    (ptr, len): (u32, u32),
) -> Result<u32> {
    if memory.get(ptr as usize..).is_none_or(|tail| tail.len() < len as usize) {
        return Err(misuse(format!("pointer {ptr} with length {len} is outside of its memory")));
    }
    let stream = state.canon.tasks.streams.get(at)?;
    let end = stream.end(is_read)?;
    let handle = end.handle;
    if end.buffer.is_some() || state.canon.tasks.has_note(handle) {
        return Err(misuse("a stream is used twice at once"));
    }
    if len == 0 {
        return Ok(Copied::Completed.with(0));
    }
    state.canon.tasks.streams.get(at)?.end(is_read)?.buffer = Some((ptr, len));
    go_on(memory, &mut state.canon.tasks, at)?;
    Ok(state.canon.tasks.take_note(handle).unwrap_or(BLOCKED))
}

/// Copies what can be copied of a stream.
pub fn go_on(memory: &mut [u8], tasks: &mut Tasks, at: u32) -> Result<()> {
    let Tasks { waker, streams, .. } = tasks;
    let Stream { writer, reader } = streams.get(at)?;
    match (writer, reader) {
        (Writer::Guest(end), Reader::Response(outlet)) => {
            let Some((ptr, len)) = end.buffer else { return Ok(()) };
            let copied = if outlet.is_dropped() {
                Copied::Dropped.with(0)
            } else if outlet.has_room(waker) {
                let len = len.min(CHUNK_BYTES_MAX as u32);
                outlet.put(Bytes::copy_from_slice(range(memory, ptr, len)?));
                Copied::Completed.with(len)
            } else {
                return Ok(());
            };
            end.buffer = None;
            let handle = end.handle;
            tasks.note(handle, Event::StreamWrite, copied);
        }
        (Writer::Request(inlet), Reader::Guest(end)) => {
            let Some((ptr, len)) = end.buffer else { return Ok(()) };
            let Poll::Ready(ended) = inlet.poll(&mut Context::from_waker(waker)) else {
                return Ok(());
            };
            let some = inlet.rest.split_to(inlet.rest.len().min(len as usize));
            let place = memory.get_mut(ptr as usize..).and_then(|tail| tail.get_mut(..some.len()));
            place
                .ok_or_else(|| misuse("a buffer is outside of its memory"))?
                .copy_from_slice(&some);
            let copied = match some.len() as u32 {
                0 => Copied::Dropped.with(0),
                len => Copied::Completed.with(len),
            };
            end.buffer = None;
            let handle = end.handle;
            let ended = ended.and_then(|value| Some((inlet.take_trailers()?, value)));
            tasks.note(handle, Event::StreamRead, copied);
            if let Some((trailers, value)) = ended {
                tasks.settle(trailers, value);
            }
        }
        (Writer::Guest(from), Reader::Guest(to)) => {
            let (Some(source), Some(target)) = (from.buffer, to.buffer) else { return Ok(()) };
            let len = source.1.min(target.1).min(CHUNK_BYTES_MAX as u32);
            memory.copy_within(source.0 as usize..(source.0 + len) as usize, target.0 as usize);
            (from.buffer, to.buffer) = (None, None);
            let (from, to) = (from.handle, to.handle);
            tasks.note(from, Event::StreamWrite, Copied::Completed.with(len));
            tasks.note(to, Event::StreamRead, Copied::Completed.with(len));
        }
        (Writer::Guest(end), Reader::Gone) if end.buffer.is_some() => {
            end.buffer = None;
            let handle = end.handle;
            tasks.note(handle, Event::StreamWrite, Copied::Dropped.with(0));
        }
        (Writer::Gone, Reader::Guest(end)) if end.buffer.is_some() => {
            end.buffer = None;
            let handle = end.handle;
            tasks.note(handle, Event::StreamRead, Copied::Dropped.with(0));
        }
        _ => {}
    }
    Ok(())
}

/// Takes or gives a future's value, at once if that is possible.
pub fn pass(
    memory: &mut [u8],
    state: &mut State,
    (at, is_read): (u32, bool),
    ptr: u32,
) -> Result<u32> {
    range(memory, ptr, VALUE_BYTES)?;
    let promise = state.canon.tasks.promises.get(at)?;
    let end = match (is_read, &mut promise.writer, &mut promise.reader) {
        (true, _, Taker::Guest(end)) | (false, Giver::Guest(end), _) => end,
        _ => return Err(misuse("a future is used after its value")),
    };
    if end.buffer.is_some() {
        return Err(misuse("a future is used twice at once"));
    }
    end.buffer = Some((ptr, VALUE_BYTES));
    let handle = end.handle;
    meet(memory, state, at)?;
    Ok(state.canon.tasks.take_note(handle).unwrap_or(BLOCKED))
}

/// Passes a future's value on, if both ends are there.
pub fn meet(memory: &mut [u8], state: &mut State, at: u32) -> Result<()> {
    let Tasks { waker, promises, .. } = &mut state.canon.tasks;
    let Promise { writer, reader } = promises.get(at)?;
    match (&mut *writer, &mut *reader) {
        (Giver::Guest(end), Taker::Gone) if end.buffer.is_some() => {
            end.buffer = None;
            let handle = end.handle;
            state.canon.tasks.note(handle, Event::FutureWrite, Copied::Dropped.with(0));
        }
        (Giver::Guest(end), Taker::Ignored) if end.buffer.is_some() => {
            let handle = end.handle;
            *writer = Giver::Gone;
            state.canon.tasks.note(handle, Event::FutureWrite, Copied::Completed.with(0));
        }
        (Giver::Guest(end), Taker::Response(outlet)) => {
            let Some((ptr, _)) = end.buffer else { return Ok(()) };
            let (handle, outlet) = (end.handle, outlet.clone());
            (*writer, *reader) = (Giver::Gone, Taker::Gone);
            outlet.end(trailers(memory, state, ptr)?);
            state.canon.tasks.note(handle, Event::FutureWrite, Copied::Completed.with(0));
        }
        (Giver::Guest(from), Taker::Guest(to)) => {
            let (Some((source, len)), Some((target, _))) = (from.buffer, to.buffer) else {
                return Ok(());
            };
            memory.copy_within(source as usize..(source + len) as usize, target as usize);
            let (from, to) = (from.handle, to.handle);
            (*writer, *reader) = (Giver::Gone, Taker::Gone);
            state.canon.tasks.note(from, Event::FutureWrite, Copied::Completed.with(0));
            state.canon.tasks.note(to, Event::FutureRead, Copied::Completed.with(0));
        }
        (giver, Taker::Guest(end)) => {
            let Some((ptr, _)) = end.buffer else { return Ok(()) };
            let value = match giver {
                Giver::Response(watch) => match watch.fate(waker) {
                    Fate::Open => return Ok(()),
                    Fate::Read => Value::Sent(Ok(())),
                    Fate::Dropped => Value::Sent(Err(ErrorCode::ConnectionTerminated)),
                },
                Giver::Value(_) => match std::mem::replace(giver, Giver::Gone) {
                    Giver::Value(value) => value,
                    _ => return Ok(()),
                },
                _ => return Ok(()),
            };
            let handle = end.handle;
            (*writer, *reader) = (Giver::Gone, Taker::Gone);
            give(memory, state, ptr, value)?;
            state.canon.tasks.note(handle, Event::FutureRead, Copied::Completed.with(0));
        }
        _ => {}
    }
    Ok(())
}

/// Puts a value where the guest wants it.
fn give(memory: &mut [u8], state: &mut State, ptr: u32, value: Value) -> Result<()> {
    match value {
        Value::Sent(sent) => store(memory, ptr, sent),
        Value::Trailers(Err(code)) => store(memory, ptr, Err::<(), _>(code)),
        Value::Trailers(Ok(None)) => store(memory, ptr, Ok::<_, ErrorCode>(None::<u32>)),
        Value::Trailers(Ok(Some(fields))) => {
            let fields = state.fields(fields)?;
            let handle = state.give(fields)?;
            store(memory, ptr, Ok::<_, ErrorCode>(Some(handle)))
        }
    }
}

/// The value `result<option<trailers>, error-code>` in the guest's memory.
fn trailers(
    memory: &[u8],
    state: &mut State,
    ptr: u32,
) -> Result<Result<Option<HeaderMap>, Error>> {
    let bytes = range(memory, ptr, VALUE_BYTES)?;
    if flag(u32::from(bytes[0]))? {
        let code = Flattened { case: u32::from(bytes[8]), values: (0, 0, 0, 0, 0, 0) };
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
    /// Gives a future the value that was to follow. Until then it is kept, although the guest may
    /// have dropped its end.
    pub fn settle(&mut self, at: u32, value: Value) {
        self.settle_by(at, Giver::Value(value));
    }

    /// As [`Tasks::settle`], by what is to become of a response.
    pub fn settle_by(&mut self, at: u32, giver: Giver) {
        match self.promises.get(at) {
            Ok(Promise { writer: Giver::Host, reader: Taker::Gone }) => {
                drop(self.promises.remove(at));
            }
            Ok(promise) if matches!(promise.writer, Giver::Host) => promise.writer = giver,
            // It has one.
            _ => {}
        }
    }
}

/// Looks at everything that a guest waits for.
pub fn look(memory: &mut [u8], state: &mut State, cx: &mut Context<'_>) -> Result<()> {
    if !state.canon.tasks.waker.will_wake(cx.waker()) {
        state.canon.tasks.waker = cx.waker().clone();
    }
    state.canon.tasks.poll_timers(cx);
    for at in state.canon.tasks.streams.indexes() {
        if state.canon.tasks.streams.get(at).is_ok() {
            go_on(memory, &mut state.canon.tasks, at)?;
        }
    }
    for at in state.canon.tasks.promises.indexes() {
        if state.canon.tasks.promises.get(at).is_ok() {
            meet(memory, state, at)?;
        }
    }
    Ok(())
}
