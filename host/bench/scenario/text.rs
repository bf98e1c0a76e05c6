//! Fills placeholders in values, and collects mistakes with their lines.
//!
//! Owns the list of mistakes. Knows no table of a scenario and nothing of the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use super::format::{At, Each, Scalar};

/// The values of placeholders by name.
pub type Vars = BTreeMap<String, String>;

/// Placeholders that are filled in when a server starts.
const LATER: [&str; 2] = ["port", "dir"];
/// How deep placeholders may be nested in the values of others.
const DEPTH_MAX: usize = 8;
/// How many combinations are a few.
const FEW: usize = 3;
/// How many combinations one table may stand for.
const COMBINATIONS_MAX: usize = 10_000;

/// More than anybody waits. Instants can be so far away.
const TIME_MAX: Duration = Duration::from_hours(24 * 365);
const TIME_MIN: Duration = Duration::from_millis(1);

/// Reads the values of one file, and collects its mistakes.
pub struct Reader<'a> {
    /// The name of the file in messages.
    file: &'a str,
    text: &'a str,
    /// Lines and reasons, in the order of the lines. It is a set because a table is read once for
    /// each of its combinations, with the same mistakes.
    mistakes: BTreeSet<(usize, String)>,
}

impl<'a> Reader<'a> {
    /// A reader without mistakes. `file` is the file's name in messages, and `text` its contents.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Reader { file, text, mistakes: BTreeSet::new() }
    }

    /// All mistakes in the order of the file, each as `FILE:LINE: REASON`.
    pub fn into_mistakes(self) -> Vec<String> {
        let file = self.file;
        let all = self.mistakes.into_iter();
        all.map(|(line, reason)| format!("{file}:{line}: {reason}")).collect()
    }

    /// Notes a mistake. `at` is its place in the text, in bytes.
    pub fn mistake(&mut self, at: Range<usize>, reason: impl Display) {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        self.mistakes.insert((line, reason.to_string()));
    }

    /// A value as text, with its placeholders filled in.
    pub fn text(&mut self, value: &At<Scalar>, vars: &Vars) -> String {
        self.fill(&value.get_ref().to_string(), value.span(), vars)
    }

    /// A text with its placeholders filled in. If one is unknown, notes a mistake and leaves the
    /// text as it is. `at` is the text's place in the file.
    pub fn fill(&mut self, text: &str, at: Range<usize>, vars: &Vars) -> String {
        fill(text, vars, 0).unwrap_or_else(|reason| {
            self.mistake(at, reason);
            text.to_owned()
        })
    }

    /// A number in a range. If it is none, notes a mistake and returns the lower end.
    pub fn number<T>(
        &mut self,
        key: &str,
        value: &At<Scalar>,
        vars: &Vars,
        range: RangeInclusive<T>,
    ) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let text = self.text(value, vars);
        match text.parse::<T>() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let (low, high) = (range.start(), range.end());
                let reason = format!("{key}: {text:?} is not a number from {low} to {high}");
                self.mistake(value.span(), reason);
                *low
            }
        }
    }

    /// A time such as `250ms`. If it is none, or longer than [`TIME_MAX`], notes a mistake and
    /// returns zero.
    pub fn duration(&mut self, key: &str, value: &At<Scalar>, vars: &Vars) -> Duration {
        let text = self.text(value, vars);
        let time = humantime::parse_duration(&text).ok().filter(|time| *time <= TIME_MAX);
        time.unwrap_or_else(|| {
            let reason = format!("{key}: {text:?} is not a time; write `250ms`, `10s` or `2m`");
            self.mistake(value.span(), reason);
            Duration::ZERO
        })
    }

    /// A time that has to be at least a millisecond.
    pub fn length(&mut self, key: &str, value: &At<Scalar>, vars: &Vars) -> Duration {
        let time = self.duration(key, value, vars);
        let text = self.text(value, vars);
        if humantime::parse_duration(&text).is_ok_and(|time| time < TIME_MIN) {
            let reason = format!("{key}: {text:?} is less than a millisecond");
            self.mistake(value.span(), reason);
        }
        time.max(TIME_MIN)
    }

    /// The choice that a word stands for. If it is none, notes a mistake and returns the first.
    pub fn choice<T: Copy>(
        &mut self,
        key: &str,
        value: &At<Scalar>,
        vars: &Vars,
        choices: &[(&str, T)],
    ) -> T {
        let text = self.text(value, vars);
        let found = choices.iter().find(|(word, _)| *word == text).or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let reason = format!("{key}: {text:?} is not a choice; write {}", words.join(" or "));
            self.mistake(value.span(), reason);
            choices.first()
        });
        found.expect("there is a choice").1
    }

    /// All combinations of the values in `each`, added to `vars`. Keys stand in the order of the
    /// file, and the last one changes fastest. With `few`, there are only a few combinations, among
    /// them the first and the last value of each key.
    pub fn combinations(&mut self, each: &Each, vars: &Vars, few: bool) -> Vec<Vars> {
        let mut keys: Vec<_> = each.iter().collect();
        keys.sort_by_key(|(_, values)| values.span().start);
        let mut columns = Vec::new();
        for (key, values) in keys {
            let mut column = Vec::new();
            for value in values.get_ref() {
                let text = self.fill(&value.to_string(), values.span(), vars);
                column.extend(range(&text).unwrap_or_else(|| vec![text]));
            }
            if column.is_empty() {
                self.mistake(values.span(), format!("each.{key}: there is no value in it"));
                return Vec::new();
            }
            columns.push((key, column, values.span()));
        }
        let all = columns.iter().map(|(_, column, _)| column.len());
        let count = if few {
            all.max().map_or(1, |longest| longest.min(FEW))
        } else {
            all.fold(1, |product: usize, it| product.saturating_mul(it))
        };
        if count > COMBINATIONS_MAX {
            let at = columns.first().map_or(0..0, |(_, _, at)| at.clone());
            self.mistake(at, format!("each: {count} combinations are more than can be measured"));
            return Vec::new();
        }
        (0..count).map(|number| combine(&columns, number, vars, few)).collect()
    }
}

type KeyValues<'a> = (&'a String, Vec<String>, Range<usize>);

fn combine(columns: &[KeyValues<'_>], number: usize, vars: &Vars, few: bool) -> Vars {
    let mut vars = vars.clone();
    let mut rest = number;
    let longest = columns.iter().map(|(_, column, _)| column.len()).max().unwrap_or(1);
    for (key, column, _) in columns.iter().rev() {
        let place = if few {
            number * (column.len() - 1) / (longest.min(FEW) - 1).max(1)
        } else {
            rest % column.len()
        };
        rest /= column.len();
        vars.insert((*key).clone(), column[place].clone());
    }
    vars
}

/// Fills the placeholders of a text. In a placeholder `{name}`, the name has small letters, digits
/// and `_`. Anything else in braces stays as it is.
fn fill(text: &str, vars: &Vars, depth: usize) -> Result<String, String> {
    if depth > DEPTH_MAX {
        return Err(format!("{text:?} stands for itself"));
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, behind) = rest.split_at(open);
        filled.push_str(before);
        let name = behind[1..].split('}').next().unwrap_or_default();
        let is_placeholder = behind.len() > name.len() + 1 && is_name(name);
        if !is_placeholder {
            filled.push('{');
            rest = &behind[1..];
            continue;
        }
        match vars.get(name) {
            Some(value) => filled.push_str(&fill(value, vars, depth + 1)?),
            None if LATER.contains(&name) => {
                filled.push_str(&format!("{{{name}}}"));
            }
            None => {
                let known: Vec<&str> = vars.keys().map(String::as_str).chain(LATER).collect();
                return Err(format!("there is no {{{name}}}; there are {}", known.join(", ")));
            }
        }
        rest = &behind[name.len() + 2..];
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(word)
}

/// The numbers of a range: `3..5` stands for 3, 4 and 5.
fn range(text: &str) -> Option<Vec<String>> {
    let (first, last) = text.split_once("..")?;
    let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
    Some((first..=last).take(COMBINATIONS_MAX + 1).map(|number| number.to_string()).collect())
}
