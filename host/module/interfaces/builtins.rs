//! The built-ins of the component model that the host implements for flat components. Whole
//! components get theirs from the engine.

use super::row::{Interface, Version, both};

/// The module name under which flat components import the built-ins.
const MODULE: &str = "canon";

/// The built-ins. Those of futures end in the kind of the future's type (`flatten/http_types.rs`).
pub const BUILTINS: Interface = Interface {
    name: MODULE,
    module: MODULE,
    version: Version::Builtin,
    functions: &[
        both("context.get 0"),
        both("context.set 0"),
        both("context.get 1"),
        both("context.set 1"),
        both("task.return"),
        both("task.cancel"),
        both("backpressure.inc"),
        both("backpressure.dec"),
        both("subtask.cancel"),
        both("subtask.drop"),
        both("waitable-set.new"),
        both("waitable-set.drop"),
        both("waitable.join"),
        both("waitable-set.poll"),
        both("waitable-set.wait"),
        both("stream.new"),
        both("stream.read"),
        both("stream.write"),
        both("stream.cancel-read"),
        both("stream.cancel-write"),
        both("stream.drop-readable"),
        both("stream.drop-writable"),
        both("future.new sent"),
        both("future.read sent"),
        both("future.write sent"),
        both("future.cancel-read sent"),
        both("future.cancel-write sent"),
        both("future.drop-readable sent"),
        both("future.drop-writable sent"),
        both("future.new trailers"),
        both("future.read trailers"),
        both("future.write trailers"),
        both("future.cancel-read trailers"),
        both("future.cancel-write trailers"),
        both("future.drop-readable trailers"),
        both("future.drop-writable trailers"),
    ],
};
