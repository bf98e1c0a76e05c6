//! Hints for modules that the host does not serve: which toolchain made them, and how to build them
//! instead.
//!
//! Owns two tables: one of imports that the host does not have, and one of WebAssembly proposals
//! that a module may not use. Judges nothing.

/// A hint for imports that `is_it` recognises by their module and name.
struct Hint {
    is_it: fn(&str, &str) -> bool,
    text: &'static str,
}

/// The hints for functions, from the special to the general. The first match counts.
const FUNCTIONS: &[Hint] = &[
    Hint {
        is_it: |module, _| module == "wasi_unstable",
        text: "WASI preview 0, of a toolchain from before 2020; rebuild with --target \
               wasm32-wasip1",
    },
    Hint {
        is_it: |module, _| module == "wasi_snapshot_preview2",
        text: "an old WASI draft; rebuild with --target wasm32-wasip1",
    },
    Hint {
        is_it: |module, name| module == "wasi" && name == "thread-spawn",
        text: "from wasi-threads, which are not served; build for wasm32-wasip1 and not for \
               wasm32-wasip1-threads, without -pthread",
    },
    Hint {
        is_it: |module, _| module.starts_with("wasix_"),
        text: "from WASIX, for Wasmer; build for wasm32-wasip1",
    },
    Hint {
        is_it: |module, _| module.starts_with("wasi_ephemeral_"),
        text: "a draft of WASI that this host does not offer; leave out what needs it",
    },
    Hint {
        is_it: |module, _| {
            matches!(module, "wbg")
                || module.starts_with("__wbindgen_")
                || module.ends_with("_bg.js")
        },
        text: "from wasm-bindgen, for browsers; build for wasm32-wasip1 without crates that need \
               JavaScript (for getrandom and time, wasm32-wasip1 needs no such feature)",
    },
    Hint {
        is_it: |module, name| {
            module == "gojs" && matches!(name, "runtime.ticks" | "runtime.sleepTicks")
                || module == "env" && (name.starts_with("runtime.") || name.starts_with("syscall/"))
        },
        text: "from TinyGo's port for browsers; build with tinygo build -target=wasip1 \
               -buildmode=c-shared",
    },
    Hint {
        is_it: |module, _| matches!(module, "gojs" | "go"),
        text: "from Go's js/wasm port; build with GOOS=wasip1 GOARCH=wasm -buildmode=c-shared (in \
               TinyGo, -target=wasip1 -buildmode=c-shared)",
    },
    Hint {
        is_it: |module, _| matches!(module, "js_code" | "intrinsics" | "kotlin"),
        text: "from Kotlin for browsers, which needs garbage collected types in any case; this \
               host does not run those",
    },
    Hint {
        is_it: |module, _| module.starts_with("dart2wasm") || module.starts_with("wasm:"),
        text: "a builtin of JavaScript, which Dart, Kotlin and others use in browsers; this host \
               has no JavaScript",
    },
    Hint {
        is_it: |module, _| matches!(module, "javascript_kit" | "bjs"),
        text: "from Swift's JavaScriptKit, for browsers; build for wasm32-unknown-wasip1 instead",
    },
    Hint {
        is_it: |module, name| {
            module == "env"
                && (name.starts_with("mono_wasm_") || name.starts_with("SystemInteropJS"))
        },
        text: "from .NET for browsers; build for wasi (componentize-dotnet makes a component of \
               wasi:http)",
    },
    Hint {
        is_it: |module, name| module == "env" && name.starts_with("proxy_"),
        text: "from the proxy-wasm SDK, for Envoy; handlers here are of the http-wasm ABI, or \
               components of wasi:http",
    },
    Hint {
        is_it: |module, _| module.starts_with("extism:"),
        text: "from an Extism PDK; handlers here are of the http-wasm ABI, or components of \
               wasi:http",
    },
    Hint {
        is_it: |module, _| module.starts_with("fastly_"),
        text: "from the Fastly Compute SDK; handlers here are of the http-wasm ABI, or components \
               of wasi:http",
    },
    Hint { is_it: |module, _| module == "spectest", text: "from the WebAssembly test suite" },
    Hint {
        is_it: |module, _| module.starts_with("wasi:"),
        text: "a component's interface in a core module: make a component of it, which --target \
               wasm32-wasip2 does by itself",
    },
    Hint {
        is_it: is_of_emscripten,
        text: "from Emscripten's runtime; link with emcc -sSTANDALONE_WASM --no-entry, or build \
               with wasi-sdk for wasm32-wasip1",
    },
    Hint {
        is_it: |module, name| module == "env" && is_of_javascript(name),
        text: "a binding to JavaScript, as AssemblyScript makes; leave it out, as the host has no \
               JavaScript",
    },
    Hint {
        is_it: |module, _| module == "env",
        text: "a symbol that was declared and not linked; link the library that has it: in C with \
               wasi-sdk for wasm32-wasip1, in Zig with -target wasm32-wasi, in Rust as a crate",
    },
];

/// Functions that AssemblyScript's compiler imports by itself: name, type and hint.
const OF_ASSEMBLY_SCRIPT: [(&str, &str, &str); 3] = [
    (
        "abort",
        "(i32, i32, i32, i32)",
        "from AssemblyScript, which calls it where it fails; compile with asc --use abort= \
         (then it traps); if it is not, it is a symbol that was declared and not linked",
    ),
    (
        "seed",
        "() -> f64",
        "from AssemblyScript's Math.random; compile with asc --use seed=; if it is not, it is a \
         symbol that was declared and not linked",
    ),
    (
        "trace",
        "(i32, i32, f64, f64, f64, f64, f64)",
        "from AssemblyScript's trace; leave the calls of trace out",
    ),
];

/// The hint for an imported function that the host does not have.
pub fn of_function(module: &str, name: &str, ty: &str) -> &'static str {
    let mut own = OF_ASSEMBLY_SCRIPT.iter().filter(|it| (it.0, it.1) == (name, ty));
    if let (Some(own), "env") = (own.next(), module) {
        return own.2;
    }
    let hint = FUNCTIONS.iter().find(|hint| (hint.is_it)(module, name));
    hint.map_or("handlers can import http_handler and wasi_snapshot_preview1 only", |hint| {
        hint.text
    })
}

/// The hint for an imported memory, table, global or tag.
pub fn of_other(module: &str, name: &str, ty: &str) -> &'static str {
    let is_shared = module.starts_with("GOT.") || matches!(name, "__memory_base" | "__table_base");
    match ty {
        _ if is_shared => {
            "a part of a shared library; link the whole program into one module (without -fPIC, \
             -shared and -sMAIN_MODULE)"
        }
        "tag" => {
            "exceptions are not served; build without them (in C++ without -fwasm-exceptions, in \
             Rust with panic=abort)"
        }
        _ => {
            "memories, tables and globals must be the module's own \
             (without --import-memory and --import-table)"
        }
    }
}

fn is_of_emscripten(module: &str, name: &str) -> bool {
    let is_minified = |name: &str| {
        name.len() <= 2 && name.chars().all(|it| it.is_ascii_alphanumeric() || "_$".contains(it))
    };
    let known = ["emscripten_", "_emscripten_", "invoke_", "__syscall_", "_embind_", "_emval_"];
    let others = ["__cxa_throw", "__cxa_begin_catch", "__cxa_find_matching_catch_3", "_abort_js"];
    match module {
        "env" => known.iter().any(|it| name.starts_with(it)) || others.contains(&name),
        // Optimized builds shorten all names to one or two letters.
        "a" => is_minified(name),
        _ => false,
    }
}

fn is_of_javascript(name: &str) -> bool {
    let of = ["console.", "Date.", "Math.", "performance.", "document.", "window.", "crypto."];
    of.iter().any(|it| name.starts_with(it))
}

/// For each proposal, words in the validator's messages about it, and the hint. From the special to
/// the general.
const PROPOSALS: [(&[&str], &str); 11] = [
    (
        &["shared-everything-threads"],
        "it uses threads that share everything, a draft that no toolchain needs; leave it out",
    ),
    (
        &["legacy exceptions", "exceptions", "try_table"],
        "exceptions are not served; build without them: in C++ without -fwasm-exceptions \
         (-fno-exceptions), in C without -mllvm -wasm-enable-sjlj, in Rust with panic=abort, in \
         Emscripten without -fwasm-exceptions and -sSUPPORT_LONGJMP=wasm",
    ),
    (
        &["memory64"],
        "64-bit memories are not served; build for wasm32 and not for wasm64, in Emscripten \
         without -sMEMORY64",
    ),
    (
        &["threads"],
        "threads, shared memories and atomics are not served; build without -pthread, -matomics \
         and --shared-memory, in Rust for wasm32-wasip1 and without +atomics",
    ),
    (
        &["gc ", "`gc`", "GC proposal", "function references", "custom descriptors"],
        "garbage collected types and typed function references are not served; Kotlin, Dart, Java \
         and OCaml need them on WebAssembly; in AssemblyScript and Binaryen leave out \
         --enable gc and --enable-gc",
    ),
    (&["wide arithmetic"], "wide arithmetic is not served; build without -mwide-arithmetic"),
    (&["stack switching"], "stack switching is not served; build without it"),
    (&["memory control"], "memory control is not served; build without it"),
    (&["custom page sizes"], "memories have pages of 64 KiB here; build without --page-size"),
    (
        &["component model"],
        "this part of the component model is a draft; build with a toolchain for WASI 0.2 or 0.3",
    ),
    (
        &["not enabled", "must be enabled", "requires the", "require the", "not supported"],
        "what is served of WebAssembly is version 2, and multiple memories, tail calls, extended \
         constants and relaxed SIMD; switch off in the compiler what is beyond that",
    ),
];

/// The hint for a module that needs a proposal, by the validator's message. `None` if the message
/// is about something else.
pub fn of_proposal(message: &str) -> Option<&'static str> {
    let general = PROPOSALS[PROPOSALS.len() - 1].0;
    let is_of = |words: &[&str]| words.iter().any(|it| message.contains(it));
    let is_one = is_of(general)
        || is_of(&["to be enabled", "is disabled", "are disallowed", " required for "]);
    let found = PROPOSALS.iter().find(|(words, _)| is_of(words));
    found.filter(|_| is_one).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests;
