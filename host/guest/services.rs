//! What the host functions of all forms share: the guest's log, the fields that the host adds to a
//! request, and charges for what is kept for a guest.

pub mod buffer;
pub mod header;
pub mod header_charge;
pub mod log;
