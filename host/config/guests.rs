//! What is chosen for single guests, by their names: what they are told of the world around them,
//! and how large a request's body they take.
//!
//! A name is a handler's as the log has it: its file's path below the handler folder, without
//! extension. `*` stands for all. Values may be secrets: no mistake, no log line and no debug text
//! shows one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::amount::BODY;
use super::{Limits, Mistakes};

/// The name that stands for all guests.
const ALL: &str = "*";
const ENV: &str = "--env";
const CONFIG_VAR: &str = "--config-var";

/// The heading in `--help`.
const HEADING: &str = "Settings of guests";
const ENV_HELP: &str = "Environment variable of one guest, or with * of all; may be repeated";
const VAR_HELP: &str =
    "Variable that a component reads by wasi:config, for one guest or *; may be repeated";

/// The flags as they were typed.
#[derive(clap::Args, Clone)]
pub struct GuestFlags {
    #[arg(long, value_name = "GUEST:KEY=VALUE", help_heading = HEADING, help = ENV_HELP)]
    env: Vec<String>,

    #[arg(long, value_name = "GUEST:KEY=VALUE", help_heading = HEADING, help = VAR_HELP)]
    config_var: Vec<String>,

    /// Guests that take bodies of any size unless `--body-max` says something of them.
    #[arg(skip)]
    pub any_body: &'static [&'static str],
}

/// What single guests are given.
#[derive(Clone, Debug, Default)]
pub struct Guests {
    env: Vec<Setting<Hidden>>,
    vars: Vec<Setting<Hidden>>,
    bodies: Vec<Setting<Option<u64>>>,
}

/// One flag, taken apart.
#[derive(Clone, Debug)]
struct Setting<T> {
    guest: String,
    /// Empty where there is but one.
    key: String,
    value: T,
}

/// A text that is not shown.
#[derive(Clone)]
struct Hidden(String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What a guest is told: names and values, each name once.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Words {
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Variables of `wasi:config`.
    pub vars: Vec<(String, String)>,
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |all: &[(String, String)]| -> Vec<String> {
            all.iter().map(|(name, _)| name.clone()).collect()
        };
        let (env, vars) = (names(&self.env), names(&self.vars));
        f.debug_struct("Words").field("env", &env).field("vars", &vars).finish()
    }
}

impl Guests {
    /// What a guest is told. What names it goes before what is for all.
    pub fn words(&self, guest: &str) -> Words {
        Words { env: chosen(&self.env, guest), vars: chosen(&self.vars, guest) }
    }

    /// A guest's limits, where these are those of all.
    pub fn limits(&self, guest: &str, all: &Limits) -> Limits {
        Limits { body_bytes_max: self.body_bytes_max(guest, all), ..all.clone() }
    }

    /// How large a request's body a guest takes; `None` is any size.
    pub fn body_bytes_max(&self, guest: &str, all: &Limits) -> Option<u64> {
        let own = self.bodies.iter().find(|setting| setting.guest == guest);
        own.map_or(all.body_bytes_max, |setting| setting.value)
    }

    /// Flags that name a guest of which `is_known` does not know: the flag and the name.
    pub fn strangers(&self, is_known: impl Fn(&str) -> bool) -> Vec<(&'static str, &str)> {
        let env = self.env.iter().map(|it| (ENV, it.guest.as_str()));
        let vars = self.vars.iter().map(|it| (CONFIG_VAR, it.guest.as_str()));
        let bodies = self.bodies.iter().map(|it| (BODY.flag, it.guest.as_str()));
        let mut found: Vec<_> = env.chain(vars).chain(bodies).collect();
        found.retain(|(_, guest)| *guest != ALL && !is_known(guest));
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The settings of one guest. In their order, those that name it in the place of those for all.
fn chosen(all: &[Setting<Hidden>], guest: &str) -> Vec<(String, String)> {
    let is_own = |setting: &Setting<Hidden>| setting.guest == guest;
    let is_replaced = |key: &str| all.iter().any(|it| is_own(it) && it.key == key);
    let chosen = all
        .iter()
        .filter(|setting| is_own(setting) || setting.guest == ALL && !is_replaced(&setting.key));
    chosen.map(|setting| (setting.key.clone(), setting.value.0.clone())).collect()
}

impl GuestFlags {
    /// The settings of single guests, `bodies` among them; and how large a body the others take.
    pub(super) fn validate(
        &self,
        bodies: &[String],
        mistakes: &mut Mistakes,
    ) -> (Guests, Option<u64>) {
        let mut guests = Guests {
            env: settings(ENV, &self.env, word, mistakes),
            vars: settings(CONFIG_VAR, &self.config_var, word, mistakes),
            bodies: settings(BODY.flag, bodies, body, mistakes),
        };
        for guest in self.any_body {
            if guests.bodies.iter().all(|setting| setting.guest != *guest) {
                let guest = (*guest).to_owned();
                guests.bodies.push(Setting { guest, key: String::new(), value: None });
            }
        }
        let all = guests.bodies.iter().position(|setting| setting.guest == ALL);
        let most = all.map_or(Some(BODY.default), |at| guests.bodies.remove(at).value);
        (guests, most)
    }
}

impl fmt::Debug for GuestFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuestFlags")
    }
}

/// Takes each of a flag's texts apart. What is said twice is a mistake: nobody meant one of them.
fn settings<T>(
    flag: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<Setting<T>, String>,
    mistakes: &mut Mistakes,
) -> Vec<Setting<T>> {
    let mut found: Vec<Setting<T>> = Vec::new();
    for text in texts {
        match parse(text) {
            Ok(new) if found.iter().any(|it| (&it.guest, &it.key) == (&new.guest, &new.key)) => {
                let what = match new.key.as_str() {
                    "" => new.guest,
                    key => format!("{}:{key}", new.guest),
                };
                mistakes.0.push(format!("{flag}: {what:?} is set twice; leave one out"));
            }
            Ok(setting) => found.push(setting),
            Err(mistake) => mistakes.0.push(format!("{flag}: {mistake}")),
        }
    }
    found
}

/// Parses `GUEST:KEY=VALUE`. The guest ends at the first colon and the key at the first `=`, so
/// that a value may have both.
fn word(text: &str) -> Result<Setting<Hidden>, String> {
    const FORM: &str = "write GUEST:KEY=VALUE, such as hello:MODE=test, or *:MODE=test for all";
    let Some((name, value)) = text.split_once('=') else {
        // What follows may be the value all the same.
        let begin = text.split_once(':').map_or(text, |(guest, _)| guest);
        return Err(format!("there is no = in what begins with {begin:?}; {FORM}"));
    };
    let Some((guest, key)) = name.split_once(':') else {
        return Err(format!("{name:?} does not say for which guest; {FORM}"));
    };
    if guest.is_empty() || key.is_empty() {
        return Err(format!("{name:?} lacks a guest or a key; {FORM}"));
    }
    let (guest, key) = (guest.to_owned(), key.to_owned());
    Ok(Setting { guest, key, value: Hidden(value.to_owned()) })
}

/// Parses `[GUEST=]SIZE`, the size being `none` for any. It ends at the last `=`, so that a name
/// may have one.
fn body(text: &str) -> Result<Setting<Option<u64>>, String> {
    let (guest, size) = text.rsplit_once('=').unwrap_or((ALL, text));
    if guest.is_empty() {
        return Err(format!("{text:?} names no guest; write GUEST=SIZE, or SIZE for all"));
    }
    let value = match size.trim() {
        none if none.eq_ignore_ascii_case("none") => None,
        size => Some(BODY.parse(size).map_err(|mistake| format!("{mistake}, or none"))?),
    };
    Ok(Setting { guest: guest.to_owned(), key: String::new(), value })
}
