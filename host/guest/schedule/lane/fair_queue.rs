//! In what order the calls in the slow lane run.
//!
//! The owner of guests that has used the least CPU time is next, of that the guest which has, and
//! its calls take turns, a quantum each. So many long calls of one guest, or of many guests of one
//! owner, do not keep one call of another waiting.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use async_task::Runnable;
use tokio::runtime::Handle;

/// A call that is to go on.
pub type LaneTask = Runnable<TaskMetadata>;

/// Who pays for the CPU time of a call: the owner of its guest, and among that one's guests this
/// one, by their ids.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Payer {
    pub owner: u64,
    pub guest: usize,
}

/// What a thread is to do next.
pub enum WorkItem {
    /// To poll a call, and to charge its guest for that.
    Poll(LaneTask, Payer),
    /// To let go of a call that nobody waits for.
    Abandon(LaneTask),
    Discard(DeferredDrop),
}

/// What is only to be dropped.
pub type DeferredDrop = Box<dyn Send>;

/// What the lane knows of a call.
pub struct TaskMetadata {
    /// Who pays for it.
    pub payer: Payer,
    /// The runtime of its worker, whose sockets and timers it waits for.
    pub runtime: Handle,
    /// Nobody waits for it any more.
    pub abandoned: AtomicBool,
    /// How many calls of its guest and worker want the CPU.
    pub runnable: Arc<AtomicUsize>,
}

/// What workers, and whatever wakes a call, tell the lane.
pub enum Message {
    /// This one can go on.
    Job(LaneTask),
    /// Nobody waits for one of this guest's calls any more.
    Abandoned(Payer),
    /// To drop this takes a while.
    DropLater(DeferredDrop),
}

/// So many owners, and guests of one, are kept before any is forgotten.
const FORGET_MIN: usize = 16;

/// Calls that wait for a thread, by the use of CPU time of their owners and guests. One that comes
/// to the lane begins where the one that ran last stands, and has saved nothing up; or where it
/// stood itself, if it has used more (start-time fair queueing; Goyal, Vin, Cheng, SIGCOMM 1996).
pub struct FairQueue {
    inbox: Receiver<Message>,
    /// Calls that only have to be dropped: they hold instances.
    abandoned: Vec<LaneTask>,
    deferred_drops: VecDeque<DeferredDrop>,
    owners: HashMap<u64, OwnerQueue>,
    /// Owners with calls that wait: CPU time used, in nanoseconds, and id.
    order: BTreeSet<(u64, u64)>,
    floor_ns: u64,
    /// Calls that run.
    running: usize,
    /// How many owners there are when those are forgotten that have used no more than others.
    forget_at: usize,
}

/// What an owner has in the lane.
struct OwnerQueue {
    used_ns: u64,
    guests: HashMap<usize, GuestQueue>,
    /// Its guests with calls that wait, likewise.
    order: BTreeSet<(u64, usize)>,
    floor_ns: u64,
    /// As of owners.
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

    /// Takes in what has come.
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

    /// Puts aside a guest's calls for which nobody waits.
    fn give_up(&mut self, payer: Payer) {
        let Some(owner) = self.owners.get_mut(&payer.owner) else { return };
        owner.give_up(payer.guest, &mut self.abandoned);
        if owner.order.is_empty() {
            self.order.remove(&(owner.used_ns, payer.owner));
        }
        self.forget_idle();
    }

    /// Forgets who has used what, where nobody is there to whom it matters.
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

    /// Charges for what has run.
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
