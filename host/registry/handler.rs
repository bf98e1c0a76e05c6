//! A handler: the target of a route, with its grants and its current guest.
//!
//! Owns what requests and the control path tell each other about a handler. A request finds the
//! guest without a lock. If no guest is loaded, the request asks the control path for it and waits.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::Notify;

use crate::grants::{Grants, OwnerMembership};
use crate::guest::Guest;
use crate::message::Reject;

/// How many requests may wait for one handler. It is half of what may wait on a worker, so that a
/// handler that takes long to compile leaves room for requests to others.
const WAITING_MAX: usize = 512;

/// The target of a route.
pub struct Handler {
    /// The index in the pools and gates of every worker. Reused once the handler is gone.
    pub id: usize,
    /// The name in grants and in the log. For a file, its path below the handler folder without
    /// extension.
    pub name: Box<str>,
    /// What the handler may use.
    pub grants: Arc<Grants>,
    /// Counts the handler for its owner.
    _member: OwnerMembership,
    guest: ArcSwapOption<Guest>,
    state: AtomicU8,
    changed: Notify,
    /// How many requests wait for the guest.
    waiting: AtomicUsize,
    /// Whether the control path has been told that requests wait.
    wanted: AtomicBool,
    load_requester: LoadRequester,
    last_used_ticks: AtomicU32,
}

/// Tells the control path that requests wait for the handler with this id.
pub type LoadRequester = Arc<dyn Fn(usize) + Send + Sync>;

/// Whether a handler has a guest, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HandlerState {
    /// The guest is not loaded. It will be when a request wants it.
    Cold,
    /// The guest is being loaded.
    Loading,
    /// The guest is loaded.
    Ready,
    /// The guest could not be loaded. The log says why.
    Failed,
    /// The handler's source no longer has it.
    Gone,
}

impl HandlerState {
    /// All states, in the order of their numbers.
    pub const ALL: [HandlerState; 5] = [
        HandlerState::Cold,
        HandlerState::Loading,
        HandlerState::Ready,
        HandlerState::Failed,
        HandlerState::Gone,
    ];

    /// The name in the log and in the status.
    pub fn name(self) -> &'static str {
        match self {
            HandlerState::Cold => "cold",
            HandlerState::Loading => "loading",
            HandlerState::Ready => "ready",
            HandlerState::Failed => "failed",
            HandlerState::Gone => "gone",
        }
    }
}

/// A borrowed reference to a handler's current guest. Getting and dropping it touches no shared
/// reference count. Code that holds it across a wait must call [`CurrentGuest::keep`].
pub struct CurrentGuest(Guard<Option<Arc<Guest>>>);

impl CurrentGuest {
    /// Turns the borrow into a counted reference, which may be held for long.
    pub fn keep(&mut self) -> &Arc<Guest> {
        self.0 = Guard::from_inner(Some(Arc::clone(self)));
        self
    }
}

impl From<Arc<Guest>> for CurrentGuest {
    fn from(guest: Arc<Guest>) -> Self {
        CurrentGuest(Guard::from_inner(Some(guest)))
    }
}

impl Deref for CurrentGuest {
    type Target = Arc<Guest>;

    fn deref(&self) -> &Arc<Guest> {
        self.0.as_ref().expect("it is made of a guest alone")
    }
}

/// Counts one request that waits for a handler until this is dropped.
struct WaitPermit<'a>(&'a AtomicUsize);

impl<'a> WaitPermit<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = WaitPermit(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX).then_some(place)
    }
}

impl Drop for WaitPermit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handler {
    /// A handler without a guest. `id` must differ from that of every other handler that exists.
    pub fn new(id: usize, name: &str, grants: Arc<Grants>, want: LoadRequester) -> Arc<Self> {
        Arc::new(Handler {
            id,
            name: name.into(),
            _member: grants.owner.enter(),
            grants,
            guest: ArcSwapOption::empty(),
            state: AtomicU8::new(HandlerState::Cold as u8),
            changed: Notify::new(),
            waiting: AtomicUsize::new(0),
            wanted: AtomicBool::new(false),
            load_requester: want,
            last_used_ticks: AtomicU32::new(0),
        })
    }

    /// The current guest for a call, if one is loaded.
    pub fn current(&self) -> Option<CurrentGuest> {
        let guest = self.guest.load();
        guest.is_some().then(|| CurrentGuest(guest))
    }

    /// The current guest, if one is loaded.
    pub fn guest(&self) -> Guard<Option<Arc<Guest>>> {
        self.guest.load()
    }

    /// Whether the handler has a guest, or why not.
    pub fn state(&self) -> HandlerState {
        HandlerState::ALL[usize::from(self.state.load(Ordering::Acquire))]
    }

    /// Waits until a guest is loaded. There is no time limit, so the caller has to set a deadline.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Reject::NotLoaded`] if loading fails, [`Reject::NoRoute`] if the handler is removed
    /// meanwhile, [`Reject::Loading`] if too many requests wait already.
    pub async fn wait(&self) -> Result<Arc<Guest>, Reject> {
        let place = WaitPermit::take(&self.waiting).ok_or(Reject::Loading)?;
        let guest = self.wait_until_loaded().await;
        drop(place);
        guest
    }

    async fn wait_until_loaded(&self) -> Result<Arc<Guest>, Reject> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on this future sees every change.
            changed.as_mut().enable();
            if let Some(guest) = &*self.guest() {
                return Ok(guest.clone());
            }
            match self.state() {
                HandlerState::Failed => return Err(Reject::NotLoaded),
                HandlerState::Gone => return Err(Reject::NoRoute),
                HandlerState::Cold | HandlerState::Loading | HandlerState::Ready => {}
            }
            if !self.wanted.swap(true, Ordering::AcqRel) {
                (self.load_requester)(self.id);
            }
            changed.await;
        }
    }

    /// Whether a request has waited for the guest since the state last changed.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Whether requests wait for the guest now.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Notes that the handler is used at `moment`, in [`super::Registry::coarse_ticks`].
    pub fn touch(&self, moment: u32) {
        // Most requests find the same value. Not writing it again keeps the cache line shared
        // between the cores.
        if self.last_used_ticks.load(Ordering::Relaxed) != moment {
            self.last_used_ticks.store(moment, Ordering::Relaxed);
        }
    }

    /// When the handler was last used, in [`super::Registry::coarse_ticks`].
    pub fn used_at(&self) -> u32 {
        self.last_used_ticks.load(Ordering::Relaxed)
    }

    /// Serves this guest from now on. Returns the previous guest.
    pub fn publish(&self, guest: Arc<Guest>) -> Option<Arc<Guest>> {
        let before = self.guest.swap(Some(guest));
        self.set(HandlerState::Ready);
        before
    }

    /// Sets the state without changing the guest, and wakes waiting requests.
    pub fn set(&self, state: HandlerState) {
        self.state.store(state as u8, Ordering::Release);
        if state != HandlerState::Loading {
            self.wanted.store(false, Ordering::Release);
            self.changed.notify_waiters();
        }
    }

    /// Stops serving the guest and returns it. Sets the state first, so that a request that finds
    /// no guest sees why.
    pub fn withdraw(&self, state: HandlerState) -> Option<Arc<Guest>> {
        self.state.store(state as u8, Ordering::Release);
        let before = self.guest.swap(None);
        self.set(state);
        before
    }
}
