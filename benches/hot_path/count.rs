//! Counts the instructions of each row: runs this program again under valgrind's callgrind.
//!
//! Owns the command, and the reading of the files that it leaves. Times change with the machine and
//! the day. Counts of instructions show the effect of a change, to one in a thousand. The kernel's
//! instructions are not counted, and a string instruction (`rep stosb`) counts once for each byte:
//! a reset that fills 128 KiB has 131,072 of them and takes a microsecond. Needs only `valgrind` in
//! the path.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::case::Row;

/// The option that makes the second process run rows for the count.
pub const OPTION: &str = "--counted";
/// Options with the name of the function that is counted, and that leaves a file each time it
/// returns. The name is written in two ways, since callgrind ignores the second of two options with
/// the same value.
const COUNTED: [&str; 2] =
    ["--toggle-collect=*case::timed*", "--dump-after=hot_path::case::timed*"];
/// Turns before the count, in which caches fill and maps grow; and turns that are counted.
const WARM_TURNS: usize = 64;
const TURNS: usize = 256;
/// Turns of a row that has many operations in each.
const LONG_TURNS: usize = 4;

/// Instructions for one operation, by the row's name. Rows that need the pooling allocator are
/// left out, because valgrind has too little address space for it.
///
/// # Errors
/// Nothing was counted, for example because valgrind is not installed.
pub fn instructions() -> Result<HashMap<String, f64>> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("out");
    let ended = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .args(COUNTED)
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .arg(OPTION)
        .output()
        .context("valgrind cannot be started; install it to have them counted")?;
    if !ended.status.success() {
        let program = std::env::current_exe()?;
        let again = format!("`valgrind --tool=callgrind {} {OPTION}`", program.display());
        bail!("valgrind ended with {}; {again} says why", ended.status);
    }
    let said = String::from_utf8(ended.stdout)?;
    // There are two files for each row. The first is of the turns that fill the caches.
    let counts = said.lines().enumerate().map(|(at, line)| {
        let (ops, name) = line.split_once(' ').context("a line that is not of this program")?;
        let ops: f64 = ops.parse()?;
        let total = total(&out, 2 * at + 2).with_context(|| name.to_owned())?;
        Ok((name.to_owned(), total / ops))
    });
    counts.collect()
}

/// How many times as many instructions as in the committed run a row may take.
const MORE_MAX: f64 = 1.1;

/// Compares the instructions of all rows with those of a file that [`record`] has written, and
/// prints both.
///
/// # Errors
/// There are no counts, a row takes more than [`MORE_MAX`] times as many as in the file, or the
/// file does not have the same rows.
pub fn gate(file: &Path) -> Result<()> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let counts = instructions()?;
    let mut before = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (count, name) = line.split_once(' ').with_context(|| format!("{shown}: {line:?}"))?;
        before.insert(name, count.parse::<f64>().with_context(|| format!("{shown}: {line:?}"))?);
    }
    let mut wrong = Vec::new();
    let mut names: Vec<&String> = counts.keys().collect();
    names.sort();
    println!("{:36} {:>13} {:>13} {:>7}", "instructions", "committed", "now", "ratio");
    for name in names {
        let now = counts[name];
        let Some(before) = before.remove(&name[..]) else {
            wrong.push(format!("{shown} has no row {name:?}"));
            continue;
        };
        let ratio = now / before;
        println!("{name:36} {before:>13.0} {now:>13.0} {ratio:>7.3}");
        if ratio > MORE_MAX {
            wrong.push(format!("{name:?} takes {ratio:.3} times the instructions of {shown}"));
        }
    }
    wrong.extend(before.keys().map(|name| format!("there is no row {name:?} any more")));
    ensure!(wrong.is_empty(), "{}; `--record=FILE` writes a new file", wrong.join("; "));
    Ok(())
}

/// Writes the instructions of all rows, one on each line, the count before the name.
///
/// # Errors
/// There are no counts, or the file cannot be written.
pub fn record(file: &Path) -> Result<()> {
    let counts: BTreeMap<String, f64> = instructions()?.into_iter().collect();
    let lines = counts.iter().map(|(name, count)| format!("{count:.1} {name}\n"));
    std::fs::write(file, lines.collect::<String>())
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Runs the rows in the second process, and prints how many operations each count is for.
pub fn run(rows: &mut [Row]) {
    for row in rows {
        let looped = row.ops_per_turn > 1;
        let turns = |turns| if looped { LONG_TURNS } else { turns };
        row.measure(turns(WARM_TURNS));
        row.measure(turns(TURNS));
        println!("{} {}", turns(TURNS) * row.ops_per_turn, row.name);
    }
}

/// The total of a file that callgrind has left. The first file has the number 1.
fn total(out: &Path, number: usize) -> Result<f64> {
    let text = std::fs::read_to_string(format!("{}.{number}", out.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: f64 = total.context("callgrind has left no total")?.trim().parse()?;
    ensure!(total > 0.0, "callgrind has counted nothing");
    Ok(total)
}
