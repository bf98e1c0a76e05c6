//! The slow lane: low-priority threads that run the calls which outlast their quantum.
//!
//! Owns the threads; `fair_queue.rs` has the order. Workers hand calls over without taking a lock:
//! a low-priority thread could hold it while it is not running. Knows no HTTP, and no limit but a
//! call's CPU time.

mod fair_queue;
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

pub use fair_queue::Payer;

use super::cpu::cpu_time;
use crate::guest::engine::allocator;
use crate::guest::engine::engines::prepare_thread;
use crate::message::Reject;
use fair_queue::{FairQueue, LaneTask, Message, TaskMetadata, WorkItem};

/// A guest's call, which may continue on any thread.
pub type BoxedCall<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A call's output, and the CPU time that it took in the slow lane.
type LaneResult<T> = Result<(T, Duration), Reject>;

/// A worker's handle of a call in the slow lane. Ready with the call's output and its CPU time
/// there. Dropping it ends the call.
pub struct LaneJoinHandle<T> {
    task: Option<Task<LaneResult<T>, TaskMetadata>>,
    handle: LaneHandle,
}

thread_local! {
    /// The slow lane of this thread, if this is a worker.
    static LOCAL_LANE: RefCell<Option<LaneHandle>> = const { RefCell::new(None) };
}

/// How many values of [`defer_drop_here`] may wait: their memory is still charged.
const LOCAL_DEFERRED_MAX: usize = 8;

/// Drops a value in the slow lane, if this thread has one and few values wait there. Otherwise
/// drops it here.
pub fn defer_drop_here(value: impl Send + 'static) {
    // While a thread ends, the value is dropped right here.
    let _ = LOCAL_LANE.try_with(|here| {
        if let Some(handle) = &*here.borrow()
            && handle.0.deferred_drops.load(Ordering::Relaxed) < LOCAL_DEFERRED_MAX
        {
            handle.defer_drop(value);
        }
    });
}

/// How many values may wait to be dropped by the slow lane.
const DEFERRED_DROPS_MAX: usize = 64;

/// The threads of the slow lane. They end when this is dropped.
pub struct Lane {
    handle: LaneHandle,
    threads: Vec<JoinHandle<()>>,
}

/// A worker's access to the slow lane.
#[derive(Clone)]
pub struct LaneHandle(Arc<LaneShared>);

struct LaneShared {
    /// What no thread has taken up yet.
    inbox: Sender<Message>,
    /// How many values wait to be dropped.
    deferred_drops: AtomicUsize,
    queue: Mutex<FairQueue>,
    parkers: Box<[ThreadParker]>,
    stop: AtomicBool,
}

/// One thread of the lane, as seen by those who have work for it.
#[derive(Default)]
struct ThreadParker {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Lane {
    /// Starts threads, with niceness raised by `nice`.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(threads: usize, nice: i32) -> anyhow::Result<Self> {
        let (inbox, received) = channel();
        let queue = FairQueue::new(received);
        let handle = LaneHandle(Arc::new(LaneShared {
            inbox,
            deferred_drops: AtomicUsize::new(0),
            queue: Mutex::new(queue),
            parkers: (0..threads).map(|_| ThreadParker::default()).collect(),
            stop: AtomicBool::new(false),
        }));
        let mut lane = Lane { handle: handle.clone(), threads: Vec::new() };
        for index in 0..threads {
            let shared = handle.0.clone();
            let thread = std::thread::Builder::new().name(format!("slow-{index}"));
            let thread = thread.spawn(move || {
                lower_priority(nice);
                shared.work(index);
            });
            lane.threads.push(thread.context("could not start a thread of the slow lane")?);
        }
        Ok(lane)
    }

    /// A handle for one more worker.
    pub fn new_handle(&self) -> LaneHandle {
        self.handle.clone()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let shared = &self.handle.0;
        shared.stop.store(true, Ordering::SeqCst);
        shared.wake_all();
        for thread in self.threads.drain(..) {
            // Panics are caught where calls run.
            drop(thread.join());
        }
    }
}

/// Raises the niceness of this thread, so that it gets less of a core that others want, too.
pub fn lower_priority(nice: i32) {
    const NICE_MAX: i32 = 19;
    let thread = Some(gettid());
    let lower = getpriority_process(thread)
        .and_then(|now| setpriority_process(thread, (now + nice).min(NICE_MAX)));
    if let Err(error) = lower {
        tracing::warn!("long calls run at the priority of short ones, and delay them: {error}");
    }
}

impl LaneHandle {
    /// Whether there is a slow lane. Without threads, calls stay with their workers.
    pub fn has_threads(&self) -> bool {
        !self.0.parkers.is_empty()
    }

    /// Has a call go on in the slow lane, for `cpu_left` of CPU time at most. To be called on a
    /// worker. `runnable` is raised by one while the call runs or waits for a thread.
    pub fn hand_over<T: Send + 'static>(
        &self,
        payer: Payer,
        call: BoxedCall<T>,
        cpu_left: Duration,
        runnable: Arc<AtomicUsize>,
    ) -> LaneJoinHandle<T> {
        let limited = CpuLimited { call, used: Duration::ZERO, max: cpu_left };
        let shared = self.0.clone();
        let abandoned = AtomicBool::new(false);
        let metadata = TaskMetadata { payer, runtime: Handle::current(), abandoned, runnable };
        let builder = Builder::new().metadata(metadata);
        let (job, task) = builder.spawn(|_| limited, move |job| shared.push(Message::Job(job)));
        job.schedule();
        LaneJoinHandle { task: Some(task), handle: self.clone() }
    }
}

impl LaneHandle {
    /// Wakes every thread to give free memory back to the kernel, if a round is due.
    pub fn wake_to_trim(&self) {
        self.0.wake_all();
    }

    /// Makes this the slow lane of the calling thread.
    pub fn make_local(&self) {
        LOCAL_LANE.set(Some(self.clone()));
    }

    /// Drops a value in the slow lane, if there is one and not too many values wait there;
    /// otherwise here. For example an instance: giving a hundred MiB back to the kernel takes ten
    /// milliseconds.
    pub fn defer_drop(&self, value: impl Send + 'static) {
        let shared = &self.0;
        if shared.parkers.is_empty()
            || shared.deferred_drops.load(Ordering::Relaxed) >= DEFERRED_DROPS_MAX
        {
            return;
        }
        shared.deferred_drops.fetch_add(1, Ordering::Relaxed);
        shared.push(Message::DropLater(Box::new(value)));
    }
}

impl<T> Future for LaneJoinHandle<T> {
    type Output = LaneResult<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.task.as_mut().expect("it is taken when this is dropped");
        let polled = Pin::new(task).poll(cx);
        if polled.is_ready() {
            self.task = None;
        }
        polled
    }
}

impl<T> Drop for LaneJoinHandle<T> {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        let metadata = task.metadata();
        metadata.abandoned.store(true, Ordering::Relaxed);
        let payer = metadata.payer;
        drop(task);
        self.handle.0.push(Message::Abandoned(payer));
    }
}

impl LaneShared {
    /// Puts a message in. Takes no lock.
    fn push(&self, message: Message) {
        if let Message::Job(job) = &message {
            job.metadata().runnable.fetch_add(1, Ordering::Relaxed);
        }
        if self.inbox.send(message).is_err() {
            // The lane has ended, and the call with it.
            return;
        }
        // Pairs with the fence in `next`: either that thread sees the message, or this one sees
        // that it is asleep.
        fence(Ordering::SeqCst);
        self.wake_one();
    }

    fn wake_all(&self) {
        self.parkers.iter().for_each(ThreadParker::wake);
    }

    fn wake_one(&self) {
        let asleep = |it: &&ThreadParker| it.asleep.load(Ordering::Relaxed);
        if let Some(parker) = self.parkers.iter().find(asleep) {
            parker.wake();
        }
    }

    fn queue(&self) -> MutexGuard<'_, FairQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The main loop of a thread.
    fn work(&self, index: usize) {
        prepare_thread();
        let parker = &self.parkers[index];
        parker.thread.get_or_init(std::thread::current);
        let mut ran = None;
        while !self.stop.load(Ordering::Relaxed) {
            if allocator::trim_heap() {
                self.wake_all();
            }
            let Some(turn) = self.next(parker, ran.take()) else {
                std::thread::park();
                parker.asleep.store(false, Ordering::Relaxed);
                continue;
            };
            match turn {
                WorkItem::Poll(job, payer) => {
                    let begun = cpu_time();
                    poll_task(job);
                    ran = Some((payer, cpu_time().saturating_sub(begun)));
                }
                WorkItem::Abandon(job) => poll_task(job),
                WorkItem::Discard(value) => {
                    drop(value);
                    self.deferred_drops.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Charges what has run, and takes the next work. If there is none, the thread counts as asleep
    /// from now on.
    fn next(&self, parker: &ThreadParker, ran: Option<(Payer, Duration)>) -> Option<WorkItem> {
        let mut queue = self.queue();
        queue.drain_inbox();
        if let Some((payer, time)) = ran {
            queue.charge(payer, time);
        }
        let mut next = queue.pop();
        if next.is_none() {
            parker.asleep.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            queue.drain_inbox();
            next = queue.pop();
            if next.is_some() {
                parker.asleep.store(false, Ordering::Relaxed);
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

/// Polls a call in the context of its worker's runtime.
fn poll_task(job: LaneTask) {
    let TaskMetadata { runtime, runnable, .. } = job.metadata();
    let (runtime, runnable) = (runtime.clone(), runnable.clone());
    let _entered = runtime.enter();
    job.run();
    runnable.fetch_sub(1, Ordering::Relaxed);
}

impl ThreadParker {
    fn wake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// A call that ends when its CPU time is used up. If it panics, nothing else ends.
struct CpuLimited<T> {
    call: BoxedCall<T>,
    used: Duration,
    max: Duration,
}

impl<T> Future for CpuLimited<T> {
    type Output = LaneResult<T>;

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
