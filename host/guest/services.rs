//! What the host functions of every form share: the guest's log, fields that the host makes, and
//! the memory that is kept for a guest.

pub mod buffer;
pub mod header;
pub mod header_charge;
pub mod log;
