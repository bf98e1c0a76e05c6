//! `guesthouse check`: what a file is, what it imports, and whether it would be served.
//!
//! Owns only the order of the findings. The loader judges.

use std::path::Path;
use std::sync::Arc;

use guesthouse_module::{component, sniff, text};

use super::compiler_process::{Bounds, CancelToken};
use super::link::GuestSpec;
use super::loader::{Contents, Loaded, Loader, Settings};
use crate::config::LogFormat;
use crate::grants::Grants;
use crate::guest::engine::budget::Budget;
use crate::guest::engine::form::Form;
use crate::log::escape;

/// The findings about one file. The texts come from the file: escape them for a terminal.
pub struct Report {
    /// What the file is, in words.
    pub kind: String,
    /// In which form it would be served, and why not in a faster one.
    pub form: Option<String>,
    /// Its imports, one text for each.
    pub imports: Vec<String>,
    /// Its exports, one text for each.
    pub exports: Vec<String>,
    /// What else is known: sizes, and what happens at start-up.
    pub notes: Vec<String>,
    /// Whether it would be served. If not, why.
    pub verdict: Result<(), String>,
}

impl Report {
    fn failed(kind: &str, reason: String) -> Self {
        let (imports, exports, notes) = Default::default();
        Report { kind: kind.into(), form: None, imports, exports, notes, verdict: Err(reason) }
    }
}

/// Checks a file: does all that serving it would take, except requests.
pub fn inspect(path: &Path, grants: &Arc<Grants>) -> Report {
    let source = Contents::read(path);
    let source = source.map_err(|failure| failure.reason);
    let wasm = source.as_ref().map_err(Clone::clone).and_then(|source| match source.is_text {
        true => text::binary(&source.bytes, escape),
        false => Ok(source.bytes.clone()),
    });
    let (source, wasm) = match (source, wasm) {
        (Ok(source), Ok(wasm)) => (source, wasm),
        (Err(reason), _) | (_, Err(reason)) => return Report::failed("unknown", reason),
    };
    let mut report = match describe(&wasm) {
        Ok(report) => report,
        Err(reason) => {
            let head = wasm.first_chunk().map_or("unknown", sniff::kind);
            let kind = if head == "component" { "component" } else { "not a handler" };
            return Report::failed(kind, reason);
        }
    };
    let settings = Settings {
        memory_bytes_max: grants.limits.memory_bytes_max,
        workers: 1,
        memory: Budget::unlimited(),
        mappings_max: None,
        cache_dir: None,
        log: LogFormat::Text,
    };
    let loaded = Loader::new(&settings).map_err(|error| format!("{error:#}")).and_then(|loader| {
        let name = &*path.to_string_lossy();
        let key = loader.key(&source);
        let spec = GuestSpec { id: 0, name, grants };
        let mut bounds = Bounds { cancel: &CancelToken::default(), take: &mut |_| Ok(()) };
        loader.load(&source, key, &spec, &mut bounds).map_err(|failure| failure.reason)
    });
    match loaded {
        Ok(loaded) => {
            report.kind = loaded.guest.code.describe().into();
            report.form = Some(form(&loaded));
            report.notes.push(loaded.guest.startup_note());
        }
        Err(reason) => report.verdict = Err(reason),
    }
    report
}

/// What a module or component says of itself.
fn describe(wasm: &[u8]) -> Result<Report, String> {
    if sniff::is_component(wasm) {
        let about = component::read(wasm)?;
        return Ok(Report {
            kind: "component".into(),
            form: None,
            notes: vec![sizes(about.memory_bytes, about.data_bytes)],
            imports: about.imports,
            exports: about.exports,
            verdict: Ok(()),
        });
    }
    let about = sniff::read(wasm)?;
    let import = |it: &sniff::Import| format!("{}::{} {}", it.module, it.name, it.ty);
    Ok(Report {
        kind: "core module".into(),
        form: None,
        imports: about.imports.iter().map(import).collect(),
        exports: about.exports.iter().map(|it| format!("{} {}", it.name, it.ty)).collect(),
        notes: vec![sizes(about.memory_bytes, about.data_bytes)],
        verdict: Ok(()),
    })
}

/// What is instantiated for a request, and why a component is not served flat.
fn form(loaded: &Loaded) -> String {
    match &loaded.guest.code {
        Form::Core(_) => "core, the module itself".into(),
        Form::Flat02(_) | Form::Flat03(_) => {
            "flat, its one core module by the host's own canonical ABI".into()
        }
        Form::Whole02(_) | Form::Whole03(_) => format!(
            "whole, by the engine's component linker; not flat: {}",
            loaded.not_flat.as_deref().unwrap_or("that was not tried")
        ),
    }
}

fn sizes(memory_bytes: u64, data_bytes: usize) -> String {
    format!(
        "{} KiB of memory to begin with, {} KiB of data",
        memory_bytes >> 10,
        data_bytes.div_ceil(1024)
    )
}
