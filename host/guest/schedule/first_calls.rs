//! How long the first calls of an owner's guests have recently been, on one worker. This is what is
//! expected of an owner's next guest, before anything is known of it.
//!
//! Owns the averages. Only owners whose guests have had long first calls have one.

use std::collections::VecDeque;

/// The average if all first calls were long, and the average from which the next one begins in the
/// slow lane: a quarter of them were long.
const LONG_ALL: u32 = 256;
const LONG_MIN: u32 = LONG_ALL / 4;
/// First calls in an average: so many that it takes three long ones in a row.
const AVERAGED: u32 = 8;
/// How many owners are remembered: those with the latest long calls.
const OWNERS_MAX: usize = 64;

/// Owners whose guests have had long first calls. The one noted last is at the end.
#[derive(Debug, Default)]
pub struct FirstCalls(VecDeque<OwnerAverage>);

#[derive(Debug)]
struct OwnerAverage {
    owner: u64,
    /// The part of first calls that outlasted the quantum, a moving average.
    long: u32,
}

impl FirstCalls {
    /// Whether the first call of the owner's next guest is expected to be long.
    pub fn are_long(&self, owner: u64) -> bool {
        self.0.iter().any(|it| it.owner == owner && it.long >= LONG_MIN)
    }

    /// Records whether the first call of one of the owner's guests was long.
    pub fn note(&mut self, owner: u64, is_long: bool) {
        let place = self.0.iter().position(|it| it.owner == owner);
        let before = place.and_then(|at| self.0.remove(at)).map_or(0, |it| it.long);
        let long = before - before / AVERAGED + if is_long { LONG_ALL / AVERAGED } else { 0 };
        // A lower average is forgotten.
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
