//! Runs the rounds of a suite: measures one side after the other, and collects the numbers.
//!
//! Every round measures each side of a case once, in a new order. Owns the servers while they run.
//! The measure of the case decides how a side is measured. If a measurement fails, its row says
//! so, and the other sides go on.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;

use super::launch::Restart;
use super::load_run::load;
use super::load_stats::{RATE_REACHED_MIN, histogram};
use super::probe::{self, ProbeResponse};
use super::process::Server;
use super::reading::{Errors, Quantity, Reading, SideReadings};
use super::response::is_expected;
use super::run::{CaseRun, Row};
use super::stream::Destination;
use super::suite::{BESIDE, Case, Measure, Origin, Side, Stream, Suite};
use super::target::Target;
use super::{curve, deploy_latency, idle, overload};

/// How long a server may go on with requests that have timed out, before it is started anew.
const REST_WITHIN: Duration = Duration::from_secs(2);

/// Runs a suite.
pub struct Rounds<'a> {
    suite: &'a Suite,
    stop: &'a AtomicBool,
    progress: &'a ProgressBar,
    /// The servers that run for the whole case, by their place in the suite.
    servers: HashMap<usize, Server>,
    /// The first answer to each stream, by the numbers of its side and of the stream.
    first: HashMap<(usize, usize), ProbeResponse>,
}

impl<'a> Rounds<'a> {
    /// The rounds of a suite. They end soon once `stop` is set. `progress` counts measurements.
    pub fn new(suite: &'a Suite, stop: &'a AtomicBool, progress: &'a ProgressBar) -> Self {
        Self { suite, stop, progress, servers: HashMap::new(), first: HashMap::new() }
    }

    /// How many measurements a suite has.
    pub fn measurement_count(suite: &Suite) -> u64 {
        suite.cases.iter().map(|case| u64::from(case.rounds) * case.sides.len() as u64).sum()
    }

    /// Runs all cases, or those up to the one in which `stop` is set. Blocks until then.
    pub fn run(mut self) -> Vec<CaseRun> {
        let mut runs = Vec::new();
        for (number, case) in self.suite.cases.iter().enumerate() {
            if self.is_stopped() {
                break;
            }
            runs.push(self.case(number, case));
            self.servers.clear();
            self.first.clear();
        }
        runs
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn case(&mut self, number: usize, case: &Case) -> CaseRun {
        let mut rows: Vec<Vec<Row>> = case.sides.iter().map(|side| rows(case, side)).collect();
        let mut random = SmallRng::seed_from_u64(self.suite.seed.wrapping_add(number as u64));
        let mut order: Vec<usize> = (0..case.sides.len()).collect();
        'rounds: for round in 1..=case.rounds {
            order.shuffle(&mut random);
            for (at, side_number) in order.iter().copied().enumerate() {
                if self.is_stopped() {
                    break 'rounds;
                }
                let side = &case.sides[side_number];
                let text = format!("{}: {}, round {round}/{}", case.name, side.name, case.rounds);
                self.progress.set_message(text);
                let seed = self.suite.seed.wrapping_add(u64::from(round));
                let readings = self.measure_side(case, side_number, seed);
                record(&mut rows[side_number], round, at + 1, readings, self.is_stopped());
                self.progress.inc(1);
            }
        }
        let rows = rows.into_iter().flatten().map(finish).collect();
        CaseRun { name: case.name.clone(), settings: settings(case), rows }
    }

    /// Measures one side once.
    fn measure_side(
        &mut self,
        case: &Case,
        side_number: usize,
        seed: u64,
    ) -> anyhow::Result<SideReadings> {
        let side = &case.sides[side_number];
        match (&side.origin, &case.measure) {
            (Origin::Started(place), Measure::Start) => self.start(*place),
            (Origin::Elsewhere { .. }, Measure::Start | Measure::Drop(_)) => {
                bail!("only a server that the scenario starts can be measured like this")
            }
            (Origin::Elsewhere { authority, pid }, _) => {
                let destination = Destination::resolve(authority)?;
                let target = Target { destination, pid: *pid, server: None };
                self.measure(case, side_number, &target, seed)
            }
            (Origin::Started(place), _) => {
                let launch = &self.suite.servers[*place];
                let mut server = match self.servers.remove(place) {
                    Some(server) => server,
                    None => Server::start(launch, self.stop)?,
                };
                let destination = Destination::resolve(server.authority())?;
                let pid = Some(server.pid());
                let target = Target { destination, pid, server: Some(&server) };
                let readings = self.measure(case, side_number, &target, seed);
                let is_alive = server.check_alive();
                let is_reusable = launch.restart == Restart::Case
                    && is_alive.is_ok()
                    && (!has_timeouts(&readings)
                        || server
                            .wait_until_idle(Instant::now() + REST_WITHIN, self.stop)
                            .unwrap_or(false));
                if is_reusable {
                    self.servers.insert(*place, server);
                }
                // If the server has died, that says more than the failed requests.
                is_alive.and(readings)
            }
        }
    }

    fn measure(
        &mut self,
        case: &Case,
        side_number: usize,
        target: &Target,
        seed: u64,
    ) -> anyhow::Result<SideReadings> {
        let side = &case.sides[side_number];
        let wrong = self.check(side_number, side, target)?;
        let mut readings = match &case.measure {
            Measure::Load => load(side, target, case.duration, seed, self.stop)?,
            Measure::Idle { at_rest } => {
                vec![(idle::measure(side, target, *at_rest, self.stop)?, histogram())]
            }
            Measure::Drop(versions) => {
                vec![(deploy_latency::measure(side, target, versions, self.stop)?, histogram())]
            }
            Measure::Curve(curve) => {
                vec![curve::measure(side, target, curve, case.duration, seed, self.stop)?]
            }
            Measure::Overload(it) => {
                vec![overload::measure(side, target, it, case.duration, seed, self.stop)?]
            }
            Measure::Start => bail!("a start is measured without a server"),
        };
        for ((reading, _), wrong) in readings.iter_mut().zip(wrong) {
            if let Some(text) = wrong {
                reading.fail(Errors { body: 1, ..Errors::default() }, text);
            }
        }
        Ok(readings)
    }

    /// Asks for each stream's first path once. Returns a text for each stream whose body differs
    /// from that of the first round.
    fn check(
        &mut self,
        side_number: usize,
        side: &Side,
        target: &Target,
    ) -> anyhow::Result<Vec<Option<String>>> {
        let mut wrong = Vec::new();
        for (number, stream) in side.streams.iter().enumerate() {
            if stream.may_fail {
                wrong.push(None);
                continue;
            }
            let (request, timeout) = (&stream.request, stream.load.timeout);
            let named = || format!("{} {}", target.destination.host, request.paths[0]);
            let answered = probe::ask(&target.destination, request, timeout, self.stop);
            let answered = answered.with_context(named)?;
            if !is_expected(request.status, answered.status) {
                return Err(UnexpectedStatus(answered.status)).with_context(named);
            }
            let first = self.first.entry((side_number, number));
            let first = first.or_insert_with(|| answered.clone());
            // If versions of a file are swapped, bodies differ.
            let is_wrong = first.body != answered.body && side.swaps.is_none();
            wrong.push(is_wrong.then(|| {
                let path = &request.paths[0];
                let differs = difference(&first.body, &answered.body);
                format!(
                    "{} {path}: its body is not that of the first round: {differs}",
                    request.method
                )
            }));
        }
        Ok(wrong)
    }

    /// Starts a server, notes the time to its first answer, and stops it again.
    fn start(&mut self, place: usize) -> anyhow::Result<SideReadings> {
        let server = Server::start(&self.suite.servers[place], self.stop)?;
        let mut reading = Reading::default();
        let first_answer_ms = server.first_answer().as_secs_f64() * 1e3;
        reading.values.insert(Quantity::StartMs, first_answer_ms);
        Ok(vec![(reading, histogram())])
    }
}

/// A server that is up has answered with an unexpected status.
#[derive(Debug)]
struct UnexpectedStatus(u16);

impl fmt::Display for UnexpectedStatus {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "the answer has status {}", self.0)
    }
}

impl std::error::Error for UnexpectedStatus {}

/// Whether requests timed out. The server may still work on them.
fn has_timeouts(readings: &anyhow::Result<SideReadings>) -> bool {
    match readings {
        Ok(readings) => readings.iter().any(|(reading, _)| reading.errors.timeout > 0),
        Err(error) => errors_of(error).timeout > 0,
    }
}

/// The error that ended a measurement, counted under its kind.
fn errors_of(error: &anyhow::Error) -> Errors {
    if error.is::<UnexpectedStatus>() {
        return Errors { status: 1, ..Errors::default() };
    }
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    cause.map_or(Errors { connect: 1, ..Errors::default() }, Errors::of)
}

/// The rows of a side, without rounds.
fn rows(case: &Case, side: &Side) -> Vec<Row> {
    let is_alone = !matches!(case.measure, Measure::Load);
    let streams = side.streams.iter().enumerate();
    let row = |(number, stream): (usize, &Stream)| Row {
        name: if number == 0 {
            side.name.clone()
        } else {
            format!("{}{BESIDE}{}", side.name, stream.name)
        },
        beside: number > 0,
        may_fail: stream.may_fail,
        rounds: Vec::new(),
        latency: histogram(),
        notes: Vec::new(),
    };
    streams.map(row).take(if is_alone { 1 } else { usize::MAX }).collect()
}

/// Adds the result of a measurement to the rows of its side.
fn record(
    rows: &mut [Row],
    round: u32,
    position: usize,
    readings: anyhow::Result<SideReadings>,
    is_stopped: bool,
) {
    match readings {
        Ok(readings) => {
            for (row, (reading, latency)) in rows.iter_mut().zip(readings) {
                row.latency.add(&latency).expect("all have the same bounds");
                row.rounds.push(Reading { round, position, ..reading });
            }
        }
        // A measurement that was interrupted has not failed.
        Err(_) if is_stopped => {}
        Err(error) => {
            let errors = errors_of(&error);
            for row in rows {
                row.rounds.push(Reading { round, position, errors, ..Reading::default() });
                row.notes.push(format!("round {round} failed: {error:#}"));
            }
        }
    }
}

/// Adds the notes that the reader of a row needs.
fn finish(mut row: Row) -> Row {
    let reached = |reading: &Reading| reading.values.get(&Quantity::RateReached).copied();
    let all: Vec<f64> = row.rounds.iter().filter_map(reached).collect();
    let saturated: Vec<f64> = all.iter().copied().filter(|it| *it < RATE_REACHED_MIN).collect();
    if let Some(worst) = saturated.iter().copied().reduce(f64::min) {
        row.notes.push(format!(
            "saturated in {} of {} rounds: sent {:.1} % of what was due at worst",
            saturated.len(),
            all.len(),
            worst * 100.0
        ));
    }
    // Failures of a stream that may fail are expected and get no notes.
    let failed = row.rounds.iter().filter(|_| !row.may_fail);
    let mut told = HashSet::new();
    for reading in failed {
        for (kind, text) in reading.examples.iter().filter(|(kind, _)| told.insert(*kind)) {
            row.notes.push(format!("first {kind} error, in round {}: {text}", reading.round));
        }
    }
    row
}

/// Says where two bodies begin to differ, and what to do about it.
fn difference(first: &[u8], now: &[u8]) -> String {
    const SHOWN_BYTES: usize = 40;
    let at = first.iter().zip(now).take_while(|(first, now)| first == now).count();
    let shown = |bytes: &[u8]| match &bytes[at..] {
        [] => "its end".to_owned(),
        rest => format!("{:?}", String::from_utf8_lossy(&rest[..rest.len().min(SHOWN_BYTES)])),
    };
    format!(
        "{} and {} bytes, from byte {at} on {} and then {}. Whether answers are right can be told \
         only of a body that stays the same: leave out of it what changes, as the time, or allow \
         it with --allow-errors",
        first.len(),
        now.len(),
        shown(first),
        shown(now)
    )
}

/// The settings that the sides of a case share, in words.
fn settings(case: &Case) -> String {
    let mut words = Vec::new();
    let mut share = |text: &dyn Fn(&Stream) -> String| {
        let mut texts = case.sides.iter().filter_map(|side| side.streams.first()).map(text);
        if let Some(first) = texts.next()
            && texts.all(|text| text == first)
            && !first.is_empty()
        {
            words.push(first);
        }
    };
    share(&|stream| match stream.load.connections {
        1 => "1 connection".to_owned(),
        connections => format!("{connections} connections"),
    });
    share(&|stream| match stream.load.pipeline {
        1 => String::new(),
        depth => format!("{depth} deep"),
    });
    share(&|stream| stream.load.rate.map(|rate| format!("{rate} requests/s")).unwrap_or_default());
    let rounds = if case.rounds == 1 { "round" } else { "rounds" };
    words.push(format!("{} {rounds} of {:?}", case.rounds, case.duration));
    words.join(", ")
}
