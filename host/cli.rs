//! The command line: verbs, help texts, and what goes to stdout.
//!
//! This is the top of the crate: it may use every module, and only `main` uses it. Results go to
//! stdout, the log goes to stderr. Decides nothing about serving.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::config::{self, Flags, LogFormat};
use crate::demo::{bundled, many};
use crate::folder::{self, RouteLine};
use crate::guest::load::check::{self, Report};
use crate::guest::load::compiler_process;
use crate::log;
use served::Served;

mod bench;
mod new;
mod platform;
mod run;
mod served;
mod terminal;

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("GUESTHOUSE_COMMIT"),
    ", wasmtime ",
    env!("GUESTHOUSE_WASMTIME"),
    ")"
);

const EXAMPLES: &str = "\
Examples:
  guesthouse demo                    try it: open http://127.0.0.1:8080/hello
  guesthouse new rust hello          start a handler of your own
  guesthouse serve handlers          serve every .wasm and .wat file in a folder
  guesthouse check hello.wasm        see why a file does not load

Environment:
  GUESTHOUSE_LOG        what is logged: error, warn, info, debug, trace [default: info]
  GUESTHOUSE_CACHE_DIR  folder for compiled guests, as --cache-dir
  NO_COLOR              set it to have no colours in the log";

const SERVE_EXAMPLES: &str = "\
Examples:
  guesthouse serve
  guesthouse serve site --listen 127.0.0.1:8080 --listen '[::1]:8080'
  guesthouse serve --upstream http://127.0.0.1:3000 --deadline 2s
  guesthouse serve --isolation reuse --memory-max 32MiB --log json

Which file answers which path:
  hello.wasm          /hello and everything below it
  index.wasm          the folder it is in
  users/[id].wasm     /users/ and one segment
  [...rest].wasm      everything that nothing else answers
  @example.com/       a folder for the requests to that host";

const DEMO_EXAMPLES: &str = "\
Examples:
  guesthouse demo
  guesthouse demo --many 10000       ten thousand handlers: /stranger/00042, /hostile/00199-divide";

// Not a doc comment, because rustdoc would take the brackets for a link.
const MANY_DIR: &str = "Folder for the many handlers, empty or new [default: guesthouse-strangers \
                        in the user's cache folder]";

const CHECK_EXAMPLES: &str = "\
Examples:
  guesthouse check handlers/*.wasm

The exit code is 1 if any of the files would not be served.";

const NEW_EXAMPLES: &str = "\
Examples:
  guesthouse new rust hello          a Cargo project in hello/
  guesthouse new python hello        hello/, with the commands that make a component of it
  guesthouse new javascript hello    the same
  guesthouse new wat hello           one file, hello.wat, which needs no compiler

What to do next is printed. Nothing is ever overwritten.";

/// Serves WebAssembly HTTP handlers from a folder, each request in its own sandbox
#[derive(Parser)]
#[command(name = "guesthouse", version = VERSION, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve the handlers in a folder
    #[command(after_help = SERVE_EXAMPLES)]
    Serve {
        /// Folder with .wasm and .wat files
        #[arg(value_name = "DIR", default_value = "handlers")]
        dir: PathBuf,
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Serve the bundled demo handlers and their native twins
    #[command(after_help = DEMO_EXAMPLES)]
    Demo {
        /// Serve N small handlers instead, one in a hundred of them hostile
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=90_000))]
        many: Option<u32>,
        #[arg(long, value_name = "DIR", requires = "many", help = MANY_DIR)]
        many_dir: Option<PathBuf>,
        /// Serve the handlers in this folder, too; `none` for none [default: guests/dist of the
        /// sources, if there is one]
        #[arg(long, value_name = "DIR", conflicts_with = "many")]
        also: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Say what files are, what they import, and whether they would be served
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// .wasm or .wat files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the routes of a folder, the most specific first
    Routes {
        /// Folder with .wasm and .wat files
        #[arg(value_name = "DIR", default_value = "handlers")]
        dir: PathBuf,
    },
    /// Measure servers: guest against native, or any others side by side
    #[command(after_help = bench::EXAMPLES)]
    Bench(Box<bench::BenchFlags>),
    /// Compile one file for a host, which starts this by itself
    #[command(name = compiler_process::VERB, hide = true)]
    Compile {
        #[arg(long, default_value = "text")]
        log: String,
    },
    /// Write a handler to start from
    #[command(after_help = NEW_EXAMPLES)]
    New {
        /// What to write it in
        template: new::Template,
        /// Name of the handler, which is also its path
        name: String,
    },
}

/// Runs the verb that the process's arguments name and returns its exit code.
///
/// Usage errors, `--help` and `--version` end the process here.
///
/// # Errors
/// The verb failed. [`Mistakes`](crate::config::Mistakes) in the error mean a usage error.
pub fn run() -> anyhow::Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Serve { dir, flags } => serve(&flags, Served::folder(dir, flags.native)),
        Verb::Demo { many: None, also, mut flags, .. } => {
            flags.grants.any_body = &bundled::STREAMING;
            serve(&flags, Served::demo(beside(also)))
        }
        Verb::Demo { many: Some(count), many_dir, flags, .. } => {
            serve(&flags, Served::folder(strangers(count, many_dir)?, true))
        }
        Verb::Check { files } => check(&files),
        Verb::Routes { dir } => routes(dir),
        Verb::Bench(flags) => {
            platform::require_threads()?;
            let _log = log::start(LogFormat::Text, "info")?;
            let (text, code) = bench::run(&flags, VERSION)?;
            print(&text)?;
            Ok(code)
        }
        Verb::Compile { log } => compile(&log),
        Verb::New { template, name } => {
            print(&new::create(template, &name)?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The folder that the demo serves along with its own guests: the named one, or else
/// `guests/dist`, where the Justfile's recipes put the guests in Python and JavaScript.
fn beside(named: Option<PathBuf>) -> Option<PathBuf> {
    const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/dist");
    match named {
        Some(named) => Some(named).filter(|named| named.as_os_str() != "none"),
        None => Some(PathBuf::from(DIST)).filter(|folder| folder.is_dir()),
    }
}

fn serve(flags: &Flags, served: Served) -> anyhow::Result<ExitCode> {
    let (config, format) = flags.validate()?;
    platform::require()?;
    let _log = log::start(format, "info")?;
    run::run(config, served, format)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the guests of `--many` and returns their folder.
fn strangers(count: u32, dir: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let dir = dir.or_else(|| config::user_cache_folder("guesthouse-strangers"));
    let dir = dir.context("there is no folder for the handlers: name one with --many-dir")?;
    many::write(&dir, count as usize)?;
    Ok(dir)
}

fn compile(log: &str) -> anyhow::Result<ExitCode> {
    let format = if log == "json" { LogFormat::Json } else { LogFormat::Text };
    // The compiler process starts its own log once its sandbox is up.
    compiler_process::run(format)?;
    Ok(ExitCode::SUCCESS)
}

fn check(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    platform::require()?;
    let _log = log::start(LogFormat::Text, "warn")?;
    let (mut failed, grants) = (false, Arc::default());
    for file in files {
        let mut report = check::inspect(file, &grants);
        if let (Ok(()), Some(reason)) = (&report.verdict, folder::scan::misnamed(file)) {
            report.verdict = Err(reason);
        }
        failed |= report.verdict.is_err();
        print(&describe(file, &report))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn describe(file: &Path, report: &Report) -> String {
    let mut text = format!("{}: {}\n", line(file.to_string_lossy()), line(&report.kind));
    for (title, names) in [("imports", &report.imports), ("exports", &report.exports)] {
        if !names.is_empty() {
            text += &format!("  {title}\n");
        }
        for name in names {
            text += &format!("    {}\n", line(name));
        }
    }
    if let Some(form) = &report.form {
        text += &format!("  form: {}\n", escaped_words(form));
    }
    for note in &report.notes {
        text += &format!("  note: {}\n", escaped_words(note));
    }
    text += &match &report.verdict {
        Ok(()) => "ok: it would be served\n".to_owned(),
        Err(reason) => format!("error: {}\n", escaped_words(reason)),
    };
    text
}

fn routes(dir: PathBuf) -> anyhow::Result<ExitCode> {
    platform::require_threads()?;
    let _log = log::start(LogFormat::Text, "warn")?;
    let routes = folder::routes(&dir)?;
    if routes.is_empty() {
        tracing::warn!("no routes: put a .wasm or .wat file into {}", dir.display());
    } else {
        print(&table(&routes))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(routes: &[RouteLine]) -> String {
    let mut rows = vec![["PATTERN", "KIND", "FILE"].map(str::to_owned)];
    rows.extend(routes.iter().map(|route| [&route.pattern, &route.kind, &route.file].map(line)));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let (pattern_width, kind_width) = (width(0).unwrap_or(0), width(1).unwrap_or(0));
    rows.iter().fold(String::new(), |mut text, [pattern, kind, file]| {
        writeln!(text, "{pattern:pattern_width$}  {kind:kind_width$}  {file}")
            .expect("writing to a String cannot fail");
        text
    })
}

/// Escapes control characters: names come from files that may be hostile to a terminal.
fn line(text: impl AsRef<str>) -> String {
    log::escape(text.as_ref().as_bytes(), 4096)
}

/// Like [`line()`], for a text with names that are already escaped: keeps their backslashes.
fn escaped_words(text: impl AsRef<str>) -> String {
    line(text).replace(r"\\", r"\")
}

/// Writes to stdout. A reader that closes the pipe early (`| head`) is not an error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}
