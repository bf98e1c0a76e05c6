//! What one row of the table measures, and the clock around it.
//!
//! Owns the split between what is timed and what is not. Knows no case in particular.

use std::time::{Duration, Instant};

/// One row.
pub struct Row {
    pub name: &'static str,
    /// Operations in one turn of the case: a guest may do its one thing many times in one call.
    pub ops_per_turn: usize,
    pub case: Box<dyn Case>,
}

/// Something that can be done again and again.
pub trait Case {
    /// Gets ready for so many turns. Not timed.
    fn prepare(&mut self, turns: usize);

    /// Takes the turns.
    fn run(&mut self, turns: usize);
}

/// A case that needs nothing to get ready.
impl<F: FnMut()> Case for F {
    fn prepare(&mut self, _turns: usize) {}

    fn run(&mut self, turns: usize) {
        for _ in 0..turns {
            self();
        }
    }
}

impl Row {
    /// A row of which each turn is one operation.
    pub fn new(name: &'static str, case: impl Case + 'static) -> Self {
        Row { name, ops_per_turn: 1, case: Box::new(case) }
    }

    pub fn measure(&mut self, turns: usize) -> Duration {
        self.case.prepare(turns);
        timed(&mut *self.case, turns)
    }
}

/// What is timed, and all that is counted: valgrind is told this function's name. It does
/// something after the turns, so that it is not left before they begin.
#[inline(never)]
fn timed(case: &mut dyn Case, turns: usize) -> Duration {
    let begun = Instant::now();
    case.run(turns);
    begun.elapsed()
}
