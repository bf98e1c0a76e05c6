//! What the first calls of an owner's guests have been like lately, on one worker: what is expected
//! of a guest of which nothing is known yet.
//!
//! Owns the averages, of a few owners: of those whose guests have had long first calls.

use std::collections::VecDeque;

/// All of them were long, and so many that the next begins in the slow lane: a quarter of them.
const LONG_ALL: u32 = 256;
const LONG_MIN: u32 = LONG_ALL / 4;
/// First calls over which an average is taken. So many that it takes three long ones in a row.
const AVERAGED: u32 = 8;
/// So many owners are remembered, those with the latest long ones.
const OWNERS_MAX: usize = 64;

/// Owners whose guests have had long first calls, the one noted last at the end.
#[derive(Debug, Default)]
pub struct FirstCalls(VecDeque<OwnerAverage>);

#[derive(Debug)]
struct OwnerAverage {
    owner: u64,
    /// What part of them outlasted the quantum, a moving average.
    long: u32,
}

impl FirstCalls {
    /// Whether the first call of the owner's next guest is expected to be long.
    pub fn are_long(&self, owner: u64) -> bool {
        self.0.iter().any(|it| it.owner == owner && it.long >= LONG_MIN)
    }

    /// Takes note of whether the first call of one of the owner's guests was long.
    pub fn note(&mut self, owner: u64, is_long: bool) {
        let place = self.0.iter().position(|it| it.owner == owner);
        let before = place.and_then(|at| self.0.remove(at)).map_or(0, |it| it.long);
        let long = before - before / AVERAGED + if is_long { LONG_ALL / AVERAGED } else { 0 };
        // What is less is not averaged down any further.
        if long > AVERAGED {
            if self.0.len() == OWNERS_MAX {
                self.0.pop_front();
            }
            self.0.push_back(OwnerAverage { owner, long });
        }
    }
}

#[cfg(test)]
mod tests;
