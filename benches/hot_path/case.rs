//! One row of the table: the case that it measures, and the clock around it.
//!
//! Owns the line between the part of a case that is timed and the part that is not. Knows no case
//! in particular.

use std::time::{Duration, Instant};

/// One row of the table.
pub struct Row {
    /// The row's title.
    pub name: &'static str,
    /// Operations in one turn of the case. A guest may repeat its operation in one call.
    pub ops_per_turn: usize,
    /// The operation.
    pub case: Box<dyn Case>,
}

/// An operation that can be repeated.
pub trait Case {
    /// Gets ready for so many turns. This is not timed.
    fn prepare(&mut self, turns: usize);

    /// Runs so many turns. This is timed.
    fn run(&mut self, turns: usize);
}

/// A case that has nothing to prepare.
impl<F: FnMut()> Case for F {
    fn prepare(&mut self, _turns: usize) {}

    fn run(&mut self, turns: usize) {
        for _ in 0..turns {
            self();
        }
    }
}

impl Row {
    /// A row with one operation in each turn.
    pub fn new(name: &'static str, case: impl Case + 'static) -> Self {
        Row { name, ops_per_turn: 1, case: Box::new(case) }
    }

    /// Runs so many turns, and returns how long they took.
    pub fn measure(&mut self, turns: usize) -> Duration {
        self.case.prepare(turns);
        timed(&mut *self.case, turns)
    }
}

/// Runs and times the turns. Valgrind counts the instructions of this function, which it knows by
/// name. The function does something after the turns, so that the compiler cannot end it by a jump
/// into them.
#[inline(never)]
fn timed(case: &mut dyn Case, turns: usize) -> Duration {
    let begun = Instant::now();
    case.run(turns);
    begun.elapsed()
}
