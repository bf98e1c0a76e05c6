//! Builds the demo guests into the host, and tells the host its commit and wasmtime version.
//!
//! Writes `OUT_DIR/demo_guests.rs`, with every guest's wasm as `DEMO_GUESTS`, and
//! `OUT_DIR/hostile_guests.rs`, with the texts of the hostile guests as `HOSTILE_GUESTS`. Sets the
//! environment variables `GUESTHOUSE_COMMIT` and `GUESTHOUSE_WASMTIME` for the compiler. Knows
//! nothing of what the guests do: one file in `guests/src/bin` or `guests/hostile` is one guest.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// A package of the guests' workspace, its compile target, and the folder with its guests.
struct Package {
    name: &'static str,
    folder: &'static str,
    target: &'static str,
    /// Goes before a guest's name if an earlier package has a guest of the same name.
    prefix: &'static str,
}

const PACKAGES: [Package; 3] = [
    Package { name: "guesthouse-guests", folder: "src/bin", target: "wasm32-wasip1", prefix: "" },
    Package {
        name: "guesthouse-guests-wasi02",
        folder: "wasi02/src/bin",
        target: "wasm32-wasip2",
        prefix: "wasi02/",
    },
    Package {
        name: "guesthouse-guests-wasi03",
        folder: "wasi03/src/bin",
        target: "wasm32-wasip2",
        prefix: "wasi03/",
    },
];

/// Source files and folders of the guests, and then of the host itself.
const GUEST_SOURCES: [&str; 7] = [
    "guests/.cargo/config.toml",
    "guests/Cargo.lock",
    "guests/Cargo.toml",
    "guests/hostile",
    "guests/src",
    "guests/wasi02",
    "guests/wasi03",
];
const HOST_SOURCES: [&str; 3] = ["Cargo.lock", "Cargo.toml", "host"];

/// Variables of the outer cargo that must not reach the build of the guests: flags and linkers of
/// another target, profiles, and wrappers such as clippy.
const NOT_FOR_GUESTS: [&str; 5] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
];
const NOT_FOR_GUESTS_PREFIXES: [&str; 3] = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_"];

/// A message to the user who started the build: one line, or a compiler's output and one line.
type Failure = String;

/// Reports a failure as `cargo::error`, which fails the build. An exit code or a panic would fail
/// it too, but bury the line that matters under everything else that this script has printed.
fn main() {
    if let Err(failure) = run() {
        for line in failure.lines().filter(|line| !line.is_empty()) {
            println!("cargo::error={line}");
        }
    }
}

fn run() -> Result<(), Failure> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    // Watch all sources of the host, so that `-dirty` is never out of date.
    for source in GUEST_SOURCES.iter().chain(&HOST_SOURCES) {
        rerun_if_changed(&root.join(source));
    }
    let wasmtime = wasmtime_version(&root);
    println!("cargo::rustc-env=GUESTHOUSE_WASMTIME={wasmtime}");
    println!("cargo::rustc-env=GUESTHOUSE_COMMIT={}", commit(&root));

    let guests = root.join("guests");
    let mut embedded: Vec<String> = Vec::new();
    for package in &PACKAGES {
        require_wasm_target(package.target, &guests)?;
        let built = build_guests(package, &guests, &out)?;
        for name in names(&guests.join(package.folder), ".rs")? {
            let is_taken = embedded.contains(&name);
            let prefix = if is_taken { package.prefix } else { "" };
            // Copy it now: the next package may build a guest of the same name to the same path.
            let from = built.join(&name).with_extension("wasm");
            copy(&from, &out, &format!("{prefix}{name}"))?;
            // Copy it also to where the user who builds the host can find it.
            let guests_built = built.ancestors().nth(2).unwrap_or(&built);
            copy(&from, guests_built, &format!("{prefix}{name}"))?;
            embedded.push(format!("{prefix}{name}"));
        }
    }
    embed(&embedded, &out)?;
    embed_hostile(&names(&guests.join("hostile"), ".wat")?, &out)
}

/// Makes sure that the compiler can build for `target`. Installs the target if rustup is there.
fn require_wasm_target(target: &str, guests: &Path) -> Result<(), Failure> {
    if wasm_target_installed(target, guests)? {
        return Ok(());
    }
    let add = ["target", "add", target];
    let reason = match Command::new("rustup").args(add).current_dir(guests).output() {
        Ok(output) if output.status.success() => {
            if wasm_target_installed(target, guests)? {
                return Ok(());
            }
            "rustup looks after another rustc".to_owned()
        }
        Ok(output) => last_line(&output.stderr),
        Err(error) => format!("cannot start rustup: {error}"),
    };
    Err(format!(
        "the demo handlers need Rust's {target} target: run `rustup target add {target}`, \
         or install it with whatever installed rustc ({reason})"
    ))
}

fn wasm_target_installed(target: &str, guests: &Path) -> Result<bool, Failure> {
    let rustc = variable("RUSTC")?;
    let output = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(guests)
        .output()
        .map_err(|error| format!("cannot start {}: {error}", rustc.display()))?;
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && Path::new(folder.trim()).is_dir())
}

/// Compiles all guests of a package and returns the folder with the results.
fn build_guests(package: &Package, guests: &Path, out: &Path) -> Result<PathBuf, Failure> {
    // OUT_DIR is <target>/<profile>/build/<package>/out. The guests get a target folder of their
    // own, because the outer cargo holds a lock on its own. All profiles share it, because guests
    // are always built for release.
    let target_dir = out.ancestors().nth(4).unwrap_or(out).join("guests");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.args(["build", "--release", "--locked", "--bins", "--target", package.target]);
    cargo.args(["--package", package.name]);
    cargo.arg("--target-dir").arg(&target_dir);
    // In this folder cargo finds `guests/.cargo/config.toml`.
    cargo.current_dir(guests);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if NOT_FOR_GUESTS.contains(&&*text)
            || NOT_FOR_GUESTS_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
        {
            cargo.env_remove(&name);
        }
    }
    let output =
        cargo.output().map_err(|error| format!("cannot start cargo for the demo: {error}"))?;
    if !output.status.success() {
        let reasons = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{reasons}\nthe demo handlers do not build; the lines above say why"));
    }
    Ok(target_dir.join(package.target).join("release"))
}

/// The names of the files in a folder with this ending, without the ending, sorted.
fn names(folder: &Path, ending: &str) -> Result<Vec<String>, Failure> {
    let cannot_read = |error| format!("cannot read {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot_read)? {
        let file = entry.map_err(cannot_read)?.file_name();
        if let Some(name) = file.to_string_lossy().strip_suffix(ending) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Writes the source file that includes all demo guests, which were copied next to it.
fn embed(names: &[String], out: &Path) -> Result<(), Failure> {
    let mut source = String::from(
        "/// The demo guests: name and wasm.\npub static DEMO_GUESTS: &[(&str, &[u8])] = &[\n",
    );
    for name in names {
        let file = file_name(name);
        writeln!(
            source,
            "    ({name:?}, include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{file}\"))),"
        )
        .map_err(|error| format!("cannot list {name}: {error}"))?;
    }
    source.push_str("];\n");
    write(&out.join("demo_guests.rs"), &source)
}

/// Copies a built guest into the folder `out`.
fn copy(from: &Path, out: &Path, name: &str) -> Result<(), Failure> {
    let copied = fs::copy(from, out.join(file_name(name)));
    copied.map(drop).map_err(|error| format!("cannot copy {}: {error}", from.display()))
}

fn file_name(name: &str) -> String {
    format!("{}.wasm", name.replace('/', "-"))
}

/// Writes the source file that includes the hostile guests from `guests/hostile`.
fn embed_hostile(names: &[String], out: &Path) -> Result<(), Failure> {
    let mut source = String::from(
        "/// The hostile guests: name and text.\npub static HOSTILE_GUESTS: &[(&str, &str)] = &[\n",
    );
    for name in names {
        let file = format!("/guests/hostile/{name}.wat");
        writeln!(
            source,
            "    ({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {file:?}))),"
        )
        .map_err(|error| format!("cannot list {name}: {error}"))?;
    }
    source.push_str("];\n");
    write(&out.join("hostile_guests.rs"), &source)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// The checked-out commit, with `-dirty` appended if the sources differ from it; `unknown` if there
/// is no repository, no git or no commit.
fn commit(root: &Path) -> String {
    // A source archive may lie inside someone else's repository, whose commit is not ours.
    if !root.join(".git").exists() {
        return "unknown".to_owned();
    }
    for place in ["HEAD", "refs/heads", "packed-refs"] {
        if let Some(path) = git(root, &["rev-parse", "--git-path", place]) {
            rerun_if_changed(&root.join(path));
        }
    }
    let Some(commit) = git(root, &["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let status = ["--no-optional-locks", "status", "--porcelain", "--"];
    match git(root, &[&status[..], &GUEST_SOURCES, &HOST_SOURCES].concat()) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit}-dirty"),
    }
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).current_dir(root).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The version of wasmtime that the host's lock file names.
fn wasmtime_version(root: &Path) -> String {
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    let mut lines = lock.lines().skip_while(|line| *line != "name = \"wasmtime\"").skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = "));
    version.map_or("unknown", |version| version.trim_matches('"')).to_owned()
}

/// Watches a path if it exists. A missing one would make cargo run this script on every build.
fn rerun_if_changed(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

fn variable(name: &str) -> Result<OsString, Failure> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this is cargo's build script"))
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given").to_owned()
}
