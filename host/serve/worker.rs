//! What one worker thread owns: its view of the routes, its pool, its gates and its connections.
//!
//! Everything here stays on its thread, so none of it takes a lock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;
use tokio::sync::{Notify, watch};

use super::balance::Balance;
use super::clients::{Clients, upstream_max};
use super::own::Own;
use super::peer::{Peers, Shares};
use super::post::Post;
use super::respond::Conditions;
use super::turn::Turns;
use super::upstream::Upstream;
use super::wire::{Spares, Wire};
use crate::config::{Config, Largest};
use crate::demo::native::Twin;
use crate::grants::{Concurrency, Grants, QueueLimits, Share};
use crate::guest::engine::Engines;
use crate::guest::resources::descriptors_max;
use crate::guest::schedule::lane::Entry;
use crate::guest::{Guest, Pool, Schedule};
use crate::log::Quota;
use crate::message::fields;
use crate::message::{Place, Reject, Request, RequestId, SpareHeaders};
use crate::metrics::{Counters, Metrics};
use crate::outbound::{self, Outbound};
use crate::registry::admit::{Gate, GuestGate, GuestGates, Permit};
use crate::registry::{Current, Handler, Reader, Registry, Target};

/// The coarse clock's tick, in milliseconds.
pub const CLOCK_TICK_MS: u32 = 100;
/// Requests of one worker that may wait for guests to be loaded. They hold no instance.
const WAITING_MAX: usize = 1024;
/// Requests of one worker that may be logged as refused in a second.
const REJECTS_LINES_MAX: usize = 100;

/// Nobody waits for a place to wait in.
const NO_QUEUE: QueueLimits = QueueLimits { length_max: 0, wait_max: Duration::ZERO };

/// What every worker gets.
#[derive(Clone)]
pub struct Shared {
    pub config: Arc<Config>,
    pub largest: Largest,
    pub engines: Arc<Engines>,
    pub registry: Arc<Registry>,
    pub metrics: Metrics,
    pub lane: Entry,
    pub outbound: outbound::Shared,
    pub clients: Arc<Clients>,
    pub balance: Arc<Balance>,
    /// Becomes true when the host stops.
    pub stop: watch::Receiver<bool>,
    /// Changes when the counts are asked for.
    pub ask: watch::Receiver<u64>,
    /// The cores that this process may use.
    pub cores: CpuSet,
}

/// The gate of a handler, which is told from another of its id by its grants.
type GateOf = (Weak<Grants>, Rc<GuestGate>);

/// The state of one worker.
pub struct Worker {
    pub index: usize,
    pub config: Arc<Config>,
    /// What buffers of all handlers are sized by.
    pub largest: Largest,
    /// What a request may use that no handler answers.
    pub nobody: Arc<Grants>,
    /// What a request to a twin may use, in the order of [`Twin::ALL`]: what one to its guest may.
    twin_grants: [Arc<Grants>; Twin::ALL.len()],
    pub schedule: Rc<Schedule>,
    pub pool: Rc<Pool>,
    pub upstream: Option<Upstream>,
    pub draining: Cell<bool>,
    pub began: Instant,
    /// Ticks of [`CLOCK_TICK_MS`] since the worker began.
    pub clock: Rc<Cell<u32>>,
    pub spares: Rc<Spares>,
    /// The connections that have something to send.
    pub post: Post,
    pub turns: Turns,
    /// Says that there is something to do behind every connection that is ready.
    work: Rc<Notify>,
    /// The sockets of its connections, by the number they got when they were accepted.
    pub wires: RefCell<slab::Slab<Rc<Wire>>>,
    /// Those of them that may be closed to make room, by their numbers.
    pub spare: RefCell<Vec<usize>>,
    pub clients: Arc<Clients>,
    pub balance: Arc<Balance>,
    /// Connections that were refused and are being seen off.
    pub refused: Rc<Cell<usize>>,
    metrics: Metrics,
    registry: Arc<Registry>,
    reader: RefCell<Reader>,
    /// The registry's time, as of the last tick.
    moment: Cell<u32>,
    /// Guests that had been retired when the pool was swept last.
    swept: Cell<u64>,
    /// Before every request: this worker's part of what the host does at once.
    pub gate: Rc<Gate>,
    /// What each handler has of that, by its id.
    guest_gates: RefCell<Vec<Option<GateOf>>>,
    /// What all twins have of it.
    pub twins: Rc<GuestGate>,
    /// Before which requests wait for guests to be loaded.
    loading: GuestGates,
    /// What each client has of all that.
    pub peers: Peers,
    /// How many refused requests are logged.
    pub rejects_quota: Quota,
    request_count: Cell<u64>,
    /// An empty map with room, from an earlier request, to build a response in.
    pub spare_headers: SpareHeaders,
}

/// Where a request goes.
pub enum Routed {
    Guest(Current),
    /// To a guest that has to be loaded first.
    Unloaded(Arc<Handler>),
    /// To what is the host's own, or to nobody here.
    Own(Own),
}

/// Bytes of a request's head, as HTTP/1 has it.
fn head_bytes(request: &Request) -> usize {
    const LINE: usize = "  HTTP/1.1\r\n\r\n".len();
    const FIELD: usize = ": \r\n".len();
    let line = request.method.as_str().len() + request.uri.as_str().len() + LINE;
    line + fields::head_bytes(&request.headers) + FIELD * request.headers.len()
}

/// The time between two ticks of the coarse clock.
pub fn elapsed(since: u32, now: u32) -> Duration {
    ticks(now.saturating_sub(since))
}

/// So many ticks of it.
pub fn ticks(count: u32) -> Duration {
    Duration::from_millis(u64::from(count) * u64::from(CLOCK_TICK_MS))
}

/// A request that is being served; dropping it says that it is over.
pub struct InFlight(Rc<Worker>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.counters().in_flight.sub(1);
    }
}

impl Worker {
    pub fn new(index: usize, shared: &Shared) -> Rc<Self> {
        let Shared { config, engines, registry, largest, .. } = shared;
        let ready_max = engines.slots.ready_max(config.workers);
        let nobody = config.grants.of_nobody();
        let queue = nobody.concurrency.queue;
        let chosen = config.admission.in_flight_max.map(|most| (most / config.workers).max(1));
        let most = engines.slots.in_flight_max(config.workers);
        let gate = Gate::new(chosen.unwrap_or(most).min(most));
        let (pulse, memory) = (engines.pulse(index), engines.memory.clone());
        let (outbound, door, orders) = Outbound::new(&shared.outbound);
        tokio::task::spawn_local(outbound.run(orders));
        let work = Rc::new(Notify::new());
        let turns = Turns::new(pulse.clone());
        let schedule =
            Rc::new(Schedule::new(pulse, shared.lane.clone(), shared.metrics.of_worker(index)));
        let pool = Pool::new(schedule.clone(), door, memory, ready_max, work.clone());
        let upstream = config.upstream.as_ref();
        Rc::new(Worker {
            index,
            schedule,
            pool: Rc::new(pool),
            upstream: upstream.map(|it| {
                let most = upstream_max(descriptors_max(), config.workers);
                let stall_max = config.connections.stall_max;
                Upstream::new(it, largest.header_bytes_max, most, stall_max)
            }),
            config: config.clone(),
            largest: *largest,
            nobody,
            twin_grants: Twin::ALL.map(|twin| config.grants.of_twin(twin.name())),
            draining: Cell::new(false),
            began: Instant::now(),
            clock: Rc::default(),
            spares: Rc::default(),
            post: Post::new(work.clone()),
            turns,
            work,
            wires: RefCell::default(),
            spare: RefCell::default(),
            clients: shared.clients.clone(),
            balance: shared.balance.clone(),
            refused: Rc::default(),
            metrics: shared.metrics.clone(),
            reader: RefCell::new(registry.reader()),
            moment: Cell::new(registry.moment()),
            swept: Cell::new(0),
            registry: registry.clone(),
            twins: GuestGate::new(&gate, Share::of_other(0), gate.taken_max(), queue),
            gate,
            guest_gates: RefCell::default(),
            loading: GuestGates::new(WAITING_MAX),
            peers: Peers::default(),
            rejects_quota: Quota::new(REJECTS_LINES_MAX, usize::MAX),
            request_count: Cell::new(0),
            spare_headers: SpareHeaders::default(),
        })
    }

    pub fn counters(&self) -> &Counters {
        self.metrics.worker(self.index)
    }

    /// Counts a request in and names it.
    pub fn begin(self: &Rc<Self>) -> (RequestId, InFlight) {
        let count = self.request_count.get() + 1;
        self.request_count.set(count);
        let counters = self.counters();
        counters.requests.set(count);
        counters.in_flight.add(1);
        (RequestId { worker: self.index as u16, count }, InFlight(self.clone()))
    }

    /// Sends answers, and renews the instances that they are of, for ever. A task of its own: it is
    /// woken by the first of them and stands behind every connection that is ready by then, so
    /// that all of these are answered before any instance is renewed.
    pub async fn tidy_always(self: Rc<Self>) {
        loop {
            self.work.notified().await;
            let mut turn = self.turns.begin();
            self.post.send();
            while !self.pool.renew() {
                self.turns.end(&turn, &self.counters().turn_max_us);
                tokio::task::yield_now().await;
                turn = self.turns.begin();
                self.post.send();
            }
            self.pool.tidy();
            self.turns.end(&turn, &self.counters().turn_max_us);
        }
    }

    /// Follows what the control path has done, so that nothing of old is kept by a worker without
    /// requests.
    pub fn follow(&self) {
        self.moment.set(self.registry.moment());
        self.reader.borrow_mut().load();
        self.pool.relieve();
        let retired = self.registry.retired();
        if self.swept.replace(retired) != retired {
            self.pool.sweep();
        }
    }

    /// Publishes what only this thread can count.
    pub fn publish_counts(&self) {
        let (ready, retired) = self.pool.held();
        let out = self.schedule.under_way();
        let counters = self.counters();
        counters.instances_ready.set(ready as u64);
        counters.instances_out.set((retired + out) as u64);
        let wires = self.wires.borrow();
        counters.connections.set(wires.len() as u64);
        let parked = wires.iter().filter(|(_, wire)| wire.parking.get()).count();
        counters.connections_parked.set(parked as u64);
    }

    /// Finds a request's target. The conditions are nobody's before, and behind it those of its
    /// handler, if it has one.
    ///
    /// # Errors
    /// [`Reject::BadPath`], [`Reject::HeadTooLarge`].
    pub fn route(
        &self,
        request: &mut Request,
        started: Instant,
        conditions: &mut Conditions,
    ) -> Result<Routed, Reject> {
        let mut reader = self.reader.borrow_mut();
        let host = request.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let found = reader.load().table.find(host, request.uri.path());
        let Some(found) = found.map_err(|bad| Reject::BadPath(bad.reason()))? else {
            self.limit_head(request, &self.nobody)?;
            return Ok(Routed::Own(Own::Nobody));
        };
        let param = |param: &crate::registry::route::Param<'_>| {
            let value = request.uri.path()[param.value.clone()].to_owned();
            (param.name.to_ascii_lowercase(), value)
        };
        let params = found.params.iter().map(param).collect();
        request.place = Place::new(found.base_len, params);
        match found.target {
            Target::Handler(handler) => {
                handler.touch(self.moment.get());
                *conditions = Conditions::new(Some(handler.id), &handler.grants, started);
                self.limit_head(request, &handler.grants)?;
                Ok(match handler.current() {
                    Some(guest) => Routed::Guest(guest),
                    None => Routed::Unloaded(handler.clone()),
                })
            }
            Target::Native(number) => {
                let twin = Twin::ALL[*number];
                let grants = self.grants_of(twin);
                *conditions = Conditions::new(None, grants, started);
                self.limit_head(request, grants)?;
                Ok(Routed::Own(Own::Twin(twin)))
            }
            Target::Landing => {
                self.limit_head(request, &self.nobody)?;
                Ok(Routed::Own(Own::Landing))
            }
        }
    }

    /// What a twin may use.
    pub fn grants_of(&self, twin: Twin) -> &Grants {
        &self.twin_grants[twin.number()]
    }

    /// Refuses a head that others may have and the handler of these grants may not. One that nobody
    /// may have is hyper's to refuse.
    fn limit_head(&self, request: &Request, grants: &Grants) -> Result<(), Reject> {
        let bytes_max = grants.limits.header_bytes_max;
        if bytes_max < self.largest.header_bytes_max && head_bytes(request) > bytes_max {
            return Err(Reject::HeadTooLarge);
        }
        Ok(())
    }

    /// Takes a place for a request to a guest, if there is one.
    ///
    /// # Errors
    /// [`Reject::Paused`].
    pub fn try_admit(&self, guest: &Guest, client: &Shares) -> Result<Option<Permit>, Reject> {
        let Ok(permit) = self.guest_gate(guest).admit(&client.serving) else { return Ok(None) };
        guest.about.health.admit()?;
        Ok(Some(permit))
    }

    /// Waits for one, until `deadline` at most.
    ///
    /// # Errors
    /// [`Reject::NoInstance`], [`Reject::Paused`].
    pub async fn admit(
        &self,
        guest: &Guest,
        client: &Shares,
        deadline: Instant,
    ) -> Result<Permit, Reject> {
        let permit = self.guest_gate(guest).wait(&client.serving, deadline).await?;
        guest.about.health.admit()?;
        Ok(permit)
    }

    /// Waits until a handler's guest is loaded, in a place where other requests do not stand behind
    /// it, until `deadline` at most.
    ///
    /// # Errors
    /// [`Reject::Loading`], [`Reject::NotLoaded`], or [`Reject::NoRoute`] where its file was
    /// removed meanwhile.
    pub async fn loaded(
        &self,
        handler: &Handler,
        client: &Shares,
        deadline: Instant,
    ) -> Result<Current, Reject> {
        let gate = self.loading.of(handler.id, handler.grants.share(), NO_QUEUE);
        let _place = gate.admit(&client.loading).map_err(|_| Reject::Loading)?;
        let guest = tokio::time::timeout_at(deadline.into(), handler.wait()).await;
        guest.unwrap_or(Err(Reject::Loading)).map(Current::from)
    }

    /// Before the requests to one guest.
    pub fn guest_gate(&self, guest: &Guest) -> Rc<GuestGate> {
        let (id, workers) = (guest.id, self.config.workers);
        let grants = &guest.about.grants;
        let (share, limits) = (grants.share(), grants.concurrency);
        let Concurrency { in_flight_max, queue } = limits;
        let held_max = in_flight_max.map_or(usize::MAX, |most| (most / workers).max(1));
        let mut gates = self.guest_gates.borrow_mut();
        if id >= gates.len() {
            gates.resize(id + 1, None);
        }
        match &gates[id] {
            // The handler of this id may be another by now.
            Some((of, gate)) if std::ptr::eq(of.as_ptr(), Arc::as_ptr(grants)) => {
                gate.limit(share, held_max, queue);
                gate.clone()
            }
            _ => {
                let gate = GuestGate::new(&self.gate, share, held_max, queue);
                gates[id] = Some((Arc::downgrade(grants), gate.clone()));
                gate
            }
        }
    }
}
