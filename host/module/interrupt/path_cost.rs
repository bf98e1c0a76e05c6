//! The cost since the last epoch check, along the most expensive path to each instruction of a
//! function.
//!
//! Owns that sum. Control flow is structured, so one pass is enough: a branch goes forward to the
//! end of a block, or back to a loop header, which has an epoch check.

use wasmparser::Operator;

/// The most units between two epoch checks. An instruction with machine code costs one unit.
pub const UNITS_MAX: u32 = 2_000;
/// Units of a memory access. The first access to a page takes 2.5 us, 500 of them 1.3 ms.
pub const UNITS_OF_ACCESS: u32 = 4;
/// Units that may follow a call until the next epoch check. The callee checked the epoch when it
/// began, but when the stack unwinds, the code after each call runs without a check between.
const UNITS_AFTER_CALL: u32 = 256;
/// Units of a memory access after a call. Four of them fit; with a hundred functions on the stack,
/// all of them may be the first to their pages.
const UNITS_OF_ACCESS_AFTER_CALL: u32 = 64;
/// As [`UNITS_AFTER_CALL`], in a recursion: a stack of 512 KiB holds 16,000 calls.
const UNITS_AFTER_DEEP_CALL: u32 = 16;

/// Units since the last epoch check, at the current instruction.
pub struct PathCost {
    /// `None` if no path leads to the instruction.
    now: Option<u32>,
    /// The value of `now` after a call.
    after_call: u32,
    /// Units of a memory access after a call.
    access_after_call: u32,
    blocks: Vec<Block>,
}

/// A block that has begun and not ended.
struct Block {
    is_loop: bool,
    /// The units at an `if`, for the path that skips it or takes its `else`.
    around: Option<u32>,
    /// The most units of all branches to its end.
    end: Option<u32>,
}

impl PathCost {
    /// The cost at the entry of a function. `is_deep` comes from the call graph.
    pub fn new(is_deep: bool) -> Self {
        let (after, access_after_call) = if is_deep {
            // Over the limit, so that each access after a call gets an epoch check before it.
            (UNITS_AFTER_DEEP_CALL, UNITS_AFTER_DEEP_CALL + 1)
        } else {
            (UNITS_AFTER_CALL, UNITS_OF_ACCESS_AFTER_CALL)
        };
        PathCost {
            now: Some(0),
            after_call: UNITS_MAX - after,
            access_after_call,
            blocks: vec![Block { is_loop: false, around: None, end: None }],
        }
    }

    /// The units of an instruction here. It has `units` before any call, and an access after a call
    /// has more.
    pub fn cost_of(&self, units: u32, is_access: bool) -> u32 {
        match self.now {
            Some(now) if is_access && now >= self.after_call => units.max(self.access_after_call),
            _ => units,
        }
    }

    /// Whether `units` more would exceed the limit.
    pub fn is_too_long_for(&self, units: u32) -> bool {
        self.now.is_some_and(|now| now + units > UNITS_MAX)
    }

    /// Whether any path leads to the current instruction.
    pub fn is_reachable(&self) -> bool {
        self.now.is_some()
    }

    /// Records an epoch check.
    pub fn reset_cost(&mut self) {
        self.now = self.now.map(|_| 0);
    }

    /// Steps over an instruction that costs `units`.
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
                self.now = self.now.map(|_| self.after_call);
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
