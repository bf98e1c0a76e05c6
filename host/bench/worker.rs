//! One thread of the load generator: one loop over due times and answers.
//!
//! A closed loop is a schedule in which every request is due at once. Latency counts from when a
//! request was due and not from when it was sent. If a server stands still for a second, every
//! request that was due in this second had to wait (Tene, "How not to measure latency"). Owns its
//! connections and one epoll, and shares nothing. Knows no process and no report.

use std::collections::VecDeque;
use std::io;
use std::iter::Peekable;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::thread::ClockId;

use super::body_check::BodyCheck;
use super::connection::{Connection, ConnectionError, InFlight};
use super::load_stats::LoadStats;
use super::request_schedule::{Due, PathSampler, RequestSchedule};
use super::response::{FinishedResponse, HeadCache, is_expected};

mod connections;

/// The most bytes of one read: some hundred small answers, or a part of a large one.
const READ_BYTES: usize = 128 * 1024;
/// The most sockets that are served before timeouts are checked again.
const EVENTS_MAX: usize = 256;
/// The time between two checks for requests that have timed out.
const SWEEP_NS: u64 = 50_000_000;
/// The time between a failed attempt to connect and the next one.
const RETRY_NS: u64 = 10_000_000;
/// Due requests that were not sent are counted in portions of this size, so that a run can be
/// stopped in between.
const COUNTED_AT_ONCE: usize = 1 << 16;

/// The share of a stream that one worker sends.
pub struct Job<'a> {
    /// The server's address.
    pub address: SocketAddr,
    /// The bytes of the requests.
    pub messages: &'a [Vec<u8>],
    /// Draws indexes into `messages`.
    pub draw: PathSampler,
    /// Whether the method is HEAD, so that answers have no bodies.
    pub is_head: bool,
    /// The status that an answer must have. `None` means any below 400.
    pub status: Option<u16>,
    /// How many connections to open.
    pub connections: usize,
    /// How many requests may be in flight on one connection.
    pub pipeline: usize,
    /// How long a connection, and then an answer, may take.
    pub timeout: Duration,
    /// Whether to look for answers without ever going to sleep.
    pub spin: bool,
    /// The bodies that answers may have. `None` means any.
    pub check: Option<&'a BodyCheck>,
    /// Answers with an unexpected status have a latency, too.
    pub times_failures: bool,
    /// Ends the measurement before its time.
    pub stop: &'a AtomicBool,
}

/// A place for a connection.
struct Slot {
    connection: Option<Connection>,
    /// Tells events of this connection from events of an earlier one in this slot.
    generation: u32,
    /// Whether the slot is in `ready`.
    is_ready: bool,
    /// When to connect again if there is no connection.
    retry_ns: u64,
}

/// A thread's connections, which stay open from one measurement to the next.
pub struct Worker<'a> {
    job: Job<'a>,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    /// Slots with room for a request, the longest waiting first.
    ready: VecDeque<usize>,
    memory: HeadCache,
    buffer: Vec<u8>,
    start: Instant,
    in_flight: usize,
    tally: LoadStats,
    /// When the present measurement ends.
    end_ns: u64,
}

impl<'a> Worker<'a> {
    /// Begins to connect, and does not wait.
    ///
    /// # Errors
    /// The kernel gives no epoll.
    pub fn new(job: Job<'a>) -> io::Result<Self> {
        // By default, the kernel may wake a thread 50 microseconds late. If it refuses to do
        // better, requests are sent a little late, and this shows as latency.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let slot = || Slot { connection: None, generation: 0, is_ready: false, retry_ns: 0 };
        let connections = job.connections;
        let mut worker = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slots: (0..connections).map(|_| slot()).collect(),
            ready: VecDeque::with_capacity(connections),
            memory: HeadCache::default(),
            buffer: vec![0; READ_BYTES],
            start: Instant::now(),
            in_flight: 0,
            tally: LoadStats::new(),
            end_ns: 0,
            job,
        };
        for index in 0..connections {
            worker.connect(index, 0);
        }
        Ok(worker)
    }

    /// Waits until every connection is open, but not beyond the timeout. Returns how many are open.
    ///
    /// # Errors
    /// The epoll fails.
    pub fn wait_until_open(&mut self) -> io::Result<usize> {
        let until = self.now_ns() + self.job.timeout.as_nanos() as u64;
        self.end_ns = until;
        while self.open() < self.slots.len() && self.now_ns() < until && !self.is_stopped() {
            self.sweep();
            self.poll(RETRY_NS)?;
        }
        Ok(self.open())
    }

    /// How many connections are open.
    fn open(&self) -> usize {
        let connections = self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        connections.filter(|it| it.connecting_since_ns.is_none()).count()
    }

    /// Sends by `schedule` for `duration`. Then waits for the answers that are missing, but not
    /// beyond the timeout. Returns the counts of this measurement.
    ///
    /// # Errors
    /// The epoll fails.
    pub fn run(&mut self, schedule: RequestSchedule, duration: Duration) -> io::Result<LoadStats> {
        let cpu_before = thread_cpu();
        self.tally = LoadStats::new();
        self.start = Instant::now();
        for slot in &mut self.slots {
            slot.retry_ns = 0;
        }
        self.end_ns = duration.as_nanos() as u64;
        let give_up_ns = self.end_ns + self.job.timeout.as_nanos() as u64;
        let counted = schedule.counted();
        let mut schedule = schedule.peekable();
        let mut sweep_ns = SWEEP_NS;
        loop {
            let now_ns = self.now_ns();
            if self.is_stopped() || now_ns >= give_up_ns {
                break;
            }
            if self.in_flight == 0 && (now_ns >= self.end_ns || schedule.peek().is_none()) {
                break;
            }
            if now_ns >= sweep_ns {
                self.sweep();
                sweep_ns = now_ns + SWEEP_NS;
            }
            self.dispatch(&mut schedule);
            let wait_ns = self.wait_ns(now_ns, &mut schedule).min(sweep_ns - now_ns.min(sweep_ns));
            self.poll(if self.job.spin { 0 } else { wait_ns })?;
        }
        self.close_in_flight();
        let mut tally = std::mem::take(&mut self.tally);
        tally.elapsed = duration.min(self.start.elapsed());
        tally.due = tally.sent;
        if let Some(unsent) = counted.and_then(|all| all.checked_sub(tally.sent))
            && unsent > 0
            && !self.is_stopped()
        {
            tally.due += unsent;
            tally.errors.timeout += unsent;
            tally.examples.note("timeout", || format!("{unsent} paths were not asked for in time"));
            return Ok(tally);
        }
        let end_ns = self.end_ns;
        let is_due = |due: &Due| matches!(due, Due::At(at_ns) if *at_ns < end_ns);
        // At a high rate, many requests may be left.
        while !self.is_stopped() {
            let due = schedule.by_ref().take(COUNTED_AT_ONCE).take_while(is_due).count();
            tally.due += due as u64;
            if due < COUNTED_AT_ONCE {
                break;
            }
        }
        tally.client_cpu = thread_cpu().saturating_sub(cpu_before);
        Ok(tally)
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn is_stopped(&self) -> bool {
        self.job.stop.load(Ordering::Relaxed)
    }

    /// How long no request needs to be sent.
    fn wait_ns(&self, now_ns: u64, schedule: &mut Peekable<impl Iterator<Item = Due>>) -> u64 {
        if now_ns >= self.end_ns {
            return SWEEP_NS;
        }
        let until_end_ns = self.end_ns - now_ns;
        match schedule.peek() {
            Some(Due::At(due_ns)) if !self.ready.is_empty() => {
                due_ns.saturating_sub(now_ns).min(until_end_ns)
            }
            _ => until_end_ns,
        }
    }

    /// Sends the requests that are due, as far as there is room. Call it after all answers that
    /// have come are read: then the server gets many requests at once, and is not woken for each.
    fn dispatch(&mut self, schedule: &mut Peekable<impl Iterator<Item = Due>>) {
        while let Some(&index) = self.ready.front() {
            let now_ns = self.now_ns();
            if now_ns >= self.end_ns {
                return;
            }
            let mut sent = 0;
            while self.is_free(index) {
                let due_ns = match schedule.peek() {
                    Some(Due::AtOnce) => now_ns,
                    Some(&Due::At(due_ns)) if due_ns <= now_ns => due_ns,
                    _ => break,
                };
                let is_open_loop = schedule.next() != Some(Due::AtOnce);
                let message = self.job.draw.next();
                let connection = self.slots[index].connection.as_mut();
                let connection = connection.expect("a place without connection is not free");
                let seen = self.job.check.map_or(0, BodyCheck::seen);
                let request = InFlight { due_ns, sent_ns: now_ns, message, seen };
                connection.push(&self.job.messages[message], request);
                sent += 1;
                if is_open_loop {
                    // The next request goes to the next connection.
                    break;
                }
            }
            self.in_flight += sent;
            self.tally.sent += sent as u64;
            let is_exhausted = sent == 0 && self.is_free(index);
            if is_exhausted {
                return;
            }
            self.ready.pop_front();
            self.slots[index].is_ready = false;
            self.write(index);
            self.make_ready(index);
        }
    }

    fn is_free(&self, index: usize) -> bool {
        let connection = self.slots[index].connection.as_ref();
        connection.is_some_and(|it| it.is_free(self.job.pipeline))
    }

    /// Puts a slot with room at the end of `ready`.
    fn make_ready(&mut self, index: usize) {
        if self.is_free(index) && !self.slots[index].is_ready {
            self.slots[index].is_ready = true;
            self.ready.push_back(index);
        }
    }

    fn write(&mut self, index: usize) {
        let Some(connection) = self.slots[index].connection.as_mut() else { return };
        match connection.flush() {
            Ok(true) => {}
            Ok(false) => self.watch(index, epoll::EventFlags::IN | epoll::EventFlags::OUT),
            Err(broken) => {
                // A server may answer before it closes. All other requests could not be sent.
                let _ = self.read_responses(index);
                self.fail_connection(index, broken);
            }
        }
    }

    /// Waits for sockets, at most `wait_ns`, and serves those that are ready.
    fn poll(&mut self, wait_ns: u64) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: (wait_ns / 1_000_000_000) as i64,
            tv_nsec: (wait_ns % 1_000_000_000) as i64,
        };
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS_MAX];
        let (ready, _) = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(ready) => ready,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in ready {
            let (flags, data) = (event.flags, event.data.u64());
            let (index, generation) = ((data & 0xffff_ffff) as usize, (data >> 32) as u32);
            if self.slots[index].generation != generation {
                continue;
            }
            if flags.contains(epoll::EventFlags::OUT) {
                self.writable(index);
            }
            // By now the slot may have another connection, and then this event is not for it.
            if self.slots[index].generation != generation {
                continue;
            }
            if flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                self.read(index);
                self.make_ready(index);
            }
        }
        Ok(())
    }

    fn writable(&mut self, index: usize) {
        let Some(connection) = self.slots[index].connection.as_mut() else { return };
        if connection.connecting_since_ns.is_none() {
            self.watch(index, epoll::EventFlags::IN);
            self.write(index);
            return;
        }
        match connection.finish_open() {
            Ok(()) => {
                self.watch(index, epoll::EventFlags::IN);
                self.make_ready(index);
            }
            Err(error) => self.fail_connect(index, &error),
        }
    }

    /// Reads once and counts the answers.
    fn read(&mut self, index: usize) {
        let Some(connection) = self.slots[index].connection.as_mut() else { return };
        if connection.connecting_since_ns.is_some() {
            return match connection.finish_open() {
                Err(error) => self.fail_connect(index, &error),
                Ok(()) => self.fail_connect(index, &"it ended at once"),
            };
        }
        if let Err(broken) = self.read_responses(index) {
            self.fail_connection(index, broken);
        }
    }

    /// Reads once from a connection that is open.
    fn read_responses(&mut self, index: usize) -> Result<(), ConnectionError> {
        let Some(connection) = self.slots[index].connection.as_mut() else { return Ok(()) };
        let (start, end_ns, expected) = (self.start, self.end_ns, self.job.status);
        let (messages, check) = (self.job.messages, self.job.check);
        let times_failures = self.job.times_failures;
        let tally = &mut self.tally;
        let in_flight = &mut self.in_flight;
        let mut now_ns = None;
        // Requests that were due together have the same latency, so count them in one go.
        let (mut same_ns, mut same) = (0, 0);
        let (bytes, result) = connection.read(
            &mut self.buffer,
            self.job.is_head,
            &mut self.memory,
            |request, answer: FinishedResponse| {
                let now_ns = *now_ns.get_or_insert_with(|| start.elapsed().as_nanos() as u64);
                *in_flight -= 1;
                let mistake =
                    |it: &BodyCheck| it.mistake(request.message, answer.body_hash, request.seen);
                if !is_expected(expected, answer.status) {
                    tally.errors.status += 1;
                    if times_failures {
                        let latency_ns = now_ns.saturating_sub(request.due_ns);
                        tally.latency.saturating_record(latency_ns.max(1));
                    }
                    let asked = &messages[request.message];
                    tally.examples.note("status", || {
                        format!("{} was answered with {}", line(asked), answer.status)
                    });
                } else if let Some(mistake) = check.and_then(mistake) {
                    tally.errors.body += 1;
                    let asked = &messages[request.message];
                    tally.examples.note("body", || format!("{} {mistake}", line(asked)));
                } else {
                    let latency_ns = now_ns.saturating_sub(request.due_ns);
                    if latency_ns != same_ns {
                        tally.answers(same_ns, std::mem::take(&mut same));
                        same_ns = latency_ns;
                    }
                    same += 1;
                    tally.answered_in_time += u64::from(now_ns < end_ns);
                }
            },
        );
        tally.answers(same_ns, same);
        // If no answer was completed, nobody has looked at the clock, and the bytes count.
        if now_ns.is_none_or(|now_ns| now_ns < end_ns) {
            tally.bytes += bytes as u64;
        }
        result
    }
}

/// The first line of a request, without the version.
fn line(message: &[u8]) -> String {
    let end = memchr::memchr(b'\r', message).unwrap_or(message.len());
    let line = String::from_utf8_lossy(&message[..end]);
    line.trim_end_matches(" HTTP/1.1").to_owned()
}

/// User and kernel time of this thread.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
