//! How much a function can have done since it last looked at the clock, along the worst path to
//! each of its instructions.
//!
//! Owns that sum. Control flow is structured, so one pass is enough: a branch goes forward to the
//! end of a block, or back to a loop's header, where the engine looks at the clock.

use wasmparser::Operator;

/// Units between two looks at the clock. One is an instruction that has machine code.
pub const UNITS_MAX: u32 = 2_000;
/// Units of an access to the memory. The first one to a page takes 2.5 us: 500 of them 1.3 ms.
pub const UNITS_OF_ACCESS: u32 = 4;
/// Units that may follow a call until the next look: the function that was called has looked at the
/// clock when it began, but what is inside of each other ends one after the other.
const UNITS_BEHIND_CALL: u32 = 256;
/// Those of an access to the memory there: four of them, a hundred functions deep, may all be the
/// first to their pages.
const UNITS_OF_ACCESS_BEHIND_CALL: u32 = 64;
/// The same in a function that can be inside of itself: 16,000 times, in a stack of 512 KiB.
const UNITS_BEHIND_DEEP_CALL: u32 = 16;

/// Units since the last look, at one place of a function.
pub struct PathCost {
    /// `None` where no path leads.
    now: Option<u32>,
    behind_call: u32,
    /// Units of an access to the memory behind a call.
    access_behind_call: u32,
    blocks: Vec<Block>,
}

/// A block that has begun.
struct Block {
    is_loop: bool,
    /// Units at an `if` without `else`, which are those of the path around it.
    around: Option<u32>,
    /// The most that a branch to the end of it comes with.
    end: Option<u32>,
}

impl PathCost {
    /// At the entry of a function, which can be deep inside of others or not.
    pub fn new(is_deep: bool) -> Self {
        let (behind, access_behind_call) = if is_deep {
            // Each of them is preceded by a look.
            (UNITS_BEHIND_DEEP_CALL, UNITS_BEHIND_DEEP_CALL + 1)
        } else {
            (UNITS_BEHIND_CALL, UNITS_OF_ACCESS_BEHIND_CALL)
        };
        PathCost {
            now: Some(0),
            behind_call: UNITS_MAX - behind,
            access_behind_call,
            blocks: vec![Block { is_loop: false, around: None, end: None }],
        }
    }

    /// What an instruction counts here that counts so many units elsewhere.
    pub fn cost_of(&self, units: u32, is_access: bool) -> u32 {
        match self.now {
            Some(now) if is_access && now >= self.behind_call => units.max(self.access_behind_call),
            _ => units,
        }
    }

    /// Whether so many units more would be too many.
    pub fn is_too_long_for(&self, units: u32) -> bool {
        self.now.is_some_and(|now| now + units > UNITS_MAX)
    }

    /// Whether any path leads here.
    pub fn is_reachable(&self) -> bool {
        self.now.is_some()
    }

    /// Takes note of a look at the clock.
    pub fn reset_cost(&mut self) {
        self.now = self.now.map(|_| 0);
    }

    /// Goes over an instruction of so many units.
    pub fn step(&mut self, operator: &Operator<'_>, units: u32) {
        self.now = self.now.map(|now| now.saturating_add(units));
        match operator {
            Operator::Block { .. } => self.begin(false, None),
            Operator::Loop { .. } => {
                self.reset_cost();
                self.begin(true, None);
            }
            Operator::If { .. } => self.begin(false, self.now),
            Operator::Else => self.enter_else(),
            Operator::End => self.end(),
            Operator::Br { relative_depth } => {
                self.branch(*relative_depth);
                self.now = None;
            }
            Operator::BrIf { relative_depth }
            | Operator::BrOnNull { relative_depth }
            | Operator::BrOnNonNull { relative_depth } => self.branch(*relative_depth),
            Operator::BrTable { targets } => {
                for depth in targets.targets().flatten().chain([targets.default()]) {
                    self.branch(depth);
                }
                self.now = None;
            }
            Operator::Return
            | Operator::Unreachable
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::ReturnCallRef { .. } => self.now = None,
            Operator::Call { .. } | Operator::CallIndirect { .. } | Operator::CallRef { .. } => {
                self.now = self.now.map(|_| self.behind_call);
            }
            _ => {}
        }
    }

    fn begin(&mut self, is_loop: bool, around: Option<u32>) {
        self.blocks.push(Block { is_loop, around, end: None });
    }

    fn enter_else(&mut self) {
        if let Some(block) = self.blocks.last_mut() {
            block.end = block.end.max(self.now);
            self.now = block.around.take();
        }
    }

    fn end(&mut self) {
        if let Some(block) = self.blocks.pop() {
            self.now = self.now.max(block.end).max(block.around);
        }
    }

    fn branch(&mut self, depth: u32) {
        let index = self.blocks.len().checked_sub(1 + depth as usize);
        if let Some(block) = index.and_then(|index| self.blocks.get_mut(index))
            && !block.is_loop
        {
            block.end = block.end.max(self.now);
        }
    }
}
