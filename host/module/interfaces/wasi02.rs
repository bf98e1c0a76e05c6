//! WASI 0.2 without HTTP, files and sockets: the interfaces, and their functions in the order of
//! the WIT files.

use super::row::{Interface, Version, both, both_realloc};

/// The interfaces in this file.
pub const ALL: &[Interface] = &[
    CLI_ENVIRONMENT,
    CLI_EXIT,
    CLI_STDIN,
    CLI_STDOUT,
    CLI_STDERR,
    CLI_TERMINAL_INPUT,
    CLI_TERMINAL_OUTPUT,
    CLI_TERMINAL_STDIN,
    CLI_TERMINAL_STDOUT,
    CLI_TERMINAL_STDERR,
    CLOCKS_MONOTONIC_CLOCK,
    CLOCKS_WALL_CLOCK,
    IO_ERROR,
    IO_POLL,
    IO_STREAMS,
    RANDOM_INSECURE_SEED,
    RANDOM_INSECURE,
    RANDOM_RANDOM,
    CONFIG_STORE,
];

/// The environment variables and arguments of the guest.
pub const CLI_ENVIRONMENT: Interface = Interface::of_02(
    "wasi:cli/environment",
    &[
        both_realloc("get-environment").granted("--env"),
        both_realloc("get-arguments"),
        both_realloc("initial-cwd"),
    ],
);

/// Ends the guest.
pub const CLI_EXIT: Interface =
    Interface::of_02("wasi:cli/exit", &[both("exit"), both("exit-with-code")]);

/// The standard input, which is empty.
pub const CLI_STDIN: Interface = Interface::of_02("wasi:cli/stdin", &[both("get-stdin")]);

/// The standard output.
pub const CLI_STDOUT: Interface = Interface::of_02("wasi:cli/stdout", &[both("get-stdout")]);

/// The standard error output.
pub const CLI_STDERR: Interface = Interface::of_02("wasi:cli/stderr", &[both("get-stderr")]);

/// The resource of a terminal that is read from.
pub const CLI_TERMINAL_INPUT: Interface =
    Interface::of_02("wasi:cli/terminal-input", &[both("[resource-drop]terminal-input")]);

/// The resource of a terminal that is written to.
pub const CLI_TERMINAL_OUTPUT: Interface =
    Interface::of_02("wasi:cli/terminal-output", &[both("[resource-drop]terminal-output")]);

/// Asks for the terminal behind the standard input.
pub const CLI_TERMINAL_STDIN: Interface =
    Interface::of_02("wasi:cli/terminal-stdin", &[both("get-terminal-stdin")]);

/// Asks for the terminal behind the standard output.
pub const CLI_TERMINAL_STDOUT: Interface =
    Interface::of_02("wasi:cli/terminal-stdout", &[both("get-terminal-stdout")]);

/// Asks for the terminal behind the standard error output.
pub const CLI_TERMINAL_STDERR: Interface =
    Interface::of_02("wasi:cli/terminal-stderr", &[both("get-terminal-stderr")]);

/// The monotonic clock, and timers.
pub const CLOCKS_MONOTONIC_CLOCK: Interface = Interface::of_02(
    "wasi:clocks/monotonic-clock",
    &[both("now"), both("resolution"), both("subscribe-instant"), both("subscribe-duration")],
);

/// The time of day.
pub const CLOCKS_WALL_CLOCK: Interface =
    Interface::of_02("wasi:clocks/wall-clock", &[both("now"), both("resolution")]);

/// The error resource of streams.
pub const IO_ERROR: Interface = Interface::of_02(
    "wasi:io/error",
    &[both("[resource-drop]error"), both_realloc("[method]error.to-debug-string")],
);

/// Waiting for one of several resources to be ready.
pub const IO_POLL: Interface = Interface::of_02(
    "wasi:io/poll",
    &[
        both("[resource-drop]pollable"),
        both("[method]pollable.ready"),
        both("[method]pollable.block"),
        both_realloc("poll"),
    ],
);

/// Byte streams.
pub const IO_STREAMS: Interface = Interface::of_02(
    "wasi:io/streams",
    &[
        both("[resource-drop]input-stream"),
        both_realloc("[method]input-stream.read"),
        both_realloc("[method]input-stream.blocking-read"),
        both("[method]input-stream.skip"),
        both("[method]input-stream.blocking-skip"),
        both("[method]input-stream.subscribe"),
        both("[resource-drop]output-stream"),
        both("[method]output-stream.check-write"),
        both("[method]output-stream.write"),
        both("[method]output-stream.blocking-write-and-flush"),
        both("[method]output-stream.flush"),
        both("[method]output-stream.blocking-flush"),
        both("[method]output-stream.subscribe"),
        both("[method]output-stream.write-zeroes"),
        both("[method]output-stream.blocking-write-zeroes-and-flush"),
        both("[method]output-stream.splice"),
        both("[method]output-stream.blocking-splice"),
    ],
);

/// A seed for hash maps.
pub const RANDOM_INSECURE_SEED: Interface =
    Interface::of_02("wasi:random/insecure-seed", &[both("insecure-seed")]);

/// Random bytes without cryptographic strength.
pub const RANDOM_INSECURE: Interface = Interface::of_02(
    "wasi:random/insecure",
    &[both_realloc("get-insecure-random-bytes"), both("get-insecure-random-u64")],
);

/// Cryptographically strong random bytes.
pub const RANDOM_RANDOM: Interface = Interface::of_02(
    "wasi:random/random",
    &[both_realloc("get-random-bytes"), both("get-random-u64")],
);

/// The configuration values that flags give a handler. No version is released, and two drafts are
/// not compatible.
pub const CONFIG_STORE: Interface = Interface {
    name: "wasi:config/store",
    module: "wasi:config/store",
    version: Version::Draft("0.2.0-rc.1"),
    functions: &[
        both_realloc("get").granted("--config-var"),
        both_realloc("get-all").granted("--config-var"),
    ],
};
