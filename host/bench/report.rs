//! What is told of a run: text for a terminal, JSON, a page, and the raw numbers.
//!
//! Owns that no text of a run reaches a terminal or a file as anything but text. Knows nothing of
//! how a number was measured.

mod clean;
mod column;
mod comparison;
mod csv;
mod html;
mod json;
mod markup;
mod notes;
mod plot;
mod table;

pub use csv::csv;
pub use html::html;
pub use json::json;
pub use table::text;
