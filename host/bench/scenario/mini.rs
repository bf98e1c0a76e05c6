//! Shrinks a suite to miniature: every case runs once and as small as possible, to see that it
//! works. The numbers mean nothing.

use std::time::Duration;

use crate::load::{Bodies, Request};
use crate::suite::{Case, Measure, Pace, Stream};

/// How long all measurements of a suite should take together, without the start of servers.
const TOTAL: Duration = Duration::from_millis(800);
const DURATION_MIN: Duration = Duration::from_millis(20);
const DURATION_MAX: Duration = Duration::from_millis(100);
const CONNECTIONS_MAX: usize = 4;
const IDLE_MAX: usize = 20;
const PATHS_MAX: usize = 20;
const LOADS_MAX: usize = 2;
const VERSIONS_MAX: usize = 3;
const RATE_MAX: f64 = 1000.0;
/// High enough for at least one request to be due in each measurement.
const RATE_MIN: f64 = 100.0;

/// Makes all cases small.
pub fn shrink(cases: &mut [Case]) {
    let measurements: usize = cases.iter().map(timed_measurements).sum();
    // Whole milliseconds are shorter to read.
    let share = TOTAL.as_millis() as usize / measurements.max(1);
    let share = Duration::from_millis(share as u64).clamp(DURATION_MIN, DURATION_MAX);
    for case in cases {
        case.rounds = 1;
        // Paths that are asked for once come to an end by themselves.
        if !case.asks_once() {
            case.duration = case.duration.min(share);
        }
        let connections_max = match &mut case.measure {
            Measure::Idle { at_rest } => {
                *at_rest = share;
                IDLE_MAX
            }
            Measure::Curve(curve) => {
                curve.loads.truncate(LOADS_MAX);
                CONNECTIONS_MAX
            }
            Measure::Overload(overload) => {
                overload.longer = 1.0;
                overload.capacity_connections = 2;
                CONNECTIONS_MAX
            }
            Measure::Load | Measure::Start | Measure::Drop(_) => CONNECTIONS_MAX,
        };
        for side in &mut case.sides {
            if let Some(swaps) = &mut side.swaps {
                swaps.versions.truncate(VERSIONS_MAX);
                if let Pace::Every(pause) = &mut swaps.pace {
                    *pause = (*pause).min(share);
                }
            }
            if let Some(along) = &mut side.along {
                along.lead = along.lead.min(share);
            }
            for stream in &mut side.streams {
                shrink_stream(stream, connections_max);
            }
        }
    }
}

/// How many measurements of its duration the case takes.
fn timed_measurements(case: &Case) -> usize {
    match &case.measure {
        // Two more: one finds the capacity, and one is for the kinds alone.
        Measure::Curve(curve) => case.sides.len() * (curve.loads.len().min(LOADS_MAX) + 2),
        Measure::Overload(_) => case.sides.len() * 3,
        _ => case.sides.len(),
    }
}

fn shrink_stream(stream: &mut Stream, connections_max: usize) {
    let load = &mut stream.load;
    load.connections = load.connections.min(connections_max);
    load.threads = load.threads.min(load.connections);
    load.spin = false;
    load.rate = load.rate.map(|rate| rate.clamp(RATE_MIN, RATE_MAX));
    shrink_request(&mut stream.request);
}

/// Leaves some of its paths, among them the first and the last.
fn shrink_request(request: &mut Request) {
    let count = request.paths.len();
    if count > PATHS_MAX {
        let places = (0..PATHS_MAX).map(|place| place * (count - 1) / (PATHS_MAX - 1));
        let places: Vec<usize> = places.collect();
        request.paths = places.iter().map(|place| request.paths[*place].clone()).collect();
        if let Bodies::Each(bodies) = &mut request.bodies {
            *bodies = places.iter().map(|place| bodies[*place].clone()).collect();
        }
    }
}
