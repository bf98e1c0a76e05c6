//! The slow lane: threads at a low priority which run the calls that outlast their quantum.
//!
//! Owns the threads; `queue.rs` has the order. Workers hand calls over without taking a lock, which
//! a thread of low priority could hold while it does not run. Knows no HTTP and no limits but a
//! call's CPU time.

mod queue;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use anyhow::Context as _;
use async_task::{Builder, Task};
use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::gettid;
use tokio::runtime::Handle;

pub use queue::Payer;

use super::cpu::cpu_time;
use crate::guest::engine::allocator;
use crate::guest::engine::engines::prepare_thread;
use crate::message::Reject;
use queue::{Job, Message, Queue, Ticket, Turn};

/// A guest's call, which may go on on any thread.
pub type Movable<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a call gave, and the CPU time that it took in the slow lane.
type Ended<T> = Result<(T, Duration), Reject>;

/// A call in the slow lane, seen from its worker: what it gave, and the CPU time that it took.
/// Dropping it ends the call.
pub struct Moved<T> {
    task: Option<Task<Ended<T>, Ticket>>,
    entry: Entry,
}

thread_local! {
    /// The lane of this thread, where it is a worker's.
    static HERE: RefCell<Option<Entry>> = const { RefCell::new(None) };
}

/// What may wait to be dropped that was discarded by [`discard_here`]: it is still charged.
const WASTE_HERE_MAX: usize = 8;

/// Drops something in the slow lane of this thread, if it has one that is not behind with that.
pub fn discard_here(waste: impl Send + 'static) {
    // A thread that ends drops it itself.
    let _ = HERE.try_with(|here| {
        if let Some(entry) = &*here.borrow()
            && entry.0.waste.load(Ordering::Relaxed) < WASTE_HERE_MAX
        {
            entry.discard(waste);
        }
    });
}

/// How much of that may wait for a thread; what is more is dropped where it is.
const WASTE_MAX: usize = 64;

/// The threads of the slow lane. They end when this is dropped.
pub struct Lane {
    entry: Entry,
    threads: Vec<JoinHandle<()>>,
}

/// Where workers hand over calls.
#[derive(Clone)]
pub struct Entry(Arc<Shared>);

struct Shared {
    /// What no thread has seen yet.
    inbox: Sender<Message>,
    /// How much waits to be dropped.
    waste: AtomicUsize,
    queue: Mutex<Queue>,
    sleepers: Box<[Sleeper]>,
    stop: AtomicBool,
}

/// One thread of the lane, as who has work for it sees it.
#[derive(Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Lane {
    /// Starts so many threads, at a nice level.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(threads: usize, nice: i32) -> anyhow::Result<Self> {
        let (inbox, received) = channel();
        let queue = Queue::new(received);
        let entry = Entry(Arc::new(Shared {
            inbox,
            waste: AtomicUsize::new(0),
            queue: Mutex::new(queue),
            sleepers: (0..threads).map(|_| Sleeper::default()).collect(),
            stop: AtomicBool::new(false),
        }));
        let mut lane = Lane { entry: entry.clone(), threads: Vec::new() };
        for index in 0..threads {
            let shared = entry.0.clone();
            let thread = std::thread::Builder::new().name(format!("slow-{index}"));
            let thread = thread.spawn(move || {
                lower_priority(nice);
                shared.work(index);
            });
            lane.threads.push(thread.context("could not start a thread of the slow lane")?);
        }
        Ok(lane)
    }

    pub fn entry(&self) -> Entry {
        self.entry.clone()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let shared = &self.entry.0;
        shared.stop.store(true, Ordering::SeqCst);
        shared.wake_all();
        for thread in self.threads.drain(..) {
            // Panics are caught where calls run.
            drop(thread.join());
        }
    }
}

/// Makes this thread nicer by so much: it gets less of a core that others want, too.
pub fn lower_priority(nice: i32) {
    const NICE_MAX: i32 = 19;
    let thread = Some(gettid());
    let lower = getpriority_process(thread)
        .and_then(|now| setpriority_process(thread, (now + nice).min(NICE_MAX)));
    if let Err(error) = lower {
        tracing::warn!("long calls run at the priority of short ones, and delay them: {error}");
    }
}

impl Entry {
    /// Whether there is a slow lane.
    pub fn has_threads(&self) -> bool {
        !self.0.sleepers.is_empty()
    }

    /// Has a call go on in the slow lane, for `cpu_left` at most. To be called on a worker.
    /// `runnable` is one more as long as the call waits for the CPU or has it.
    pub fn hand_over<T: Send + 'static>(
        &self,
        payer: Payer,
        call: Movable<T>,
        cpu_left: Duration,
        runnable: Arc<AtomicUsize>,
    ) -> Moved<T> {
        let limited = Limited { call, used: Duration::ZERO, max: cpu_left };
        let shared = self.0.clone();
        let abandoned = AtomicBool::new(false);
        let ticket = Ticket { payer, runtime: Handle::current(), abandoned, runnable };
        let builder = Builder::new().metadata(ticket);
        let (job, task) = builder.spawn(|_| limited, move |job| shared.push(Message::Job(job)));
        job.schedule();
        Moved { task: Some(task), entry: self.clone() }
    }
}

impl Entry {
    /// Has every thread give back memory that it has free, if it is time for that.
    pub fn tidy(&self) {
        self.0.wake_all();
    }

    /// Makes this the lane of this thread.
    pub fn use_here(&self) {
        HERE.set(Some(self.clone()));
    }

    /// Drops something in the slow lane, if there is one and it is not behind with that. The
    /// memory of an instance, say: to give back a hundred MiB takes ten milliseconds.
    pub fn discard(&self, waste: impl Send + 'static) {
        let shared = &self.0;
        if shared.sleepers.is_empty() || shared.waste.load(Ordering::Relaxed) >= WASTE_MAX {
            return;
        }
        shared.waste.fetch_add(1, Ordering::Relaxed);
        shared.push(Message::Waste(Box::new(waste)));
    }
}

impl<T> Future for Moved<T> {
    type Output = Ended<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.task.as_mut().expect("it is taken when this is dropped");
        let polled = Pin::new(task).poll(cx);
        if polled.is_ready() {
            self.task = None;
        }
        polled
    }
}

impl<T> Drop for Moved<T> {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        let ticket = task.metadata();
        ticket.abandoned.store(true, Ordering::Relaxed);
        let payer = ticket.payer;
        drop(task);
        self.entry.0.push(Message::Abandoned(payer));
    }
}

impl Shared {
    /// Takes in a message. Takes no lock.
    fn push(&self, message: Message) {
        if let Message::Job(job) = &message {
            job.metadata().runnable.fetch_add(1, Ordering::Relaxed);
        }
        if self.inbox.send(message).is_err() {
            // The lane has ended, and with it the call.
            return;
        }
        // Pairs with the fence in `next`: either that sees the message, or this sees it asleep.
        fence(Ordering::SeqCst);
        self.wake_one();
    }

    fn wake_all(&self) {
        self.sleepers.iter().for_each(Sleeper::wake);
    }

    fn wake_one(&self) {
        let asleep = |it: &&Sleeper| it.asleep.load(Ordering::Relaxed);
        if let Some(sleeper) = self.sleepers.iter().find(asleep) {
            sleeper.wake();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn work(&self, index: usize) {
        prepare_thread();
        let sleeper = &self.sleepers[index];
        sleeper.thread.get_or_init(std::thread::current);
        let mut ran = None;
        while !self.stop.load(Ordering::Relaxed) {
            if allocator::tidy() {
                self.wake_all();
            }
            let Some(turn) = self.next(sleeper, ran.take()) else {
                std::thread::park();
                sleeper.asleep.store(false, Ordering::Relaxed);
                continue;
            };
            match turn {
                Turn::Poll(job, payer) => {
                    let begun = cpu_time();
                    run(job);
                    ran = Some((payer, cpu_time().saturating_sub(begun)));
                }
                Turn::Abandon(job) => run(job),
                Turn::Discard(waste) => {
                    drop(waste);
                    self.waste.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Charges a guest for what has run, and takes the next call, with the guest that is to be
    /// charged for it. Without one, says that the thread sleeps from now on.
    fn next(&self, sleeper: &Sleeper, ran: Option<(Payer, Duration)>) -> Option<Turn> {
        let mut queue = self.queue();
        queue.take_in();
        if let Some((payer, time)) = ran {
            queue.charge(payer, time);
        }
        let mut next = queue.pop();
        if next.is_none() {
            sleeper.asleep.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            queue.take_in();
            next = queue.pop();
            if next.is_some() {
                sleeper.asleep.store(false, Ordering::Relaxed);
            }
        }
        let is_more = queue.has_more();
        drop(queue);
        if is_more {
            self.wake_one();
        }
        next
    }
}

/// Polls a call as on its worker.
fn run(job: Job) {
    let Ticket { runtime, runnable, .. } = job.metadata();
    let (runtime, runnable) = (runtime.clone(), runnable.clone());
    let _entered = runtime.enter();
    job.run();
    runnable.fetch_sub(1, Ordering::Relaxed);
}

impl Sleeper {
    fn wake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// A call that ends with its CPU time, and whose panic is its own end only.
struct Limited<T> {
    call: Movable<T>,
    used: Duration,
    max: Duration,
}

impl<T> Future for Limited<T> {
    type Output = Ended<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let begun = cpu_time();
        let polled = catch_unwind(AssertUnwindSafe(|| self.call.as_mut().poll(cx)));
        self.used += cpu_time().saturating_sub(begun);
        match polled {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok((output, self.used))),
            Ok(Poll::Pending) if self.used >= self.max => Poll::Ready(Err(Reject::CpuTime)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(Err(Reject::Panic)),
        }
    }
}
