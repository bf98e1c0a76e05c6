//! An instance that handles several requests at once: a component of wasi:http 0.3 under reuse.
//!
//! Owns how many requests it is given, when another takes its place, and where it runs: on its
//! worker's thread until one of its requests has had a quantum of CPU time, and from then on, with
//! no more requests, in the slow lane. Lives on one thread; what is driven may move.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::context::Home;
use super::seats::{SEATS, Seats};
use super::terms::{AFTERWARDS_MAX, Broken, Called, Ended};
use crate::guest::component::concurrent::{Arrival, Inbox, Marks};
use crate::guest::component::gone::Gone;
use crate::guest::component::running::Concurrent;
use crate::guest::engine::ends::{judge, log_end};
use crate::guest::engine::limiter::PrepaidStacks;
use crate::guest::instance::component::ComponentInstance;
use crate::guest::instance::guest::Guest;
use crate::guest::instance::sandbox::Instance;
use crate::guest::schedule::Beating;
use crate::guest::schedule::{HEAVY, Length, Movable, Moved, QUANTUM, Schedule, Slice, Turn};
use crate::message::Reject;
use crate::metrics::{self, Counter};

/// Requests that an instance handles in all.
const REQUESTS_MAX: u32 = 128;
/// How long an instance without requests is kept, and how often that is looked at.
const IDLE_MAX: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// An instance with requests in it.
pub struct SharedInstance {
    guest: Arc<Guest>,
    schedule: Rc<Schedule>,
    gone: Gone,
    prepaid: PrepaidStacks,
    marks: Arc<Marks>,
    /// Where requests go in.
    inbox: Arc<Inbox>,
    /// `None` once it has ended.
    place: RefCell<Option<Place>>,
    /// Its place in the run queue, while it waits for a turn or has it.
    turn: RefCell<Option<Turn>>,
    /// Of the task that drives it.
    waker: RefCell<Waker>,
    seats: Seats,
    requests: Cell<u32>,
    /// What the last request had kept, as long as the guest goes on behind its response: so an
    /// instance that is at work has a place of those that there are.
    behind: RefCell<Option<Box<dyn Any>>>,
    /// Whether a request was given up that the guest may still be at.
    is_spoilt: Cell<bool>,
    /// Whether it may go on in the slow lane.
    in_lanes: bool,
    /// The instance, once it has ended by itself. Bodies of responses may still come out of it, and
    /// those that the guest has finished can be told from others.
    remains: RefCell<Option<Instance>>,
    /// How it has ended, if badly.
    reject: Cell<Option<Reject>>,
}

/// Where an instance is driven.
enum Place {
    Fast(Movable<Called>),
    /// As long as it is there, the guest has to be told to yield.
    Slow {
        moved: Moved<Called>,
        _beating: Beating,
    },
}

/// A request's place in an instance. Dropped before it is [`done`](Seat::done), it has the instance
/// end with its other requests.
pub struct Seat {
    shared: Rc<SharedInstance>,
    number: usize,
    is_done: bool,
    keep: Option<Box<dyn Any>>,
}

impl SharedInstance {
    /// An instance for several requests, which is to be driven by [`SharedInstance::drive`].
    pub fn start<R: Concurrent>(
        mut instance: Box<ComponentInstance<R>>,
        pool: &dyn Home,
    ) -> Rc<SharedInstance>
    where
        Instance: From<Box<ComponentInstance<R>>>,
    {
        instance.open(pool.door());
        let schedule = pool.schedule().clone();
        let (inbox, marks) = (Arc::new(Inbox::default()), Arc::new(Marks::default()));
        let (guest, gone) = (instance.guest().clone(), instance.gone());
        let prepaid = instance.prepaid_stacks();
        let attend = instance.attend(inbox.clone(), marks.clone());
        let call: Movable<Called> = Box::pin(async move {
            let (instance, result) = attend.await;
            (Instance::from(instance), result)
        });
        Rc::new(SharedInstance {
            in_lanes: schedule.lane().has_threads(),
            schedule,
            guest,
            gone,
            prepaid,
            marks,
            inbox,
            place: RefCell::new(Some(Place::Fast(call))),
            turn: RefCell::new(None),
            waker: RefCell::new(Waker::noop().clone()),
            seats: Seats::default(),
            requests: Cell::new(0),
            behind: RefCell::new(None),
            is_spoilt: Cell::new(false),
            remains: RefCell::new(None),
            reject: Cell::new(None),
        })
    }

    /// Drives it to its end.
    pub async fn drive(&self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        poll_fn(|cx| {
            if !self.waker.borrow().will_wake(cx.waker()) {
                *self.waker.borrow_mut() = cx.waker().clone();
            }
            while look.poll_tick(cx).is_ready() {
                self.look();
            }
            self.turn(cx)
        })
        .await;
    }

    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Tells when its store is gone.
    pub fn gone(&self) -> Gone {
        self.gone.clone()
    }

    /// Whether it is to be given requests, now or later.
    pub fn is_open(&self) -> bool {
        !self.inbox.is_closed()
    }

    /// A place for one more request, if it is to have that. Calls of which each takes a while would
    /// hold each other up, so they get an instance each.
    pub fn seat(self: &Rc<Self>) -> Option<Seat> {
        let at_once = if self.schedule.length(self.guest.id) == Length::Long { 1 } else { SEATS };
        if !self.is_open() || !self.marks.is_ready() || self.seats.taken() >= at_once {
            return None;
        }
        self.guest.charge_stacks(self.seats.taken() + 1, &self.prepaid).ok()?;
        let number = self.seats.take()?;
        self.requests.set(self.requests.get() + 1);
        self.schedule.note_under_way(true);
        self.release();
        Some(Seat { shared: self.clone(), number, is_done: false, keep: None })
    }

    /// Has no more requests come in, for a reason that is counted. Once the guest is done with
    /// those that are there, it ends.
    fn close(&self, reason: fn(&metrics::Instances) -> &Counter) {
        if self.is_open() {
            reason(&self.schedule.reasons().instances).add(1);
            self.inbox.close();
            self.waker.borrow().wake_by_ref();
        }
    }

    /// Has no more requests come in, because its guest is served no more.
    pub fn retire(&self) {
        self.close(|counts| &counts.retired);
    }

    /// Closes it because memory or places are short, and ends it at once if it has no requests.
    pub fn evict(&self) {
        self.close(|counts| &counts.relieved);
        if self.seats.taken() == 0 {
            self.end(None);
        }
    }

    /// Lets the guest go on; ready when the instance is gone.
    fn turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Ok(mut place) = self.place.try_borrow_mut() else { return Poll::Pending };
        let polled = match &mut *place {
            None => return Poll::Ready(()),
            Some(Place::Fast(_)) if !self.poll_turn(cx) => return Poll::Pending,
            Some(Place::Fast(call)) => self.run(call, cx),
            Some(Place::Slow { moved, .. }) => {
                Pin::new(moved).poll(cx).map(|ended| ended.map(|(called, _)| called))
            }
        };
        match polled {
            Poll::Ready(called) => {
                if let Some(Place::Slow { .. }) = place.take() {
                    self.schedule.line(self.guest.id).leave();
                }
                drop(place);
                self.conclude(called);
                Poll::Ready(())
            }
            Poll::Pending if matches!(*place, Some(Place::Fast(_))) => {
                if !self.marks.is_at_work() {
                    self.release();
                }
                if self.in_lanes && self.seats.longest() >= QUANTUM {
                    *place = self.hand_over(place.take());
                } else if self.seats.longest() >= self.guest.about.grants.limits.cpu_max {
                    drop(place);
                    log_end(
                        &self.guest.about,
                        self.seats.only(),
                        format_args!("{}", Reject::CpuTime),
                    );
                    self.log_each(Reject::CpuTime);
                    self.end(Some(Reject::CpuTime));
                    return Poll::Ready(());
                }
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Lets the guest go on in this thread.
    fn run(
        &self,
        call: &mut Movable<Called>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Called, Reject>> {
        let _running = self.schedule.pulse().begin();
        let is_measured = self.in_lanes && self.schedule.length(self.guest.id) != Length::Short;
        let begun = Slice::begin((!is_measured).then(Instant::now));
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx)));
        let used = begun.used();
        if let Some(turn) = self.turn.borrow_mut().take() {
            turn.end(used);
        }
        if is_measured {
            self.schedule.note_slice(self.guest.id, used);
        } else if used >= HEAVY {
            self.schedule.note(self.guest.id, |usage| usage.suspect(used));
        }
        self.seats.charge(used);
        polled.map(|polled| polled.map(Ok)).unwrap_or(Poll::Ready(Err(Reject::Panic)))
    }

    /// Whether it may go on now: one whose slices are heavy, or not known, waits for its turn.
    fn poll_turn(&self, cx: &Context<'_>) -> bool {
        let waits = |length| matches!(length, Length::Heavy | Length::New);
        if !self.in_lanes || !waits(self.schedule.length(self.guest.id)) {
            return true;
        }
        let mut turn = self.turn.borrow_mut();
        turn.get_or_insert_with(|| self.schedule.join_run_queue(self.guest.id, None, cx)).poll(cx)
    }

    fn hand_over(&self, place: Option<Place>) -> Option<Place> {
        let Some(Place::Fast(call)) = place else { return place };
        self.inbox.close();
        let id = self.guest.id;
        self.schedule.reasons().calls.moved.add(1);
        self.schedule.note_call(id, true, None);
        let (cpu_max, runnable) =
            (self.guest.about.grants.limits.cpu_max, self.schedule.line(id).runnable());
        let moved =
            self.schedule.lane().hand_over(self.schedule.payer(id), call, cpu_max, runnable);
        // Whoever drives it has to look at it anew.
        self.waker.borrow().wake_by_ref();
        Some(Place::Slow { moved, _beating: self.schedule.pulse().keep() })
    }

    /// Takes note of how it has ended.
    fn conclude(&self, called: Result<Called, Reject>) {
        self.inbox.close();
        let about = &self.guest.about;
        let reject = match called {
            Ok((instance, result)) => {
                let judged = judge(about, self.seats.only(), result);
                if self.seats.taken() > 0 {
                    *self.remains.borrow_mut() = Some(instance);
                } else {
                    self.schedule.dispose(instance);
                }
                judged.err()
            }
            Err(reject) => {
                log_end(about, self.seats.only(), format_args!("{reject}"));
                Some(reject)
            }
        };
        if let Some(reject) = reject {
            self.log_each(reject);
        }
        self.reject.set(reject);
        self.release();
        self.wake_all();
    }

    /// Says in the log what becomes of its requests, where there are several.
    fn log_each(&self, reject: Reject) {
        if self.seats.only().is_some() {
            return;
        }
        for id in self.seats.ids() {
            let why = format_args!("{reject}, with the other requests of its instance");
            log_end(&self.guest.about, Some(id), why);
        }
    }

    /// Ends it where it stands.
    fn end(&self, reject: Option<Reject>) {
        self.inbox.close();
        let Ok(mut place) = self.place.try_borrow_mut() else { return };
        match place.take() {
            Some(Place::Fast(call)) => self.schedule.lane().discard(call),
            Some(slow @ Place::Slow { .. }) => {
                drop(slow);
                self.schedule.line(self.guest.id).leave();
            }
            None => return,
        }
        drop(place);
        self.reject.set(reject);
        self.release();
        self.wake_all();
    }

    /// Gives back what is kept for work behind the last response.
    fn release(&self) {
        if let Some(keep) = self.behind.borrow_mut().take() {
            drop(keep);
            self.schedule.note_under_way(false);
        }
    }

    fn wake_all(&self) {
        self.waker.borrow().wake_by_ref();
        self.seats.wake_all();
    }

    /// What is to be done about it now and then.
    fn look(&self) {
        if self.seats.taken() > 0 {
            return;
        }
        if !self.marks.is_at_work() {
            self.release();
        }
        let for_ = self.seats.empty_for();
        if self.guest.is_retired() {
            self.retire();
        } else if for_ >= IDLE_MAX {
            self.close(|counts| &counts.idle);
        }
        if for_ >= IDLE_MAX + AFTERWARDS_MAX {
            self.end(None);
        }
    }

    /// A request has left.
    fn leave(&self, number: usize, is_done: bool, keep: Option<Box<dyn Any>>) {
        self.seats.leave(number);
        let goes_on = self.seats.taken() == 0 && self.marks.is_at_work();
        let is_there = self.place.try_borrow().is_ok_and(|place| place.is_some());
        if goes_on && is_there && keep.is_some() {
            *self.behind.borrow_mut() = keep;
        } else {
            self.schedule.note_under_way(false);
        }
        if !is_done {
            self.is_spoilt.set(true);
        }
        if self.is_spoilt.get() {
            self.close(|counts| &counts.given_up);
        } else if self.requests.get() >= REQUESTS_MAX || self.marks.is_over() {
            self.close(|counts| &counts.spent);
        }
        if self.seats.taken() == 0 {
            if self.is_spoilt.get() {
                self.end(None);
            }
            if let Some(instance) = self.remains.borrow_mut().take() {
                self.schedule.dispose(instance);
            }
        }
    }
}

impl Seat {
    /// What tells when the store is gone.
    pub fn gone(&self) -> Gone {
        self.shared.gone()
    }

    pub fn guest(&self) -> &Arc<Guest> {
        &self.shared.guest
    }

    /// Hands the request in; `keep` is dropped when it leaves.
    ///
    /// # Errors
    /// The instance has ended meanwhile.
    pub fn enter(&mut self, arrival: Box<Arrival>, keep: impl Any) -> Result<(), Reject> {
        self.keep = Some(Box::new(keep));
        let flow = arrival.request.body().flow.clone();
        self.shared.seats.enter(self.number, arrival.id, flow);
        if !self.shared.is_open() {
            log_end(&self.guest().about, Some(arrival.id), format_args!("its instance has ended"));
            return Err(Reject::Trap);
        }
        self.shared.schedule.reasons().calls.fast.add(1);
        self.shared.marks.note_arrival();
        self.shared.inbox.put(arrival);
        if self.shared.requests.get() >= REQUESTS_MAX {
            self.shared.close(|counts| &counts.spent);
        }
        Ok(())
    }

    /// Lets the guest go on. Ready where its instance has come to a bad end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let shared = &self.shared;
        let waker = shared.waker.borrow().clone();
        let polled = shared.turn(&mut Context::from_waker(&waker));
        if polled.is_ready()
            && let Some(reject) = shared.reject.get()
        {
            return Poll::Ready(Err(Broken { reject, instance: None }));
        }
        shared.seats.register(self.number, cx.waker());
        Poll::Pending
    }

    /// Says that the response is complete.
    pub fn done(mut self) {
        self.is_done = true;
        let SharedInstance { guest, schedule, .. } = &*self.shared;
        if schedule.length(guest.id) != Length::Short {
            let is_long = self.shared.seats.longest() >= QUANTUM;
            schedule.note_call(guest.id, is_long, None);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let keep = self.keep.take();
        self.shared.leave(self.number, self.is_done, keep);
    }
}
