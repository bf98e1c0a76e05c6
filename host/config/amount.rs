//! Sizes and times with a unit, and counts: each flag's default and range.

use std::time::Duration;

use super::mistakes::Mistakes;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

pub(super) const MEMORY: Bound = size("--memory-max", 128 * MIB, (64 * KIB, 4 * GIB));
pub(super) const DEADLINE: Bound = time("--deadline", 10 * SECOND, (1, HOUR));
pub(super) const CPU: Bound = time("--cpu-max", 10 * SECOND, (1, HOUR));
pub(super) const BODY: Bound = size("--body-max", 8 * MIB, (0, 1024 * GIB));
pub(super) const RESPONSE: Bound = size("--response-max", 8 * MIB, (0, GIB));
// hyper's read buffer cannot be smaller than 8192 bytes.
pub(super) const HEADER: Bound = size("--header-max", 32 * KIB, (8 * KIB, 256 * KIB));
// 10,000 small guests take half of it.
pub(super) const LOADED: Bound = size("--loaded-max", 512 * MIB, (MIB, 1024 * GIB));
// The default is the machine's; this is where it does not say.
pub(super) const TOTAL: Bound = size("--memory-total", GIB, (MIB, 1024 * 1024 * GIB));
pub(super) const COMPILE_CPU: Bound = time("--compile-max", 30 * SECOND, (SECOND, HOUR));
pub(super) const QUEUE_WAIT: Bound = time("--queue-timeout", 5 * SECOND, (1, HOUR));
pub(super) const IDLE: Bound = time("--idle-timeout", 75 * SECOND, (100, 24 * HOUR));
pub(super) const HEAD: Bound = time("--head-timeout", 15 * SECOND, (100, HOUR));
pub(super) const STALL: Bound = time("--stall-timeout", 30 * SECOND, (100, HOUR));
pub(super) const OUTBOUND: Bound = time("--outbound-timeout", 60 * SECOND, (1, HOUR));
pub(super) const COMPILE_MEMORY: Bound =
    size("--compile-memory-max", 2 * GIB, (256 * MIB, 256 * GIB));

// The least is what a host needs without guests, and room for some.
pub(super) const MAPPINGS: Count = count("--mappings-max", (2_000, 1_000_000_000));

/// The default and the range of a flag, in bytes or milliseconds.
pub(super) struct Bound {
    pub(super) flag: &'static str,
    pub(super) default: u64,
    range: (u64, u64),
    /// Names and factors; the first which divides an amount is used to show it.
    units: &'static [(&'static str, u64)],
    form: &'static str,
}

const fn size(flag: &'static str, default: u64, range: (u64, u64)) -> Bound {
    const UNITS: &[(&str, u64)] = &[
        ("GiB", GIB),
        ("MiB", MIB),
        ("KiB", KIB),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("KB", 1000),
        ("", 1),
        ("B", 1),
    ];
    let form = "a size; write 65536, 32KiB, 128MiB or 1GiB, or 8MB for 8000000";
    Bound { flag, default, range, units: UNITS, form }
}

const fn time(flag: &'static str, default: u64, range: (u64, u64)) -> Bound {
    const UNITS: &[(&str, u64)] = &[("h", HOUR), ("m", 60 * SECOND), ("s", SECOND), ("ms", 1)];
    let form = "a time; write 250ms, 10s, 2m or 1h";
    Bound { flag, default, range, units: UNITS, form }
}

impl Bound {
    pub(super) fn parse(&self, text: &str) -> Result<u64, String> {
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (digits, name) = trimmed.split_at(end);
        let unit = self.units.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name.trim()));
        let Some((_, factor)) = unit.filter(|_| !digits.is_empty()) else {
            return Err(format!("{text:?} is not {}", self.form));
        };
        // More digits than fit are out of every range.
        let amount = digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(*factor);
        let (least, most) = self.range;
        if (least..=most).contains(&amount) {
            return Ok(amount);
        }
        let (least, most) = (self.show(least), self.show(most));
        Err(format!("{trimmed} is out of range; choose from {least} to {most}"))
    }

    fn show(&self, amount: u64) -> String {
        let unit =
            self.units.iter().find(|(_, factor)| amount > 0 && amount.is_multiple_of(*factor));
        unit.map_or(amount.to_string(), |(name, factor)| format!("{}{name}", amount / factor))
    }

    /// The nearest amount that is in range.
    pub(super) fn clamp(&self, amount: u64) -> u64 {
        amount.clamp(self.range.0, self.range.1)
    }

    pub(super) fn default(&self) -> String {
        self.show(self.default)
    }
}

/// The range of a flag that is a count.
pub(super) struct Count {
    pub(super) flag: &'static str,
    range: (usize, usize),
}

pub(super) const fn count(flag: &'static str, range: (usize, usize)) -> Count {
    Count { flag, range }
}

impl Count {
    pub(super) fn parse(&self, text: &str) -> Result<usize, String> {
        let (least, most) = self.range;
        match text.trim().parse() {
            Ok(count) if (least..=most).contains(&count) => Ok(count),
            _ => Err(format!("{text:?} is not a count; choose one from {least} to {most}")),
        }
    }

    /// The count, if one was given; none if it is not one, which is noted.
    pub(super) fn optional(&self, text: Option<&str>, mistakes: &mut Mistakes) -> Option<usize> {
        text.and_then(|text| mistakes.check(self.flag, self.parse(text).map(Some), None))
    }
}

impl Mistakes {
    pub(super) fn amount(&mut self, bound: &Bound, text: &str) -> u64 {
        self.check(bound.flag, bound.parse(text), bound.default)
    }

    pub(super) fn time(&mut self, bound: &Bound, text: &str) -> Duration {
        Duration::from_millis(self.amount(bound, text))
    }
}
