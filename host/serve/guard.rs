//! Timers for connections: one coarse reaper per worker instead of a timer per connection.
//!
//! Owns how long a connection may be idle, send a head slowly, or leave an answer unread, and sees
//! to it that a call ends with its client.

use std::rc::Rc;
use std::time::Duration;

use super::wire::Wire;
use super::worker::{CLOCK_TICK_MS, Worker};

/// A connection without a request, before the first and between two.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// A request's head that has begun to arrive.
const HEAD_MAX: Duration = Duration::from_secs(15);
/// An answer that the client does not read.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// Ticks between two looks at all connections.
const LOOK_TICKS: u32 = 10;

/// Advances the worker's coarse clock, follows the control path, and closes connections that keep
/// the worker waiting. Never ends.
pub async fn run(worker: Rc<Worker>) {
    let tick = Duration::from_millis(u64::from(CLOCK_TICK_MS));
    let mut interval = tokio::time::interval(tick);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let began = tokio::time::Instant::now();
    loop {
        interval.tick().await;
        let ticks = began.elapsed().as_millis() / u128::from(CLOCK_TICK_MS);
        worker.clock.set(ticks as u32);
        worker.follow();
        if worker.clock.get().is_multiple_of(LOOK_TICKS) {
            for (_, wire) in worker.wires.borrow().iter() {
                look(wire, worker.clock.get());
            }
        }
    }
}

fn look(wire: &Wire, now: u32) {
    let still = still_for(wire, now);
    if wire.is_blocked() {
        if still > WRITE_STALL_MAX {
            wire.doomed.set(true);
            wire.wake();
        }
    } else if wire.in_flight.get() {
        // hyper sees that itself, but not behind a request that is in its buffer.
        if wire.is_left() {
            wire.doomed.set(true);
            wire.wake();
        }
    } else if !wire.closing.get() {
        // A head has to be whole in time, however its bytes trickle in.
        let slow = wire.partial_since.get().is_some_and(|since| elapsed(since, now) > HEAD_MAX);
        if slow || still > IDLE_MAX {
            // A slow head is cut off; an idle connection is closed as HTTP says.
            wire.doomed.set(slow);
            wire.closing.set(true);
            wire.wake();
        }
    }
}

/// How long no byte has moved.
pub fn still_for(wire: &Wire, now: u32) -> Duration {
    elapsed(wire.moved_at.get(), now)
}

fn elapsed(since: u32, now: u32) -> Duration {
    let ticks = now.saturating_sub(since);
    Duration::from_millis(u64::from(ticks) * u64::from(CLOCK_TICK_MS))
}
