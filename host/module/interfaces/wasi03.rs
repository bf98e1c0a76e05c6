//! WASI 0.3 without HTTP, files and sockets: the interfaces, and their functions in the order of
//! the WIT files.

use super::row::{Interface, both, both_async, both_realloc, whole};

/// The interfaces in this file.
pub const ALL: &[Interface] = &[
    CLI_ENVIRONMENT,
    CLI_EXIT,
    CLI_TYPES,
    CLI_STDIN,
    CLI_STDOUT,
    CLI_STDERR,
    CLI_TERMINAL_INPUT,
    CLI_TERMINAL_OUTPUT,
    CLI_TERMINAL_STDIN,
    CLI_TERMINAL_STDOUT,
    CLI_TERMINAL_STDERR,
    CLOCKS_MONOTONIC_CLOCK,
    CLOCKS_SYSTEM_CLOCK,
    RANDOM_INSECURE_SEED,
    RANDOM_INSECURE,
    RANDOM_RANDOM,
];

/// The environment variables and arguments of the guest.
pub const CLI_ENVIRONMENT: Interface = Interface::of_03(
    "wasi:cli/environment",
    "wasi:cli/environment@0.3",
    &[
        both_realloc("get-environment").granted("--env"),
        both_realloc("get-arguments"),
        both_realloc("get-initial-cwd"),
    ],
);

/// Ends the guest.
pub const CLI_EXIT: Interface =
    Interface::of_03("wasi:cli/exit", "wasi:cli/exit@0.3", &[both("exit"), both("exit-with-code")]);

/// The error type of the standard streams. It has no functions.
pub const CLI_TYPES: Interface = Interface::of_03("wasi:cli/types", "wasi:cli/types@0.3", &[]);

/// The standard input, which is empty.
pub const CLI_STDIN: Interface =
    Interface::of_03("wasi:cli/stdin", "wasi:cli/stdin@0.3", &[whole("read-via-stream")]);

/// The standard output.
pub const CLI_STDOUT: Interface =
    Interface::of_03("wasi:cli/stdout", "wasi:cli/stdout@0.3", &[whole("write-via-stream")]);

/// The standard error output.
pub const CLI_STDERR: Interface =
    Interface::of_03("wasi:cli/stderr", "wasi:cli/stderr@0.3", &[whole("write-via-stream")]);

/// The resource of a terminal that is read from.
pub const CLI_TERMINAL_INPUT: Interface = Interface::of_03(
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-input@0.3",
    &[whole("[resource-drop]terminal-input")],
);

/// The resource of a terminal that is written to.
pub const CLI_TERMINAL_OUTPUT: Interface = Interface::of_03(
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-output@0.3",
    &[whole("[resource-drop]terminal-output")],
);

/// Asks for the terminal behind the standard input.
pub const CLI_TERMINAL_STDIN: Interface = Interface::of_03(
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdin@0.3",
    &[whole("get-terminal-stdin")],
);

/// Asks for the terminal behind the standard output.
pub const CLI_TERMINAL_STDOUT: Interface = Interface::of_03(
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stdout@0.3",
    &[whole("get-terminal-stdout")],
);

/// Asks for the terminal behind the standard error output.
pub const CLI_TERMINAL_STDERR: Interface = Interface::of_03(
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stderr@0.3",
    &[whole("get-terminal-stderr")],
);

/// The monotonic clock, and timers.
pub const CLOCKS_MONOTONIC_CLOCK: Interface = Interface::of_03(
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/monotonic-clock@0.3",
    &[both("now"), both("get-resolution"), both_async("wait-until"), both_async("wait-for")],
);

/// The time of day.
pub const CLOCKS_SYSTEM_CLOCK: Interface = Interface::of_03(
    "wasi:clocks/system-clock",
    "wasi:clocks/system-clock@0.3",
    &[both("now"), both("get-resolution")],
);

/// A seed for hash maps.
pub const RANDOM_INSECURE_SEED: Interface = Interface::of_03(
    "wasi:random/insecure-seed",
    "wasi:random/insecure-seed@0.3",
    &[both("get-insecure-seed")],
);

/// Random bytes without cryptographic strength.
pub const RANDOM_INSECURE: Interface = Interface::of_03(
    "wasi:random/insecure",
    "wasi:random/insecure@0.3",
    &[both_realloc("get-insecure-random-bytes"), both("get-insecure-random-u64")],
);

/// Cryptographically strong random bytes.
pub const RANDOM_RANDOM: Interface = Interface::of_03(
    "wasi:random/random",
    "wasi:random/random@0.3",
    &[both_realloc("get-random-bytes"), both("get-random-u64")],
);
