//! Arguments in, exit code out: 0 done, 1 failed, 2 wrongly called.
//!
//! This is the only place that prints an error with its causes. Must know nothing but `cli`.

use std::io::{self, Write};
use std::process::ExitCode;

use guesthouse::cli;
use guesthouse::config::Mistakes;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run().unwrap_or_else(|error| {
        // If stderr is gone, nobody is left to read the error, so the result does not matter.
        let _ = report(&error, &mut io::stderr().lock());
        ExitCode::from(if error.is::<Mistakes>() { 2 } else { 1 })
    })
}

fn report(error: &anyhow::Error, out: &mut impl Write) -> io::Result<()> {
    if let Some(Mistakes(all)) = error.downcast_ref() {
        for mistake in all {
            writeln!(out, "error: {mistake}")?;
        }
        return writeln!(out, "\nFor more, try '--help'.");
    }
    writeln!(out, "error: {error}")?;
    for cause in error.chain().skip(1) {
        writeln!(out, "  caused by: {cause}")?;
    }
    Ok(())
}
