//! The order of calls in the slow lane.
//!
//! Next is the owner whose guests have used the least CPU time, then the guest of that owner that
//! has used the least. The calls of a guest take turns of one quantum. So many long calls of one
//! guest, or of many guests of one owner, do not keep the call of another owner waiting.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use async_task::Runnable;
use tokio::runtime::Handle;

/// A call that can go on.
pub type LaneTask = Runnable<TaskMetadata>;

/// Who pays for the CPU time of a call: an owner, and one of its guests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Payer {
    /// The owner's id.
    pub owner: u64,
    /// The guest's number.
    pub guest: usize,
}

/// What a thread does next.
pub enum WorkItem {
    /// Poll a call, and charge the payer for it.
    Poll(LaneTask, Payer),
    /// Drop a call that nobody waits for.
    Abandon(LaneTask),
    /// Drop a value.
    Discard(DeferredDrop),
}

/// A value that only has to be dropped.
pub type DeferredDrop = Box<dyn Send>;

/// What the lane knows of a call.
pub struct TaskMetadata {
    /// Who pays for it.
    pub payer: Payer,
    /// The runtime of its worker, with the sockets and timers that it waits for.
    pub runtime: Handle,
    /// Set when nobody waits for it any more.
    pub abandoned: AtomicBool,
    /// Counts the calls of its guest and worker that run or wait for a thread.
    pub runnable: Arc<AtomicUsize>,
}

/// Messages to the lane, from workers and from whatever wakes a call.
pub enum Message {
    /// This call can go on.
    Job(LaneTask),
    /// Nobody waits for one of this payer's calls any more.
    Abandoned(Payer),
    /// Drop this value: that takes a while.
    DropLater(DeferredDrop),
}

/// How many owners, or guests of one owner, are kept before idle ones are forgotten.
const FORGET_MIN: usize = 16;

/// Calls that wait for a thread, by the CPU time that their owners and guests have used. A newcomer
/// starts at the time of the one that ran last, so that nobody saves up CPU time; or at its own, if
/// that is more (start-time fair queueing; Goyal, Vin, Cheng, SIGCOMM 1996).
pub struct FairQueue {
    inbox: Receiver<Message>,
    /// Calls that only have to be dropped, as they hold instances.
    abandoned: Vec<LaneTask>,
    deferred_drops: VecDeque<DeferredDrop>,
    owners: HashMap<u64, OwnerQueue>,
    /// Owners with waiting calls: CPU time used, in nanoseconds, and id.
    order: BTreeSet<(u64, u64)>,
    floor_ns: u64,
    /// How many calls are running.
    running: usize,
    /// At so many owners, those that have used no more than the floor are forgotten.
    forget_at: usize,
}

/// What an owner has in the lane.
struct OwnerQueue {
    used_ns: u64,
    guests: HashMap<usize, GuestQueue>,
    /// Its guests with waiting calls: CPU time used, in nanoseconds, and number.
    order: BTreeSet<(u64, usize)>,
    floor_ns: u64,
    /// The same for guests.
    forget_at: usize,
}

/// What a guest has in the lane.
#[derive(Default)]
struct GuestQueue {
    used_ns: u64,
    waiting: VecDeque<LaneTask>,
    running: usize,
}

impl FairQueue {
    pub fn new(inbox: Receiver<Message>) -> Self {
        FairQueue {
            inbox,
            abandoned: Vec::new(),
            deferred_drops: VecDeque::new(),
            owners: HashMap::new(),
            order: BTreeSet::new(),
            floor_ns: 0,
            running: 0,
            forget_at: FORGET_MIN,
        }
    }

    /// Takes up all messages.
    pub fn drain_inbox(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Job(job) if is_abandoned(&job) => self.abandoned.push(job),
                Message::Job(job) => self.put(job),
                Message::Abandoned(payer) => self.give_up(payer),
                Message::DropLater(item) => self.deferred_drops.push_back(item),
            }
        }
    }

    fn put(&mut self, job: LaneTask) {
        let payer = job.metadata().payer;
        let floor_ns = self.floor_ns;
        if self.owners.len() >= self.forget_at {
            self.owners.retain(|_, owner| owner.is_active() || owner.used_ns > floor_ns);
            self.forget_at = 2 * self.owners.len() + FORGET_MIN;
        }
        let owner = self.owners.entry(payer.owner).or_insert_with(OwnerQueue::new);
        if owner.order.is_empty() {
            owner.used_ns = owner.used_ns.max(floor_ns);
        }
        owner.put(payer.guest, job);
        self.order.insert((owner.used_ns, payer.owner));
    }

    /// Takes out the calls of a payer that nobody waits for.
    fn give_up(&mut self, payer: Payer) {
        let Some(owner) = self.owners.get_mut(&payer.owner) else { return };
        owner.give_up(payer.guest, &mut self.abandoned);
        if owner.order.is_empty() {
            self.order.remove(&(owner.used_ns, payer.owner));
        }
        self.forget_idle();
    }

    /// Forgets all use of CPU time once no call is left that it matters to.
    fn forget_idle(&mut self) {
        if self.running == 0 && self.order.is_empty() {
            self.owners.clear();
            self.floor_ns = 0;
        }
    }

    pub fn pop(&mut self) -> Option<WorkItem> {
        if let Some(job) = self.abandoned.pop() {
            return Some(WorkItem::Abandon(job));
        }
        if let Some(item) = self.deferred_drops.pop_front() {
            return Some(WorkItem::Discard(item));
        }
        let &(used_ns, id) = self.order.first()?;
        let owner = self.owners.get_mut(&id)?;
        let (guest, job) = owner.pop()?;
        self.floor_ns = self.floor_ns.max(used_ns);
        self.running += 1;
        if owner.order.is_empty() {
            self.order.pop_first();
        }
        Some(WorkItem::Poll(job, Payer { owner: id, guest }))
    }

    pub fn has_more(&self) -> bool {
        !self.order.is_empty() || !self.abandoned.is_empty() || !self.deferred_drops.is_empty()
    }

    /// Charges a payer for a turn.
    pub fn charge(&mut self, payer: Payer, time: Duration) {
        self.running -= 1;
        let Some(owner) = self.owners.get_mut(&payer.owner) else { return };
        let time_ns = time.as_nanos() as u64;
        let was_in_order = self.order.remove(&(owner.used_ns, payer.owner));
        owner.used_ns = owner.used_ns.saturating_add(time_ns);
        owner.charge(payer.guest, time_ns);
        if was_in_order {
            self.order.insert((owner.used_ns, payer.owner));
        }
        self.forget_idle();
    }
}

impl OwnerQueue {
    fn new() -> Self {
        let (guests, order) = Default::default();
        OwnerQueue { used_ns: 0, guests, order, floor_ns: 0, forget_at: FORGET_MIN }
    }

    /// Whether it has calls that wait or run.
    fn is_active(&self) -> bool {
        self.guests.values().any(GuestQueue::is_active)
    }

    fn put(&mut self, id: usize, job: LaneTask) {
        let floor_ns = self.floor_ns;
        if self.guests.len() >= self.forget_at {
            self.guests.retain(|_, guest| guest.is_active() || guest.used_ns > floor_ns);
            self.forget_at = 2 * self.guests.len() + FORGET_MIN;
        }
        let guest = self.guests.entry(id).or_default();
        if guest.waiting.is_empty() {
            guest.used_ns = guest.used_ns.max(floor_ns);
        }
        guest.waiting.push_back(job);
        self.order.insert((guest.used_ns, id));
    }

    fn give_up(&mut self, id: usize, abandoned: &mut Vec<LaneTask>) {
        let Some(guest) = self.guests.get_mut(&id) else { return };
        let (given_up, waiting) = guest.waiting.drain(..).partition(is_abandoned);
        guest.waiting = waiting;
        abandoned.extend::<VecDeque<LaneTask>>(given_up);
        if guest.waiting.is_empty() {
            self.order.remove(&(guest.used_ns, id));
        }
    }

    fn pop(&mut self) -> Option<(usize, LaneTask)> {
        let &(used_ns, id) = self.order.first()?;
        let guest = self.guests.get_mut(&id)?;
        let job = guest.waiting.pop_front()?;
        guest.running += 1;
        self.floor_ns = self.floor_ns.max(used_ns);
        if guest.waiting.is_empty() {
            self.order.pop_first();
        }
        Some((id, job))
    }

    fn charge(&mut self, id: usize, time_ns: u64) {
        let Some(guest) = self.guests.get_mut(&id) else { return };
        let was_in_order = self.order.remove(&(guest.used_ns, id));
        guest.used_ns = guest.used_ns.saturating_add(time_ns);
        guest.running -= 1;
        if was_in_order {
            self.order.insert((guest.used_ns, id));
        }
    }
}

impl GuestQueue {
    fn is_active(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }
}

fn is_abandoned(job: &LaneTask) -> bool {
    job.metadata().abandoned.load(Ordering::Relaxed)
}
