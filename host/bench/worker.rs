//! One thread of the load generator: one loop over due times and answers.
//!
//! A closed loop is a schedule in which every request is due at once. Latency counts from when a
//! request was due and not from when it was sent: a server that stands still for a second has made
//! every request wait that was due in this second (Tene, "How not to measure latency"). Owns its
//! connections and one epoll; shares nothing. Knows no process and no report.

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

/// What is read at a time: some hundred small answers, or a part of a large one.
const READ_BYTES: usize = 128 * 1024;
/// Sockets that are looked at between two looks at the clock of timeouts.
const EVENTS_MAX: usize = 256;
/// How often requests without an answer are looked for.
const SWEEP_NS: u64 = 50_000_000;
/// After a connection that could not be made, the next try.
const RETRY_NS: u64 = 10_000_000;
/// Requests that were due and not sent are counted in pieces, between which the run may be stopped.
const COUNTED_AT_ONCE: usize = 1 << 16;

/// What a worker is to do.
pub struct Job<'a> {
    pub address: SocketAddr,
    /// Requests as they are sent; `draw` gives indexes into it.
    pub messages: &'a [Vec<u8>],
    pub draw: PathSampler,
    /// Its answers have no bodies.
    pub is_head: bool,
    /// The status to expect; none is any below 400.
    pub status: Option<u16>,
    pub connections: usize,
    pub pipeline: usize,
    pub timeout: Duration,
    /// Looks for answers without ever going to sleep.
    pub spin: bool,
    /// The bodies that answers may have, where that matters.
    pub check: Option<&'a BodyCheck>,
    /// Ends the measurement before its time.
    pub stop: &'a AtomicBool,
}

/// A place for a connection.
struct Slot {
    connection: Option<Connection>,
    /// Tells events of this connection from those of the one before it.
    generation: u32,
    /// It stands in `ready`.
    is_ready: bool,
    /// When to connect again, where there is no connection.
    retry_ns: u64,
}

/// A thread's connections, which stay open from one measurement to the next.
pub struct Worker<'a> {
    job: Job<'a>,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    /// Places with room for a request, the longest waiting first.
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
    /// Begins to connect; does not wait for it.
    pub fn new(job: Job<'a>) -> io::Result<Self> {
        // What is due in a microsecond is not to be sent after 50, which is the kernel's default.
        // Where that is refused, requests are sent a little late, and this shows as latency.
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

    /// Waits until every connection is open, or for the timeout: how many are.
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

    /// Sends by `schedule` for `duration`, then waits for the answers that are on their way, at
    /// most for the timeout.
    pub fn run(&mut self, schedule: RequestSchedule, duration: Duration) -> io::Result<LoadStats> {
        let cpu_before = thread_cpu();
        self.tally = LoadStats::new();
        self.start = Instant::now();
        for slot in &mut self.slots {
            slot.retry_ns = 0;
        }
        self.end_ns = duration.as_nanos() as u64;
        let give_up_ns = self.end_ns + self.job.timeout.as_nanos() as u64;
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
        let end_ns = self.end_ns;
        let is_due = |due: &Due| matches!(due, Due::At(at_ns) if *at_ns < end_ns);
        // At a high rate these are many.
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

    /// How long nothing is to be sent.
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

    /// Sends what is due, as far as there is room, and writes it. To be called when every answer
    /// that had come was read: the server then gets as much at once as it can, and is not woken
    /// for every request.
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
                let request = InFlight { due_ns, sent_ns: now_ns, message };
                connection.push(&self.job.messages[message], request);
                sent += 1;
                if is_open_loop {
                    // The next one goes to the next connection.
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

    /// Puts a place with room at the end of those that are ready.
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
                // A server may answer before it closes. What is not answered could not be sent.
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
            // That may have put another connection in its place, which this event is not of.
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
        let tally = &mut self.tally;
        let in_flight = &mut self.in_flight;
        let mut now_ns = None;
        // Answers to requests that were due together have the same latency: counted in one go.
        let (mut same_ns, mut same) = (0, 0);
        let (bytes, result) = connection.read(
            &mut self.buffer,
            self.job.is_head,
            &mut self.memory,
            |request, answer: FinishedResponse| {
                let now_ns = *now_ns.get_or_insert_with(|| start.elapsed().as_nanos() as u64);
                *in_flight -= 1;
                let is_wrong = |it: &BodyCheck| !it.allows(request.message, answer.body_hash);
                if !is_expected(expected, answer.status) {
                    tally.errors.status += 1;
                    let asked = &messages[request.message];
                    tally.examples.note("status", || {
                        format!("{} was answered with {}", line(asked), answer.status)
                    });
                } else if check.is_some_and(is_wrong) {
                    tally.errors.body += 1;
                    let asked = &messages[request.message];
                    tally.examples.note("body", || format!("{} had another body", line(asked)));
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
        // A part of an answer takes its time from the next one.
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
