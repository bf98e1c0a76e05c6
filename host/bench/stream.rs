//! Runs the streams of one side: their threads connect, warm up, and send at the same time.
//!
//! Owns the order of these steps. Knows no server process: it tells the caller when to measure one.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::body_check::BodyCheck;
use super::cpus::pin;
use super::load::{PathDistribution, Request};
use super::load_stats::LoadStats;
use super::request_schedule::{PathSampler, RequestSchedule};
use super::suite::Stream;
use super::worker::{Job, Worker};

/// Before the measurement, requests are sent for this part of the duration. By then a server has
/// compiled the code that it runs often, and has grown its pools.
const WARM_UP_PART: f64 = 0.1;
const WARM_UP_MAX: Duration = Duration::from_secs(1);

/// How long an address may take to accept a connection, before the next address is tried.
const TAKES_WITHIN: Duration = Duration::from_secs(2);

/// The server that gets the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The server's IP address and port.
    pub address: SocketAddr,
    /// The value of `Host` in requests.
    pub host: String,
}

impl Destination {
    /// Resolves `host:port` to its first address at which a server listens, or to its first address
    /// if there is no server. Blocks, also to connect to addresses if there are several.
    ///
    /// # Errors
    /// The name has no address.
    pub fn resolve(authority: &str) -> anyhow::Result<Self> {
        let named = || format!("cannot resolve {authority}");
        let addresses: Vec<_> = authority.to_socket_addrs().with_context(named)?.collect();
        let address = listening(&addresses).with_context(named)?;
        Ok(Self { address, host: authority.to_owned() })
    }
}

/// The first of several addresses that takes a connection. `localhost` has two if there is IPv6,
/// and many servers listen on only one of them.
fn listening(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let takes = |address: &&SocketAddr| TcpStream::connect_timeout(address, TAKES_WITHIN).is_ok();
    let found = if addresses.len() > 1 { addresses.iter().find(takes) } else { None };
    found.or(addresses.first()).copied()
}

/// Warms up, and then runs all streams at once for `duration`. Calls `begins` in between, while no
/// request is in flight. Returns the counts of each stream, and the result of `begins`. `checks`
/// has the bodies that each stream's answers may have; a stream without an entry may have any.
/// Blocks, and ends early once `stop` is set.
///
/// # Errors
/// A stream can make no connection, or may not use its CPUs.
pub fn run<T>(
    streams: &[Stream],
    destination: &Destination,
    duration: Duration,
    checks: &[Option<BodyCheck>],
    seed: u64,
    stop: &AtomicBool,
    begins: impl FnOnce() -> T,
) -> anyhow::Result<(Vec<LoadStats>, T)> {
    let messages: Vec<Vec<Vec<u8>>> =
        streams.iter().map(|stream| render(&stream.request, &destination.host)).collect();
    let threads = streams.iter().map(threads_of).sum::<usize>();
    let barrier = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let mut running = Vec::new();
        for (number, (stream, messages)) in streams.iter().zip(&messages).enumerate() {
            for index in 0..threads_of(stream) {
                let check = checks.get(number).and_then(Option::as_ref);
                let part = Part { stream, messages, index, destination, duration, check, stop };
                let seed = seed.wrapping_add(1000 * number as u64);
                let barrier = &barrier;
                running.push((number, scope.spawn(move || part.run(seed, barrier))));
            }
        }
        barrier.wait();
        let begun = begins();
        barrier.wait();
        let mut tallies: Vec<LoadStats> = streams.iter().map(|_| LoadStats::new()).collect();
        let mut failed = Ok(());
        for (number, thread) in running {
            match thread.join().expect("a generator's thread does not panic") {
                Ok(tally) => tallies[number].add(&tally),
                Err(error) => failed = Err(error),
            }
        }
        failed.map(|()| (tallies, begun))
    })
}

/// One thread's share of a stream.
struct Part<'a> {
    stream: &'a Stream,
    messages: &'a [Vec<u8>],
    index: usize,
    destination: &'a Destination,
    duration: Duration,
    check: Option<&'a BodyCheck>,
    stop: &'a AtomicBool,
}

impl Part<'_> {
    fn run(&self, seed: u64, barrier: &Barrier) -> anyhow::Result<LoadStats> {
        let ready = self.prepare(seed);
        barrier.wait();
        barrier.wait();
        let mut worker = ready?;
        Ok(worker.run(self.schedule(seed), self.duration)?)
    }

    /// Connects and warms up.
    fn prepare(&self, seed: u64) -> anyhow::Result<Worker<'_>> {
        let cpus = &self.stream.load.cpus;
        pin(cpus).with_context(|| format!("the generator cannot run on CPU {cpus:?}"))?;
        let mut worker = Worker::new(self.job(seed))?;
        if worker.wait_until_open()? == 0 && !self.stop.load(Ordering::Relaxed) {
            bail!(
                "cannot connect to {} ({}): is the server running?",
                self.destination.host,
                self.destination.address
            );
        }
        if self.stream.load.nice != 0 {
            // A thread that may not have this priority goes on with the usual one.
            let nice = i32::from(self.stream.load.nice);
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
        }
        if self.stream.request.spread == PathDistribution::Once {
            return Ok(worker);
        }
        let warm_up = self.duration.mul_f64(WARM_UP_PART).min(WARM_UP_MAX);
        worker.run(self.schedule(!seed), warm_up)?;
        Ok(worker)
    }

    fn job(&self, seed: u64) -> Job<'_> {
        let (request, load) = (&self.stream.request, &self.stream.load);
        let (count, threads) = (self.messages.len(), threads_of(self.stream));
        Job {
            address: self.destination.address,
            messages: self.messages,
            draw: PathSampler::new(count, request.spread, seed, self.index, threads),
            is_head: request.method == "HEAD",
            status: request.status,
            check: self.check,
            times_failures: self.stream.may_fail,
            // If connections do not divide evenly, the first threads have one more.
            connections: (load.connections + threads - 1 - self.index) / threads,
            pipeline: load.pipeline,
            timeout: load.timeout,
            spin: load.spin,
            stop: self.stop,
        }
    }

    fn schedule(&self, seed: u64) -> RequestSchedule {
        let load = &self.stream.load;
        if self.stream.request.spread == PathDistribution::Once {
            let paths = (self.index..self.messages.len()).step_by(threads_of(self.stream));
            return RequestSchedule::Counted { left: paths.len() };
        }
        RequestSchedule::new(load.rate, load.arrivals, self.index, threads_of(self.stream), seed)
    }
}

/// How many threads a stream has: at most one for each connection.
fn threads_of(stream: &Stream) -> usize {
    stream.load.threads.min(stream.load.connections).max(1)
}

/// The bytes of the requests, one for each path. `host` is the value of `Host`, unless the request
/// has one.
pub fn render(request: &Request, host: &str) -> Vec<Vec<u8>> {
    let mut fields = String::new();
    if !request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        fields += &format!("Host: {host}\r\n");
    }
    for (name, value) in &request.headers {
        fields += &format!("{name}: {value}\r\n");
    }
    let takes_body = matches!(&request.method[..], "POST" | "PUT" | "PATCH");
    if takes_body || !request.body.is_empty() {
        fields += &format!("Content-Length: {}\r\n", request.body.len());
    }
    let message = |path: &String| {
        let mut bytes = format!("{} {path} HTTP/1.1\r\n{fields}\r\n", request.method).into_bytes();
        bytes.extend_from_slice(&request.body);
        bytes
    };
    request.paths.iter().map(message).collect()
}

#[cfg(test)]
mod tests;
