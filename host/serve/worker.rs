//! What one worker thread owns: its view of the routes, its pool, its gates and its connections.
//!
//! Everything here stays on its thread, so none of it takes a lock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, watch};

use super::balancer::Balancer;
use super::clients::{Clients, upstream_max};
use super::connection::Connection;
use super::flush_queue::FlushQueue;
use super::gates::Gates;
use super::handover::{HandoverRequest, OtherWorkers};
use super::poll_timer::PollTimer;
use super::router::Router;
use super::upstream::Upstream;
use super::worker_clients::WorkerClients;
use super::write_buffer::BufferFreeList;
use crate::config::{Config, LimitMaxima};
use crate::guest::engine::engines::Engines;
use crate::guest::engine::resources::descriptors_max;
use crate::guest::schedule::Ticker;
use crate::guest::schedule::lane::LaneHandle;
use crate::guest::{Pool, Scheduler};
use crate::log::Quota;
use crate::message::{RequestId, SpareHeaders};
use crate::metrics::{Counters, Metrics};
use crate::outbound::{self, Outbound};
use crate::registry::Registry;

/// The coarse clock's tick, in milliseconds.
pub const CLOCK_TICK_MS: u32 = 100;
/// Requests of one worker that may be logged as refused in a second.
const REJECTS_LINES_MAX: usize = 100;

/// What every worker gets.
#[derive(Clone)]
pub struct WorkerShared {
    pub config: Arc<Config>,
    pub largest: LimitMaxima,
    pub engines: Arc<Engines>,
    pub registry: Arc<Registry>,
    pub metrics: Metrics,
    pub lane: LaneHandle,
    pub ticker: Arc<Ticker>,
    pub outbound: outbound::OutboundShared,
    pub clients: Arc<Clients>,
    pub balancer: Arc<Balancer>,
    /// How workers hand requests to each other.
    pub handover: Arc<[UnboundedSender<HandoverRequest>]>,
    /// Becomes true when the host stops.
    pub stop: watch::Receiver<bool>,
    /// Changes when the counts are asked for.
    pub status_request: watch::Receiver<u64>,
    /// The cores that this process may use.
    pub cores: CpuSet,
}

/// The state of one worker.
pub struct Worker {
    pub index: usize,
    pub config: Arc<Config>,
    /// Where requests go.
    pub router: Router,
    /// Whether they may.
    pub gates: Gates,
    pub schedule: Rc<Scheduler>,
    pub pool: Rc<Pool>,
    pub upstream: Option<Upstream>,
    /// Who may have a place for a request where there is none here.
    pub others: OtherWorkers,
    /// Requests of theirs that are served here.
    pub taken_over: Cell<usize>,
    pub draining: Cell<bool>,
    pub began: Instant,
    /// Ticks of [`CLOCK_TICK_MS`] since the worker began.
    pub clock: Rc<Cell<u32>>,
    pub buffers: Rc<BufferFreeList>,
    /// The connections that have something to send.
    pub flush_queue: FlushQueue,
    pub poll_timer: PollTimer,
    /// Says that there is something to do behind every connection that is ready.
    wakeup: Rc<Notify>,
    /// The sockets of its connections, by the number they got when they were accepted.
    pub connections: RefCell<slab::Slab<Rc<Connection>>>,
    /// Those of them that may be closed to make room, by their numbers.
    pub evictable: RefCell<Vec<usize>>,
    pub clients: Arc<Clients>,
    pub balancer: Arc<Balancer>,
    /// Connections that were refused and are being seen off.
    pub refused: Rc<Cell<usize>>,
    metrics: Metrics,
    registry: Arc<Registry>,
    /// Guests that had been retired when the pool was swept last.
    swept: Cell<u64>,
    /// What each client has of all that.
    pub worker_clients: WorkerClients,
    /// How many refused requests are logged.
    pub rejects_quota: Quota,
    request_count: Cell<u64>,
    /// An empty map with room, from an earlier request, to build a response in.
    pub spare_headers: SpareHeaders,
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
    pub fn new(index: usize, shared: &WorkerShared) -> Rc<Self> {
        let WorkerShared { config, engines, registry, largest, .. } = shared;
        let ready_max = engines.slots.ready_max(config.workers);
        let (pulse, memory) = (shared.ticker.handle_of(index), engines.memory.clone());
        let (outbound, door, orders) = Outbound::new(&shared.outbound);
        tokio::task::spawn_local(outbound.run(orders));
        let work = Rc::new(Notify::new());
        let turns = PollTimer::new(pulse.clone());
        let schedule =
            Rc::new(Scheduler::new(pulse, shared.lane.clone(), shared.metrics.of_worker(index)));
        let pool = Pool::new(schedule.clone(), door, memory, ready_max, work.clone());
        let upstream = config.upstream.as_ref();
        Rc::new(Worker {
            index,
            router: Router::new(config, registry, &shared.metrics),
            gates: Gates::new(config, engines.slots.in_flight_max(config.workers)),
            schedule,
            pool: Rc::new(pool),
            upstream: upstream.map(|it| {
                let most = upstream_max(descriptors_max(), config.workers);
                let stall_max = config.connections.stall_max;
                Upstream::new(&shared.outbound, it, largest.header_bytes_max, most, stall_max)
            }),
            others: OtherWorkers::new(&shared.handover, index),
            taken_over: Cell::new(0),
            config: config.clone(),
            draining: Cell::new(false),
            began: Instant::now(),
            clock: Rc::default(),
            buffers: Rc::default(),
            flush_queue: FlushQueue::new(work.clone()),
            poll_timer: turns,
            wakeup: work,
            connections: RefCell::default(),
            evictable: RefCell::default(),
            clients: shared.clients.clone(),
            balancer: shared.balancer.clone(),
            refused: Rc::default(),
            metrics: shared.metrics.clone(),
            swept: Cell::new(0),
            registry: registry.clone(),
            worker_clients: WorkerClients::default(),
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
    pub async fn flush_and_renew(self: Rc<Self>) {
        loop {
            self.wakeup.notified().await;
            let mut turn = self.poll_timer.begin();
            self.flush_queue.flush();
            while !self.pool.recycle_retired() {
                self.poll_timer.end(&turn, &self.counters().turn_max_us);
                tokio::task::yield_now().await;
                turn = self.poll_timer.begin();
                self.flush_queue.flush();
            }
            self.pool.trim_quickly();
            self.poll_timer.end(&turn, &self.counters().turn_max_us);
        }
    }

    /// Follows what the control path has done, so that nothing of old is kept by a worker without
    /// requests.
    pub fn sync(&self) {
        self.router.sync();
        self.pool.shrink_on_shortage();
        let retired = self.registry.retired();
        if self.swept.replace(retired) != retired {
            self.pool.sweep();
            self.router.counts.sweep();
        }
    }

    /// Publishes what only this thread can count.
    pub fn publish_counts(&self) {
        let (ready, retired) = self.pool.instance_counts();
        let out = self.schedule.active_calls();
        let counters = self.counters();
        counters.instances_ready.set(ready as u64);
        counters.instances_out.set((retired + out) as u64);
        let connections = self.connections.borrow();
        counters.connections.set(connections.len() as u64);
        let parked =
            connections.iter().filter(|(_, connection)| connection.life.parking.get()).count();
        counters.connections_parked.set(parked as u64);
    }
}
