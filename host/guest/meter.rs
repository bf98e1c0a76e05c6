//! What holds a call to its limits on time: deadline, CPU time, and its turn among long calls.
//!
//! Owns the time between the quanta of a call. Knows nothing of what runs in them.

use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::Limits;
use crate::message::Reject;

/// A call that has used so much CPU time is long: it takes turns with the other long calls of its
/// worker.
const LONG: Duration = Duration::from_millis(1);
/// A first slice takes no longer than this: the guest yields before.
const FIRST_MAX: Duration = Duration::from_millis(10);

/// Holds a request's calls to the deadline and to the CPU limit, and has long ones take turns.
///
/// A guest yields at every quantum, so it is enough to look at the clock between polls; a call
/// that ends within its first poll costs no look at all.
pub struct Meter<'a> {
    limits: &'a Limits,
    started: Instant,
    /// When the first slice began, until it has run.
    first: Option<Instant>,
    cpu_used: Duration,
    turns: Option<&'a Semaphore>,
}

/// A turn that a long call waits for.
type Turn<'a> = Pin<Box<dyn Future<Output = Option<SemaphorePermit<'a>>> + Send + 'a>>;

impl<'a> Meter<'a> {
    pub fn new(limits: &'a Limits, started: Instant) -> Self {
        Meter { limits, started, first: Some(started), cpu_used: Duration::ZERO, turns: None }
    }

    /// Has a long call wait for its turn before each quantum.
    pub fn taking_turns(mut self, turns: &'a Semaphore) -> Self {
        self.turns = Some(turns);
        self
    }

    /// Says that what went before was not the guest's own time.
    pub fn resume(&mut self) {
        self.first = None;
    }

    /// When the response head is due.
    pub fn deadline(&self) -> Instant {
        self.started + self.limits.deadline
    }

    /// Runs a future until it is done, the deadline has passed, or its CPU time is used up.
    pub fn run<F: Future>(
        &mut self,
        mut future: Pin<&mut F>,
    ) -> impl Future<Output = Result<F::Output, Reject>> {
        // A meter's first slice begins when the request did, which costs no look at a clock.
        let mut resumed = self.first.take();
        let mut timer: Option<Pin<Box<tokio::time::Sleep>>> = None;
        let mut waiting: Option<Turn<'a>> = None;
        std::future::poll_fn(move |cx| {
            let mut turn = None;
            let mut may_run = true;
            if let Some(turns) = self.turns.filter(|_| self.cpu_used >= LONG) {
                let next = waiting.get_or_insert_with(|| Box::pin(take_turn(turns)));
                match next.as_mut().poll(cx) {
                    Poll::Ready(taken) => turn = taken,
                    Poll::Pending => may_run = false,
                }
            }
            if may_run {
                waiting = None;
                let begun = Slice::begin(resumed.take());
                if let Poll::Ready(output) = future.as_mut().poll(cx) {
                    return Poll::Ready(Ok(output));
                }
                drop(turn);
                self.cpu_used += begun.used();
                if self.cpu_used >= self.limits.cpu_max {
                    return Poll::Ready(Err(Reject::CpuTime));
                }
            }
            let deadline = self.deadline();
            let timer =
                timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
            match timer.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(Reject::Deadline)),
                Poll::Pending => Poll::Pending,
            }
        })
    }
}

/// When a slice of a call began.
enum Slice {
    /// By the wall clock, which a slice of two milliseconds at most may be measured by.
    Wall(Instant),
    /// By the time that this thread has had the core: others may have had it, too.
    Cpu(Duration),
}

impl Slice {
    fn begin(known: Option<Instant>) -> Self {
        known.map_or_else(|| Slice::Cpu(cpu_time()), Slice::Wall)
    }

    /// CPU time since then.
    fn used(&self) -> Duration {
        match self {
            Slice::Wall(begun) => begun.elapsed().min(FIRST_MAX),
            Slice::Cpu(begun) => cpu_time().saturating_sub(*begun),
        }
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Waits for a turn, and then until the worker has looked at its sockets: between two quanta of
/// long calls, however many there are, every request that has arrived is read, and every short one
/// answered.
async fn take_turn(turns: &Semaphore) -> Option<SemaphorePermit<'_>> {
    // It is never closed.
    let turn = turns.acquire().await.ok();
    tokio::task::yield_now().await;
    turn
}
