//! Everything that is wrong with the flags, in one value; and how a choice is read.

use std::fmt;

/// Everything that is wrong with the flags, each as `--flag: reason; what to do`.
#[derive(Debug, Default)]
pub struct Mistakes(pub Vec<String>);

impl Mistakes {
    /// The parsed value. For a mistake, the fallback: nobody sees it, because the program ends.
    pub(super) fn check<T>(&mut self, flag: &str, parsed: Result<T, String>, fallback: T) -> T {
        parsed.unwrap_or_else(|mistake| {
            self.0.push(format!("{flag}: {mistake}"));
            fallback
        })
    }
}

/// One mistake per line.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// Reads one of a few words.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("{text:?} is not a choice; write {}", names.join(" or "))
    })
}

/// Converts to `usize`. An amount that does not fit becomes the largest `usize`.
pub(super) fn bytes(amount: u64) -> usize {
    usize::try_from(amount).unwrap_or(usize::MAX)
}
