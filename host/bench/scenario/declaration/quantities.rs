//! Which quantities and counts each measure has.
//!
//! A quantity may be absent from a round, for example if a server has gone. One that is not here is
//! in no round.

use std::collections::BTreeSet;

use crate::reading::Quantity;

const CPU: [Quantity; 3] =
    [Quantity::CpuUsPerReq, Quantity::CpuUserUsPerReq, Quantity::CpuKernelUsPerReq];
/// Failed requests of all kinds together, which every measure counts.
pub const ERRORS: &str = "errors";

/// What decides which quantities a row has.
#[derive(Clone, Copy)]
pub struct RowKind<'a> {
    /// The measure of its case, as the scenario writes it.
    pub measure: &'a str,
    /// It is the first stream of its side.
    pub is_first: bool,
    /// Its side has no other stream. Else nobody knows whose CPU time it was.
    pub is_alone: bool,
    /// The server's process is known.
    pub has_process: bool,
    /// Its load has a rate.
    pub has_rate: bool,
    /// Files are swapped during its load.
    pub has_swaps: bool,
    /// The counters of its server.
    pub counters: &'a [String],
}

impl RowKind<'_> {
    /// The names of all quantities and counts.
    pub fn quantities(&self) -> BTreeSet<String> {
        let (values, counts) = match self.measure {
            "idle" => (vec![Quantity::NeverUsedBytes, Quantity::UsedOnceBytes], Vec::new()),
            "start" => (vec![Quantity::StartMs], Vec::new()),
            "drop" => (vec![Quantity::DropMs], Vec::new()),
            "curve" => (vec![Quantity::LoadMaxPerS, Quantity::LoadMaxOfCapacity], Vec::new()),
            "overload" => (Self::of_overload(), vec!["answers".to_owned(), "refused".to_owned()]),
            _ => (self.of_load(), self.counts_of_load()),
        };
        let values = values.into_iter().map(|it| it.key().to_owned());
        values.chain(counts).chain([ERRORS.to_owned()]).collect()
    }

    /// It is offered at a rate. The server's process is not looked at.
    fn of_overload() -> Vec<Quantity> {
        let mut values = of_requests();
        let own = [Quantity::GoodputOfCapacity, Quantity::P99ToUnloaded, Quantity::RateReached];
        values.extend(own);
        values
    }

    fn of_load(&self) -> Vec<Quantity> {
        let mut values = of_requests();
        if self.has_rate {
            values.push(Quantity::RateReached);
        }
        if self.is_first && self.has_process {
            values.extend([Quantity::RssPeakBytes, Quantity::RssGrowthBytes]);
        }
        if self.is_alone && self.has_process {
            values.extend(CPU);
        }
        values
    }

    fn counts_of_load(&self) -> Vec<String> {
        let mut counts = vec!["answers".to_owned()];
        if self.is_first && self.has_swaps {
            counts.push("swaps".to_owned());
        }
        if self.is_first {
            counts.extend(self.counters.iter().map(|name| format!("counter_{name}")));
        }
        counts
    }
}

/// What is known of all requests of a stream. With few answers, a round has no 99.999th percentile.
fn of_requests() -> Vec<Quantity> {
    let mut values: Vec<Quantity> =
        Quantity::ALL.into_iter().filter(Quantity::is_latency).collect();
    values.extend([Quantity::ReqPerS, Quantity::MbPerS, Quantity::ClientCpuUsPerReq]);
    values
}
