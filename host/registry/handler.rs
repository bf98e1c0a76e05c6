//! A handler: what a route leads to, with its grants and its current guest, which is cold, loading,
//! ready or failed.
//!
//! Owns what requests and the control path tell each other about it. A request finds the guest
//! without a lock; where there is none yet it asks for it and waits.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::Notify;

use crate::grants::{Grants, OwnerMembership};
use crate::guest::Guest;
use crate::message::Reject;

/// Requests that may wait for one handler: a half of those that may wait on a worker, so that one
/// which takes long to compile does not keep out those that wait for others.
const WAITING_MAX: usize = 512;

/// What a route leads to.
pub struct Handler {
    /// Its place in the pools and gates of every worker. Free for another once it is gone.
    pub id: usize,
    /// What grants and the log call it. A file's is its path below the handler folder, without
    /// extension.
    pub name: Box<str>,
    /// What it may use.
    pub grants: Arc<Grants>,
    /// Counts it among those of its owner.
    _member: OwnerMembership,
    guest: ArcSwapOption<Guest>,
    state: AtomicU8,
    changed: Notify,
    /// Requests that wait for it.
    waiting: AtomicUsize,
    /// Whether the control path has been told that requests wait for it.
    wanted: AtomicBool,
    load_requester: LoadRequester,
    last_used_ticks: AtomicU32,
}

/// Tells the control path that requests wait for the handler with this id.
pub type LoadRequester = Arc<dyn Fn(usize) + Send + Sync>;

/// How far a handler has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HandlerState {
    /// It has a route, and is not loaded.
    Cold,
    Loading,
    Ready,
    /// It could not be loaded; the log has said why.
    Failed,
    /// Its source no longer has it.
    Gone,
}

impl HandlerState {
    /// In the order of their numbers.
    pub const ALL: [HandlerState; 5] = [
        HandlerState::Cold,
        HandlerState::Loading,
        HandlerState::Ready,
        HandlerState::Failed,
        HandlerState::Gone,
    ];

    /// As the log and the status name it.
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

/// The guest that a handler has had at one moment. To get it and to let it go costs no atomic
/// operation on what other threads have too; but one that is had for long is to be [`kept`].
///
/// [`kept`]: CurrentGuest::keep
pub struct CurrentGuest(Guard<Option<Arc<Guest>>>);

impl CurrentGuest {
    /// The guest, to be had for as long as a request waits.
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

/// One of the requests that wait for a handler.
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

    /// The guest that it has now, if it is loaded.
    pub fn current(&self) -> Option<CurrentGuest> {
        let guest = self.guest.load();
        guest.is_some().then(|| CurrentGuest(guest))
    }

    /// The guest, if it is loaded.
    pub fn guest(&self) -> Guard<Option<Arc<Guest>>> {
        self.guest.load()
    }

    pub fn state(&self) -> HandlerState {
        HandlerState::ALL[usize::from(self.state.load(Ordering::Acquire))]
    }

    /// Waits until the guest is loaded. Waits as long as it takes, so the caller has a deadline.
    ///
    /// # Errors
    /// [`Reject::NotLoaded`] where it cannot be loaded, [`Reject::NoRoute`] where it has gone
    /// meanwhile, [`Reject::Loading`] where too many wait for it.
    pub async fn wait(&self) -> Result<Arc<Guest>, Reject> {
        let place = WaitPermit::take(&self.waiting).ok_or(Reject::Loading)?;
        let guest = self.wait_until_loaded().await;
        drop(place);
        guest
    }

    async fn wait_until_loaded(&self) -> Result<Arc<Guest>, Reject> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed.
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

    /// Whether requests have waited for it since it was loaded or given up.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Whether requests wait for it.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Notes that it is used at a moment, see [`super::Registry::coarse_ticks`].
    pub fn touch(&self, moment: u32) {
        // Most find it so, and then the line stays shared between the cores.
        if self.last_used_ticks.load(Ordering::Relaxed) != moment {
            self.last_used_ticks.store(moment, Ordering::Relaxed);
        }
    }

    /// The moment of its last use.
    pub fn used_at(&self) -> u32 {
        self.last_used_ticks.load(Ordering::Relaxed)
    }

    /// Serves this guest from now on. Returns the one before.
    pub fn publish(&self, guest: Arc<Guest>) -> Option<Arc<Guest>> {
        let before = self.guest.swap(Some(guest));
        self.set(HandlerState::Ready);
        before
    }

    /// Says how far it is, when no guest comes or goes.
    pub fn set(&self, state: HandlerState) {
        self.state.store(state as u8, Ordering::Release);
        if state != HandlerState::Loading {
            self.wanted.store(false, Ordering::Release);
            self.changed.notify_waiters();
        }
    }

    /// Stops serving the guest, which is returned. What comes next is said before.
    pub fn withdraw(&self, state: HandlerState) -> Option<Arc<Guest>> {
        self.state.store(state as u8, Ordering::Release);
        let before = self.guest.swap(None);
        self.set(state);
        before
    }
}
