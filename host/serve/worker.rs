//! The state of one worker thread: its view of the routes, its pool, its gates and its connections.
//!
//! Everything in a [`Worker`] stays on its thread, so nothing here takes a lock.

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
/// How many refused requests one worker logs in a second.
const REJECTS_LINES_MAX: usize = 100;

/// What all workers share.
#[derive(Clone)]
pub struct WorkerShared {
    /// The settings of the host.
    pub config: Arc<Config>,
    /// The largest limits that any handler may have.
    pub largest: LimitMaxima,
    /// The wasm engines with their slots.
    pub engines: Arc<Engines>,
    /// The published routes and handlers.
    pub registry: Arc<Registry>,
    /// The counters of all workers.
    pub metrics: Metrics,
    /// Hands calls to the slow lane.
    pub lane: LaneHandle,
    /// Advances epochs while calls run.
    pub ticker: Arc<Ticker>,
    /// The shared part of the HTTP client.
    pub outbound: outbound::OutboundShared,
    /// Counts connections per client.
    pub clients: Arc<Clients>,
    /// Counts connections per worker.
    pub balancer: Arc<Balancer>,
    /// Senders by which workers hand requests to each other.
    pub handover: Arc<[UnboundedSender<HandoverRequest>]>,
    /// Becomes true when the host stops.
    pub stop: watch::Receiver<bool>,
    /// Changes when the workers are to publish their counts.
    pub status_request: watch::Receiver<u64>,
    /// The cores that this process may use.
    pub cores: CpuSet,
}

/// The state of one worker.
pub struct Worker {
    /// The worker's number, from 0.
    pub index: usize,
    /// The settings of the host.
    pub config: Arc<Config>,
    /// Finds the target of a request.
    pub router: Router,
    /// Decide whether a request may go to its guest now.
    pub gates: Gates,
    /// Decides in which lane and when a call runs.
    pub schedule: Rc<Scheduler>,
    /// The ready instances.
    pub pool: Rc<Pool>,
    /// The client for the upstream, if there is one.
    pub upstream: Option<Upstream>,
    /// The other workers, one of which may have a permit when this one has none.
    pub others: OtherWorkers,
    /// How many requests of other workers are being served here.
    pub taken_over: Cell<usize>,
    /// Whether the host is stopping.
    pub draining: Cell<bool>,
    /// When the worker began.
    pub began: Instant,
    /// Ticks of [`CLOCK_TICK_MS`] since the worker began.
    pub clock: Rc<Cell<u32>>,
    /// Free write buffers.
    pub buffers: Rc<BufferFreeList>,
    /// The connections that have something to send.
    pub flush_queue: FlushQueue,
    /// Measures the longest poll of a task.
    pub poll_timer: PollTimer,
    /// Wakes [`Worker::flush_and_renew`].
    wakeup: Rc<Notify>,
    /// All connections, by the key that they got when they were accepted.
    pub connections: RefCell<slab::Slab<Rc<Connection>>>,
    /// Keys of the connections that may be closed to make room, the one idle longest last.
    pub evictable: RefCell<Vec<usize>>,
    /// Counts connections per client, for all workers.
    pub clients: Arc<Clients>,
    /// Counts connections per worker.
    pub balancer: Arc<Balancer>,
    /// How many refused connections still linger.
    pub refused: Rc<Cell<usize>>,
    metrics: Metrics,
    registry: Arc<Registry>,
    /// How many guests had been retired when the pool was last swept.
    swept: Cell<u64>,
    /// Each client's share of this worker.
    pub worker_clients: WorkerClients,
    /// Bounds the log lines about refused requests.
    pub rejects_quota: Quota,
    request_count: Cell<u64>,
    /// An empty header map with capacity, from an earlier request, to build a response in.
    pub spare_headers: SpareHeaders,
}

/// The time between two ticks of the coarse clock.
pub fn elapsed(since: u32, now: u32) -> Duration {
    ticks(now.saturating_sub(since))
}

/// How long `count` ticks of the coarse clock take.
pub fn ticks(count: u32) -> Duration {
    Duration::from_millis(u64::from(count) * u64::from(CLOCK_TICK_MS))
}

/// Counts a request as in flight until this is dropped.
pub struct InFlight(Rc<Worker>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.counters().in_flight.sub(1);
    }
}

impl Worker {
    /// The state of worker `index`. Must be called on its thread: it also starts the HTTP client.
    pub fn new(index: usize, shared: &WorkerShared) -> Rc<Self> {
        let WorkerShared { config, engines, registry, largest, .. } = shared;
        let ready_max = engines.slots.ready_max(config.workers);
        let (ticker, memory) = (shared.ticker.handle_of(index), engines.memory.clone());
        let (outbound, outbound_handle, requests) = Outbound::new(&shared.outbound);
        tokio::task::spawn_local(outbound.run(requests));
        let wakeup = Rc::new(Notify::new());
        let poll_timer = PollTimer::new(ticker.clone());
        let schedule =
            Rc::new(Scheduler::new(ticker, shared.lane.clone(), shared.metrics.of_worker(index)));
        let pool = Pool::new(schedule.clone(), outbound_handle, memory, ready_max, wakeup.clone());
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
            flush_queue: FlushQueue::new(wakeup.clone()),
            poll_timer,
            wakeup,
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

    /// This worker's counters.
    pub fn counters(&self) -> &Counters {
        self.metrics.worker(self.index)
    }

    /// Counts a new request and gives it an id.
    pub fn begin(self: &Rc<Self>) -> (RequestId, InFlight) {
        let count = self.request_count.get() + 1;
        self.request_count.set(count);
        let counters = self.counters();
        counters.requests.set(count);
        counters.in_flight.add(1);
        (RequestId { worker: self.index as u16, count }, InFlight(self.clone()))
    }

    /// Sends queued answers, then resets the instances that made them. Never ends.
    ///
    /// This is a task of its own. The first queued answer wakes it, so it runs after all
    /// connections that are ready by then. All of these get their answers before the worker resets
    /// any instance.
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

    /// Takes over what the control path has published. Without this, a worker without requests
    /// would hold on to old routes and retired guests.
    pub fn sync(&self) {
        self.router.sync();
        self.pool.shrink_on_shortage();
        let retired = self.registry.retired();
        if self.swept.replace(retired) != retired {
            self.pool.sweep();
            self.router.counts.sweep();
        }
    }

    /// Sets the gauges that only this thread can read.
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
