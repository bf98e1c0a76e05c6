//! The reports of a run: text for a terminal, JSON, a page, and the raw numbers.
//!
//! Makes sure that every text in a run reaches a terminal or a file as plain text. Knows nothing of
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
