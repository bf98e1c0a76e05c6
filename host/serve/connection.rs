//! One connection to a client, as its driver, its requests, the reaper and the drain share it.
//!
//! Owns its socket and the order of reads and writes on it; what waits to be sent is in its write
//! buffer, how far it has come in its lifecycle, and what it serves in its exchanges. Of HTTP it
//! knows the one line that may go ahead of an answer.

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
    pub output: WriteBuffer,
    pub life: Lifecycle,
    pub exchanges: Exchanges,
    /// How its requests come.
    pub origin: Origin,
    /// What its client has of the worker.
    pub client: Rc<ClientShares>,
    /// What is charged for the fields of an answer, whose map hyper keeps.
    field_charge: Cell<Option<Box<HeaderCharge>>>,
    /// Closing it resets it, whatever has been sent.
    resets: Cell<bool>,
}

impl Connection {
    /// `client` is what its client has of the worker, `clock` the worker's coarse clock.
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

    /// Has bodies that come too slowly given up; so long ago was the last look.
    pub fn check_bodies(&self, since_last: Duration, stall_max: Duration) {
        self.exchanges.check_bodies(since_last, stall_max, || self.has_input());
    }

    /// Has the fields of an answer's head and trailers count, if they are many, as what the guest
    /// has that they are of. hyper keeps the map, empty, and puts the fields of the next request
    /// into it.
    pub fn charge_fields(&self, count: usize, memory: impl FnOnce() -> Budget) {
        let held = || Box::new(HeaderCharge::of_fields(&memory(), count));
        self.field_charge.set((count > FIELDS_FEW).then(held));
    }

    /// Says that hyper does not have that map any more: what is charged for it, if it was large.
    pub fn take_field_charge(&self) -> Option<Box<HeaderCharge>> {
        self.field_charge.take()
    }

    /// Has the socket reset where it is closed, even by the end of the process, or not any more.
    pub fn reset_on_close(&self, resets: bool) {
        if self.resets.replace(resets) != resets {
            self.socket.borrow().inner().reset_on_close(resets);
        }
    }

    /// Sends `100 Continue` ahead of what hyper writes next. Whether that is possible: hyper may
    /// have more to write of an earlier answer.
    pub fn send_continue(&self) -> bool {
        self.output.insert(CONTINUE)
    }

    /// Whether nothing is under way, and hyper has no state that would be missed.
    pub fn can_park(&self) -> bool {
        let is_over = self.exchanges.are_answered() && !self.exchanges.has_unread_body();
        let at_rest = self.life.begun.get() && is_over;
        let nothing_comes = self.life.partial_since.get().is_none();
        let nothing_goes =
            self.life.blocked().is_none() && self.output.is_empty() && !self.output.is_broken();
        at_rest && nothing_comes && nothing_goes
    }

    /// Waits until the client sends something, or has gone.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.borrow().inner().poll_read_ready(cx)
    }

    /// Whether the client has sent something that has not been read.
    pub fn has_input(&self) -> bool {
        self.socket.borrow().inner().has_input()
    }

    /// Whether the client has closed its side, whatever it had sent before. If not, the task is
    /// woken when it does.
    pub fn poll_half_closed(&self, cx: &mut Context<'_>) -> bool {
        self.poll_readable(cx).is_ready() && self.is_half_closed()
    }

    /// The same of now.
    pub fn is_half_closed(&self) -> bool {
        self.socket.borrow().inner().is_read_closed()
    }

    /// Whether the client has let go of the connection: it refuses what is sent.
    pub fn is_reset(&self) -> bool {
        self.socket.borrow().inner().is_write_closed()
    }

    /// Whether there is something to send, and the socket has taken all before.
    pub fn can_send(&self) -> bool {
        self.output.is_untouched() && self.life.blocked().is_none()
    }

    /// Sends what is held from outside of the connection's task, which is woken for the rest, or
    /// to see that the socket is broken.
    pub fn send(&self) {
        let Some(task) = self.life.task() else { return };
        self.life.begin_poll();
        let flushed = self.flush(&mut Context::from_waker(&task));
        self.life.end_poll();
        if matches!(flushed, Poll::Ready(Err(_))) {
            task.wake();
        }
    }

    /// Sends what is held, as far as the socket takes it. The task is woken for the rest.
    pub fn flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.noting_write(|socket| self.output.flush(socket, cx))
    }

    /// Takes what hyper writes.
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

    /// Takes note of what a write does.
    fn noting_write<T>(&self, write: impl FnOnce(&mut Socket) -> Poll<T>) -> Poll<T> {
        let before = self.output.sent_bytes();
        let polled = write(self.socket.borrow_mut().inner_mut());
        self.life.note_write(self.output.sent_bytes() - before, polled.is_pending());
        polled
    }

    /// Reads for hyper.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut *self.socket.borrow_mut()).poll_read(cx, buffer));
        self.note_read();
        Poll::Ready(read)
    }

    /// Says that hyper has read something.
    pub fn note_read(&self) {
        let exchanges = &self.exchanges;
        let is_between = !exchanges.is_any_in_flight() && !exchanges.is_body_open();
        self.life.note_read(is_between);
    }

    /// Reads and drops what the client still sends, at most `bytes_max`. Ready at its end.
    pub fn poll_discard(&self, cx: &mut Context<'_>, bytes_max: &mut usize) -> Poll<()> {
        let before = *bytes_max;
        let discarded = self.socket.borrow_mut().inner_mut().poll_discard(cx, bytes_max);
        if *bytes_max < before {
            self.life.note_activity();
        }
        discarded
    }

    /// Sends what is held, and says that there is no more.
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.flush(cx))?;
        Pin::new(self.socket.borrow_mut().inner_mut()).poll_shutdown(cx)
    }
}
