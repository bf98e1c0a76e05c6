//! Measures servers: a load generator, and the reports of its numbers.
//!
//! A *suite* is a list of *cases*. A case is one table of the report. In a case, *sides* take
//! turns: every round measures each side once, in shuffled order, so that anything else on the
//! machine hits all sides alike. A side is a server with one or more *streams* of requests, which
//! run at the same time. The crate reaches every server over TCP, and knows nothing of how guests
//! are served.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub mod builtin;
pub mod figures;
pub mod file;
pub mod report;
pub mod scenario;
pub mod url;

mod along;
mod bodies;
mod body_check;
mod connection;
mod cpus;
mod curve;
mod deploy_latency;
mod idle;
mod launch;
mod load;
mod load_run;
mod load_stats;
mod overload;
mod probe;
mod process;
mod published_versions;
mod reading;
mod request_schedule;
mod response;
mod round;
mod run;
mod statistics;
mod stream;
mod suite;
mod swap;
mod target;
mod worker;

pub use load::{Arrivals, Bodies, Load, PathDistribution, Request};
pub use process::{cpus_allowed, files_max};
pub use run::Run;
pub use suite::{Suite, draw_seed};

/// Measures a suite, with a progress bar if stderr is a terminal. If a server or a side fails, the
/// result names the failure and the other sides go on. Once `stop` is set, the run ends soon, with
/// the numbers so far. `command` is the command line, which the reports show. Blocks until the
/// suite is measured.
pub fn run(suite: &Suite, command: Vec<String>, stop: &AtomicBool) -> Run {
    let started_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut about = process::machine();
    about.extend(suite.servers.iter().filter_map(|it| process::version(it, stop)));
    about.dedup();
    let progress = ProgressBar::with_draw_target(
        Some(round::Rounds::measurement_count(suite)),
        ProgressDrawTarget::stderr(),
    );
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {wide_msg} {elapsed}");
    progress.set_style(style.expect("the template is right"));
    progress.enable_steady_tick(Duration::from_millis(250));
    let cases = round::Rounds::new(suite, stop, &progress).run();
    progress.finish_and_clear();
    Run {
        title: suite.title.clone(),
        command,
        seed: suite.seed,
        started_at,
        about,
        cases,
        skipped: suite.skipped.clone(),
        interrupted: stop.load(Ordering::Relaxed),
    }
}
