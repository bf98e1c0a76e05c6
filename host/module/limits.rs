//! What a guest may have, as far as that is told from its bytes. The host's engines are made for
//! as much.

/// Images up to this size are copied into a fresh memory; larger ones are mapped copy-on-write.
/// Measured: at 16 KiB copying wins, 64 KiB is even, at 256 KiB mapping wins.
pub const SMALL_IMAGE_BYTES_MAX: usize = 64 * 1024;
/// Pages from the first data of such an image to the last: 2 MiB.
pub const SMALL_IMAGE_PAGES_MAX: usize = 512;
/// Elements of one table. Rust and C guests use some hundreds; Python and JavaScript tens of
/// thousands.
pub const TABLE_ELEMENTS_MAX: usize = 20_000;
pub const TABLES_MAX: usize = 4;
/// Elements of all segments of a guest: no more than its tables can hold.
pub const ELEMENTS_MAX: usize = TABLES_MAX * TABLE_ELEMENTS_MAX;
pub const MEMORIES_MAX: usize = 4;
/// Core instances and tables that are reckoned with for each instance of a guest. A component has
/// several: its own, and small ones that connect it with the host.
pub const CORE_INSTANCES_PER_SLOT: u32 = 16;
pub const TABLES_PER_SLOT: u32 = 3;
