//! Resolves host names to addresses.
//!
//! Owns the bounds on lookups. `getaddrinfo` cannot be cancelled, so a lookup keeps its thread and
//! its permits until it ends, even if the request has timed out. Each handler has only a few
//! permits, so a handler with slow names does not block the others. Must not know where a handler
//! may send requests, nor which connections are opened.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::failure::OutboundFailure;
use super::policy::DestinationHost;

/// How many lookups the whole host runs at once. Each takes a thread.
const LOOKUPS_MAX: usize = 64;
/// How many lookups one handler runs at once.
const GUEST_LOOKUPS_MAX: usize = 4;
/// How many handlers are remembered before those without a lookup are removed.
const GUESTS_MIN: usize = 64;

type LookupResult = Result<Arc<[IpAddr]>, OutboundFailure>;
type LookupFunction = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Resolves names. All workers share one resolver.
pub struct Resolver {
    permits: Arc<Semaphore>,
    state: Mutex<ResolverState>,
    lookup: Box<LookupFunction>,
}

#[derive(Default)]
struct ResolverState {
    guests: HashMap<Box<str>, Arc<Semaphore>>,
    /// Names that are being looked up, so that requests for the same name share a lookup.
    in_progress: HashMap<Box<str>, watch::Receiver<Option<LookupResult>>>,
}

/// The right to run one lookup: a permit of the handler and one of the host.
struct LookupPermit {
    _guest: OwnedSemaphorePermit,
    _host: OwnedSemaphorePermit,
}

impl Resolver {
    /// A resolver that uses the system's `getaddrinfo`.
    pub fn new() -> Arc<Resolver> {
        Resolver::with_lookup(|name| Ok((name, 0).to_socket_addrs()?.map(|it| it.ip()).collect()))
    }

    fn with_lookup(
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Arc<Resolver> {
        Arc::new(Resolver {
            permits: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            state: Mutex::default(),
            lookup: Box::new(lookup),
        })
    }

    /// The addresses of a host. Waits for a lookup until `deadline`.
    ///
    /// # Errors
    /// As [`Resolver::find`].
    pub async fn addresses(
        self: &Arc<Self>,
        guest: &str,
        host: &DestinationHost,
        deadline: Instant,
    ) -> LookupResult {
        match host {
            DestinationHost::Address(address) => Ok(Arc::new([*address])),
            DestinationHost::Name(name) => self.find(guest, name, deadline).await,
        }
    }

    /// The addresses of a name. If the name is already being looked up, waits for that lookup.
    ///
    /// # Errors
    /// [`OutboundFailure::NoName`]; [`OutboundFailure::NameTimeout`], also if there was no permit
    /// for the lookup in time; [`OutboundFailure::Unavailable`], if no thread can be started.
    async fn find(self: &Arc<Self>, guest: &str, name: &str, deadline: Instant) -> LookupResult {
        let found = timeout_at(deadline, self.look_up(guest, name)).await;
        found.unwrap_or(Err(OutboundFailure::NameTimeout))
    }

    async fn look_up(self: &Arc<Self>, guest: &str, name: &str) -> LookupResult {
        let in_progress = self.state().in_progress.get(name).cloned();
        if let Some(answer) = in_progress {
            return wait_found(answer).await;
        }
        // Take the handler's permit first, so that few lookups of one handler wait for the host's.
        let of_guest = self.guest(guest).acquire_owned().await;
        let of_host = self.permits.clone().acquire_owned().await;
        let (Ok(guest), Ok(host)) = (of_guest, of_host) else {
            return Err(OutboundFailure::NameTimeout);
        };
        wait_found(self.begin(name, LookupPermit { _guest: guest, _host: host })?).await
    }

    /// Begins a lookup, unless another request has begun it meanwhile.
    fn begin(
        self: &Arc<Self>,
        name: &str,
        place: LookupPermit,
    ) -> Result<watch::Receiver<Option<LookupResult>>, OutboundFailure> {
        let mut state = self.state();
        if let Some(answer) = state.in_progress.get(name) {
            return Ok(answer.clone());
        }
        let (sender, answer) = watch::channel(None);
        let (resolver, owned_name) = (self.clone(), Box::<str>::from(name));
        let thread = std::thread::Builder::new().name("lookup".into()).spawn(move || {
            let found = (resolver.lookup)(&owned_name).map_err(|_| OutboundFailure::NoName);
            resolver.state().in_progress.remove(&owned_name);
            // Sending fails if all requests for this name are gone.
            let _ = sender.send(Some(found.map(Arc::from)));
            drop(place);
        });
        thread.map_err(|_| OutboundFailure::Unavailable)?;
        state.in_progress.insert(name.into(), answer.clone());
        Ok(answer)
    }

    fn guest(&self, guest: &str) -> Arc<Semaphore> {
        let mut state = self.state();
        let guests = &mut state.guests;
        if let Some(places) = guests.get(guest) {
            return places.clone();
        }
        if guests.len() >= GUESTS_MIN {
            guests.retain(|_, places| {
                Arc::strong_count(places) > 1 || places.available_permits() < GUEST_LOOKUPS_MAX
            });
        }
        let places = Arc::new(Semaphore::new(GUEST_LOOKUPS_MAX));
        guests.insert(guest.into(), places.clone());
        places
    }

    fn state(&self) -> MutexGuard<'_, ResolverState> {
        // A panic under this lock leaves no inconsistent state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait_found(mut answer: watch::Receiver<Option<LookupResult>>) -> LookupResult {
    match answer.wait_for(Option::is_some).await {
        Ok(found) => found.clone().unwrap_or(Err(OutboundFailure::NoName)),
        // The lookup's thread has panicked.
        Err(_) => Err(OutboundFailure::NoName),
    }
}
