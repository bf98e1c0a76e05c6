//! wasi:io for flat components: errors, pollables and streams.

use guesthouse_module::interfaces::wasi02::{IO_ERROR, IO_POLL, IO_STREAMS};
use wasmtime::Linker;
use wasmtime_wasi_io::bindings::wasi::io::error::{self, HostError as _};
use wasmtime_wasi_io::bindings::wasi::io::poll::{self, Host as _, HostPollable as _};
use wasmtime_wasi_io::bindings::wasi::io::streams::{
    self, Host as _, HostInputStream as _, HostOutputStream as _, StreamError as Shown,
};
use wasmtime_wasi_io::poll::DynPollable;
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream, Error, StreamError};

use super::abi::{FlatCaller, OwnHandle, at_once, give, give_all, parts};
use super::handle_table::ResourceKind;
use super::lower::{At, Layout, List, Lower};
use super::memory::{Result, aligned, list, range};
use crate::guest::component::limits::HANDLES_MAX;
use crate::guest::component::state::ComponentState;
use crate::guest::engine::fault::misuse;

impl ResourceKind for Error {
    const KIND: u8 = 0;
}
impl ResourceKind for DynPollable {
    const KIND: u8 = 1;
}
impl ResourceKind for DynInputStream {
    const KIND: u8 = 2;
}
impl ResourceKind for DynOutputStream {
    const KIND: u8 = 3;
}

const ERROR: &str = IO_ERROR.module;
const POLL: &str = IO_POLL.module;
const STREAMS: &str = IO_STREAMS.module;

pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(ERROR, "[resource-drop]error", |mut guest: FlatCaller<'_>, this: u32| {
        let state = guest.data_mut();
        let error = state.canon.handles.take::<Error>(this)?;
        error::HostError::drop(&mut state.table, error)
    })?;
    linker.func_wrap(
        ERROR,
        "[method]error.to-debug-string",
        |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
            let state = guest.data_mut();
            let error = state.canon.handles.get(this)?;
            let text = state.table.to_debug_string(error)?;
            give_all(&mut guest, ret, text)
        },
    )?;
    add_poll(linker)?;
    add_input(linker)?;
    add_output(linker)?;
    add_flushes(linker)?;
    add_subscriptions(linker)?;
    add_splice(linker)
}

fn add_poll(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(POLL, "[resource-drop]pollable", |mut guest: FlatCaller<'_>, this: u32| {
        let state = guest.data_mut();
        let pollable = state.canon.handles.take::<DynPollable>(this)?;
        poll::HostPollable::drop(&mut state.table, pollable)
    })?;
    linker.func_wrap(POLL, "[method]pollable.ready", |mut guest: FlatCaller<'_>, this: u32| {
        let state = guest.data_mut();
        let pollable = state.canon.handles.get::<DynPollable>(this)?;
        at_once(state.table.ready(pollable)).map(u32::from)
    })?;
    linker.func_wrap_async(
        POLL,
        "[method]pollable.block",
        |mut guest: FlatCaller<'_>, (this,): (u32,)| {
            Box::new(async move {
                let state = guest.data_mut();
                let pollable = state.canon.handles.get::<DynPollable>(this)?;
                state.table.block(pollable).await
            })
        },
    )?;
    linker.func_wrap_async(
        POLL,
        "poll",
        |mut guest: FlatCaller<'_>, (ptr, len, ret): (u32, u32, u32)| {
            Box::new(async move {
                if std::mem::replace(&mut guest.data_mut().canon.has_polled, true) {
                    // It may wait for something that this thread has to do, such as sending to a
                    // client.
                    tokio::task::yield_now().await;
                }
                let (memory, state) = parts(&mut guest)?;
                aligned(ptr, 4)?;
                if len as usize > HANDLES_MAX {
                    return Err(misuse(format!("poll: {len} are too many to wait for")));
                }
                let handles = range(memory, ptr, len.saturating_mul(4))?.chunks_exact(4);
                let handles = handles.map(|it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]));
                let pollables = handles.map(|handle| state.canon.handles.get(handle));
                let pollables = pollables.collect::<Result<Vec<_>>>()?;
                let ready = state.table.poll(pollables).await?;
                give_all(&mut guest, ret, List(ready))
            })
        },
    )?;
    Ok(())
}

/// A stream's error as the guest gets it.
pub enum FlatStreamError {
    Last(OwnHandle<Error>),
    Closed,
}

impl Lower for FlatStreamError {
    const SIZE: usize = 8;
    const ALIGN: usize = 4;
    fn lower(self, out: &mut Layout, at: At) {
        match self {
            FlatStreamError::Last(error) => error.lower(out, at.plus(4)),
            FlatStreamError::Closed => out.put(at, &[1]),
        }
    }
}

fn stream_result<T>(
    state: &mut ComponentState,
    result: std::result::Result<T, StreamError>,
) -> Result<std::result::Result<T, FlatStreamError>> {
    Ok(match result {
        Ok(value) => Ok(value),
        Err(StreamError::Closed) => Err(FlatStreamError::Closed),
        Err(error) => Err(match state.table.convert_stream_error(error)? {
            Shown::LastOperationFailed(error) => {
                FlatStreamError::Last(OwnHandle::new(state, error)?)
            }
            Shown::Closed => FlatStreamError::Closed,
        }),
    })
}

/// Returns the result of a stream operation for which the guest need not allocate.
fn give_stream_result<T: Lower>(
    guest: &mut FlatCaller<'_>,
    ret: u32,
    result: std::result::Result<T, StreamError>,
) -> Result<()> {
    let result = stream_result(guest.data_mut(), result)?;
    give(guest, ret, result)
}

fn add_input(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(
        STREAMS,
        "[resource-drop]input-stream",
        |mut guest: FlatCaller<'_>, this: u32| {
            let state = guest.data_mut();
            let stream = state.canon.handles.take::<DynInputStream>(this)?;
            at_once(streams::HostInputStream::drop(&mut state.table, stream))
        },
    )?;
    linker.func_wrap(
        STREAMS,
        "[method]input-stream.read",
        |mut guest: FlatCaller<'_>, this: u32, len: u64, ret: u32| {
            let state = guest.data_mut();
            state.canon.has_polled = false;
            let stream = state.canon.handles.get::<DynInputStream>(this)?;
            let read = state.table.read(stream, len);
            let read = stream_result(state, read)?;
            give_all(&mut guest, ret, read)
        },
    )?;
    linker.func_wrap_async(
        STREAMS,
        "[method]input-stream.blocking-read",
        |mut guest: FlatCaller<'_>, (this, len, ret): (u32, u64, u32)| {
            Box::new(async move {
                let state = guest.data_mut();
                let stream = state.canon.handles.get::<DynInputStream>(this)?;
                let read = state.table.blocking_read(stream, len).await;
                let read = stream_result(state, read)?;
                give_all(&mut guest, ret, read)
            })
        },
    )?;
    linker.func_wrap(
        STREAMS,
        "[method]input-stream.skip",
        |mut guest: FlatCaller<'_>, this: u32, len: u64, ret: u32| {
            let state = guest.data_mut();
            let stream = state.canon.handles.get::<DynInputStream>(this)?;
            let done = state.table.skip(stream, len);
            give_stream_result(&mut guest, ret, done)
        },
    )?;
    linker.func_wrap_async(
        STREAMS,
        "[method]input-stream.blocking-skip",
        |mut guest: FlatCaller<'_>, (this, len, ret): (u32, u64, u32)| {
            Box::new(async move {
                let state = guest.data_mut();
                let stream = state.canon.handles.get::<DynInputStream>(this)?;
                let done = state.table.blocking_skip(stream, len).await;
                give_stream_result(&mut guest, ret, done)
            })
        },
    )?;
    Ok(())
}

fn add_output(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(
        STREAMS,
        "[resource-drop]output-stream",
        |mut guest: FlatCaller<'_>, this: u32| {
            let state = guest.data_mut();
            let stream = state.canon.handles.take::<DynOutputStream>(this)?;
            at_once(streams::HostOutputStream::drop(&mut state.table, stream))
        },
    )?;
    linker.func_wrap(
        STREAMS,
        "[method]output-stream.check-write",
        |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
            let state = guest.data_mut();
            let stream = state.canon.handles.get::<DynOutputStream>(this)?;
            let room = state.table.check_write(stream);
            give_stream_result(&mut guest, ret, room)
        },
    )?;
    linker.func_wrap(
        STREAMS,
        "[method]output-stream.write",
        |mut guest: FlatCaller<'_>, this: u32, ptr: u32, len: u32, ret: u32| {
            let (memory, state) = parts(&mut guest)?;
            state.canon.has_polled = false;
            let stream = state.canon.handles.get::<DynOutputStream>(this)?;
            let written = state.table.write(stream, list(memory, ptr, len)?);
            give_stream_result(&mut guest, ret, written)
        },
    )?;
    linker.func_wrap_async(
        STREAMS,
        "[method]output-stream.blocking-write-and-flush",
        |mut guest: FlatCaller<'_>, (this, ptr, len, ret): (u32, u32, u32, u32)| {
            Box::new(async move {
                let (memory, state) = parts(&mut guest)?;
                let stream = state.canon.handles.get::<DynOutputStream>(this)?;
                let bytes = list(memory, ptr, len)?;
                let written = state.table.blocking_write_and_flush(stream, bytes).await;
                give_stream_result(&mut guest, ret, written)
            })
        },
    )?;
    Ok(())
}

fn add_flushes(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(
        STREAMS,
        "[method]output-stream.flush",
        |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
            let state = guest.data_mut();
            let stream = state.canon.handles.get::<DynOutputStream>(this)?;
            let done = state.table.flush(stream);
            give_stream_result(&mut guest, ret, done)
        },
    )?;
    linker.func_wrap_async(
        STREAMS,
        "[method]output-stream.blocking-flush",
        |mut guest: FlatCaller<'_>, (this, ret): (u32, u32)| {
            Box::new(async move {
                let state = guest.data_mut();
                let stream = state.canon.handles.get::<DynOutputStream>(this)?;
                let done = state.table.blocking_flush(stream).await;
                give_stream_result(&mut guest, ret, done)
            })
        },
    )?;
    linker.func_wrap(
        STREAMS,
        "[method]output-stream.write-zeroes",
        |mut guest: FlatCaller<'_>, this: u32, len: u64, ret: u32| {
            let state = guest.data_mut();
            let stream = state.canon.handles.get::<DynOutputStream>(this)?;
            let done = state.table.write_zeroes(stream, len);
            give_stream_result(&mut guest, ret, done)
        },
    )?;
    linker.func_wrap_async(
        STREAMS,
        "[method]output-stream.blocking-write-zeroes-and-flush",
        |mut guest: FlatCaller<'_>, (this, len, ret): (u32, u64, u32)| {
            Box::new(async move {
                let state = guest.data_mut();
                let stream = state.canon.handles.get::<DynOutputStream>(this)?;
                let done = state.table.blocking_write_zeroes_and_flush(stream, len).await;
                give_stream_result(&mut guest, ret, done)
            })
        },
    )?;
    Ok(())
}

fn add_subscriptions(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(
        STREAMS,
        "[method]input-stream.subscribe",
        |mut guest: FlatCaller<'_>, this: u32| {
            let state = guest.data_mut();
            let stream = state.canon.handles.get::<DynInputStream>(this)?;
            let pollable = streams::HostInputStream::subscribe(&mut state.table, stream)?;
            state.give(pollable)
        },
    )?;
    linker.func_wrap(
        STREAMS,
        "[method]output-stream.subscribe",
        |mut guest: FlatCaller<'_>, this: u32| {
            let state = guest.data_mut();
            let stream = state.canon.handles.get::<DynOutputStream>(this)?;
            let pollable = streams::HostOutputStream::subscribe(&mut state.table, stream)?;
            state.give(pollable)
        },
    )?;
    Ok(())
}

fn add_splice(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(
        STREAMS,
        "[method]output-stream.splice",
        |mut guest: FlatCaller<'_>, this: u32, from: u32, len: u64, ret: u32| {
            let state = guest.data_mut();
            let to = state.canon.handles.get::<DynOutputStream>(this)?;
            let from = state.canon.handles.get::<DynInputStream>(from)?;
            let spliced = state.table.splice(to, from, len);
            give_stream_result(&mut guest, ret, spliced)
        },
    )?;
    linker.func_wrap_async(
        STREAMS,
        "[method]output-stream.blocking-splice",
        |mut guest: FlatCaller<'_>, (this, from, len, ret): (u32, u32, u64, u32)| {
            Box::new(async move {
                let state = guest.data_mut();
                let to = state.canon.handles.get::<DynOutputStream>(this)?;
                let from = state.canon.handles.get::<DynInputStream>(from)?;
                let spliced = state.table.blocking_splice(to, from, len).await;
                give_stream_result(&mut guest, ret, spliced)
            })
        },
    )?;
    Ok(())
}
