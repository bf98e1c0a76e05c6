//! Which hint is given for which import or error.

use super::{of_function, of_other, of_proposal};

#[test]
fn each_import_has_the_hint_of_its_toolchain() {
    for (module, name, ty, words) in [
        ("env", "abort", "(i32, i32, i32, i32)", "asc --use abort="),
        ("env", "abort", "()", "a symbol that was declared and not linked"),
        ("env", "seed", "() -> f64", "asc --use seed="),
        ("env", "trace", "(i32, i32, f64, f64, f64, f64, f64)", "leave the calls of trace out"),
        ("env", "console.log", "(i32)", "AssemblyScript"),
        ("env", "Date.now", "() -> f64", "AssemblyScript"),
        ("env", "emscripten_resize_heap", "(i32) -> i32", "Emscripten"),
        ("env", "__syscall_openat", "(i32, i32, i32, i32) -> i32", "Emscripten"),
        ("a", "b", "(i32) -> i32", "Emscripten"),
        ("a", "bc", "()", "Emscripten"),
        ("env", "my_function", "()", "in Zig with -target wasm32-wasi"),
        ("env", "sqlite3_open", "(i32, i32) -> i32", "wasi-sdk for wasm32-wasip1"),
        ("gojs", "runtime.ticks", "() -> f64", "tinygo build -target=wasip1"),
        ("env", "runtime.ticks", "() -> f64", "tinygo build -target=wasip1"),
        ("gojs", "runtime.wasmExit", "(i32)", "GOOS=wasip1 GOARCH=wasm -buildmode=c-shared"),
        ("wbg", "__wbindgen_throw", "(i32, i32)", "from wasm-bindgen"),
        ("./pkg_bg.js", "__wbg_log_1", "(i32)", "from wasm-bindgen"),
        ("js_code", "kotlin.captureStackTrace", "()", "from Kotlin"),
        ("dart2wasm", "_1", "()", "no JavaScript"),
        ("wasm:js-string", "length", "()", "no JavaScript"),
        ("env", "mono_wasm_bind_js_import", "()", "from .NET for browsers"),
        ("javascript_kit", "swjs_get_prop", "()", "JavaScriptKit"),
        ("wasi", "thread-spawn", "(i32) -> i32", "wasi-threads"),
        ("wasix_32v1", "thread_spawn", "()", "WASIX"),
        ("wasi_ephemeral_nn", "load", "()", "a draft of WASI"),
        ("wasi_unstable", "fd_write", "()", "WASI preview 0"),
        ("env", "proxy_log", "(i32, i32, i32) -> i32", "proxy-wasm"),
        ("extism:host/env", "input_length", "() -> i64", "Extism"),
        ("fastly_http_req", "new", "(i32) -> i32", "Fastly"),
        ("wasi:http/types@0.2.0", "x", "()", "make a component of it"),
        ("acme", "x", "()", "handlers can import http_handler"),
    ] {
        let said = of_function(module, name, ty);
        assert!(said.contains(words), "{module}::{name} {ty}: {said}");
    }
}

#[test]
fn what_is_no_function_has_a_hint_of_its_own() {
    for (module, name, ty, words) in [
        ("env", "memory", "memory", "without --import-memory"),
        ("env", "__indirect_function_table", "table", "and --import-table"),
        ("env", "__memory_base", "global", "shared library"),
        ("GOT.func", "f", "global", "shared library"),
        ("env", "__cpp_exception", "tag", "-fwasm-exceptions"),
    ] {
        let said = of_other(module, name, ty);
        assert!(said.contains(words), "{module}::{name} {ty}: {said}");
    }
}

#[test]
fn what_is_invalid_for_another_reason_has_no_workaround() {
    for message in ["type mismatch: expected i32, found i64", "unknown function 3", ""] {
        assert_eq!(of_proposal(message), None, "{message}");
    }
}
