//! Names of hosts, and the addresses that they have.
//!
//! Owns the bounds on lookups. `getaddrinfo` cannot be stopped, so a lookup keeps its thread and
//! its places until it ends, however long whoever asked has waited. A guest has few of the places,
//! so that one whose names are answered slowly leaves the others theirs. Must not know where a
//! guest may go, nor what is connected to.

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

/// Lookups of the whole host at a time: each takes a thread.
const LOOKUPS_MAX: usize = 64;
/// Those of one guest.
const GUEST_LOOKUPS_MAX: usize = 4;
/// Guests that are remembered before those without a lookup are forgotten.
const GUESTS_MIN: usize = 64;

type LookupResult = Result<Arc<[IpAddr]>, OutboundFailure>;
type LookupFunction = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// See the file. All workers have one in common.
pub struct Resolver {
    permits: Arc<Semaphore>,
    state: Mutex<ResolverState>,
    lookup: Box<LookupFunction>,
}

#[derive(Default)]
struct ResolverState {
    guests: HashMap<Box<str>, Arc<Semaphore>>,
    /// Names that are being looked up, for others who ask for the same.
    in_progress: HashMap<Box<str>, watch::Receiver<Option<LookupResult>>>,
}

/// The right to one thread: a place of the guest's, and one of the host's.
struct LookupPermit {
    _guest: OwnedSemaphorePermit,
    _host: OwnedSemaphorePermit,
}

impl Resolver {
    /// Asks the machine's own resolver.
    pub fn new() -> Arc<Resolver> {
        Resolver::with_lookup(|name| Ok((name, 0).to_socket_addrs()?.map(|it| it.ip()).collect()))
    }

    fn with_lookup(
        ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Arc<Resolver> {
        Arc::new(Resolver {
            permits: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            state: Mutex::default(),
            lookup: Box::new(ask),
        })
    }

    /// The addresses of a host.
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

    /// The addresses of a name. Who asks for one that is being looked up gets the same answer.
    ///
    /// # Errors
    /// [`OutboundFailure::NoName`]; [`OutboundFailure::NameTimeout`], also where there was no place
    /// for the lookup in time; [`OutboundFailure::Unavailable`], where the machine has no thread
    /// for it.
    async fn find(self: &Arc<Self>, guest: &str, name: &str, deadline: Instant) -> LookupResult {
        let found = timeout_at(deadline, self.look_up(guest, name)).await;
        found.unwrap_or(Err(OutboundFailure::NameTimeout))
    }

    async fn look_up(self: &Arc<Self>, guest: &str, name: &str) -> LookupResult {
        let in_progress = self.state().in_progress.get(name).cloned();
        if let Some(answer) = in_progress {
            return wait_found(answer).await;
        }
        // The guest's place comes first: who waits for one of the host's is one of few as well.
        let of_guest = self.guest(guest).acquire_owned().await;
        let of_host = self.permits.clone().acquire_owned().await;
        let (Ok(guest), Ok(host)) = (of_guest, of_host) else {
            return Err(OutboundFailure::NameTimeout);
        };
        wait_found(self.begin(name, LookupPermit { _guest: guest, _host: host })?).await
    }

    /// Begins a lookup, where nobody else has begun it meanwhile.
    fn begin(
        self: &Arc<Self>,
        name: &str,
        place: LookupPermit,
    ) -> Result<watch::Receiver<Option<LookupResult>>, OutboundFailure> {
        let mut state = self.state();
        if let Some(answer) = state.in_progress.get(name) {
            return Ok(answer.clone());
        }
        let (told, answer) = watch::channel(None);
        let (resolver, asked) = (self.clone(), Box::<str>::from(name));
        let thread = std::thread::Builder::new().name("lookup".into()).spawn(move || {
            let found = (resolver.lookup)(&asked).map_err(|_| OutboundFailure::NoName);
            resolver.state().in_progress.remove(&asked);
            // Whoever asked may have gone.
            let _ = told.send(Some(found.map(Arc::from)));
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
        // What is done under it leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait_found(mut answer: watch::Receiver<Option<LookupResult>>) -> LookupResult {
    match answer.wait_for(Option::is_some).await {
        Ok(found) => found.clone().unwrap_or(Err(OutboundFailure::NoName)),
        // Its thread is gone.
        Err(_) => Err(OutboundFailure::NoName),
    }
}
