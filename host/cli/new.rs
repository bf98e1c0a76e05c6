//! `guesthouse new`: writes a handler to start from and says what to run next.
//!
//! The commands that it prints work unchanged in the folder where it was run.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, anyhow};

use crate::config::Mistakes;

/// The language of the new handler.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Template {
    /// A Cargo project, compiled to WebAssembly
    Rust,
    /// A component by componentize-py: real CPython
    Python,
    /// A component by jco: the engine of Firefox
    Javascript,
    /// WebAssembly as text, served as it is
    Wat,
}

/// Files of a project: path and text. `{{name}}` stands for the handler's name.
type Files = [(&'static str, &'static str)];

const RUST: &Files = &[
    (".gitignore", "/target\n"),
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml.in")),
    ("src/main.rs", include_str!("templates/rust/main.rs")),
    (".cargo/config.toml", include_str!("templates/rust/config.toml")),
    ("README.md", include_str!("templates/rust/README.md.in")),
];

const PYTHON: &Files = &[
    (".gitignore", "/.venv\n/*.wasm\n"),
    ("requirements.txt", include_str!("templates/python/requirements.txt")),
    ("src/handler.py", include_str!("templates/python/handler.py")),
    ("wit/http.wit", include_str!("../../guests/python/wit/http.wit")),
    ("README.md", include_str!("templates/python/README.md.in")),
];

const JAVASCRIPT: &Files = &[
    (".gitignore", "/node_modules\n/*.wasm\n"),
    ("package.json", include_str!("templates/javascript/package.json.in")),
    ("src/handler.js", include_str!("templates/javascript/handler.js")),
    ("wit/http.wit", include_str!("../../guests/javascript/wit/http.wit")),
    ("README.md", include_str!("templates/javascript/README.md.in")),
];

const WAT: &str = include_str!("templates/handler.wat");

/// The limit on a name. A file name may have 255 bytes, but Cargo adds to it.
const NAME_BYTES_MAX: usize = 64;

/// Writes a new handler called `name` into the current folder. Returns a text that says what to do
/// next.
///
/// # Errors
/// The name is not valid, or a file exists already or cannot be written.
pub fn create(template: Template, name: &str) -> anyhow::Result<String> {
    validate(template, name).map_err(|mistake| Mistakes(vec![format!("NAME: {mistake}")]))?;
    let (created, mut commands, file) = match template {
        Template::Rust => (
            project(name, RUST)?,
            vec![
                "rustup target add wasm32-wasip1".to_owned(),
                // `--target-dir` overrides a target folder that is configured elsewhere.
                format!("(cd {name} && cargo build --release --target-dir target)"),
            ],
            format!("{name}/target/wasm32-wasip1/release/{name}.wasm"),
        ),
        Template::Python => (
            project(name, PYTHON)?,
            vec![
                format!("python3 -m venv {name}/.venv"),
                format!("{name}/.venv/bin/pip install -r {name}/requirements.txt"),
                format!(
                    "(cd {name} && .venv/bin/componentize-py -d wit -w handler componentize -p src \
                     handler -o {name}.wasm)"
                ),
            ],
            format!("{name}/{name}.wasm"),
        ),
        Template::Javascript => (
            project(name, JAVASCRIPT)?,
            vec![format!("(cd {name} && npm install && npm run build)")],
            format!("{name}/{name}.wasm"),
        ),
        Template::Wat => (wat(name)?, Vec::new(), format!("{name}.wat")),
    };
    commands.push("mkdir -p handlers".to_owned());
    commands.push(format!("cp {file} handlers/"));
    commands.push(format!("{} serve handlers", program()));
    let (commands, path) = (commands.join("\n  "), url_path(name));
    Ok(format!(
        "{created}\nNext:\n\n  {commands}\n\n\
         Then, in another terminal:\n\n  curl http://127.0.0.1:8080/{path}\n"
    ))
}

fn project(name: &str, files: &Files) -> anyhow::Result<String> {
    fs::create_dir(name).map_err(|error| refused(name, error))?;
    let mut created = String::new();
    for (file, text) in files {
        let path = Path::new(name).join(file);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let text = text.replace("{{name}}", name).replace("{{path}}", url_path(name));
        write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        created += &format!("created {}\n", path.display());
    }
    Ok(created)
}

fn wat(name: &str) -> anyhow::Result<String> {
    let file = format!("{name}.wat");
    write(Path::new(&file), WAT).map_err(|error| refused(&file, error))?;
    Ok(format!("created {file}\n"))
}

fn refused(path: &str, error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return anyhow!("{path} is already there; choose another name, or move it away");
    }
    anyhow::Error::new(error).context(format!("cannot create {path}"))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    File::create_new(path)?.write_all(text.as_bytes())
}

/// The path that the handler answers. An `index` answers the folder that it is in.
fn url_path(name: &str) -> &str {
    if name == "index" { "" } else { name }
}

/// The name by which this program was called, so that the printed command finds it again.
fn program() -> String {
    let called = std::env::args_os().next().filter(|path| !path.is_empty());
    let called = called.unwrap_or_else(|| "guesthouse".into()).to_string_lossy().into_owned();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if called.chars().all(is_plain) {
        called
    } else {
        format!("'{}'", called.replace('\'', r"'\''"))
    }
}

/// Checks a name, which must be valid for a Cargo package, for a file and in a URL.
fn validate(template: Template, name: &str) -> Result<(), String> {
    const FORM: &str =
        "begin with a-z and go on with a-z, 0-9, - and _, such as hello or my-handler";
    let is_name_byte = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.bytes().all(is_name_byte) {
        return Err(format!("{name:?} cannot be a name; {FORM}"));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("the name has {} bytes; use at most {NAME_BYTES_MAX}", name.len()));
    }
    if matches!(template, Template::Rust) && RESERVED.split(' ').any(|word| word == name) {
        return Err(format!("{name:?} means something to Rust or Cargo; choose another name"));
    }
    Ok(())
}

/// Rust's keywords, and names that Cargo refuses for a program.
const RESERVED: &str = "\
    abstract alloc as async await become box break build const continue core crate deps do dyn \
    else enum examples extern final fn for gen if impl in incremental let loop macro match mod \
    move mut override priv proc_macro pub ref return self static std struct super test trait \
    try type typeof unsafe unsized use virtual where";
