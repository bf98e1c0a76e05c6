//! Fills the placeholders in the names of a scenario.
//!
//! Knows the placeholders that the file defines. Others depend on the machine.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use toml::Value;

/// How deep placeholders may be nested in the values of others.
const DEPTH_MAX: usize = 8;
/// How many combinations of `each` one table may stand for.
const COMBINATIONS_MAX: usize = 10_000;
/// In a name, stands for a text that depends on the machine, such as the number of its CPUs.
const ANY: char = '…';

/// The values of placeholders by name.
pub type Placeholders = BTreeMap<String, String>;

/// Whether a declared name stands for `name`.
pub fn fits(declared: &str, name: &str) -> bool {
    let Some((begin, _)) = declared.split_once(ANY) else { return declared == name };
    let (_, end) = declared.rsplit_once(ANY).unwrap_or_default();
    let is_long = name.len() >= begin.len() + end.len();
    is_long && name.starts_with(begin) && name.ends_with(end)
}

/// Whether a declared name has this part, as far as it does not depend on the machine.
pub fn may_contain(declared: &str, part: &str) -> bool {
    declared.contains(part) || declared.contains(ANY)
}

/// The texts of values by name.
pub fn texts(values: &BTreeMap<String, Value>) -> Placeholders {
    values.iter().map(|(name, value)| (name.clone(), plain(value))).collect()
}

/// A value as it stands in a name. Nothing else than a text or a number can stand there.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        _ => String::new(),
    }
}

/// A value with its placeholders filled in.
pub fn text(value: &Value, vars: &Placeholders) -> String {
    fill(&plain(value), vars, 0)
}

/// Fills the placeholders of a text. One that the file does not define depends on the machine.
fn fill(text: &str, vars: &Placeholders, depth: usize) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        filled.push_str(before);
        match behind.split_once('}').filter(|(name, _)| is_placeholder(name)) {
            Some((name, after)) => {
                match vars.get(name).filter(|_| depth < DEPTH_MAX) {
                    Some(value) => filled.push_str(&fill(value, vars, depth + 1)),
                    None => filled.push(ANY),
                }
                rest = after;
            }
            None => {
                filled.push('{');
                rest = behind;
            }
        }
    }
    filled + rest
}

fn is_placeholder(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(word)
}

/// All combinations of the values in `each`, added to `vars`.
pub fn combinations(each: &BTreeMap<String, Vec<Value>>, vars: &Placeholders) -> Vec<Placeholders> {
    let mut all = vec![vars.clone()];
    for (key, values) in each {
        let filled = values.iter().map(|value| text(value, vars));
        let values: Vec<String> = filled.flat_map(|text| range(&text)).collect();
        let longer = all.iter().flat_map(|vars| {
            values.iter().map(move |value| {
                let mut vars = vars.clone();
                vars.insert(key.clone(), value.clone());
                vars
            })
        });
        all = longer.take(COMBINATIONS_MAX).collect();
    }
    all
}

/// The numbers of a range such as `3..5`, or the text itself.
fn range(text: &str) -> Vec<String> {
    let ends = text.split_once("..");
    let ends = ends.and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    match ends {
        Some((low, high)) => {
            let numbers: RangeInclusive<u32> = low..=high;
            numbers.take(COMBINATIONS_MAX).map(|number| number.to_string()).collect()
        }
        // An end of the range depends on the machine.
        None if text.contains(ANY) && text.contains("..") => vec![ANY.to_string()],
        None => vec![text.to_owned()],
    }
}
