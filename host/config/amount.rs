//! How a flag's size, time or count is read, and the defaults and ranges of those flags.

use std::time::Duration;

use super::mistakes::Mistakes;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

pub(super) const MEMORY: AmountFlag = size("--memory-max", 128 * MIB, (64 * KIB, 4 * GIB));
pub(super) const DEADLINE: AmountFlag = time("--deadline", 10 * SECOND, (1, HOUR));
pub(super) const CPU: AmountFlag = time("--cpu-max", 10 * SECOND, (1, HOUR));
pub(super) const BODY: AmountFlag = size("--body-max", 8 * MIB, (0, 1024 * GIB));
pub(super) const RESPONSE: AmountFlag = size("--response-max", 8 * MIB, (0, GIB));
// hyper's read buffer cannot be smaller than 8192 bytes.
pub(super) const HEADER: AmountFlag = size("--header-max", 32 * KIB, (8 * KIB, 256 * KIB));
// 10,000 small handlers take half of the default.
pub(super) const LOADED: AmountFlag = size("--loaded-max", 512 * MIB, (MIB, 1024 * GIB));
// This default holds only where the machine does not say how much memory it has.
pub(super) const TOTAL: AmountFlag = size("--memory-total", GIB, (MIB, 1024 * 1024 * GIB));
pub(super) const COMPILE_CPU: AmountFlag = time("--compile-max", 30 * SECOND, (SECOND, HOUR));
pub(super) const QUEUE_WAIT: AmountFlag = time("--queue-timeout", 5 * SECOND, (1, HOUR));
pub(super) const IDLE: AmountFlag = time("--idle-timeout", 75 * SECOND, (100, 24 * HOUR));
pub(super) const HEAD: AmountFlag = time("--head-timeout", 15 * SECOND, (100, HOUR));
pub(super) const STALL: AmountFlag = time("--stall-timeout", 30 * SECOND, (100, HOUR));
pub(super) const OUTBOUND: AmountFlag = time("--outbound-timeout", 60 * SECOND, (1, HOUR));
pub(super) const COMPILE_MEMORY: AmountFlag =
    size("--compile-memory-max", 2 * GIB, (256 * MIB, 256 * GIB));

// The least is what a host needs without any handler, and enough for a few.
pub(super) const MAPPINGS: CountFlag = count("--mappings-max", (2_000, 1_000_000_000));

/// The default and the range of a flag, in bytes or milliseconds.
pub(super) struct AmountFlag {
    pub(super) flag: &'static str,
    pub(super) default: u64,
    range: (u64, u64),
    /// Names and factors. An amount is shown in the first unit that divides it.
    units: &'static [(&'static str, u64)],
    /// What to write, for the message about a bad value.
    form: &'static str,
}

const fn size(flag: &'static str, default: u64, range: (u64, u64)) -> AmountFlag {
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
    AmountFlag { flag, default, range, units: UNITS, form }
}

const fn time(flag: &'static str, default: u64, range: (u64, u64)) -> AmountFlag {
    const UNITS: &[(&str, u64)] = &[("h", HOUR), ("m", 60 * SECOND), ("s", SECOND), ("ms", 1)];
    let form = "a time; write 250ms, 10s, 2m or 1h";
    AmountFlag { flag, default, range, units: UNITS, form }
}

impl AmountFlag {
    pub(super) fn parse(&self, text: &str) -> Result<u64, String> {
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (digits, name) = trimmed.split_at(end);
        let unit = self.units.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name.trim()));
        let Some((_, factor)) = unit.filter(|_| !digits.is_empty()) else {
            return Err(format!("{text:?} is not {}", self.form));
        };
        // A number that does not fit in 64 bits is beyond every range.
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
pub(super) struct CountFlag {
    pub(super) flag: &'static str,
    range: (usize, usize),
}

pub(super) const fn count(flag: &'static str, range: (usize, usize)) -> CountFlag {
    CountFlag { flag, range }
}

impl CountFlag {
    pub(super) fn parse(&self, text: &str) -> Result<usize, String> {
        let (least, most) = self.range;
        match text.trim().parse() {
            Ok(count) if (least..=most).contains(&count) => Ok(count),
            _ => Err(format!("{text:?} is not a count; choose one from {least} to {most}")),
        }
    }

    /// The count that was typed. `None` if none was, or if the text is not a count, which becomes
    /// a mistake.
    pub(super) fn optional(&self, text: Option<&str>, mistakes: &mut Mistakes) -> Option<usize> {
        text.and_then(|text| mistakes.check(self.flag, self.parse(text).map(Some), None))
    }
}

impl Mistakes {
    pub(super) fn amount(&mut self, bound: &AmountFlag, text: &str) -> u64 {
        self.check(bound.flag, bound.parse(text), bound.default)
    }

    pub(super) fn time(&mut self, bound: &AmountFlag, text: &str) -> Duration {
        Duration::from_millis(self.amount(bound, text))
    }
}
