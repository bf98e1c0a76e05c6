//! How many requests may be in flight in the whole host.

use super::amount;
use super::amount::CountFlag;
use super::mistakes::Mistakes;

/// Limits on what the host does at a time. Each worker has an equal part of each.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Requests in flight in the whole host. `None` is as many as there are instances for.
    pub in_flight_max: Option<usize>,
}

/// The heading in `--help`.
const HEADING: &str = "Limits of the host";
const IN_FLIGHT: CountFlag = amount::count("--in-flight-max", (1, 1_000_000));
const IN_FLIGHT_HELP: &str =
    "Requests in flight, all workers together [default: as many as there are instances for]";

/// The flags as they were typed.
#[derive(clap::Args, Clone, Debug)]
pub struct AdmissionFlags {
    #[arg(long, value_name = "N", help_heading = HEADING, help = IN_FLIGHT_HELP)]
    in_flight_max: Option<String>,
}

impl AdmissionFlags {
    pub(super) fn validate(&self, mistakes: &mut Mistakes) -> Admission {
        Admission { in_flight_max: IN_FLIGHT.optional(self.in_flight_max.as_deref(), mistakes) }
    }
}
