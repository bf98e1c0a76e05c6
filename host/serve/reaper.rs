//! Timeouts of connections: one coarse reaper per worker instead of a timer per connection.
//!
//! Owns how slow a client may be, which idle connections may be closed to make room, and which are
//! parked. Also finds clients that are gone, so that their calls end.

use std::rc::Rc;
use std::time::Duration;

use super::connection::Connection;
use super::linger;
use super::worker::{CLOCK_TICK_MS, Worker, elapsed, ticks};
use crate::config::ConnectionLimits;
use crate::message::body_progress::time_for;

/// Ticks between two checks of all connections.
const CHECK_TICKS: u32 = 10;
/// The most that one tick advances the clock. Without this, a worker or process that was suspended
/// for a while would take all clients for late.
const PASSED_MAX: Duration = Duration::from_millis(2 * CLOCK_TICK_MS as u64);
/// How long a connection is idle before it is parked.
const PARK_AFTER: Duration = Duration::from_secs(2);
/// How long a body may stall once the host stops.
const DRAIN_STALL_MAX: Duration = Duration::from_secs(3);
/// Some half-closed clients cannot be probed. Such a client is taken for gone after this time
/// without any bytes.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(5);
/// How many connections are parked in one tick. More would keep requests waiting.
const PARKED_AT_ONCE: usize = 128;
/// How long a connection is idle before it may be closed to make room for another.
const EVICTABLE_AFTER: Duration = Duration::from_secs(1);
/// How many evictable connections a worker lists.
const EVICTABLE_MAX: usize = 256;

/// Advances the worker's coarse clock, follows the control path, and closes connections that are
/// idle or too slow. Never ends.
pub async fn run(worker: Rc<Worker>) {
    let tick = ticks(1);
    let mut interval = tokio::time::interval(tick);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let (mut last, mut passed) = (tokio::time::Instant::now(), Duration::ZERO);
    let mut looked_at = 0;
    let mut drains_since = None;
    let mut to_park = Vec::new();
    loop {
        interval.tick().await;
        let ticked = tokio::time::Instant::now();
        passed += (ticked - last).min(PASSED_MAX);
        last = ticked;
        let now = (passed.as_millis() / u128::from(CLOCK_TICK_MS)) as u32;
        worker.clock.set(now);
        worker.sync();
        worker.pool.trim_quickly();
        let since = now - looked_at;
        if since >= CHECK_TICKS {
            looked_at = now;
            if let Some(upstream) = &worker.upstream {
                upstream.sweep();
            }
            let limits = &worker.config.connections;
            let is_draining = worker.draining.get();
            if is_draining {
                drains_since.get_or_insert(now);
            }
            // The shorter timeout of the drain counts only pauses after its start.
            let has_drained = |since| elapsed(since, now) >= DRAIN_STALL_MAX;
            let still_max = match drains_since.is_some_and(has_drained) {
                true => limits.stall_max.min(DRAIN_STALL_MAX),
                false => limits.stall_max,
            };
            for (_, connection) in worker.connections.borrow().iter() {
                match connection.life.lingers_since.get() {
                    Some(since) if linger::is_expired(connection, since, is_draining) => {
                        connection.life.abort();
                    }
                    Some(_) => {}
                    None => {
                        connection.check_bodies(ticks(since), still_max);
                        check_timeouts(connection, limits, now, still_max);
                    }
                }
            }
            note_evictable(&worker, now);
            // Only this thread can return free memory from pages that are partly in use. It does
            // so while it serves no request, or if there is no slow lane to do most of the work.
            if worker.counters().in_flight.get() == 0 || worker.config.slow_nice.is_none() {
                worker.pool.trim_fully();
            }
            to_park = parkable(&worker, now, PARK_AFTER.min(limits.head_max));
        }
        for _ in 0..PARKED_AT_ONCE.min(to_park.len()) {
            let connections = worker.connections.borrow();
            if let Some(connection) = to_park.pop().and_then(|key| connections.get(key)) {
                connection.life.parking.set(true);
                connection.life.wake();
            }
        }
    }
}

fn check_timeouts(
    connection: &Connection,
    limits: &ConnectionLimits,
    now: u32,
    body_still_max: Duration,
) {
    let (still, exchanges) = (inactive_for(connection, now), &connection.exchanges);
    if let Some((since, bytes)) = connection.life.blocked() {
        let blocked = elapsed(since, now);
        // Count only the time since writes block: before, there was nothing to send.
        let is_slow = blocked > time_for(bytes, limits.stall_max);
        if is_slow || still.min(blocked) > limits.stall_max {
            connection.life.abort();
        }
    } else if !exchanges.are_answered() {
        // A client that can be probed shows by its reaction whether it is gone.
        let is_silent = exchanges.is_any_streaming() || exchanges.is_any_http10();
        if is_silent && still > HALF_CLOSED_MAX && connection.is_half_closed() {
            connection.life.abort();
        } else if exchanges.is_any_unprobed() && connection.is_half_closed() {
            connection.life.wake();
        }
    } else if connection.life.closing.get() || exchanges.is_body_open() {
        // The answer has ended, but the rest of the request's body does not move: either its reader
        // takes no more, or the client sends no more.
        if still > body_still_max {
            connection.life.abort();
        }
    } else {
        // A request head has to be complete in time, even if single bytes keep arriving.
        let slow = match connection.life.partial_since.get() {
            Some(since) => elapsed(since, now) > limits.head_max,
            None => !connection.life.begun.get() && still > limits.head_max,
        };
        if slow || still > limits.idle_max {
            // Abort a slow head; close an idle connection gracefully.
            connection.life.closing.set(true);
            if slow {
                connection.life.abort();
            } else {
                connection.life.wake();
            }
        }
    }
}

/// Lists the connections that may be closed to make room, the one idle longest last.
fn note_evictable(worker: &Worker, now: u32) {
    let mut spare = worker.evictable.borrow_mut();
    spare.clear();
    if !worker.clients.is_nearly_full() {
        return;
    }
    let connections = worker.connections.borrow();
    let idle = |connection: &Connection| {
        is_idle(connection) && inactive_for(connection, now) > EVICTABLE_AFTER
    };
    let mut idle: Vec<_> = connections
        .iter()
        .filter(|(_, connection)| idle(connection))
        .map(|(key, connection)| (connection.life.active_at(), key))
        .collect();
    if idle.len() > EVICTABLE_MAX {
        idle.select_nth_unstable(EVICTABLE_MAX);
        idle.truncate(EVICTABLE_MAX);
    }
    idle.sort_unstable_by(|one, other| other.cmp(one));
    spare.extend(idle.into_iter().map(|(_, key)| key));
}

/// Closes the connection that has been idle longest. Returns whether there was one.
pub fn evict_idle(worker: &Worker) -> bool {
    let connections = worker.connections.borrow();
    let mut spare = worker.evictable.borrow_mut();
    while let Some(key) = spare.pop() {
        let Some(connection) = connections.get(key).filter(|connection| is_idle(connection)) else {
            continue;
        };
        if connection.life.lingers_since.get().is_some() {
            connection.life.abort();
            return true;
        }
        if !connection.life.closing.replace(true) {
            connection.life.wake();
            return true;
        }
    }
    false
}

/// Keys of the connections that can be parked.
fn parkable(worker: &Worker, now: u32, park_after: Duration) -> Vec<usize> {
    let is_quiet = |connection: &Connection| {
        !connection.life.parking.get()
            && inactive_for(connection, now) > park_after
            && connection.can_park()
    };
    let connections = worker.connections.borrow();
    connections.iter().filter(|(_, connection)| is_quiet(connection)).map(|(key, _)| key).collect()
}

fn is_idle(connection: &Connection) -> bool {
    connection.exchanges.are_answered() && connection.life.blocked().is_none()
}

/// How long no bytes have moved on a connection.
pub fn inactive_for(connection: &Connection, now: u32) -> Duration {
    elapsed(connection.life.active_at(), now)
}
