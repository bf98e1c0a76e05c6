//! Limits on what the host keeps for one component, the same for all.

/// Bytes that one host call may copy out of a guest as lists and strings. Copying cannot be
/// interrupted: a guest yields only between calls.
pub const HOSTCALL_FUEL: usize = 256 << 10;
/// Handles that a guest may have open, and resources that the host keeps for it.
pub const HANDLES_MAX: usize = 1_000;
/// Bytes of one set of header fields, including their overhead in memory.
pub const FIELD_BYTES_MAX: usize = 64 << 10;
/// Random bytes that are made without yielding.
pub const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// Bytes of one write to a body.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;
