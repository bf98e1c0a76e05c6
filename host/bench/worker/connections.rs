//! Opens the connections of a worker, opens them again, and gives them up.
//!
//! Owns which requests count as failed when a connection ends.

use std::fmt::Display;

use rustix::event::epoll;

use super::{RETRY_NS, Worker, line};
use crate::connection::{Connection, ConnectionError, InFlight};

impl Worker<'_> {
    /// Closes a connection that has ended, and connects again. The requests in flight have failed.
    pub(super) fn fail_connection(&mut self, index: usize, broken: ConnectionError) {
        let Some(connection) = self.slots[index].connection.take() else { return };
        let failed = connection.in_flight.len();
        let errors = &mut self.tally.errors;
        let (kind, count, failures) = match broken {
            ConnectionError::Read => ("read", &mut errors.read, failed),
            // This is a failure even behind a good answer: a server may not send more than that.
            ConnectionError::Nonsense(_) => ("read", &mut errors.read, failed.max(1)),
            ConnectionError::Write => ("write", &mut errors.write, failed),
        };
        *count += failures as u64;
        if failures > 0 {
            let first = connection.in_flight.front();
            let asked = first.map_or("behind an answer".to_owned(), |it| self.line(it));
            self.tally.examples.note(kind, || format!("{asked}: {broken}"));
        }
        self.in_flight -= failed;
        let now_ns = self.now_ns();
        self.connect(index, now_ns);
    }

    /// The first line of a request, without the version.
    fn line(&self, request: &InFlight) -> String {
        line(&self.job.messages[request.message])
    }

    /// Counts a connection that could not be made. The next try comes after a while.
    pub(super) fn fail_connect(&mut self, index: usize, why: &dyn Display) {
        let address = self.job.address;
        self.tally.examples.note("connect", || format!("no connection to {address}: {why}"));
        self.slots[index].connection = None;
        self.slots[index].retry_ns = self.now_ns() + RETRY_NS;
        self.tally.errors.connect += 1;
    }

    /// Begins to connect, and does not wait.
    pub(super) fn connect(&mut self, index: usize, now_ns: u64) {
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let data = epoll::EventData::new_u64(u64::from(slot.generation) << 32 | index as u64);
        let opened = Connection::open(self.job.address, now_ns, self.job.check.is_some()).and_then(
            |connection| {
                let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
                epoll::add(&self.epoll, connection.fd(), data, flags)?;
                Ok(connection)
            },
        );
        match opened {
            Ok(connection) => slot.connection = Some(connection),
            Err(error) => self.fail_connect(index, &error),
        }
    }

    /// Chooses the events that wake the worker for a connection.
    pub(super) fn watch(&mut self, index: usize, flags: epoll::EventFlags) {
        let slot = &self.slots[index];
        let Some(connection) = slot.connection.as_ref() else { return };
        let data = epoll::EventData::new_u64(u64::from(slot.generation) << 32 | index as u64);
        if epoll::modify(&self.epoll, connection.fd(), data, flags).is_err() {
            self.fail_connection(index, ConnectionError::Read);
        }
    }

    /// Gives up requests and attempts to connect that have timed out. Connects again in slots whose
    /// pause is over.
    pub(super) fn sweep(&mut self) {
        let now_ns = self.now_ns();
        let timeout_ns = self.job.timeout.as_nanos() as u64;
        let is_late = |since_ns: u64| now_ns.saturating_sub(since_ns) >= timeout_ns;
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let Some(connection) = &slot.connection else {
                if now_ns >= slot.retry_ns && now_ns < self.end_ns {
                    self.connect(index, now_ns);
                }
                continue;
            };
            if connection.connecting_since_ns.is_some_and(is_late) {
                self.fail_connect(index, &"not in time");
            } else if connection.in_flight.front().is_some_and(|it| is_late(it.sent_ns)) {
                self.time_out(index);
                self.connect(index, now_ns);
            }
        }
    }

    /// Closes a connection, because the answers to its requests in flight are too late.
    fn time_out(&mut self, index: usize) {
        let Some(connection) = self.slots[index].connection.take() else { return };
        self.tally.errors.timeout += connection.in_flight.len() as u64;
        if let Some(first) = connection.in_flight.front() {
            let (asked, timeout) = (self.line(first), self.job.timeout);
            let examples = &mut self.tally.examples;
            examples.note("timeout", || format!("{asked} had no whole answer in {timeout:?}"));
        }
        self.in_flight -= connection.in_flight.len();
    }

    /// Closes the connections on which answers are missing after the end, and connects again. If
    /// the run was not stopped before its time, those requests have failed.
    pub(super) fn close_in_flight(&mut self) {
        let before = (self.tally.errors, self.tally.examples.clone());
        for index in 0..self.slots.len() {
            let connection = self.slots[index].connection.as_ref();
            if connection.is_some_and(|it| !it.in_flight.is_empty()) {
                self.time_out(index);
                self.connect(index, 0);
            }
        }
        if self.is_stopped() {
            (self.tally.errors, self.tally.examples) = before;
        }
    }
}
