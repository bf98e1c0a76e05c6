//! The host's counts, as it writes them on SIGUSR1.

use std::collections::BTreeMap;

/// The host's counts, read from its answer to SIGUSR1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub requests: u64,
    pub in_flight: u64,
    pub connections: u64,
    pub connections_parked: u64,
    pub connections_refused: u64,
    pub instances_ready: u64,
    pub instances_out: u64,
    /// The most CPU time that one task of a worker used without a pause, in microseconds.
    pub turn_max_us: u64,
    pub workers: u64,
    pub requests_by_worker: Vec<u64>,
    pub rejects: BTreeMap<String, u64>,
    /// Calls of guests, by where they have run.
    pub calls: BTreeMap<String, u64>,
    /// Instances, by how they were made or ended.
    pub instances: BTreeMap<String, u64>,
    /// Handlers with a route, and how many of them are in each state.
    pub handlers: u64,
    pub cold: u64,
    pub loading: u64,
    pub ready: u64,
    pub failed: u64,
    /// The bytes of `--memory-total` that are in use.
    pub memory_used: u64,
    pub memory_total: u64,
    /// Resources of the kernel: the number in use, and the limit.
    pub mappings_used: u64,
    pub mappings_max: u64,
    pub descriptors_used: u64,
    pub descriptors_max: u64,
    /// The number of answered requests.
    pub answered: u64,
    /// The requests of each handler that had any, by its name in quotes.
    pub handler_requests: BTreeMap<String, u64>,
    pub handler_rejects: BTreeMap<String, u64>,
    /// The times of each handler, as they are written.
    pub handler_duration: BTreeMap<String, String>,
}

impl Status {
    /// Reads `status: requests=12 ... rejects=[trap:1 no_route:2] handlers=3 ...`.
    pub fn parse(message: &str) -> Status {
        let mut fields = BTreeMap::new();
        let names = message.find(" handler_requests=").unwrap_or(message.len());
        let (mut rest, by_handler) = message.split_at(names);
        rest = rest.trim_start_matches("status:").trim();
        while let Some((name, after)) = rest.split_once('=') {
            let end = if after.starts_with('[') { "]" } else { " " };
            let (value, after) = after.split_once(end).unwrap_or((after, ""));
            fields.insert(name, value.trim_start_matches('['));
            rest = after.trim_start();
        }
        let field = |name: &str| {
            let value = fields.get(name);
            *value.unwrap_or_else(|| panic!("no {name} in {message:?}"))
        };
        let number = |text: &str| {
            text.parse::<u64>().unwrap_or_else(|error| panic!("{text:?} in {message:?}: {error}"))
        };
        let reason = |pair: &str| {
            let (name, count) = pair.split_once(':').unwrap_or((pair, ""));
            (name.to_owned(), number(count))
        };
        Status {
            requests: number(field("requests")),
            in_flight: number(field("in_flight")),
            connections: number(field("connections")),
            connections_parked: number(field("connections_parked")),
            connections_refused: number(field("connections_refused")),
            instances_ready: number(field("instances_ready")),
            instances_out: number(field("instances_out")),
            turn_max_us: number(field("turn_max_us")),
            workers: number(field("workers")),
            requests_by_worker: field("requests_by_worker")
                .split_whitespace()
                .map(number)
                .collect(),
            rejects: field("rejects").split_whitespace().map(reason).collect(),
            calls: field("calls").split_whitespace().map(reason).collect(),
            instances: field("instances").split_whitespace().map(reason).collect(),
            handlers: number(field("handlers")),
            cold: number(field("cold")),
            loading: number(field("loading")),
            ready: number(field("ready")),
            failed: number(field("failed")),
            memory_used: number(field("memory_used")),
            memory_total: number(field("memory_total")),
            mappings_used: number(field("mappings_used")),
            mappings_max: number(field("mappings_max")),
            descriptors_used: number(field("descriptors_used")),
            descriptors_max: number(field("descriptors_max")),
            answered: field("request_duration")
                .split_whitespace()
                .map(reason)
                .next()
                .expect("a count")
                .1,
            handler_requests: handlers(by_handler, "requests")
                .map(|(it, n)| (it, number(n)))
                .collect(),
            handler_rejects: handlers(by_handler, "rejects")
                .map(|(it, n)| (it, number(n)))
                .collect(),
            handler_duration: handlers(by_handler, "duration")
                .map(|(it, text)| (it, text.to_owned()))
                .collect(),
        }
    }

    /// The number of calls that have run there.
    #[track_caller]
    pub fn calls(&self, place: &str) -> u64 {
        self.calls.get(place).copied().unwrap_or_else(|| panic!("no calls are counted {place}"))
    }

    /// The number of instances with this fate.
    #[track_caller]
    pub fn instances(&self, outcome: &str) -> u64 {
        let count = self.instances.get(outcome).copied();
        count.unwrap_or_else(|| panic!("no instances are counted {outcome}"))
    }

    /// The number of answers of the host for this reason.
    pub fn rejects(&self, name: &str) -> u64 {
        self.rejects.get(name).copied().unwrap_or(0)
    }
}

/// The list of handlers: `handler_requests=["hello":12 "users/[id]":1]`.
fn handlers<'a>(text: &'a str, what: &str) -> impl Iterator<Item = (String, &'a str)> {
    let begin = format!(" handler_{what}=[");
    let rest = text.split_once(&begin).map_or("", |(_, rest)| rest);
    let end = rest.find("] handler_").unwrap_or_else(|| rest.len().saturating_sub(1));
    rest[..end].split(" \"").filter(|it| !it.is_empty()).map(|it| {
        let (name, value) = it.rsplit_once("\":").unwrap_or((it, ""));
        (name.trim_start_matches('"').to_owned(), value)
    })
}
