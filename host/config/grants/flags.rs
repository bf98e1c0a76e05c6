//! The flags that can be set for one handler, as they were typed, and how they become grants.

use std::time::Duration;

use super::{
    CONFIG_VAR, ENV, GrantOverride, GrantTable, IN_FLIGHT, ISOLATION, OUTBOUND_IN_FLIGHT,
    OUTBOUND_IN_FLIGHT_MAX, QUEUE, QUEUE_MAX, merged,
};
use crate::config::amount::{
    BODY, COMPILE_CPU, COMPILE_MEMORY, CPU, DEADLINE, HEADER, MEMORY, OUTBOUND, QUEUE_WAIT,
    RESPONSE,
};
use crate::config::mistakes::{Mistakes, bytes, choice};
use crate::grants::Isolation;

/// The headings in `--help`.
const LIMITS: &str =
    "Limits of one handler (HANDLER=VALUE is for one, VALUE for all; may be repeated)";
const SETTINGS: &str = "Settings of handlers";
const OUTBOUND_HEADING: &str = "Requests that handlers make";

const ISOLATION_HELP: &str =
    "A sandbox for each request, or one that serves many requests in turn [default: fresh]";
const BODY_HELP: &str = "Request body, none is any size";
const IN_FLIGHT_HELP: &str = "Requests in flight to one handler [default: three quarters of all]";
const QUEUE_HELP: &str = "Requests of one worker that may wait for one handler";
const ENV_HELP: &str = "Environment variable of one handler, or with * of all; may be repeated";
const VAR_HELP: &str =
    "Variable that a component reads by wasi:config, for one handler or *; may be repeated";
const ALLOW_HELP: &str = "Let a handler send requests to http[s]://HOST[:PORT]; may be repeated. \
    HANDLER is its path below the folder without ending, or * for all; HOST a name, *.NAME, * or \
    an address; PORT may be *. Add networks that are not public after the URL: \
    api=http://db:80,10.0.0.0/8";
const OUTBOUND_MAX_HELP: &str =
    "Requests of one handler to one destination at a time; as many more may wait";
const TIMEOUT_HELP: &str =
    "Longest wait that a guest may choose for a connection, a first byte, or the next one";

/// The flags as they were typed.
#[derive(clap::Args, Clone)]
pub struct GrantFlags {
    #[arg(
        long,
        value_name = "[HANDLER=]fresh|reuse",
        help_heading = LIMITS,
        help = ISOLATION_HELP
    )]
    isolation: Vec<String>,

    /// Memory of one instance
    #[arg(
        long,
        value_name = "[HANDLER=]SIZE",
        help_heading = LIMITS,
        default_values_t = [MEMORY.default()]
    )]
    memory_max: Vec<String>,

    /// Time until the response must have begun
    #[arg(
        long,
        value_name = "[HANDLER=]TIME",
        help_heading = LIMITS,
        default_values_t = [DEADLINE.default()]
    )]
    deadline: Vec<String>,

    /// CPU time of one request
    #[arg(
        long,
        value_name = "[HANDLER=]TIME",
        help_heading = LIMITS,
        default_values_t = [CPU.default()]
    )]
    cpu_max: Vec<String>,

    #[arg(
        long,
        value_name = "[HANDLER=]SIZE|none",
        help_heading = LIMITS,
        help = BODY_HELP,
        default_values_t = [BODY.default()]
    )]
    body_max: Vec<String>,

    /// Response body that is kept before it is sent
    #[arg(
        long,
        value_name = "[HANDLER=]SIZE",
        help_heading = LIMITS,
        default_values_t = [RESPONSE.default()]
    )]
    response_max: Vec<String>,

    /// Request head and response head, each
    #[arg(
        long,
        value_name = "[HANDLER=]SIZE",
        help_heading = LIMITS,
        default_values_t = [HEADER.default()]
    )]
    header_max: Vec<String>,

    #[arg(long, value_name = "[HANDLER=]N", help_heading = LIMITS, help = IN_FLIGHT_HELP)]
    handler_in_flight_max: Vec<String>,

    #[arg(
        long,
        value_name = "[HANDLER=]N",
        help_heading = LIMITS,
        help = QUEUE_HELP,
        default_values_t = [QUEUE_MAX.to_string()]
    )]
    queue_max: Vec<String>,

    /// How long a request may wait for its turn
    #[arg(
        long,
        value_name = "[HANDLER=]TIME",
        help_heading = LIMITS,
        default_values_t = [QUEUE_WAIT.default()]
    )]
    queue_timeout: Vec<String>,

    /// CPU time of compiling a file
    #[arg(
        long,
        value_name = "[HANDLER=]TIME",
        help_heading = LIMITS,
        default_values_t = [COMPILE_CPU.default()]
    )]
    compile_max: Vec<String>,

    /// Memory of compiling a file
    #[arg(
        long,
        value_name = "[HANDLER=]SIZE",
        help_heading = LIMITS,
        default_values_t = [COMPILE_MEMORY.default()]
    )]
    compile_memory_max: Vec<String>,

    #[arg(long, value_name = "HANDLER:KEY=VALUE", help_heading = SETTINGS, help = ENV_HELP)]
    env: Vec<String>,

    #[arg(long, value_name = "HANDLER:KEY=VALUE", help_heading = SETTINGS, help = VAR_HELP)]
    config_var: Vec<String>,

    #[arg(long, value_name = "HANDLER=URL", help_heading = OUTBOUND_HEADING, help = ALLOW_HELP)]
    allow_outbound: Vec<String>,

    #[arg(
        long,
        value_name = "[HANDLER=]N",
        help_heading = OUTBOUND_HEADING,
        help = OUTBOUND_MAX_HELP,
        default_values_t = [OUTBOUND_IN_FLIGHT_MAX.to_string()]
    )]
    outbound_max: Vec<String>,

    #[arg(
        long,
        value_name = "[HANDLER=]TIME",
        help_heading = OUTBOUND_HEADING,
        help = TIMEOUT_HELP,
        default_values_t = [OUTBOUND.default()]
    )]
    outbound_timeout: Vec<String>,

    /// Names of handlers that take bodies of any size unless `--body-max` names them. `demo` sets
    /// it; it is not a flag.
    #[arg(skip)]
    pub any_body: &'static [&'static str],
}

/// The values of variables may be secrets, so none is shown.
impl std::fmt::Debug for GrantFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GrantFlags")
    }
}

impl GrantFlags {
    /// The grants of every handler.
    pub(in crate::config) fn validate(&self, mistakes: &mut Mistakes) -> GrantTable {
        let mut table = GrantTable::default();
        self.isolation(&mut table, mistakes);
        self.limits(&mut table, mistakes);
        self.body(&mut table, mistakes);
        self.concurrency(&mut table, mistakes);
        self.outbound(&mut table, mistakes);
        table.variables(ENV, &self.env, mistakes);
        table.variables(CONFIG_VAR, &self.config_var, mistakes);
        table.all.variables.env = merged(&table.env, &[]);
        table.all.variables.config = merged(&table.config, &[]);
        table
    }

    fn isolation(&self, table: &mut GrantTable, mistakes: &mut Mistakes) {
        let fresh =
            GrantOverride { set: |grants, _| grants.isolation = Isolation::Fresh, value: 0 };
        let reuse =
            GrantOverride { set: |grants, _| grants.isolation = Isolation::Reuse, value: 0 };
        let parse = |text: &str| choice(text, &[("fresh", fresh), ("reuse", reuse)]);
        table.apply_flag(ISOLATION, &self.isolation, parse, mistakes);
    }

    fn limits(&self, table: &mut GrantTable, mistakes: &mut Mistakes) {
        let mut size = |bound, texts, set| table.size(bound, texts, set, mistakes);
        size(&MEMORY, &self.memory_max, |it, max| it.limits.memory_bytes_max = bytes(max));
        size(&DEADLINE, &self.deadline, |it, max| it.limits.deadline = Duration::from_millis(max));
        size(&CPU, &self.cpu_max, |it, max| it.limits.cpu_max = Duration::from_millis(max));
        size(&RESPONSE, &self.response_max, |it, max| it.limits.response_bytes_max = bytes(max));
        size(&HEADER, &self.header_max, |it, max| it.limits.header_bytes_max = bytes(max));
        size(&COMPILE_CPU, &self.compile_max, |it, max| {
            it.compile.cpu_max = Duration::from_millis(max);
        });
        size(&COMPILE_MEMORY, &self.compile_memory_max, |it, max| {
            it.compile.memory_bytes_max = bytes(max);
        });
    }

    fn body(&self, table: &mut GrantTable, mistakes: &mut Mistakes) {
        let any = GrantOverride { set: |grants, _| grants.limits.body_bytes_max = None, value: 0 };
        let parse = |text: &str| match text {
            none if none.eq_ignore_ascii_case("none") => Ok(any),
            size => {
                let value = BODY.parse(size).map_err(|mistake| format!("{mistake}, or none"))?;
                Ok(GrantOverride {
                    set: |grants, max| grants.limits.body_bytes_max = Some(max),
                    value,
                })
            }
        };
        // `--body-max` comes after these: of two settings of one handler the later one holds.
        for name in self.any_body {
            table.set_limit(name, any);
        }
        table.apply_flag(BODY.flag, &self.body_max, parse, mistakes);
    }

    fn concurrency(&self, table: &mut GrantTable, mistakes: &mut Mistakes) {
        let mut count = |bound, texts, set| table.count(bound, texts, set, mistakes);
        count(&IN_FLIGHT, &self.handler_in_flight_max, |it, max| {
            it.concurrency.in_flight_max = Some(bytes(max));
        });
        count(&QUEUE, &self.queue_max, |it, max| it.concurrency.queue.length_max = bytes(max));
        table.size(
            &QUEUE_WAIT,
            &self.queue_timeout,
            |it, max| it.concurrency.queue.wait_max = Duration::from_millis(max),
            mistakes,
        );
    }

    fn outbound(&self, table: &mut GrantTable, mistakes: &mut Mistakes) {
        table.allow(&self.allow_outbound, mistakes);
        table.count(
            &OUTBOUND_IN_FLIGHT,
            &self.outbound_max,
            |it, max| it.outbound.in_flight_max = bytes(max),
            mistakes,
        );
        table.size(
            &OUTBOUND,
            &self.outbound_timeout,
            |it, max| it.outbound.timeout_max = Duration::from_millis(max),
            mistakes,
        );
    }
}
