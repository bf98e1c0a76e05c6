//! The handlers that are built into this program.
//!
//! Owns which they are, and what the demo says of some of them. The build script compiles them and
//! writes the list.

include!(concat!(env!("OUT_DIR"), "/demo_guests.rs"));

/// Those that never keep a body, and so may be sent one of any size.
pub const STREAMING: [&str; 1] = ["stream"];
/// The one that sends requests to the demo itself.
pub const PROXY: &str = "proxy";
