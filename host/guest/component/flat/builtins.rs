//! The component model's own functions: tasks, sets, streams and futures.

use std::future::poll_fn;
use std::task::Poll;

use guesthouse_module::interfaces::BUILTINS;
use wasmtime::Linker;

use super::abi::{Guest, parts};
use super::ends::{Copying, Giver, Promise, Reader, Stream, Taker, Value, Writer};
use super::lower::store;
use super::memory::Result;
use super::pipe::{copy, go_on, look, meet, pass};
use super::tasks::{
    Copied, Event, SENT_READ, SENT_WRITE, SET, STREAM_READ, STREAM_WRITE, TIMER, TRAILERS_READ,
    TRAILERS_WRITE,
};
use crate::guest::component::state::State;
use crate::guest::engine::fault::misuse;

/// The module under which they are imported.
pub const CANON: &str = BUILTINS.module;

pub fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    add_tasks(linker)?;
    add_sets(linker)?;
    add_subtasks(linker)?;
    add_streams(linker)?;
    add_futures(linker, "sent", SENT_READ, SENT_WRITE)?;
    add_futures(linker, "trailers", TRAILERS_READ, TRAILERS_WRITE)
}

fn add_tasks(linker: &mut Linker<State>) -> Result<()> {
    for slot in 0..2 {
        let name = format!("context.get {slot}");
        linker.func_wrap(CANON, &name, move |mut guest: Guest<'_>| {
            Ok(guest.data_mut().canon.tasks.call()?.context[slot])
        })?;
        let name = format!("context.set {slot}");
        linker.func_wrap(CANON, &name, move |mut guest: Guest<'_>, value: u32| {
            guest.data_mut().canon.tasks.call()?.context[slot] = value;
            Ok(())
        })?;
    }
    linker.func_wrap(CANON, "task.cancel", |_: Guest<'_>| {
        Err::<(), _>(misuse("it ends as cancelled a call that was not"))
    })?;
    linker.func_wrap(CANON, "backpressure.inc", |mut guest: Guest<'_>| {
        let count = &mut guest.data_mut().canon.tasks.backpressure;
        *count = count.saturating_add(1);
    })?;
    linker.func_wrap(CANON, "backpressure.dec", |mut guest: Guest<'_>| {
        let count = &mut guest.data_mut().canon.tasks.backpressure;
        *count = count.saturating_sub(1);
    })?;
    Ok(())
}

fn add_sets(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(CANON, "waitable-set.new", |mut guest: Guest<'_>| {
        guest.data_mut().canon.handles.put_raw(SET, 0)
    })?;
    linker.func_wrap(CANON, "waitable-set.drop", |mut guest: Guest<'_>, set: u32| {
        let canon = &mut guest.data_mut().canon;
        if canon.tasks.is_in_use(set) {
            return Err(misuse("a set is dropped that something is in"));
        }
        canon.handles.take_raw(SET, set).map(drop)
    })?;
    linker.func_wrap(CANON, "waitable.join", |mut guest: Guest<'_>, handle: u32, set: u32| {
        let canon = &mut guest.data_mut().canon;
        if canon.handles.kind(handle)? <= SET {
            return Err(misuse(format!("handle {handle} cannot be waited for")));
        }
        if set != 0 {
            canon.handles.rep_raw(SET, set)?;
        }
        canon.tasks.join(handle, set);
        Ok(())
    })?;
    linker.func_wrap(CANON, "waitable-set.poll", |mut guest: Guest<'_>, set: u32, ret: u32| {
        let (memory, state) = parts(&mut guest)?;
        state.canon.handles.rep_raw(SET, set)?;
        let event = state.canon.tasks.take_event(set);
        let (event, handle, value) = event.unwrap_or((Event::None, 0, 0));
        store(memory, ret, (handle, value))?;
        Ok(event as u32)
    })?;
    // The other calls of the guest wait, too.
    linker.func_wrap_async(
        CANON,
        "waitable-set.wait",
        |mut guest: Guest<'_>, (set, ret): (u32, u32)| {
            Box::new(async move {
                guest.data().canon.handles.rep_raw(SET, set)?;
                let event = poll_fn(|cx| {
                    let (memory, state) = parts(&mut guest)?;
                    look(memory, state, cx)?;
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

fn add_subtasks(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(CANON, "subtask.cancel", |mut guest: Guest<'_>, handle: u32| {
        let canon = &mut guest.data_mut().canon;
        let at = canon.handles.rep_raw(TIMER, handle)?;
        canon.tasks.stop(at, handle)
    })?;
    linker.func_wrap(CANON, "subtask.drop", |mut guest: Guest<'_>, handle: u32| {
        let canon = &mut guest.data_mut().canon;
        let at = canon.handles.rep_raw(TIMER, handle)?;
        canon.tasks.drop_timer(at, handle)?;
        canon.handles.take_raw(TIMER, handle).map(drop)
    })?;
    Ok(())
}

/// The two handles of something new: to read from in the lower half, to write to in the upper.
fn ends(read: u32, write: u32) -> i64 {
    i64::from(write) << 32 | i64::from(read)
}

fn add_streams(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(CANON, "stream.new", |mut guest: Guest<'_>| {
        let canon = &mut guest.data_mut().canon;
        let stream = Stream { writer: Writer::Gone, reader: Reader::Gone };
        let at = canon.tasks.streams.insert(stream);
        let read = canon.handles.put_raw(STREAM_READ, at)?;
        let write = canon.handles.put_raw(STREAM_WRITE, at)?;
        let stream = canon.tasks.streams.get(at)?;
        stream.writer = Writer::Guest(Copying::new(write));
        stream.reader = Reader::Guest(Copying::new(read));
        Ok(ends(read, write))
    })?;
    for (name, kind, is_read) in [("read", STREAM_READ, true), ("write", STREAM_WRITE, false)] {
        linker.func_wrap(
            CANON,
            &format!("stream.{name}"),
            move |mut guest: Guest<'_>, handle: u32, ptr: u32, len: u32| {
                let (memory, state) = parts(&mut guest)?;
                let at = state.canon.handles.rep_raw(kind, handle)?;
                copy(memory, state, (at, is_read), (ptr, len))
            },
        )?;
        linker.func_wrap(
            CANON,
            &format!("stream.cancel-{name}"),
            move |mut guest: Guest<'_>, handle: u32| {
                let canon = &mut guest.data_mut().canon;
                let at = canon.handles.rep_raw(kind, handle)?;
                canon.tasks.streams.get(at)?.end(is_read)?.buffer = None;
                Ok(canon.tasks.take_note(handle).unwrap_or(Copied::Cancelled.with(0)))
            },
        )?;
    }
    linker.func_wrap(CANON, "stream.drop-readable", |mut guest: Guest<'_>, handle: u32| {
        let (memory, state) = parts(&mut guest)?;
        let at = state.canon.handles.take_raw(STREAM_READ, handle)?;
        state.canon.tasks.forget(handle);
        drop_reader(memory, state, at)
    })?;
    linker.func_wrap(CANON, "stream.drop-writable", |mut guest: Guest<'_>, handle: u32| {
        let (memory, state) = parts(&mut guest)?;
        let at = state.canon.handles.take_raw(STREAM_WRITE, handle)?;
        state.canon.tasks.forget(handle);
        let stream = state.canon.tasks.streams.get(at)?;
        stream.writer = Writer::Gone;
        match &stream.reader {
            Reader::Response(outlet) => {
                outlet.close();
                drop(state.canon.tasks.streams.remove(at));
                Ok(())
            }
            Reader::Gone => {
                drop(state.canon.tasks.streams.remove(at));
                Ok(())
            }
            _ => go_on(memory, &mut state.canon.tasks, at),
        }
    })?;
    Ok(())
}

/// Says that nobody reads a stream any more.
pub fn drop_reader(memory: &mut [u8], state: &mut State, at: u32) -> Result<()> {
    let stream = state.canon.tasks.streams.get(at)?;
    stream.reader = Reader::Gone;
    match std::mem::replace(&mut stream.writer, Writer::Gone) {
        Writer::Guest(end) => {
            stream.writer = Writer::Guest(end);
            go_on(memory, &mut state.canon.tasks, at)
        }
        Writer::Request(mut inlet) => {
            drop(state.canon.tasks.streams.remove(at));
            if let Some(trailers) = inlet.take_trailers() {
                state.canon.tasks.settle(trailers, Value::Trailers(Ok(None)));
            }
            Ok(())
        }
        Writer::Gone => {
            drop(state.canon.tasks.streams.remove(at));
            Ok(())
        }
    }
}

fn add_futures(linker: &mut Linker<State>, of: &str, read: u8, write: u8) -> Result<()> {
    linker.func_wrap(CANON, &format!("future.new {of}"), move |mut guest: Guest<'_>| {
        let canon = &mut guest.data_mut().canon;
        let promise = Promise { writer: Giver::Gone, reader: Taker::Gone };
        let at = canon.tasks.promises.insert(promise);
        let (reader, writer) =
            (canon.handles.put_raw(read, at)?, canon.handles.put_raw(write, at)?);
        let promise = canon.tasks.promises.get(at)?;
        promise.writer = Giver::Guest(Copying::new(writer));
        promise.reader = Taker::Guest(Copying::new(reader));
        Ok(ends(reader, writer))
    })?;
    for (name, kind, is_read) in [("read", read, true), ("write", write, false)] {
        linker.func_wrap(
            CANON,
            &format!("future.{name} {of}"),
            move |mut guest: Guest<'_>, handle: u32, ptr: u32| {
                let (memory, state) = parts(&mut guest)?;
                let at = state.canon.handles.rep_raw(kind, handle)?;
                pass(memory, state, (at, is_read), ptr)
            },
        )?;
        linker.func_wrap(
            CANON,
            &format!("future.cancel-{name} {of}"),
            move |mut guest: Guest<'_>, handle: u32| {
                let canon = &mut guest.data_mut().canon;
                let at = canon.handles.rep_raw(kind, handle)?;
                let promise = canon.tasks.promises.get(at)?;
                match (is_read, &mut promise.writer, &mut promise.reader) {
                    (true, _, Taker::Guest(end)) | (false, Giver::Guest(end), _) => {
                        end.buffer = None;
                    }
                    _ => {}
                }
                Ok(canon.tasks.take_note(handle).unwrap_or(Copied::Cancelled.with(0)))
            },
        )?;
    }
    let name = format!("future.drop-readable {of}");
    linker.func_wrap(CANON, &name, move |mut guest: Guest<'_>, handle: u32| {
        let (memory, state) = parts(&mut guest)?;
        let at = state.canon.handles.take_raw(read, handle)?;
        state.canon.tasks.forget(handle);
        drop_taker(memory, state, at)
    })?;
    let name = format!("future.drop-writable {of}");
    linker.func_wrap(CANON, &name, move |mut guest: Guest<'_>, handle: u32| {
        let canon = &mut guest.data_mut().canon;
        let at = canon.handles.take_raw(write, handle)?;
        canon.tasks.forget(handle);
        let promise = canon.tasks.promises.get(at)?;
        if matches!(promise.writer, Giver::Guest(_)) && !matches!(promise.reader, Taker::Gone) {
            return Err(misuse("a future is dropped that was not given a value"));
        }
        promise.writer = Giver::Gone;
        if matches!(promise.reader, Taker::Gone | Taker::Ignored) {
            drop(canon.tasks.promises.remove(at));
        }
        Ok(())
    })?;
    Ok(())
}

/// Says that nobody wants a future's value any more.
pub fn drop_taker(memory: &mut [u8], state: &mut State, at: u32) -> Result<()> {
    let promise = state.canon.tasks.promises.get(at)?;
    promise.reader = Taker::Gone;
    match promise.writer {
        Giver::Guest(_) => meet(memory, state, at)?,
        // The host still has it in mind.
        Giver::Host => {}
        _ => drop(state.canon.tasks.promises.remove(at)),
    }
    Ok(())
}
