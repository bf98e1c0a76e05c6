//! One connection's socket, with its writes collected.
//!
//! Owns the bytes that hyper has written and the socket has not taken, and what is known of the
//! connection's life. hyper's flushes are held back until its future returns: then one system call
//! carries every answer that is ready, and none waits for a slow one behind it. When that call is
//! made is decided by `post`. Of HTTP it knows the one line that may go ahead of an answer.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;

use super::exchange::{CONTINUE, Exchange};
use super::socket::Socket;

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
    socket: RefCell<TokioIo<Socket>>,
    held: RefCell<Held>,
    spares: Rc<Spares>,
    task: RefCell<Option<Waker>>,
    /// A write has failed: nothing more can be sent.
    pub broken: Cell<bool>,
    /// Whether a byte has ever come.
    pub begun: Cell<bool>,
    /// The last request.
    pub exchange: Exchange,
    /// hyper has bytes that were not taken from it.
    is_clogged: Cell<bool>,
    /// Closing it resets it, whatever has been sent.
    resets: Cell<bool>,
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
    /// Asked to close as soon as it is idle.
    pub closing: Cell<bool>,
    /// Asked to close now, whatever it does.
    pub doomed: Cell<bool>,
    /// Everything has been sent, and what still comes is dropped, since this tick.
    pub lingers_since: Cell<Option<u32>>,
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
    pub fn new(socket: Socket, spares: Rc<Spares>, clock: Rc<Cell<u32>>) -> Rc<Self> {
        Rc::new(Wire {
            socket: RefCell::new(TokioIo::new(socket)),
            held: RefCell::default(),
            spares,
            task: RefCell::new(None),
            broken: Cell::new(false),
            begun: Cell::new(false),
            exchange: Exchange::default(),
            is_clogged: Cell::new(false),
            resets: Cell::new(false),
            blocked_since: Cell::new(None),
            blocked_bytes: Cell::new(0),
            is_stuck: Cell::new(false),
            posted: Cell::new(false),
            parking: Cell::new(false),
            partial_since: Cell::new(None),
            closing: Cell::new(false),
            doomed: Cell::new(false),
            lingers_since: Cell::new(None),
            moved_at: Cell::new(clock.get()),
            clock,
        })
    }

    /// A request's head is complete.
    pub fn begin_request(&self) {
        self.partial_since.set(None);
    }

    /// The tick of the worker's coarse clock.
    pub fn now(&self) -> u32 {
        self.clock.get()
    }

    /// Has a body that comes too slowly given up; so long ago was the last look.
    pub fn look_at_body(&self, since_last: Duration, stall_max: Duration) {
        self.exchange.look_at_body(since_last, stall_max, || self.has_input());
    }

    /// A request's response is made.
    pub fn end_request(&self) {
        self.exchange.in_flight.set(false);
        self.moved_at.set(self.clock.get());
    }

    /// A response that was passed on as it came is over. The time of a head that has begun to come
    /// begins now.
    pub fn end_stream(&self) {
        let now = self.clock.get();
        self.exchange.streams.set(false);
        self.moved_at.set(now);
        if self.partial_since.get().is_some() {
            self.partial_since.set(Some(now));
        }
    }

    /// Has the socket reset where it is closed, even by the end of the process, or not any more.
    pub fn reset_on_close(&self, resets: bool) {
        if self.resets.replace(resets) == resets {
            return;
        }
        self.socket.borrow().inner().reset_on_close(resets);
    }

    /// Sends `100 Continue` ahead of what hyper writes next. Whether that is possible: hyper may
    /// have more to write of an earlier answer.
    pub fn send_continue(&self) -> bool {
        let is_possible = !self.is_clogged.get() && !self.broken.get();
        if is_possible {
            self.held.borrow_mut().bytes.extend_from_slice(CONTINUE);
        }
        is_possible
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
        let at_rest = self.begun.get() && self.exchange.is_over();
        let nothing_comes = self.partial_since.get().is_none();
        let nothing_goes = self.blocked_since.get().is_none()
            && self.held.borrow().bytes.is_empty()
            && !self.broken.get();
        at_rest && nothing_comes && nothing_goes
    }

    /// Waits until the client sends something, or has gone.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.borrow().inner().poll_read_ready(cx)
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
        self.socket.borrow().inner().has_input()
    }

    /// Whether the client has closed its side, whatever it had sent before. If not, the task is
    /// woken when it does.
    pub fn poll_left(&self, cx: &mut Context<'_>) -> bool {
        self.poll_readable(cx).is_ready() && self.is_left()
    }

    /// The same of now.
    pub fn is_left(&self) -> bool {
        self.socket.borrow().inner().is_read_closed()
    }

    /// Whether the client has let go of the connection: it refuses what is sent.
    pub fn is_reset(&self) -> bool {
        self.socket.borrow().inner().is_write_closed()
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
        let mut socket = self.socket.borrow_mut();
        while held.sent < held.bytes.len() {
            let socket = Pin::new(socket.inner_mut());
            let written = socket.poll_write(cx, &held.bytes[held.sent..]);
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
        if slices.first().is_some_and(|first| self.exchange.is_told_twice(first)) {
            return Poll::Ready(Ok(CONTINUE.len()));
        }
        let taken = self.take(cx, slices);
        self.is_clogged.set(taken.is_pending());
        taken
    }

    fn take(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if offered >= DIRECT_BYTES_MIN || self.held.borrow().bytes.len() >= HELD_BYTES_MAX {
            ready!(self.flush(cx))?;
            let mut socket = self.socket.borrow_mut();
            let written = Pin::new(socket.inner_mut()).poll_write_vectored(cx, slices);
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
        let before = *bytes_max;
        let discarded = self.socket.borrow_mut().inner_mut().poll_discard(cx, bytes_max);
        if *bytes_max < before {
            self.moved_at.set(self.clock.get());
        }
        discarded
    }

    /// Sends what is held, and says that there is no more.
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.flush(cx))?;
        Pin::new(self.socket.borrow_mut().inner_mut()).poll_shutdown(cx)
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
            let mut socket = wire.socket.borrow_mut();
            ready!(Pin::new(&mut *socket).poll_read(cx, buffer))
        } else {
            buffer.put_slice(&before.split_to(before.len().min(buffer.remaining())));
            Ok(())
        };
        let now = wire.clock.get();
        let is_between = !wire.exchange.in_flight.get() && !wire.exchange.is_body_open();
        if is_between && wire.partial_since.get().is_none() {
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
        // Held back: `Wire::flush` runs whenever the connection's future returns. hyper has written
        // everything before.
        self.wire.is_clogged.set(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_finish(cx)
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
