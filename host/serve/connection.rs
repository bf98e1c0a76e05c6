//! One connection to a client, shared by its driver, its requests, the reaper and the drain.
//!
//! Owns the socket and the order of reads and writes on it. The write buffer holds unsent bytes,
//! the lifecycle holds timestamps and flags, and the exchanges hold the requests. The only part of
//! HTTP it knows is the `100 Continue` that may go ahead of an answer.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;

use super::exchanges::{CONTINUE, Exchanges};
use super::lifecycle::Lifecycle;
use super::socket::Socket;
use super::worker_clients::ClientShares;
use super::write_buffer::{BufferFreeList, WriteBuffer};
use crate::guest::engine::budget::Budget;
use crate::guest::services::header_charge::HeaderCharge;
use crate::message::Origin;
use crate::message::fields::FIELDS_FEW;

/// A connection, from accept to close.
pub struct Connection {
    socket: RefCell<TokioIo<Socket>>,
    /// Bytes that are not sent yet.
    pub output: WriteBuffer,
    /// Timestamps and flags for the reaper and the drain.
    pub life: Lifecycle,
    /// The requests of this connection.
    pub exchanges: Exchanges,
    /// The client's address and scheme, the same for all requests.
    pub origin: Origin,
    /// The client's share of the worker.
    pub client: Rc<ClientShares>,
    /// Charges an answer's header fields to its guest while hyper keeps their map.
    field_charge: Cell<Option<Box<HeaderCharge>>>,
    /// Whether closing the socket sends a TCP reset.
    resets: Cell<bool>,
}

impl Connection {
    /// A connection without requests. `clock` is the worker's coarse clock.
    pub fn new(
        socket: Socket,
        (origin, client): (Origin, Rc<ClientShares>),
        buffers: Rc<BufferFreeList>,
        clock: Rc<Cell<u32>>,
    ) -> Rc<Self> {
        Rc::new(Connection {
            socket: RefCell::new(TokioIo::new(socket)),
            output: WriteBuffer::new(buffers),
            life: Lifecycle::new(clock),
            exchanges: Exchanges::default(),
            origin,
            client,
            field_charge: Cell::new(None),
            resets: Cell::new(false),
        })
    }

    /// Gives up request bodies that arrive too slowly. `since_last` is the time since the last
    /// check.
    pub fn check_bodies(&self, since_last: Duration, stall_max: Duration) {
        self.exchanges.check_bodies(since_last, stall_max, || self.has_input());
    }

    /// Charges the header and trailer fields of an answer, if they are many, to the guest's memory.
    /// hyper keeps the emptied map and reuses it for the fields of the next request.
    pub fn charge_fields(&self, count: usize, memory: impl FnOnce() -> Budget) {
        let held = || Box::new(HeaderCharge::of_fields(&memory(), count));
        self.field_charge.set((count > FIELDS_FEW).then(held));
    }

    /// Takes the charge of [`Connection::charge_fields`] back, because hyper no longer has the map.
    pub fn take_field_charge(&self) -> Option<Box<HeaderCharge>> {
        self.field_charge.take()
    }

    /// Sets whether closing the socket sends a TCP reset, even at the end of the process.
    pub fn reset_on_close(&self, resets: bool) {
        if self.resets.replace(resets) != resets {
            self.socket.borrow().inner().reset_on_close(resets);
        }
    }

    /// Sends `100 Continue` before whatever hyper writes next. Returns `false` if hyper may still
    /// be writing an earlier answer, so that nothing can go in between.
    pub fn send_continue(&self) -> bool {
        self.output.insert(CONTINUE)
    }

    /// Whether the connection is idle and hyper has no state that it would need later.
    pub fn can_park(&self) -> bool {
        let is_over = self.exchanges.are_answered() && !self.exchanges.has_unread_body();
        let at_rest = self.life.begun.get() && is_over;
        let nothing_comes = self.life.partial_since.get().is_none();
        let nothing_goes =
            self.life.blocked().is_none() && self.output.is_empty() && !self.output.is_broken();
        at_rest && nothing_comes && nothing_goes
    }

    /// Ready once the client has sent something or has closed its side.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.borrow().inner().poll_read_ready(cx)
    }

    /// Whether the client has sent something that has not been read.
    pub fn has_input(&self) -> bool {
        self.socket.borrow().inner().has_input()
    }

    /// Whether the client has closed its side, even if earlier bytes are still unread. If not, the
    /// task is woken when the client closes it.
    pub fn poll_half_closed(&self, cx: &mut Context<'_>) -> bool {
        self.poll_readable(cx).is_ready() && self.is_half_closed()
    }

    /// Like [`Connection::poll_half_closed`], without waking the task.
    pub fn is_half_closed(&self) -> bool {
        self.socket.borrow().inner().is_read_closed()
    }

    /// Whether the client has reset the connection, so that nothing can be sent.
    pub fn is_reset(&self) -> bool {
        self.socket.borrow().inner().is_write_closed()
    }

    /// Whether there are new bytes to send and the socket is not blocked by earlier ones.
    pub fn can_send(&self) -> bool {
        self.output.is_untouched() && self.life.blocked().is_none()
    }

    /// Sends the buffered bytes from outside the connection's task. The task is woken to send the
    /// rest, or to see that the socket is broken.
    pub fn send(&self) {
        let Some(task) = self.life.task() else { return };
        self.life.begin_poll();
        let flushed = self.flush(&mut Context::from_waker(&task));
        self.life.end_poll();
        if matches!(flushed, Poll::Ready(Err(_))) {
            task.wake();
        }
    }

    /// Sends the buffered bytes, as far as the socket takes them. The task is woken for the rest.
    pub fn flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.noting_write(|socket| self.output.flush(socket, cx))
    }

    /// Takes the bytes that hyper writes.
    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let is_repeated = |first: &IoSlice<'_>| self.exchanges.is_repeated_continue(first);
        if !self.output.is_broken() && slices.first().is_some_and(is_repeated) {
            return Poll::Ready(Ok(CONTINUE.len()));
        }
        self.noting_write(|socket| self.output.write(socket, cx, slices))
    }

    /// Runs a write and notes in the lifecycle how much it sent and whether it blocked.
    fn noting_write<T>(&self, write: impl FnOnce(&mut Socket) -> Poll<T>) -> Poll<T> {
        let before = self.output.sent_bytes();
        let polled = write(self.socket.borrow_mut().inner_mut());
        self.life.note_write(self.output.sent_bytes() - before, polled.is_pending());
        polled
    }

    /// Reads into hyper's buffer.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut *self.socket.borrow_mut()).poll_read(cx, buffer));
        self.note_read();
        Poll::Ready(read)
    }

    /// Notes that hyper has read something.
    pub fn note_read(&self) {
        let exchanges = &self.exchanges;
        let is_between = !exchanges.is_any_in_flight() && !exchanges.is_body_open();
        self.life.note_read(is_between);
    }

    /// Reads and drops what the client still sends, at most `bytes_max` bytes, from which it
    /// subtracts. Ready when the client has closed its side or the limit is reached.
    pub fn poll_discard(&self, cx: &mut Context<'_>, bytes_max: &mut usize) -> Poll<()> {
        let before = *bytes_max;
        let discarded = self.socket.borrow_mut().inner_mut().poll_discard(cx, bytes_max);
        if *bytes_max < before {
            self.life.note_activity();
        }
        discarded
    }

    /// Sends the buffered bytes, then shuts the sending side down.
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.flush(cx))?;
        Pin::new(self.socket.borrow_mut().inner_mut()).poll_shutdown(cx)
    }
}
