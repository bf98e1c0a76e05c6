//! How many requests the host takes in at once, and how many may wait.

use std::time::Duration;

use super::amount::{Count, QUEUE_WAIT};
use super::{Mistakes, amount};

/// What the host does at a time. Each worker has an equal part of what is the whole host's.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Requests in flight in the whole host; `None` is as many as there are instances for.
    pub in_flight_max: Option<usize>,
    /// Requests in flight of one guest, likewise; in any case no more than three quarters of all.
    pub guest_in_flight_max: Option<usize>,
    pub queue: QueueLimits,
}

/// Bounds of one queue of requests, of which each worker has three for each guest.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Requests that may wait.
    pub length_max: usize,
    /// How long one may.
    pub wait_max: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        let wait_max = Duration::from_millis(QUEUE_WAIT.default);
        QueueLimits { length_max: QUEUE_MAX, wait_max }
    }
}

/// The heading in `--help`.
const HEADING: &str = "Limits of the host";
const IN_FLIGHT: Count = amount::count("--in-flight-max", (1, 1_000_000));
const GUEST_IN_FLIGHT: Count = amount::count("--guest-in-flight-max", (1, 1_000_000));
const QUEUE: Count = amount::count("--queue-max", (0, 100_000));
const QUEUE_MAX: usize = 64;

const IN_FLIGHT_HELP: &str =
    "Requests in flight, all workers together [default: as many as there are instances for]";
const GUEST_IN_FLIGHT_HELP: &str =
    "Requests in flight to one guest [default: three quarters of all]";
const QUEUE_HELP: &str = "Requests of one worker that may wait for one guest";

/// The flags as they were typed.
#[derive(clap::Args, Clone, Debug)]
pub struct AdmissionFlags {
    #[arg(long, value_name = "N", help_heading = HEADING, help = IN_FLIGHT_HELP)]
    in_flight_max: Option<String>,

    #[arg(long, value_name = "N", help_heading = HEADING, help = GUEST_IN_FLIGHT_HELP)]
    guest_in_flight_max: Option<String>,

    #[arg(
        long,
        value_name = "N",
        help_heading = HEADING,
        help = QUEUE_HELP,
        default_value_t = QUEUE_MAX.to_string()
    )]
    queue_max: String,

    /// How long a request may wait for its turn
    #[arg(
        long,
        value_name = "TIME",
        help_heading = HEADING,
        default_value_t = QUEUE_WAIT.default()
    )]
    queue_timeout: String,
}

impl AdmissionFlags {
    pub(super) fn validate(&self, mistakes: &mut Mistakes) -> Admission {
        Admission {
            in_flight_max: IN_FLIGHT.optional(self.in_flight_max.as_deref(), mistakes),
            guest_in_flight_max: GUEST_IN_FLIGHT
                .optional(self.guest_in_flight_max.as_deref(), mistakes),
            queue: QueueLimits {
                length_max: QUEUE.check(&self.queue_max, mistakes).unwrap_or(QUEUE_MAX),
                wait_max: mistakes.time(&QUEUE_WAIT, &self.queue_timeout),
            },
        }
    }
}
