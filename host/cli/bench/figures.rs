//! `guesthouse bench --figures` and `--tables`: measures the figures of a file, or draws tables.
//!
//! Owns the exit codes of both. `guesthouse_bench` decides what a figure is.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use guesthouse_bench::figures::{Figures, Needed, Verdict};
use guesthouse_bench::scenario::{self, Overrides};
use guesthouse_bench::{Run, report};

use super::output::{make_empty, write, write_run};
use crate::config;

/// How many lines of a document are shown that differ from its runs.
const DIFFERENCES_SHOWN: usize = 20;
/// The longest measurement of `--quick`.
const QUICK: Duration = Duration::from_secs(1);

/// What the command line says of figures that are measured.
pub(super) struct FigureOptions<'a> {
    /// The names of the figures. None means all.
    pub names: &'a [String],
    /// The headline figures alone, in short.
    pub is_quick: bool,
    /// Where the results go, a folder for each scenario.
    pub out: Option<&'a Path>,
    /// What is said otherwise than the scenarios do.
    pub overrides: Overrides,
    /// Failed requests do not make the command fail.
    pub allow_errors: bool,
}

/// Draws the tables of a figures file into their documents. With `check`, writes nothing, and the
/// exit code is 1 if a line differs from its run. Returns which lines differ, the first of each
/// document, or which documents were written.
///
/// # Errors
/// The file, a run or a document cannot be read or written.
pub(super) fn draw(path: &Path, check: bool) -> anyhow::Result<(String, ExitCode)> {
    let mut text = String::new();
    for document in Figures::read(path)?.documents()? {
        let differences = document.differences();
        if differences.is_empty() {
            continue;
        }
        let shown = document.path.display();
        if !check {
            write(&document.path, &document.drawn)?;
            text += &format!("{shown}: its tables are drawn anew\n");
            continue;
        }
        // Behind a line that is missing all others differ.
        for (number, is, should_be) in differences.iter().take(DIFFERENCES_SHOWN) {
            text += &format!("{shown}:{number}: {is:?}\n  by its run: {should_be:?}\n");
        }
    }
    let failed = check && !text.is_empty();
    if failed {
        text += &format!("draw them by `guesthouse bench --tables {}`\n", path.display());
    }
    Ok((text, if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }))
}

/// Measures the figures of a file by their scenarios. Returns a text with the tables of the runs
/// and a line for each figure. The exit code is 1 if a request or a figure fails, and also if a
/// figure misses its target. `--quick` and `--mini` judge no number, but with `--quick` each figure
/// has to be measured. With `--allow-errors` failures are forgiven, and misses are not. After a
/// signal it is 130.
///
/// # Errors
/// The file or a scenario cannot be read, or a result cannot be written.
pub(super) fn measure(
    path: &Path,
    options: &FigureOptions<'_>,
    version: &str,
    stop: &AtomicBool,
) -> anyhow::Result<(String, ExitCode)> {
    let mut figures = Figures::read(path)?;
    let mini = options.overrides.mini;
    let needed = figures.needed(options.names, options.is_quick, mini)?;
    if let Some(dir) = options.out {
        make_empty(dir)?;
    }
    let (mut text, mut errors) = (String::new(), 0);
    for needed in &needed {
        let run = match run(needed, options, version, stop) {
            Ok(run) => run,
            // What was measured before it is not lost.
            Err(_) if stop.load(Ordering::Relaxed) => return Ok((text, ExitCode::from(130))),
            Err(error) => {
                text += &format!("{}: {error:#}\n\n", needed.scenario);
                errors += 1;
                figures.stand_on_nothing(&needed.scenario);
                continue;
            }
        };
        errors += run.errors();
        let (summary, raw) = (report::text(&run), report::csv(&run));
        text += &format!("{summary}\n");
        if let Some(dir) = options.out {
            let dir = dir.join(&needed.scenario);
            make_empty(&dir)?;
            write_run(&dir, &summary, &raw)?;
        }
        if stop.load(Ordering::Relaxed) {
            return Ok((text, ExitCode::from(130)));
        }
        if run.cases.is_empty() {
            figures.stand_on_nothing(&needed.scenario);
        } else {
            figures.stand_on(&needed.scenario, &raw, mini)?;
        }
    }
    let elsewhere = figures.measured_elsewhere(options.names, options.is_quick);
    let mut measured = figures.measured(options.names, options.is_quick);
    measured.retain(|it| !elsewhere.contains(&it.name));
    let lines = measured.iter().map(|it| it.line() + "\n").collect::<String>();
    let count =
        |is: &dyn Fn(&Verdict) -> bool| measured.iter().filter(|it| is(&it.verdict)).count();
    let failed = count(&|it| matches!(it, Verdict::Failed(_)));
    let missed = count(&|it| *it == Verdict::Missed);
    let unmeasured = count(&|it| *it == Verdict::NotMeasured);
    let all = measured.len();
    let mut sum = format!("{all} figures: {missed} miss their targets, {failed} failed");
    if unmeasured > 0 {
        sum += &format!(", {unmeasured} could not be measured here");
    }
    if !elsewhere.is_empty() {
        sum += &format!("; by another program: {}", elsewhere.join(", "));
    }
    sum += "\n";
    if let Some(dir) = options.out {
        write(&dir.join("figures.txt"), &format!("{lines}\n{sum}"))?;
    }
    let has_errors = (failed > 0 || errors > 0) && !options.allow_errors;
    // The short form is to measure every headline. Like miniature, it judges no number.
    let falls_short =
        if options.is_quick { unmeasured > 0 || all == 0 } else { missed > 0 && !mini };
    let fails = has_errors || falls_short;
    Ok((text + &lines + &sum, if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS }))
}

/// Measures the cases of a scenario that figures need.
fn run(
    needed: &Needed,
    options: &FigureOptions<'_>,
    version: &str,
    stop: &AtomicBool,
) -> anyhow::Result<Run> {
    let overrides = Overrides {
        rounds: options.overrides.rounds.or(options.is_quick.then_some(1)),
        duration_max: options.is_quick.then_some(QUICK),
        cases: needed.cases.clone(),
        only: Vec::new(),
        ..options.overrides.clone()
    };
    let cache = config::user_cache_folder("guesthouse-bench");
    let suite = scenario::read(&needed.path, &overrides, cache, stop)?;
    let mut run = guesthouse_bench::run(&suite, std::env::args().collect(), stop);
    run.about.insert(0, ("guesthouse".to_owned(), version.to_owned()));
    Ok(run)
}
