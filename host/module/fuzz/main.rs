//! The fuzzer of this crate. It makes inputs that no toolchain would make, and checks the results
//! (`checks.rs`).
//!
//! ```text
//! fuzz --minutes N [--from SEED] [--finds FOLDER]     feeds inputs for N minutes
//! fuzz --seed N [--finds FOLDER]                      feeds the input of one seed again
//! fuzz FILE...                                        feeds files
//! ```
//!
//! A child process with little memory runs the inputs. An input that kills the process, by too deep
//! a recursion or too much memory, is a find like any other. Each find is written to two files:
//! what is wrong, and the input.

mod checks;
mod execute;
mod facts;
mod inputs;
mod mutate;
mod random;
mod shapes;
#[cfg(test)]
mod tests;

use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

use checks::{Coverage, check};
use inputs::{Corpus, Input};

/// The number of inputs for one child process.
const BATCH: u64 = 2_000;
/// The most CPU time for each `SLOW_BYTES` of an input, or part of them. An input that takes more
/// is a find. Release builds need far less.
const SLOW: Duration = Duration::from_secs(1);
const SLOW_BYTES: usize = 256 << 10;
/// The most wall-clock time for one input. It is long, because the machine may have other work.
const STUCK: Duration = Duration::from_secs(120);
/// The most address space of a child process, in KiB.
const MEMORY_KIB: u32 = 2 << 20;

/// The command line.
struct Flags {
    minutes: f64,
    from: Option<u64>,
    seed: Option<u64>,
    finds: PathBuf,
    /// The file in which a child process writes the seed of the current input. Only children have
    /// this flag.
    progress: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl Flags {
    fn read() -> Result<Flags, String> {
        let finds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz");
        let (from, seed, progress, files) = Default::default();
        let mut flags = Flags { minutes: 0.0, from, seed, finds, progress, files };
        let mut args = env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--minutes" => flags.minutes = number(&value()?)?,
                "--from" => flags.from = Some(number(&value()?)?),
                "--seed" => flags.seed = Some(number(&value()?)?),
                "--finds" => flags.finds = value()?.into(),
                "--progress" => flags.progress = Some(value()?.into()),
                other if other.starts_with('-') => return Err(format!("{other} is no flag")),
                file => flags.files.push(file.into()),
            }
        }
        Ok(flags)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn main() -> ExitCode {
    let finds = Flags::read().and_then(|flags| {
        fs::create_dir_all(&flags.finds).map_err(|error| error.to_string())?;
        match (&flags.progress, flags.seed) {
            (Some(progress), _) => Ok(feed(&flags, progress)),
            (None, Some(seed)) => Ok(feed_again(&flags, seed)),
            (None, None) if flags.files.is_empty() => run_batches(&flags),
            (None, None) => feed_files(&flags),
        }
    });
    match finds {
        Ok(0) => ExitCode::SUCCESS,
        Ok(finds) => {
            eprintln!("{finds} finds");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::from(2)
        }
    }
}

/// Starts child processes until the time is over. Returns the number of finds.
fn run_batches(flags: &Flags) -> Result<usize, String> {
    let until = Instant::now() + Duration::from_secs_f64(flags.minutes * 60.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut from = flags.from.unwrap_or(now.as_secs() << 16);
    let corpus = Corpus::read();
    let mut finds = 0;
    println!("from seed {from}; finds are written to {}", flags.finds.display());
    while Instant::now() < until {
        let progress = flags.finds.join(format!("progress-{}", std::process::id()));
        fs::write(&progress, from.to_string()).map_err(|error| error.to_string())?;
        let mut child = start(flags, from, &progress).map_err(|error| error.to_string())?;
        let end = supervise(&mut child, &progress, until);
        let seed = read_progress(&progress);
        drop(fs::remove_file(&progress));
        match end {
            End::Batch(new) => (finds, from) = (finds + new, from + BATCH),
            End::TimeIsOver => break,
            End::Died(how) => {
                record(flags, seed, &corpus.input(seed), &how);
                (finds, from) = (finds + 1, seed + 1);
            }
        }
    }
    Ok(finds)
}

/// How a child process ended.
enum End {
    /// It ran its batch, with this number of finds.
    Batch(usize),
    TimeIsOver,
    Died(String),
}

fn start(flags: &Flags, from: u64, progress: &Path) -> std::io::Result<Child> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\""));
    command.arg(env::current_exe()?).arg("--from").arg(from.to_string());
    command.arg("--finds").arg(&flags.finds).arg("--progress").arg(progress).spawn()
}

fn supervise(child: &mut Child, progress: &Path, until: Instant) -> End {
    let (mut seed, mut since) = (0, Instant::now());
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                return match status.code() {
                    Some(finds) if finds < 100 => End::Batch(finds as usize),
                    _ => End::Died(format!("it ended the process ({status})")),
                };
            }
            Err(error) => return End::Died(error.to_string()),
        }
        let now = read_progress(progress);
        if now != seed {
            (seed, since) = (now, Instant::now());
        }
        let (is_stuck, is_over) = (since.elapsed() > STUCK, Instant::now() > until);
        if is_stuck || is_over {
            drop(child.kill());
            drop(child.wait());
            let stuck = End::Died(format!("it took more than {STUCK:?}"));
            return if is_stuck { stuck } else { End::TimeIsOver };
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn read_progress(progress: &Path) -> u64 {
    fs::read_to_string(progress).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Runs a batch in this process. Exits with the number of finds.
fn feed(flags: &Flags, progress: &Path) -> usize {
    let corpus = Corpus::read();
    let (mut seen, mut finds) = (Coverage::default(), 0);
    let from = flags.from.unwrap_or(0);
    for seed in from..from + BATCH {
        drop(fs::write(progress, seed.to_string()));
        let input = corpus.input(seed);
        if let Err(wrong) = feed_one(&input, &mut seen) {
            record(flags, seed, &input, &wrong);
            finds += 1;
        }
    }
    println!("from {from}: {finds} finds; {seen:?}");
    // An exit code has no room for more.
    std::process::exit(finds.min(99));
}

/// Checks one input, its CPU time included.
///
/// # Errors
/// What is wrong.
fn feed_one(input: &Input, seen: &mut Coverage) -> Result<(), String> {
    static PANIC: Mutex<String> = Mutex::new(String::new());
    panic::set_hook(Box::new(|info| {
        if let Ok(mut text) = PANIC.lock() {
            *text = info.to_string();
        }
    }));
    let slow = SLOW * (1 + input.bytes.len() / SLOW_BYTES) as u32;
    let start = cpu_time();
    let checked = catch_unwind(AssertUnwindSafe(|| check(input, seen)));
    drop(panic::take_hook());
    match checked {
        Err(_) => Err(PANIC.lock().map_or_else(|_| String::new(), |text| text.clone())),
        Ok(Ok(())) if cpu_time() - start > slow => Err(format!("it took {:?}", cpu_time() - start)),
        Ok(checked) => checked,
    }
}

/// The CPU time of this thread, which does not depend on what else the machine does.
fn cpu_time() -> Duration {
    let shown = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let spent = shown.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(spent.unwrap_or(0))
}

fn feed_again(flags: &Flags, seed: u64) -> usize {
    let input = Corpus::read().input(seed);
    println!("{seed}: {}, {} bytes", input.origin, input.bytes.len());
    let fed = feed_one(&input, &mut Coverage::default());
    record(flags, seed, &input, fed.as_ref().err().map_or("nothing is wrong", String::as_str));
    usize::from(fed.is_err())
}

fn feed_files(flags: &Flags) -> Result<usize, String> {
    let mut finds = 0;
    for path in &flags.files {
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let is_text = path.extension().is_some_and(|ending| ending == "wat");
        let input = Input { origin: path.display().to_string(), bytes, is_text };
        if let Err(wrong) = feed_one(&input, &mut Coverage::default()) {
            println!("{}: {wrong}", input.origin);
            finds += 1;
        }
    }
    Ok(finds)
}

/// Writes an input to a file, and to another one what is wrong.
fn record(flags: &Flags, seed: u64, input: &Input, wrong: &str) {
    let Input { origin, bytes, is_text } = input;
    let said = format!("{origin}, {} bytes: {wrong}\nagain: fuzz --seed {seed}\n", bytes.len());
    println!("seed {seed}: {said}");
    let ending = if *is_text { "wat" } else { "wasm" };
    let file = flags.finds.join(seed.to_string());
    let written = fs::write(file.with_extension("txt"), &said)
        .and_then(|()| fs::write(file.with_extension(ending), bytes));
    if let Err(error) = written {
        eprintln!("{}: {error}", file.display());
    }
}
