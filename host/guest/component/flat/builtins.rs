//! The component model's built-in functions: tasks, waitable sets, subtasks, streams and futures.

use std::future::poll_fn;
use std::task::Poll;

use guesthouse_module::interfaces::BUILTINS;
use wasmtime::Linker;

use super::abi::{FlatCaller, parts};
use super::ends::{
    ComponentFuture, FutureReader, FutureValue, FutureWriter, GuestEnd, Stream, StreamReader,
    StreamWriter,
};
use super::lower::store;
use super::memory::Result;
use super::tasks::{
    CopyResult, EventCode, SENT_READ, SENT_WRITE, SET, STREAM_READ, STREAM_WRITE, TIMER,
    TRAILERS_READ, TRAILERS_WRITE,
};
use super::transfer::{advance_all, advance_future, advance_stream, future_copy, stream_copy};
use crate::guest::component::state::ComponentState;
use crate::guest::engine::fault::misuse;

/// The module under which they are imported.
pub const CANON: &str = BUILTINS.module;

pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_tasks(linker)?;
    add_sets(linker)?;
    add_subtasks(linker)?;
    add_streams(linker)?;
    add_futures(linker, "sent", SENT_READ, SENT_WRITE)?;
    add_futures(linker, "trailers", TRAILERS_READ, TRAILERS_WRITE)
}

fn add_tasks(linker: &mut Linker<ComponentState>) -> Result<()> {
    for slot in 0..2 {
        let name = format!("context.get {slot}");
        linker.func_wrap(CANON, &name, move |mut guest: FlatCaller<'_>| {
            Ok(guest.data_mut().canon.tasks.current_task()?.context[slot])
        })?;
        let name = format!("context.set {slot}");
        linker.func_wrap(CANON, &name, move |mut guest: FlatCaller<'_>, value: u32| {
            guest.data_mut().canon.tasks.current_task()?.context[slot] = value;
            Ok(())
        })?;
    }
    linker.func_wrap(CANON, "task.cancel", |_: FlatCaller<'_>| {
        Err::<(), _>(misuse("it ends as cancelled a call that was not"))
    })?;
    linker.func_wrap(CANON, "backpressure.inc", |mut guest: FlatCaller<'_>| {
        let count = &mut guest.data_mut().canon.tasks.backpressure;
        *count = count.saturating_add(1);
    })?;
    linker.func_wrap(CANON, "backpressure.dec", |mut guest: FlatCaller<'_>| {
        let count = &mut guest.data_mut().canon.tasks.backpressure;
        *count = count.saturating_sub(1);
    })?;
    Ok(())
}

fn add_sets(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(CANON, "waitable-set.new", |mut guest: FlatCaller<'_>| {
        guest.data_mut().canon.handles.put_raw(SET, 0)
    })?;
    linker.func_wrap(CANON, "waitable-set.drop", |mut guest: FlatCaller<'_>, set: u32| {
        let canon = &mut guest.data_mut().canon;
        if canon.tasks.is_in_use(set) {
            return Err(misuse("a set is dropped that something is in"));
        }
        canon.handles.take_raw(SET, set).map(drop)
    })?;
    linker.func_wrap(
        CANON,
        "waitable.join",
        |mut guest: FlatCaller<'_>, handle: u32, set: u32| {
            let canon = &mut guest.data_mut().canon;
            if canon.handles.kind(handle)? <= SET {
                return Err(misuse(format!("handle {handle} cannot be waited for")));
            }
            if set != 0 {
                canon.handles.rep_raw(SET, set)?;
            }
            canon.tasks.join(handle, set);
            Ok(())
        },
    )?;
    linker.func_wrap(
        CANON,
        "waitable-set.poll",
        |mut guest: FlatCaller<'_>, set: u32, ret: u32| {
            let (memory, state) = parts(&mut guest)?;
            state.canon.handles.rep_raw(SET, set)?;
            let event = state.canon.tasks.take_event(set);
            let (event, handle, value) = event.unwrap_or((EventCode::None, 0, 0));
            store(memory, ret, (handle, value))?;
            Ok(event as u32)
        },
    )?;
    // All calls of the instance wait meanwhile.
    linker.func_wrap_async(
        CANON,
        "waitable-set.wait",
        |mut guest: FlatCaller<'_>, (set, ret): (u32, u32)| {
            Box::new(async move {
                guest.data().canon.handles.rep_raw(SET, set)?;
                let event = poll_fn(|cx| {
                    let (memory, state) = parts(&mut guest)?;
                    advance_all(memory, state, cx)?;
                    let event = state.canon.tasks.take_event(set);
                    event
                        .map_or(Poll::Pending, |event| Poll::Ready(Ok::<_, wasmtime::Error>(event)))
                });
                let (event, handle, value) = event.await?;
                let (memory, _) = parts(&mut guest)?;
                store(memory, ret, (handle, value))?;
                Ok(event as u32)
            })
        },
    )?;
    Ok(())
}

fn add_subtasks(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(CANON, "subtask.cancel", |mut guest: FlatCaller<'_>, handle: u32| {
        let canon = &mut guest.data_mut().canon;
        let at = canon.handles.rep_raw(TIMER, handle)?;
        canon.tasks.cancel_timer(at, handle)
    })?;
    linker.func_wrap(CANON, "subtask.drop", |mut guest: FlatCaller<'_>, handle: u32| {
        let canon = &mut guest.data_mut().canon;
        let at = canon.handles.rep_raw(TIMER, handle)?;
        canon.tasks.drop_timer(at, handle)?;
        canon.handles.take_raw(TIMER, handle).map(drop)
    })?;
    Ok(())
}

/// The two handles of a new stream or future: the readable end in the lower half, the writable end
/// in the upper.
fn ends(read: u32, write: u32) -> i64 {
    i64::from(write) << 32 | i64::from(read)
}

fn add_streams(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(CANON, "stream.new", |mut guest: FlatCaller<'_>| {
        let canon = &mut guest.data_mut().canon;
        let stream = Stream { writer: StreamWriter::Gone, reader: StreamReader::Gone };
        let at = canon.tasks.streams.insert(stream);
        let read = canon.handles.put_raw(STREAM_READ, at)?;
        let write = canon.handles.put_raw(STREAM_WRITE, at)?;
        let stream = canon.tasks.streams.get(at)?;
        stream.writer = StreamWriter::Guest(GuestEnd::new(write));
        stream.reader = StreamReader::Guest(GuestEnd::new(read));
        Ok(ends(read, write))
    })?;
    for (name, kind, is_read) in [("read", STREAM_READ, true), ("write", STREAM_WRITE, false)] {
        linker.func_wrap(
            CANON,
            &format!("stream.{name}"),
            move |mut guest: FlatCaller<'_>, handle: u32, ptr: u32, len: u32| {
                let (memory, state) = parts(&mut guest)?;
                let at = state.canon.handles.rep_raw(kind, handle)?;
                stream_copy(memory, state, (at, is_read), (ptr, len))
            },
        )?;
        linker.func_wrap(
            CANON,
            &format!("stream.cancel-{name}"),
            move |mut guest: FlatCaller<'_>, handle: u32| {
                let canon = &mut guest.data_mut().canon;
                let at = canon.handles.rep_raw(kind, handle)?;
                canon.tasks.streams.get(at)?.end(is_read)?.buffer = None;
                Ok(canon.tasks.take_pending_event(handle).unwrap_or(CopyResult::Cancelled.with(0)))
            },
        )?;
    }
    linker.func_wrap(CANON, "stream.drop-readable", |mut guest: FlatCaller<'_>, handle: u32| {
        let (memory, state) = parts(&mut guest)?;
        let at = state.canon.handles.take_raw(STREAM_READ, handle)?;
        state.canon.tasks.clear_waitable(handle);
        drop_stream_reader(memory, state, at)
    })?;
    linker.func_wrap(CANON, "stream.drop-writable", |mut guest: FlatCaller<'_>, handle: u32| {
        let (memory, state) = parts(&mut guest)?;
        let at = state.canon.handles.take_raw(STREAM_WRITE, handle)?;
        state.canon.tasks.clear_waitable(handle);
        let stream = state.canon.tasks.streams.get(at)?;
        stream.writer = StreamWriter::Gone;
        match &stream.reader {
            StreamReader::Response(sender) => {
                sender.close();
                drop(state.canon.tasks.streams.remove(at));
                Ok(())
            }
            StreamReader::Gone => {
                drop(state.canon.tasks.streams.remove(at));
                Ok(())
            }
            _ => advance_stream(memory, &mut state.canon.tasks, at),
        }
    })?;
    Ok(())
}

/// Drops the readable end of a stream.
pub fn drop_stream_reader(memory: &mut [u8], state: &mut ComponentState, at: u32) -> Result<()> {
    let stream = state.canon.tasks.streams.get(at)?;
    stream.reader = StreamReader::Gone;
    match std::mem::replace(&mut stream.writer, StreamWriter::Gone) {
        StreamWriter::Guest(end) => {
            stream.writer = StreamWriter::Guest(end);
            advance_stream(memory, &mut state.canon.tasks, at)
        }
        StreamWriter::Request(mut request_body) => {
            drop(state.canon.tasks.streams.remove(at));
            if let Some(trailers) = request_body.take_trailers() {
                state.canon.tasks.resolve(trailers, FutureValue::Trailers(Ok(None)));
            }
            Ok(())
        }
        StreamWriter::Gone => {
            drop(state.canon.tasks.streams.remove(at));
            Ok(())
        }
    }
}

fn add_futures(linker: &mut Linker<ComponentState>, of: &str, read: u8, write: u8) -> Result<()> {
    linker.func_wrap(CANON, &format!("future.new {of}"), move |mut guest: FlatCaller<'_>| {
        let canon = &mut guest.data_mut().canon;
        let future = ComponentFuture { writer: FutureWriter::Gone, reader: FutureReader::Gone };
        let at = canon.tasks.futures.insert(future);
        let (reader, writer) =
            (canon.handles.put_raw(read, at)?, canon.handles.put_raw(write, at)?);
        let future = canon.tasks.futures.get(at)?;
        future.writer = FutureWriter::Guest(GuestEnd::new(writer));
        future.reader = FutureReader::Guest(GuestEnd::new(reader));
        Ok(ends(reader, writer))
    })?;
    for (name, kind, is_read) in [("read", read, true), ("write", write, false)] {
        linker.func_wrap(
            CANON,
            &format!("future.{name} {of}"),
            move |mut guest: FlatCaller<'_>, handle: u32, ptr: u32| {
                let (memory, state) = parts(&mut guest)?;
                let at = state.canon.handles.rep_raw(kind, handle)?;
                future_copy(memory, state, (at, is_read), ptr)
            },
        )?;
        linker.func_wrap(
            CANON,
            &format!("future.cancel-{name} {of}"),
            move |mut guest: FlatCaller<'_>, handle: u32| {
                let canon = &mut guest.data_mut().canon;
                let at = canon.handles.rep_raw(kind, handle)?;
                let future = canon.tasks.futures.get(at)?;
                match (is_read, &mut future.writer, &mut future.reader) {
                    (true, _, FutureReader::Guest(end)) | (false, FutureWriter::Guest(end), _) => {
                        end.buffer = None;
                    }
                    _ => {}
                }
                Ok(canon.tasks.take_pending_event(handle).unwrap_or(CopyResult::Cancelled.with(0)))
            },
        )?;
    }
    let name = format!("future.drop-readable {of}");
    linker.func_wrap(CANON, &name, move |mut guest: FlatCaller<'_>, handle: u32| {
        let (memory, state) = parts(&mut guest)?;
        let at = state.canon.handles.take_raw(read, handle)?;
        state.canon.tasks.clear_waitable(handle);
        drop_future_reader(memory, state, at)
    })?;
    let name = format!("future.drop-writable {of}");
    linker.func_wrap(CANON, &name, move |mut guest: FlatCaller<'_>, handle: u32| {
        let canon = &mut guest.data_mut().canon;
        let at = canon.handles.take_raw(write, handle)?;
        canon.tasks.clear_waitable(handle);
        let future = canon.tasks.futures.get(at)?;
        if matches!(future.writer, FutureWriter::Guest(_))
            && !matches!(future.reader, FutureReader::Gone)
        {
            return Err(misuse("a future is dropped that was not given a value"));
        }
        future.writer = FutureWriter::Gone;
        if matches!(future.reader, FutureReader::Gone | FutureReader::Ignored) {
            drop(canon.tasks.futures.remove(at));
        }
        Ok(())
    })?;
    Ok(())
}

/// Drops the readable end of a future.
pub fn drop_future_reader(memory: &mut [u8], state: &mut ComponentState, at: u32) -> Result<()> {
    let future = state.canon.tasks.futures.get(at)?;
    future.reader = FutureReader::Gone;
    match future.writer {
        FutureWriter::Guest(_) => advance_future(memory, state, at)?,
        // The host resolves it later, and removes it then.
        FutureWriter::Host => {}
        _ => drop(state.canon.tasks.futures.remove(at)),
    }
    Ok(())
}
