//! The calls of a guest of 0.3, and what they wait for: streams, futures and timers, in sets.
//!
//! Owns the state behind the component model's built-in functions (`builtins.rs`); `transfer.rs`
//! moves the data. Source of the rules and the numbers: the component model's CanonicalABI.md,
//! "Canonical Definitions".

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::ends::{ComponentFuture, FutureReader, Stream, StreamReader};
use super::handle_table::HandleTable;
use super::memory::Result;
use crate::guest::component::guest_response::GuestResponse;
use crate::guest::engine::fault::misuse;
use crate::message::RequestId;

/// Kinds of handles other than resources.
pub const SET: u8 = 200;
pub const STREAM_READ: u8 = 201;
pub const STREAM_WRITE: u8 = 202;
pub const SENT_READ: u8 = 203;
pub const SENT_WRITE: u8 = 204;
pub const TRAILERS_READ: u8 = 205;
pub const TRAILERS_WRITE: u8 = 206;
pub const TIMER: u8 = 207;

/// The result of a copy that has to wait.
pub const BLOCKED: u32 = u32::MAX;

/// How a copy has ended: the lowest four bits of its result. The number of items is above them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CopyResult {
    Completed = 0,
    Dropped = 1,
    Cancelled = 2,
}

impl CopyResult {
    pub fn with(self, items: u32) -> u32 {
        self as u32 | items << 4
    }
}

/// The kind of an event that a guest is told of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum EventCode {
    None = 0,
    Subtask = 1,
    StreamRead = 2,
    StreamWrite = 3,
    FutureRead = 4,
    FutureWrite = 5,
}

/// States of an asynchronous call of a host function.
pub const STARTED: u32 = 1;
pub const RETURNED: u32 = 2;
pub const CANCELLED: u32 = 4;

/// Everything that the calls of an instance wait for.
pub struct Tasks {
    /// Wakes the task that drives the instance.
    pub waker: Waker,
    /// By handle.
    waitables: Vec<Waitable>,
    pub streams: Slab<Stream>,
    pub futures: Slab<ComponentFuture>,
    timers: Slab<Timer>,
    calls: Slab<GuestTask>,
    /// The call whose code runs.
    current: u32,
    /// Above 0 as long as the guest wants no more calls.
    pub backpressure: u32,
}

#[derive(Clone, Copy, Default)]
struct Waitable {
    /// The handle of its set, or 0.
    set: u32,
    event: Option<(EventCode, u32)>,
}

/// A call of the guest's handler.
pub struct GuestTask {
    pub id: RequestId,
    pub context: [u32; 2],
    /// Takes the guest's answer.
    pub head: Option<oneshot::Sender<GuestResponse>>,
    state: TaskState,
}

/// When a call can go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskState {
    /// At once: it has merely yielded.
    Yielded,
    /// After an event in the set with this handle.
    Waiting(u32),
}

struct Timer {
    handle: u32,
    sleep: Pin<Box<Sleep>>,
    is_over: bool,
}

/// Values by index. Indexes are reused.
pub struct Slab<T>(Vec<Option<T>>);

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab(Vec::new())
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> u32 {
        let at = self.0.iter().position(Option::is_none).unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        self.0[at] = Some(value);
        at as u32
    }

    pub fn get(&mut self, at: u32) -> Result<&mut T> {
        let found = self.0.get_mut(at as usize).and_then(Option::as_mut);
        found.ok_or_else(|| misuse("it is used after its end"))
    }

    pub fn remove(&mut self, at: u32) -> Option<T> {
        self.0.get_mut(at as usize).and_then(Option::take)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    pub fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }

    pub fn indexes(&self) -> Range<u32> {
        0..self.0.len() as u32
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Tasks {
            waker: Waker::noop().clone(),
            waitables: Vec::new(),
            streams: Slab::default(),
            futures: Slab::default(),
            timers: Slab::default(),
            calls: Slab::default(),
            current: 0,
            backpressure: 0,
        }
    }
}

impl Tasks {
    /// Forgets everything, when an instance is reset.
    pub fn clear(&mut self) {
        *self = Tasks::default();
    }

    pub fn begin(&mut self, id: RequestId, head: oneshot::Sender<GuestResponse>) {
        let call = GuestTask { id, context: [0; 2], head: Some(head), state: TaskState::Yielded };
        self.current = self.calls.insert(call);
    }

    /// The call whose code runs.
    pub fn current_task(&mut self) -> Result<&mut GuestTask> {
        self.calls.get(self.current)
    }

    /// How many calls have not ended.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Applies the code with which a call's code has returned: exit, yield, or wait for a set.
    pub fn apply_callback_code(&mut self, code: u32) -> Result<()> {
        const EXIT: u32 = 0;
        const YIELD: u32 = 1;
        const WAIT: u32 = 2;
        match code & 0xf {
            EXIT => {
                let call = self.calls.remove(self.current);
                if call.is_some_and(|call| call.head.is_some()) {
                    return Err(misuse("it has ended without an answer"));
                }
                if self.calls.is_empty() {
                    self.abandon();
                }
            }
            YIELD => self.current_task()?.state = TaskState::Yielded,
            WAIT => self.current_task()?.state = TaskState::Waiting(code >> 4),
            code => return Err(misuse(format!("{code} is no way to end"))),
        }
        Ok(())
    }

    /// Drops the ends of responses that no call is left to write to.
    fn abandon(&mut self) {
        for stream in self.streams.iter_mut() {
            if matches!(stream.reader, StreamReader::Response(_)) {
                stream.reader = StreamReader::Gone;
            }
        }
        for future in self.futures.iter_mut() {
            if matches!(future.reader, FutureReader::Response(_)) {
                future.reader = FutureReader::Gone;
            }
        }
    }

    /// Chooses the next call that can go on. Returns its event, and whether it had merely yielded.
    pub fn next_ready(&mut self) -> Result<Option<(EventCode, u32, u32, bool)>> {
        // Round robin, from the call after the one that ran last.
        let all = self.calls.indexes();
        let (before, behind) = (0..=self.current, self.current + 1..all.end);
        for at in behind.chain(before) {
            let Ok(call) = self.calls.get(at) else { continue };
            let event = match call.state {
                TaskState::Yielded => Some((EventCode::None, 0, 0, true)),
                TaskState::Waiting(set) => {
                    self.take_event(set).map(|(event, handle, value)| (event, handle, value, false))
                }
            };
            if event.is_some() {
                self.current = at;
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn waitable(&mut self, handle: u32) -> &mut Waitable {
        let at = handle as usize;
        if at >= self.waitables.len() {
            self.waitables.resize(at + 1, Waitable::default());
        }
        &mut self.waitables[at]
    }

    /// Sets the event of a handle.
    pub fn set_event(&mut self, handle: u32, event: EventCode, value: u32) {
        self.waitable(handle).event = Some((event, value));
    }

    /// Sets the event of a handle whose copy has completed.
    pub fn set_completed(&mut self, handle: u32, event: EventCode) {
        self.set_event(handle, event, CopyResult::Completed.with(0));
    }

    /// Takes the value of a handle's event, if the guest has not been told of it.
    pub fn take_pending_event(&mut self, handle: u32) -> Option<u32> {
        self.waitable(handle).event.take().map(|(_, value)| value)
    }

    /// Whether a handle has an event that the guest has not been told of.
    pub fn has_pending_event(&mut self, handle: u32) -> bool {
        self.waitable(handle).event.is_some()
    }

    /// Forgets the state of a handle that the guest has given up.
    pub fn clear_waitable(&mut self, handle: u32) {
        *self.waitable(handle) = Waitable::default();
    }

    /// Takes an event of a set: its code, handle and value.
    pub fn take_event(&mut self, set: u32) -> Option<(EventCode, u32, u32)> {
        for (handle, wait) in self.waitables.iter_mut().enumerate() {
            if wait.set == set
                && let Some((event, value)) = wait.event.take()
            {
                return Some((event, handle as u32, value));
            }
        }
        None
    }

    /// Puts a handle into a set; with 0, removes it from its set.
    pub fn join(&mut self, handle: u32, set: u32) {
        self.waitable(handle).set = set;
    }

    pub fn is_in_use(&self, set: u32) -> bool {
        self.waitables.iter().any(|wait| wait.set == set)
    }

    /// Starts a timer. Returns its handle.
    pub fn start_timer(&mut self, sleep: Sleep, handles: &mut HandleTable) -> Result<u32> {
        let timer = Timer { handle: 0, sleep: Box::pin(sleep), is_over: false };
        let at = self.timers.insert(timer);
        let handle = handles.put_raw(TIMER, at)?;
        self.timers.get(at)?.handle = handle;
        Ok(handle)
    }

    /// Cancels a timer. Returns the state that the guest is told.
    pub fn cancel_timer(&mut self, at: u32, handle: u32) -> Result<u32> {
        let timer = self.timers.get(at)?;
        let was_over = std::mem::replace(&mut timer.is_over, true);
        self.waitable(handle).event = None;
        Ok(if was_over { RETURNED } else { CANCELLED })
    }

    /// Drops a timer that has ended.
    pub fn drop_timer(&mut self, at: u32, handle: u32) -> Result<()> {
        if !self.timers.get(at)?.is_over {
            return Err(misuse("a call is dropped that has not ended"));
        }
        self.timers.remove(at);
        self.clear_waitable(handle);
        Ok(())
    }

    /// Sets the events of timers that have ended.
    pub fn poll_timers(&mut self, cx: &mut Context<'_>) {
        for timer in self.timers.0.iter_mut().flatten().filter(|timer| !timer.is_over) {
            if let Poll::Ready(()) = timer.sleep.as_mut().poll(cx) {
                timer.is_over = true;
                let at = timer.handle as usize;
                if at >= self.waitables.len() {
                    self.waitables.resize(at + 1, Waitable::default());
                }
                self.waitables[at].event = Some((EventCode::Subtask, RETURNED));
            }
        }
    }
}
