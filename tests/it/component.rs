//! Components of wasi:http. The tests use probes that do what their path says: `guests/probe02` and
//! `probe03`.
//!
//! All tests run three times (`main.rs`). The probe of 0.2 is flat. With a second core module that
//! does nothing, it is a whole component. The probe of 0.3 is whole as well; for some behaviours it
//! has only a similar one.
//!
//! Each behaviour has the same assertions as a hostile guest: the client gets the right answer, the
//! next request works, and every instance and every permit is back.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::client::{Connection, Response, message};
use crate::host::{Host, Setup, Status, command};

#[path = "component/bounds.rs"]
mod bounds;
#[path = "component/client_disconnects.rs"]
mod client_disconnects;
#[path = "component/early.rs"]
mod early;
#[path = "component/elsewhere.rs"]
mod elsewhere;
#[path = "component/ends.rs"]
mod ends;
#[path = "component/framing.rs"]
mod framing;
#[path = "component/heads.rs"]
mod heads;
#[path = "component/raw_connection.rs"]
pub mod raw_connection;
#[path = "component/settings.rs"]
mod settings;
#[path = "component/streams.rs"]
mod streams;
#[path = "component/types.rs"]
mod types;
#[path = "component/uploads.rs"]
mod uploads;
#[path = "component/world.rs"]
mod world;

/// The bytes of the probe, built once for all tests of this process.
pub fn probe() -> &'static [u8] {
    static WASM: OnceLock<Vec<u8>> = OnceLock::new();
    WASM.get_or_init(|| match (is_03(), is_flat()) {
        (false, true) => build("probe02", true),
        (false, false) => whole(build("probe02", true)),
        (true, is_flat) => build("probe03", !is_flat),
    })
}

/// Whether these are the tests of a flat probe.
fn is_flat() -> bool {
    !module_path!().ends_with("_whole")
}

/// Whether these are the tests of the probe of wasi:http 0.3.
fn is_03() -> bool {
    module_path!().contains("component_03")
}

/// The component with one more core module and an instance of it, after the three that it has.
fn whole(mut component: Vec<u8>) -> Vec<u8> {
    const CORE_MODULE: &[u8] = b"\x01\x08\0asm\x01\0\0\0";
    const CORE_INSTANCE: &[u8] = b"\x02\x04\x01\x00\x03\x00";
    component.extend_from_slice(CORE_MODULE);
    component.extend_from_slice(CORE_INSTANCE);
    component
}

/// Builds a probe, with all its behaviours or without those that keep it from being flat. The
/// target folder is kept, so that later runs are short.
fn build(name: &str, with_all: bool) -> Vec<u8> {
    let folder = if with_all { name.to_owned() } else { format!("{name}-less") };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    // In this folder cargo finds `guests/.cargo/config.toml`.
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("guests"));
    cargo.args(["build", "--release", "--locked", "--target", "wasm32-wasip2"]);
    cargo.arg("--package").arg(format!("guesthouse-guests-{name}"));
    cargo.arg("--target-dir").arg(&target);
    if !with_all {
        cargo.arg("--no-default-features");
    }
    // A guest must not be built with the flags and profiles of the build that runs this test.
    let is_ours = |name: &OsString| {
        let name = name.to_string_lossy();
        let is_flag =
            ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_BOOTSTRAP"];
        is_flag.contains(&&*name) || name.starts_with("CARGO_PROFILE_")
    };
    for name in std::env::vars_os().map(|(name, _)| name).filter(is_ours) {
        cargo.env_remove(name);
    }
    let built = cargo.output().expect("cargo runs");
    let told = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "the probe does not build:\n{told}");
    let file = format!("wasm32-wasip2/release/guesthouse_guests_{name}.wasm");
    fs::read(target.join(file)).expect("the probe that was built")
}

/// Which form the probe has. It also shows that every function it imports exists in both forms.
#[test]
fn one_module_is_reset_and_a_component_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("probe.wasm");
    fs::write(&file, probe()).expect("a file");
    let output = command().arg("check").arg(&file).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    const WHOLE: &str = "  form: whole, by the engine's component linker; not flat: it ";
    let (form, words) = match (is_flat(), is_03()) {
        (true, _) => ("  form: flat, ".to_owned(), "instances are reset"),
        (false, false) => (format!("{WHOLE}is made of 4 core modules"), "instances are made anew"),
        (false, true) => (format!("{WHOLE}imports wasi:"), "instances are made anew"),
    };
    assert!(said.contains(&form) && said.contains(words), "{said}");
}

/// A host with the probe. Its behaviours are at `/probe/NAME`.
fn setup(flags: &[&str]) -> Setup {
    Host::with("probe.wasm", probe()).args(flags)
}

/// The same host, started and with the probe loaded.
#[track_caller]
pub fn start(flags: &[&str]) -> Host {
    let host = setup(flags).start();
    host.settled();
    host
}

/// Asserts that the probe serves and that the host is at rest.
#[track_caller]
pub fn assert_as_new(host: &Host) -> Status {
    host.assert_serves("/probe/exact");
    host.at_rest()
}

/// The text of a behaviour's answer to a GET.
#[track_caller]
pub fn text(host: &Host, path: &str) -> String {
    let answer = host.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

/// How an answer ended.
#[derive(Debug)]
pub enum Came {
    Whole(Response),
    /// It broke off, and the client can tell.
    Cut,
}

/// A GET whose answer may be cut off.
#[track_caller]
pub fn get_or_cut(host: &Host, path: &str) -> Came {
    let mut connection: Connection = host.connect();
    connection.send(message("GET", path, &[], b""));
    match connection.next("GET") {
        Ok(Some(answer)) => Came::Whole(answer),
        Err(error) if is_cut(&error) => Came::Cut,
        other => panic!("{path}: {other:?}"),
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}
