//! Pseudo-random numbers for tests, the same in each run.

/// A fixed sequence (Marsaglia's xorshift64), so that a failure can be repeated. The seed is not 0.
pub struct Xorshift(pub u64);

impl Xorshift {
    /// The next number, less than `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("less than a usize")
    }
}
