//! Limits on a guest that can be checked on its bytes. The host configures its engines to match.

/// Initial images of a memory up to this size are copied into each new instance. Larger ones are
/// mapped copy-on-write. Measured: at 16 KiB copying wins, 64 KiB is even, at 256 KiB mapping wins.
pub const SMALL_IMAGE_BYTES_MAX: usize = 64 * 1024;
/// Pages of 4 KiB from the first data byte of such an image to the last: 2 MiB.
pub const SMALL_IMAGE_PAGES_MAX: usize = 512;
/// Elements of one table. Rust and C guests use some hundreds, Python and JavaScript guests up to
/// tens of thousands.
pub const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Tables of one core module, and of all core modules of a component together.
pub const TABLES_MAX: usize = 4;
/// Elements of all element segments of a guest: no more than its tables can hold.
pub const ELEMENTS_MAX: usize = TABLES_MAX * TABLE_ELEMENTS_MAX;
/// Memories of one core module.
pub const MEMORIES_MAX: usize = 4;
/// Core instances that one slot of an engine's pool has room for. A component needs several: its
/// program's, and small ones that connect the program with the host.
pub const CORE_INSTANCES_PER_SLOT: u32 = 16;
/// Tables that one slot of an engine's pool has room for.
pub const TABLES_PER_SLOT: u32 = 3;
