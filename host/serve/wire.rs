//! One connection's socket, with its writes collected.
//!
//! Owns the bytes that hyper has written and the socket has not taken, and what is known of the
//! connection's life. hyper's flushes are held back until its future returns: then one system call
//! carries every answer that is ready, and none waits for a slow one behind it. When that call is
//! made is decided by `post`. Knows no HTTP.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::arrival::Progress;

/// Bytes that are held back at the most; more waits for the socket.
const HELD_BYTES_MAX: usize = 256 * 1024;
/// A write of this size goes to the socket at once: copying would cost more than the call.
const DIRECT_BYTES_MIN: usize = 16 * 1024;
/// A buffer that has grown beyond this is not kept for the next connection.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// Empty buffers of one worker, so that an idle connection holds none.
pub type Spares = RefCell<Vec<Vec<u8>>>;
const SPARES_MAX: usize = 16;

/// The socket as its connection, the reaper and the drain share it.
pub struct Wire {
    stream: RefCell<TokioIo<TcpStream>>,
    held: RefCell<Held>,
    spares: Rc<Spares>,
    task: RefCell<Option<Waker>>,
    /// A write has failed: nothing more can be sent.
    pub broken: Cell<bool>,
    /// Whether a byte has ever come.
    pub begun: Cell<bool>,
    /// The body of the last request, where it had one.
    body: RefCell<Option<Arc<Progress>>>,
    /// The last answer is passed on as it comes.
    pub streams: Cell<bool>,
    /// Since when the socket does not take what there is to send, and how much it has taken since.
    blocked_since: Cell<Option<u32>>,
    blocked_bytes: Cell<u64>,
    /// It did not at the last try.
    is_stuck: Cell<bool>,
    /// What is held is about to be sent with what other connections hold.
    pub posted: Cell<bool>,
    /// Asked to give hyper's state back as long as it is idle.
    pub parking: Cell<bool>,
    /// Bytes have arrived that belong to no request yet, the first of them in this tick of the
    /// worker's coarse clock.
    pub partial_since: Cell<Option<u32>>,
    /// Requests whose answer is not made yet.
    pub in_flight: Cell<bool>,
    /// Asked to close as soon as it is idle.
    pub closing: Cell<bool>,
    /// Asked to close now, whatever it does.
    pub doomed: Cell<bool>,
    /// The request's body was not read to its end, so the client may still be sending.
    pub unread: Cell<bool>,
    /// When bytes last moved, in the worker's coarse ticks.
    pub moved_at: Cell<u32>,
    clock: Rc<Cell<u32>>,
}

#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// How many of them have gone out.
    sent: usize,
}

impl Wire {
    /// `clock` is the worker's coarse clock.
    pub fn new(stream: TcpStream, spares: Rc<Spares>, clock: Rc<Cell<u32>>) -> Rc<Self> {
        Rc::new(Wire {
            stream: RefCell::new(TokioIo::new(stream)),
            held: RefCell::default(),
            spares,
            task: RefCell::new(None),
            broken: Cell::new(false),
            begun: Cell::new(false),
            body: RefCell::default(),
            streams: Cell::new(false),
            blocked_since: Cell::new(None),
            blocked_bytes: Cell::new(0),
            is_stuck: Cell::new(false),
            posted: Cell::new(false),
            parking: Cell::new(false),
            partial_since: Cell::new(None),
            in_flight: Cell::new(false),
            closing: Cell::new(false),
            doomed: Cell::new(false),
            unread: Cell::new(false),
            moved_at: Cell::new(clock.get()),
            clock,
        })
    }

    /// A request's head is complete.
    pub fn begin_request(&self) {
        self.partial_since.set(None);
        self.in_flight.set(true);
        self.body.take();
    }

    /// Says that the request has a body.
    pub fn expect_body(&self, body: Arc<Progress>) {
        self.body.replace(Some(body));
    }

    /// Has a body that comes too slowly given up; `ticks` is how long the last look was ago.
    pub fn look_at_body(&self, ticks: u32, stall_max: Duration) {
        if let Some(body) = &*self.body.borrow() {
            body.look(self.clock.get(), ticks, stall_max);
        }
    }

    /// Whether the body of the last request is still coming and somebody has it, which may be so
    /// behind its response's head.
    pub fn has_body(&self) -> bool {
        let is_coming = |body: &Arc<Progress>| !body.has_ended() && Arc::strong_count(body) > 1;
        self.body.borrow().as_ref().is_some_and(is_coming)
    }

    /// A request's response is made.
    pub fn end_request(&self) {
        self.in_flight.set(false);
        self.moved_at.set(self.clock.get());
    }

    /// Remembers the task that drives this connection.
    pub fn attach(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        if task.is_none() {
            *task = Some(waker.clone());
        }
    }

    /// Has the connection's task look at `closing` and `doomed`.
    pub fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Whether bytes wait that the socket does not take: since when, and how many it has taken
    /// since.
    pub fn blocked(&self) -> Option<(u32, u64)> {
        self.blocked_since.get().map(|since| (since, self.blocked_bytes.get()))
    }

    /// To be called before hyper is polled and what it wrote is sent, and [`Wire::end_round`]
    /// behind that.
    pub fn begin_round(&self) {
        self.is_stuck.set(false);
    }

    pub fn end_round(&self) {
        if !self.is_stuck.get() {
            self.blocked_since.set(None);
            self.blocked_bytes.set(0);
        } else if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(self.clock.get()));
        }
    }

    /// Whether nothing is under way, and hyper has no state that would be missed.
    pub fn is_quiet(&self) -> bool {
        let at_rest = self.begun.get() && !self.in_flight.get() && !self.streams.get();
        let nothing_comes = self.partial_since.get().is_none()
            && self.body.borrow().as_ref().is_none_or(|body| body.has_ended());
        let nothing_goes = self.blocked_since.get().is_none()
            && self.held.borrow().bytes.is_empty()
            && !self.broken.get();
        at_rest && nothing_comes && nothing_goes && !self.unread.get()
    }

    /// Waits until the client sends something, or has gone.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.borrow().inner().poll_read_ready(cx).map(|_| ())
    }

    /// Takes what the socket said about a write.
    fn note_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.is_stuck.set(true),
            Poll::Ready(Ok(sent)) => {
                self.moved_at.set(self.clock.get());
                self.blocked_bytes.set(self.blocked_bytes.get() + *sent as u64);
            }
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    /// Whether the client has sent something that has not been read.
    pub fn has_input(&self) -> bool {
        self.peek().is_some_and(|count| count > 0)
    }

    /// Whether the client has closed its side, and all that it had sent before has been read.
    pub fn is_left(&self) -> bool {
        self.peek() == Some(0)
    }

    /// How many bytes can be read, at most one; none if there is nothing to say.
    fn peek(&self) -> Option<usize> {
        use rustix::net::{RecvFlags, recv};
        let stream = self.stream.borrow();
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(stream.inner(), &mut [0_u8; 1][..], flags).ok().map(|(count, _)| count)
    }

    /// Whether there is something to send, and the socket has taken all before.
    pub fn can_send(&self) -> bool {
        let held = self.held.borrow();
        !held.bytes.is_empty() && held.sent == 0 && self.blocked_since.get().is_none()
    }

    /// Sends what is held from outside of the connection's task, which is woken for the rest, or
    /// to see that the socket is broken.
    pub fn send(&self) {
        let Some(task) = self.task.borrow().clone() else { return };
        self.begin_round();
        let flushed = self.flush(&mut Context::from_waker(&task));
        self.end_round();
        if matches!(flushed, Poll::Ready(Err(_))) {
            task.wake();
        }
    }

    /// Sends what is held, as far as the socket takes it. The task is woken for the rest.
    pub fn flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.held.borrow_mut();
        if held.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut stream = self.stream.borrow_mut();
        while held.sent < held.bytes.len() {
            let stream = Pin::new(stream.inner_mut());
            let written = stream.poll_write(cx, &held.bytes[held.sent..]);
            match ready!(self.note_write(written)) {
                Ok(0) => return self.fail(io::ErrorKind::WriteZero.into()),
                Ok(sent) => held.sent += sent,
                Err(error) => return self.fail(error),
            }
        }
        held.sent = 0;
        self.put_spare(std::mem::take(&mut held.bytes));
        Poll::Ready(Ok(()))
    }

    fn fail(&self, error: io::Error) -> Poll<io::Result<()>> {
        self.broken.set(true);
        Poll::Ready(Err(error))
    }

    fn put_spare(&self, mut bytes: Vec<u8>) {
        let mut spares = self.spares.borrow_mut();
        if spares.len() < SPARES_MAX && bytes.capacity() <= SPARE_BYTES_MAX {
            bytes.clear();
            spares.push(bytes);
        }
    }

    /// Takes bytes to hold. Pending only while too many are held.
    fn hold(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.broken.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if offered >= DIRECT_BYTES_MIN || self.held.borrow().bytes.len() >= HELD_BYTES_MAX {
            ready!(self.flush(cx))?;
            let mut stream = self.stream.borrow_mut();
            let written = Pin::new(stream.inner_mut()).poll_write_vectored(cx, slices);
            return self.note_write(written);
        }
        let mut held = self.held.borrow_mut();
        if held.bytes.capacity() == 0 {
            held.bytes = self.spares.borrow_mut().pop().unwrap_or_default();
        }
        for slice in slices {
            held.bytes.extend_from_slice(slice);
        }
        Poll::Ready(Ok(offered))
    }

    /// Reads and drops what the client still sends, at most `bytes_max`. Ready at its end.
    pub fn poll_discard(&self, cx: &mut Context<'_>, bytes_max: &mut usize) -> Poll<()> {
        let mut scratch = [0_u8; 4096];
        while *bytes_max > 0 {
            let mut buffer = tokio::io::ReadBuf::new(&mut scratch);
            let mut stream = self.stream.borrow_mut();
            let stream = Pin::new(stream.inner_mut());
            match ready!(tokio::io::AsyncRead::poll_read(stream, cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    *bytes_max = bytes_max.saturating_sub(buffer.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

/// hyper's end of the wire, with bytes that were read before and come first.
pub struct WireEnd {
    pub wire: Rc<Wire>,
    pub before: Bytes,
}

impl Read for WireEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let WireEnd { wire, before } = self.get_mut();
        let read = if before.is_empty() {
            let mut stream = wire.stream.borrow_mut();
            ready!(Pin::new(&mut *stream).poll_read(cx, buffer))
        } else {
            buffer.put_slice(&before.split_to(before.len().min(buffer.remaining())));
            Ok(())
        };
        let now = wire.clock.get();
        if !wire.in_flight.get() && wire.partial_since.get().is_none() && !wire.has_body() {
            wire.partial_since.set(Some(now));
        }
        wire.begun.set(true);
        wire.moved_at.set(now);
        Poll::Ready(read)
    }
}

impl Write for WireEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wire.hold(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Held back: `Wire::flush` runs whenever the connection's future returns.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.wire.flush(cx))?;
        Pin::new(self.wire.stream.borrow_mut().inner_mut()).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.hold(cx, slices)
    }
}
