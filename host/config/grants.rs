//! What each handler is granted, by its name: limits and settings that can be set for one handler.
//!
//! Each flag takes a value for all handlers, and values for handlers that it names. The name of a
//! handler is the one in the log: the path of its file below the handler folder, without extension.
//! `*` stands for all handlers. Values of variables may be secrets, so no mistake, no log line and
//! no debug text shows one.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::amount::{
    self, AmountFlag, BODY, COMPILE_CPU, COMPILE_MEMORY, CPU, CountFlag, DEADLINE, HEADER, MEMORY,
    OUTBOUND, QUEUE_WAIT, RESPONSE,
};
use super::mistakes::{Mistakes, bytes};
use super::outbound::{self, ALLOW};
use crate::grants::{
    Allowance, CompileLimits, Grants, Isolation, Limits, OutboundGrants, Owner, QueueLimits,
};

mod flags;

pub use flags::GrantFlags;

/// The name that stands for all handlers.
const ALL: &str = "*";
const ENV: &str = "--env";
const CONFIG_VAR: &str = "--config-var";
const ISOLATION: &str = "--isolation";
const IN_FLIGHT: CountFlag = amount::count("--handler-in-flight-max", (1, 1_000_000));
const QUEUE: CountFlag = amount::count("--queue-max", (0, 100_000));
const QUEUE_MAX: usize = 64;
const OUTBOUND_IN_FLIGHT: CountFlag = amount::count("--outbound-max", (1, 10_000));
const OUTBOUND_IN_FLIGHT_MAX: usize = 64;

/// The grants of every handler, also of those whose file comes later.
#[derive(Clone, Debug)]
pub struct GrantTable {
    /// The grants of a handler that no flag names.
    all: Grants,
    /// Environment variables of all handlers.
    env: Vec<Variable>,
    /// Variables of `wasi:config` of all handlers.
    config: Vec<Variable>,
    handler_overrides: HashMap<Box<str>, HandlerOverrides>,
    owners: Owners,
    /// The flags that name a handler, each with the name.
    named: BTreeSet<(&'static str, Box<str>)>,
}

/// The largest value that any handler has, for each limit that sizes something all handlers share.
#[derive(Clone, Copy, Debug)]
pub struct LimitMaxima {
    /// Bytes of all memories of one instance together.
    pub memory_bytes_max: usize,
    /// Bytes of a request's head.
    pub header_bytes_max: usize,
    /// Requests of one handler to one destination, all workers together.
    pub outbound_max: usize,
    /// Whether any handler may send requests by TLS.
    pub outbound_is_secure: bool,
}

/// What flags say of one handler alone.
#[derive(Clone, Debug, Default)]
struct HandlerOverrides {
    limit_overrides: Vec<GrantOverride>,
    env: Vec<Variable>,
    config: Vec<Variable>,
    allowed: Vec<Allowance>,
}

/// One limit of a handler that differs from that of all.
#[derive(Clone, Copy, Debug)]
struct GrantOverride {
    set: fn(&mut Grants, u64),
    value: u64,
}

/// A variable, and its position among the flags of its kind.
#[derive(Clone)]
struct Variable {
    at: usize,
    key: String,
    value: String,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.key)
    }
}

impl Default for GrantTable {
    fn default() -> Self {
        let (env, config, own, owners, named) = Default::default();
        GrantTable { all: Grants::default(), env, config, handler_overrides: own, owners, named }
    }
}

impl GrantTable {
    /// The grants of the handler of this name, with its owner.
    pub fn of(&self, name: &str) -> Arc<Grants> {
        let owner = name.split('/').next().unwrap_or(name);
        let grants = Grants { owner: self.owners.get(owner), ..self.limits_of(name) };
        Arc::new(grants)
    }

    /// The grants of the native twin of the handler of this name. It has no owner.
    pub fn of_twin(&self, name: &str) -> Arc<Grants> {
        Arc::new(self.limits_of(name))
    }

    fn limits_of(&self, name: &str) -> Grants {
        let mut grants = self.all.clone();
        if let Some(own) = self.handler_overrides.get(name) {
            for change in &own.limit_overrides {
                (change.set)(&mut grants, change.value);
            }
            if !own.env.is_empty() {
                grants.variables.env = merged(&self.env, &own.env);
            }
            if !own.config.is_empty() {
                grants.variables.config = merged(&self.config, &own.config);
            }
            if !own.allowed.is_empty() {
                let both = grants.outbound.allowed.iter().chain(&own.allowed);
                grants.outbound.allowed = both.cloned().collect();
            }
        }
        grants
    }

    /// The grants for a request that no handler answers.
    pub fn of_unrouted(&self) -> Arc<Grants> {
        Arc::new(self.all.clone())
    }

    /// Whether the isolation of any handler is `reuse`.
    pub fn has_reuse(&self) -> bool {
        let mut own = self.handler_overrides.keys().map(|name| self.limits_of(name).isolation);
        self.all.isolation == Isolation::Reuse || own.any(|it| it == Isolation::Reuse)
    }

    /// The limits that size what all handlers share.
    pub fn largest(&self) -> LimitMaxima {
        let size = |grants: &Grants| LimitMaxima {
            memory_bytes_max: grants.limits.memory_bytes_max,
            header_bytes_max: grants.limits.header_bytes_max,
            outbound_max: grants.outbound.in_flight_max,
            outbound_is_secure: grants.outbound.allowed.iter().any(|it| it.is_secure),
        };
        self.handler_overrides.keys().map(|name| size(&self.limits_of(name))).fold(
            size(&self.all),
            |a, b| LimitMaxima {
                memory_bytes_max: a.memory_bytes_max.max(b.memory_bytes_max),
                header_bytes_max: a.header_bytes_max.max(b.header_bytes_max),
                outbound_max: a.outbound_max.max(b.outbound_max),
                outbound_is_secure: a.outbound_is_secure || b.outbound_is_secure,
            },
        )
    }

    /// Flags that name a handler that `is_known` does not know: the flag and the name.
    pub fn unknown(
        &self,
        is_known: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = (&'static str, &str)> {
        let named = self.named.iter().map(|(flag, name)| (*flag, &**name));
        named.filter(move |(_, name)| !is_known(name))
    }

    /// Lets a handler send requests to the addresses that the host itself listens on.
    pub fn allow_own_addresses(&mut self, name: &str, addresses: &[SocketAddr]) {
        let own = self.handler_overrides.entry(name.into()).or_default();
        own.allowed.extend(addresses.iter().flat_map(|it| outbound::own_allowances(*it)));
    }

    /// Sets a limit for one handler, or for all.
    fn set_limit(&mut self, name: &str, change: GrantOverride) {
        match name {
            ALL => (change.set)(&mut self.all, change.value),
            name => {
                self.handler_overrides.entry(name.into()).or_default().limit_overrides.push(change);
            }
        }
    }

    /// Reads all values of a flag of the form `[HANDLER=]VALUE`.
    fn apply_flag(
        &mut self,
        flag: &'static str,
        texts: &[String],
        parse: impl Fn(&str) -> Result<GrantOverride, String>,
        mistakes: &mut Mistakes,
    ) {
        let mut seen = BTreeSet::new();
        for text in texts {
            // The name ends at the last `=`, so that it may contain one.
            let (name, value) = text.rsplit_once('=').unwrap_or((ALL, text));
            let name = name.trim();
            if name.is_empty() {
                const FORM: &str = "write HANDLER=VALUE, or VALUE for all";
                mistakes.0.push(format!("{flag}: {text:?} names no handler; {FORM}"));
                continue;
            }
            let change = match parse(value.trim()) {
                Ok(change) => change,
                Err(why) => {
                    let of = if name == ALL { String::new() } else { format!(" (for {name:?})") };
                    mistakes.0.push(format!("{flag}: {why}{of}"));
                    continue;
                }
            };
            if !seen.insert(name) {
                mistakes.0.push(format!("{flag}: {name:?} is set twice; leave one out"));
                continue;
            }
            self.note_named(flag, name);
            self.set_limit(name, change);
        }
    }

    /// Remembers that a flag names a handler.
    fn note_named(&mut self, flag: &'static str, name: &str) {
        if name != ALL {
            self.named.insert((flag, name.into()));
        }
    }

    fn size(
        &mut self,
        bound: &'static AmountFlag,
        texts: &[String],
        set: fn(&mut Grants, u64),
        mistakes: &mut Mistakes,
    ) {
        let parse = |text: &str| Ok(GrantOverride { set, value: bound.parse(text)? });
        self.apply_flag(bound.flag, texts, parse, mistakes);
    }

    fn count(
        &mut self,
        bound: &'static CountFlag,
        texts: &[String],
        set: fn(&mut Grants, u64),
        mistakes: &mut Mistakes,
    ) {
        let parse = |text: &str| Ok(GrantOverride { set, value: bound.parse(text)? as u64 });
        self.apply_flag(bound.flag, texts, parse, mistakes);
    }

    /// Reads the variables of one kind.
    fn variables(&mut self, flag: &'static str, texts: &[String], mistakes: &mut Mistakes) {
        let mut seen = BTreeSet::new();
        for (at, text) in texts.iter().enumerate() {
            let (name, key, value) = match variable(text) {
                Ok(parts) => parts,
                Err(why) => {
                    mistakes.0.push(format!("{flag}: {why}"));
                    continue;
                }
            };
            if !seen.insert((name, key)) {
                let what = format!("{name}:{key}");
                mistakes.0.push(format!("{flag}: {what:?} is set twice; leave one out"));
                continue;
            }
            let variable = Variable { at, key: key.to_owned(), value: value.to_owned() };
            let is_env = flag == ENV;
            let list = match name {
                ALL if is_env => &mut self.env,
                ALL => &mut self.config,
                name => {
                    let own = self.handler_overrides.entry(name.into()).or_default();
                    if is_env { &mut own.env } else { &mut own.config }
                }
            };
            list.push(variable);
            self.note_named(flag, name);
        }
    }

    fn allow(&mut self, texts: &[String], mistakes: &mut Mistakes) {
        let mut all = Vec::new();
        for text in texts {
            match outbound::allowance(text) {
                Ok((name, allowance)) if name == ALL => all.push(allowance),
                Ok((name, allowance)) => {
                    self.handler_overrides.entry(name.into()).or_default().allowed.push(allowance);
                    self.note_named(ALLOW, name);
                }
                Err(why) => mistakes.0.push(format!("{ALLOW}: {why}")),
            }
        }
        self.all.outbound.allowed = all.into();
    }
}

/// All owners of the process, by their names.
#[derive(Clone, Debug, Default)]
struct Owners(Arc<Mutex<OwnerTable>>);

#[derive(Debug, Default)]
struct OwnerTable {
    owners: HashMap<Box<str>, Weak<Owner>>,
    /// How many owners have been made. It numbers them.
    count: u64,
    /// The length of the table at which owners without handlers are next removed from it.
    forget_at: usize,
}

impl Owners {
    /// The owner of this name, made if there is none.
    fn get(&self, name: &str) -> Arc<Owner> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = known.owners.get(name).and_then(Weak::upgrade) {
            return owner;
        }
        if known.owners.len() >= known.forget_at {
            known.owners.retain(|_, owner| owner.strong_count() > 0);
            known.forget_at = 2 * known.owners.len() + 16;
        }
        known.count += 1;
        let owner = Arc::new(Owner::new(name, known.count));
        known.owners.insert(name.into(), Arc::downgrade(&owner));
        owner
    }
}

/// The variables of one handler, in the order of the flags. A variable that names the handler
/// replaces the one for all with the same key.
fn merged(all: &[Variable], own: &[Variable]) -> Arc<[(String, String)]> {
    let is_own = |key: &str| own.iter().any(|it| it.key == key);
    let mut chosen: Vec<&Variable> = all.iter().filter(|it| !is_own(&it.key)).chain(own).collect();
    chosen.sort_by_key(|variable| variable.at);
    chosen.into_iter().map(|it| (it.key.clone(), it.value.clone())).collect()
}

/// Parses `HANDLER:KEY=VALUE`. The name ends at the first colon and the key at the first `=`, so
/// that a value may contain both.
fn variable(text: &str) -> Result<(&str, &str, &str), String> {
    const FORM: &str = "write HANDLER:KEY=VALUE, such as hello:MODE=test, or *:MODE=test for all";
    let Some((name, value)) = text.split_once('=') else {
        // The mistake shows the name alone: what follows may be a secret.
        let begin = text.split_once(':').map_or(text, |(name, _)| name);
        return Err(format!("there is no = in what begins with {begin:?}; {FORM}"));
    };
    let Some((name, key)) = name.split_once(':') else {
        return Err(format!("{name:?} does not say for which handler; {FORM}"));
    };
    if name.is_empty() || key.is_empty() {
        let name = format!("{name}:{key}");
        return Err(format!("{name:?} lacks a handler or a key; {FORM}"));
    }
    Ok((name, key, value))
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: bytes(MEMORY.default),
            deadline: Duration::from_millis(DEADLINE.default),
            cpu_max: Duration::from_millis(CPU.default),
            body_bytes_max: Some(BODY.default),
            response_bytes_max: bytes(RESPONSE.default),
            header_bytes_max: bytes(HEADER.default),
        }
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        let wait_max = Duration::from_millis(QUEUE_WAIT.default);
        QueueLimits { length_max: QUEUE_MAX, wait_max }
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            cpu_max: Duration::from_millis(COMPILE_CPU.default),
            memory_bytes_max: bytes(COMPILE_MEMORY.default),
        }
    }
}

impl Default for OutboundGrants {
    fn default() -> Self {
        OutboundGrants {
            allowed: Arc::default(),
            in_flight_max: OUTBOUND_IN_FLIGHT_MAX,
            timeout_max: Duration::from_millis(OUTBOUND.default),
        }
    }
}
