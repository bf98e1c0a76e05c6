//! How much the host holds of a body that a guest of wasi:http 0.2 writes.
//!
//! A guest may write before anybody reads: the body of a response that it has not set yet, or of a
//! request that it has not sent. Until the first read the host holds up to `--response-max` or
//! `--body-max` of it, so that the guest does not get stuck. After that it holds only a few writes,
//! so that a guest waits for a slow reader. Owns this bound, and charges what is held to the host's
//! memory. The queue itself is wasmtime's.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use wasmtime_wasi_http::{Error, WasiBody};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{DynOutputStream, OutputStream, StreamError};

use super::limits::CHUNK_BYTES_MAX;
use crate::grants::Limits;
use crate::guest::engine::allocator::FreedNotice;
use crate::guest::engine::budget::Purpose;
use crate::guest::engine::fault::Fault;
use crate::guest::engine::fault::misuse;
use crate::guest::engine::guest_info::GuestInfo;

/// Writes that may wait once the body is being read. With one, the guest and its worker would wait
/// for each other at every write.
const WRITES_MAX: usize = 4;
/// What a write takes beside its bytes: its entry in the queue and the allocator's overhead.
const WRITE_BYTES: usize = 128;
/// Memory is charged in steps of this. Most bodies are smaller, and free of charge.
const CHARGE_BYTES: usize = 64 << 10;

/// Bodies that the guest has made but not opened a stream to, by the numbers of their resources.
#[derive(Default)]
pub struct UnopenedBodies {
    windows: Vec<(u32, Arc<Window>)>,
    /// Bytes charged for all bodies of the store, opened or not.
    charged: Arc<AtomicUsize>,
}

/// The state of one body that its two ends share.
struct Window {
    info: Arc<GuestInfo>,
    charged_of_store: Arc<AtomicUsize>,
    /// Bytes that are held at most before anybody reads.
    held_max: usize,
    state: Mutex<WindowState>,
}

#[derive(Default)]
struct WindowState {
    /// Bytes of the writes that wait, with their overhead.
    bytes: usize,
    writes: usize,
    charged: usize,
    /// Whether somebody has begun to read.
    is_read: bool,
    /// Whether the reading end was dropped.
    is_dropped: bool,
    /// Wakes the guest that waits for capacity.
    writer: Option<Waker>,
}

/// How many writes may wait in the queue of one body.
pub fn writes_max(limits: &Limits) -> usize {
    request_bytes_max(limits).max(response_bytes_max(limits)) / WRITE_BYTES + WRITES_MAX
}

/// Bytes of a response's body that are held before anybody reads it.
pub fn response_bytes_max(limits: &Limits) -> usize {
    limits.response_bytes_max.max(least_bytes())
}

/// Bytes of a request's body that are held before anybody reads it.
pub fn request_bytes_max(limits: &Limits) -> usize {
    usize::try_from(limits.buffered_bytes_max()).unwrap_or(usize::MAX).max(least_bytes())
}

/// What is held of a body that is being read.
const fn least_bytes() -> usize {
    WRITES_MAX * (CHUNK_BYTES_MAX + WRITE_BYTES)
}

impl UnopenedBodies {
    /// Bounds a new body, of which `held_max` bytes are held until somebody reads. Returns the end
    /// to read from, in the place of `queue`.
    pub fn bound(
        &mut self,
        info: &Arc<GuestInfo>,
        body: u32,
        held_max: fn(&Limits) -> usize,
        queue: Option<WasiBody>,
    ) -> Option<WasiBody> {
        let window = self.window(info, held_max);
        self.put(body, window.clone());
        queue.map(|queue| BodyReader::new(queue, window).boxed_unsync())
    }

    /// The stream to write a body with.
    ///
    /// # Errors
    /// The body was not made through [`UnopenedBodies::bound`].
    pub fn open(
        &mut self,
        body: u32,
        queue: Box<dyn OutputStream>,
    ) -> wasmtime::Result<DynOutputStream> {
        let window = self.take(body);
        let window = window.ok_or_else(|| wasmtime::format_err!("a body without a window"))?;
        Ok(Box::new(BodyWriter { queue, window, permitted: 0 }))
    }

    fn window(&self, info: &Arc<GuestInfo>, held_max: fn(&Limits) -> usize) -> Arc<Window> {
        let held_max = held_max(&info.grants.limits);
        let (info, charged_of_store) = (info.clone(), self.charged.clone());
        Arc::new(Window { info, charged_of_store, held_max, state: Mutex::default() })
    }

    /// Bytes charged for all bodies of the store.
    pub fn charged(&self) -> usize {
        self.charged.load(Ordering::Relaxed)
    }

    fn put(&mut self, body: u32, window: Arc<Window>) {
        // An earlier body with this number may never have been opened.
        match self.windows.iter_mut().find(|(rep, _)| *rep == body) {
            Some((_, place)) => *place = window,
            None => self.windows.push((body, window)),
        }
    }

    fn take(&mut self, body: u32) -> Option<Arc<Window>> {
        let place = self.windows.iter().position(|(rep, _)| *rep == body)?;
        Some(self.windows.swap_remove(place).1)
    }

    /// Forgets all bodies.
    pub fn clear(&mut self) {
        self.windows.clear();
    }
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that the next write may have.
    fn capacity(&self, held: &WindowState) -> usize {
        let left = if held.is_read {
            if held.writes < WRITES_MAX { CHUNK_BYTES_MAX } else { 0 }
        } else {
            self.held_max.saturating_sub(held.bytes + WRITE_BYTES)
        };
        left.min(CHUNK_BYTES_MAX)
    }

    /// Counts a write, for which `permitted` bytes were promised.
    ///
    /// # Errors
    /// It is larger than that, or there is no memory: the guest is to be stopped.
    fn put(&self, bytes: usize, permitted: usize) -> wasmtime::Result<()> {
        let mut held = self.lock();
        if bytes > self.capacity(&held).max(permitted) {
            return Err(misuse("it writes more to a body than there is room for"));
        }
        let more = held.bytes + bytes + WRITE_BYTES;
        let charged = more / CHARGE_BYTES * CHARGE_BYTES;
        if charged > held.charged {
            let more = charged - held.charged;
            let taken = self.info.memory.try_charge(more, Purpose::Growth);
            taken.map_err(|reject| wasmtime::Error::new(Fault::Reject(reject)))?;
            self.charged_of_store.fetch_add(more, Ordering::Relaxed);
            held.charged = charged;
        }
        held.bytes = more;
        held.writes += 1;
        Ok(())
    }

    /// Counts a write that has been read.
    fn take(&self, bytes: usize) {
        let mut held = self.lock();
        held.bytes = held.bytes.saturating_sub(bytes + WRITE_BYTES);
        held.writes = held.writes.saturating_sub(1);
        // In large steps: reading while the guest writes costs no update of the shared counter.
        let charged = held.bytes / CHARGE_BYTES * CHARGE_BYTES;
        if held.charged > charged && (charged == 0 || held.charged > charged + least_bytes()) {
            self.give(held.charged - charged);
            held.charged = charged;
        }
        held.wake();
    }

    fn give(&self, bytes: usize) {
        self.info.memory.uncharge(bytes);
        self.charged_of_store.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl WindowState {
    fn wake(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// Returns the charge when both ends are gone.
impl Drop for Window {
    fn drop(&mut self) {
        let charged = self.lock().charged;
        if charged > 0 {
            self.give(charged);
            drop(FreedNotice(charged));
        }
    }
}

/// The end that the guest writes to.
struct BodyWriter {
    queue: Box<dyn OutputStream>,
    window: Arc<Window>,
    /// What the last `check_write` has promised. The promise holds even if the first read has
    /// lowered the capacity since.
    permitted: usize,
}

#[async_trait]
impl OutputStream for BodyWriter {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let permitted = std::mem::take(&mut self.permitted);
        self.window.put(bytes.len(), permitted).map_err(StreamError::Trap)?;
        self.queue.write(bytes)
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        self.queue.flush()
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        let most = self.queue.check_write()?;
        self.permitted = most.min(self.window.capacity(&self.window.lock()));
        Ok(self.permitted)
    }
}

#[async_trait]
impl Pollable for BodyWriter {
    async fn ready(&mut self) {
        let window = &self.window;
        std::future::poll_fn(|cx| {
            let mut held = window.lock();
            if held.is_dropped || window.capacity(&held) > 0 {
                return Poll::Ready(());
            }
            held.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.queue.ready().await;
    }
}

/// The end that is read: by a client, or by the server that a guest's request goes to.
struct BodyReader {
    /// Dropped first, so that a guest which is woken finds it closed.
    queue: WasiBody,
    end: CloseOnDrop,
}

/// Tells the writer that nobody reads any more.
struct CloseOnDrop(Arc<Window>);

impl BodyReader {
    fn new(queue: WasiBody, window: Arc<Window>) -> Self {
        BodyReader { queue, end: CloseOnDrop(window) }
    }
}

impl Body for BodyReader {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.queue).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.end.0.lock().is_read = true;
                if let Some(data) = frame.data_ref() {
                    self.end.0.take(data.len());
                }
            }
            Poll::Ready(_) => {}
            Poll::Pending => self.end.0.lock().is_read = true,
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.queue.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.queue.size_hint()
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let mut held = self.0.lock();
        held.is_dropped = true;
        held.wake();
    }
}

#[cfg(test)]
mod tests;
