//! How long tests wait for what has to come: one time for all of them, longer on a slow machine.
//!
//! It is a bound, and usually over long before. What a test lets pass on purpose, and what must not
//! take longer, has a constant of its own.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The most time on an ordinary machine.
const ORDINARY: Duration = Duration::from_secs(60);

/// The time of [`work`] on an ordinary machine. (On two cores of an AMD EPYC, with the profile of
/// the tests: 29 ms at best in a new process, and 24 ms when repeated.)
const WORK: Duration = Duration::from_millis(30);

/// The functions of the module that [`work`] parses.
const FUNCTIONS: usize = 10_000;

/// However busy a machine is at that moment, it is not taken to be slower than this.
const SLOWNESS_MAX: f64 = 10.0;

/// What `GUESTHOUSE_PATIENCE` may be.
const FACTORS: std::ops::RangeInclusive<f64> = 0.1..=100.0;

/// The most time to wait for something.
pub fn patience() -> Duration {
    static PATIENCE: LazyLock<Duration> =
        LazyLock::new(|| ORDINARY.mul_f64(slowness() * wanted_factor()));
    *PATIENCE
}

/// The same for what the timeout of a body, which is 30 seconds, or a test's deadline of a minute
/// would bring as well. On an ordinary machine it has to come before that.
pub fn soon() -> Duration {
    patience() / 3
}

/// How many times as long as on an ordinary machine this one takes for the same work.
fn slowness() -> f64 {
    let begun = Instant::now();
    work();
    (begun.elapsed().as_secs_f64() / WORK.as_secs_f64()).clamp(1.0, SLOWNESS_MAX)
}

/// Parses a text. Dependencies are optimised in every profile, so this takes as long in all.
fn work() {
    let function = "(func (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))\n";
    let text = format!("(module {})", function.repeat(FUNCTIONS));
    black_box(::wat::parse_str(black_box(text))).expect("a module");
}

/// For machines on which that is still too short.
fn wanted_factor() -> f64 {
    let Ok(factor) = std::env::var("GUESTHOUSE_PATIENCE") else { return 1.0 };
    let number = factor.parse().ok().filter(|number| FACTORS.contains(number));
    number.unwrap_or_else(|| panic!("GUESTHOUSE_PATIENCE={factor}: choose from {FACTORS:?}"))
}
