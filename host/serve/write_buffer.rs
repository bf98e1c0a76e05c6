//! The write buffer of one connection: bytes that hyper has written and the socket has not taken.
//!
//! Owns when bytes are buffered and when they go to the socket at once. With the buffer, all ready
//! answers of a connection go out in one system call. Knows no HTTP and no time.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// How many bytes are buffered before writes wait for the socket.
const BUFFERED_BYTES_MAX: usize = 256 * 1024;
/// A write of at least this size goes to the socket at once: copying it would cost more than the
/// system call.
const DIRECT_BYTES_MIN: usize = 16 * 1024;
/// A buffer that has grown beyond this is freed and not recycled.
const RECYCLED_BYTES_MAX: usize = 64 * 1024;

/// Free buffers of one worker. Connections take one to write, so an idle connection holds none.
pub type BufferFreeList = RefCell<Vec<Vec<u8>>>;
const FREE_BUFFERS_MAX: usize = 16;

/// The unsent bytes of one connection.
pub struct WriteBuffer {
    held: RefCell<UnsentBytes>,
    free_list: Rc<BufferFreeList>,
    /// How many bytes the socket has taken so far.
    sent_bytes: Cell<u64>,
    /// A write has failed: nothing more can be sent.
    is_broken: Cell<bool>,
    /// The last write was pending, so hyper still has bytes that must come next.
    is_full: Cell<bool>,
    /// Whether the connection is in the worker's flush queue.
    pub is_queued: Cell<bool>,
}

#[derive(Default)]
struct UnsentBytes {
    bytes: Vec<u8>,
    /// How many of them the socket has taken.
    sent: usize,
}

impl WriteBuffer {
    /// An empty buffer, which takes its memory from `free_list`.
    pub fn new(free_list: Rc<BufferFreeList>) -> Self {
        WriteBuffer {
            held: RefCell::default(),
            free_list,
            sent_bytes: Cell::new(0),
            is_broken: Cell::new(false),
            is_full: Cell::new(false),
            is_queued: Cell::new(false),
        }
    }

    /// How many bytes the socket has taken so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    /// Whether a write has failed, so that nothing more can be sent.
    pub fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// Whether there are no unsent bytes.
    pub fn is_empty(&self) -> bool {
        self.held.borrow().bytes.is_empty()
    }

    /// Whether there are unsent bytes, and the socket has taken none of them yet.
    pub fn is_untouched(&self) -> bool {
        let held = self.held.borrow();
        !held.bytes.is_empty() && held.sent == 0
    }

    /// Inserts bytes before whatever hyper writes next. Returns `false` if that is not possible,
    /// because hyper is in the middle of a write or the socket is broken.
    pub fn insert(&self, bytes: &[u8]) -> bool {
        let is_possible = !self.is_full.get() && !self.is_broken.get();
        if is_possible {
            self.held.borrow_mut().bytes.extend_from_slice(bytes);
        }
        is_possible
    }

    /// Notes that hyper has no unwritten bytes left.
    pub fn note_all_written(&self) {
        self.is_full.set(false);
    }

    /// Takes what hyper writes. Pending only if too much is buffered and the socket blocks.
    pub fn write(
        &self,
        socket: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_broken.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = self.take(socket, cx, slices);
        self.is_full.set(taken.is_pending());
        taken
    }

    fn take(
        &self,
        socket: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if offered >= DIRECT_BYTES_MIN || self.held.borrow().bytes.len() >= BUFFERED_BYTES_MAX {
            ready!(self.flush(socket, cx))?;
            let sent = ready!(Pin::new(socket).poll_write_vectored(cx, slices))?;
            self.note_sent(sent);
            return Poll::Ready(Ok(sent));
        }
        let mut held = self.held.borrow_mut();
        if held.bytes.capacity() == 0 {
            held.bytes = self.free_list.borrow_mut().pop().unwrap_or_default();
        }
        for slice in slices {
            held.bytes.extend_from_slice(slice);
        }
        Poll::Ready(Ok(offered))
    }

    /// Sends the unsent bytes, as far as the socket takes them. The task is woken for the rest.
    pub fn flush(
        &self,
        socket: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut held = self.held.borrow_mut();
        if held.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while held.sent < held.bytes.len() {
            match ready!(Pin::new(&mut *socket).poll_write(cx, &held.bytes[held.sent..])) {
                Ok(0) => return self.fail(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    held.sent += sent;
                    self.note_sent(sent);
                }
                Err(error) => return self.fail(error),
            }
        }
        held.sent = 0;
        self.recycle(std::mem::take(&mut held.bytes));
        Poll::Ready(Ok(()))
    }

    fn note_sent(&self, bytes: usize) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
    }

    fn fail(&self, error: io::Error) -> Poll<io::Result<()>> {
        self.is_broken.set(true);
        Poll::Ready(Err(error))
    }

    fn recycle(&self, mut bytes: Vec<u8>) {
        let mut spares = self.free_list.borrow_mut();
        if spares.len() < FREE_BUFFERS_MAX && bytes.capacity() <= RECYCLED_BYTES_MAX {
            bytes.clear();
            spares.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests;
