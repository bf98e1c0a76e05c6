//! The inputs of the fuzzer: generated modules and components, real ones, and both with a few
//! changes. A seed always gives the same input, as long as the real ones stay the same.

use std::fs;
use std::path::{Path, PathBuf};

use arbitrary::{Arbitrary as _, Unstructured};
use wasm_smith::{Component, Config, Module};

use crate::random::Random;
use crate::{mutate, shapes};

/// The largest file that is read. Larger ones take too long.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One input.
pub struct Input {
    /// How it was made, or its file.
    pub origin: String,
    pub bytes: Vec<u8>,
    /// Whether the bytes are text.
    pub is_text: bool,
}

/// Real modules and components.
pub struct Corpus {
    texts: Vec<(String, String)>,
    binaries: Vec<(String, Vec<u8>)>,
}

impl Corpus {
    /// Reads the text modules of this repository, and the guests in the target folder.
    pub fn read() -> Corpus {
        let module = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = module.join("../..");
        let mut corpus = Corpus { texts: Vec::new(), binaries: Vec::new() };
        let built = std::env::current_exe().ok();
        let built = built.as_deref().and_then(|exe| exe.ancestors().nth(3));
        let folders = [
            Some(module.join("fixtures")),
            Some(root.join("guests/hostile")),
            Some(root.join("benches/scenarios/hostile")),
            built.map(|target| target.join("guests")),
        ];
        for path in folders.iter().flatten().flat_map(|folder| files(folder)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_text = path.extension().is_some_and(|ending| ending == "wat");
            if is_text && let Ok(text) = fs::read_to_string(&path) {
                corpus.texts.push((name.clone(), text));
            }
            if let Ok(binary) = wat::parse_file(&path) {
                corpus.binaries.push((name, binary));
            }
        }
        assert!(corpus.binaries.len() > 20, "the files of the repository are not found");
        corpus
    }

    /// The binaries, unchanged.
    #[cfg(test)]
    pub fn binaries(&self) -> &[(String, Vec<u8>)] {
        &self.binaries
    }

    /// A text with a few changes, as a binary if it is still valid.
    fn changed_text(name: &str, text: &str, random: &mut Random) -> Input {
        let text = mutate::text(text, random);
        let is_broken = random.one_in(8);
        match wat::parse_str(&text) {
            Ok(bytes) if !is_broken => {
                Input { origin: format!("changed text of {name}"), bytes, is_text: false }
            }
            _ => Input { origin: name.to_owned(), bytes: text.into(), is_text: true },
        }
    }

    /// The input of a seed.
    pub fn input(&self, seed: u64) -> Input {
        let mut random = Random::new(seed);
        let binary = |origin: String, bytes| Input { origin, bytes, is_text: false };
        match random.below(20) {
            0..=4 => binary("module".into(), module(&mut random)),
            5 => binary("component".into(), component(&mut random)),
            6 | 7 => {
                let bytes = module(&mut random);
                let other = &random.pick(&self.binaries).1;
                binary("changed module".into(), mutate::bytes(bytes, other, &mut random))
            }
            8 => {
                let bytes = component(&mut random);
                let other = &random.pick(&self.binaries).1;
                binary("changed component".into(), mutate::bytes(bytes, other, &mut random))
            }
            9 => {
                let (origin, bytes) = shapes::make(&mut random);
                binary(origin, bytes)
            }
            10..=12 => {
                let (name, text) = random.pick(&self.texts);
                Self::changed_text(name, text, &mut random)
            }
            // Few other inputs are components that can be flattened.
            13..=15 => {
                let is_fixture = |it: &&(String, String)| it.0.starts_with("http0");
                let fixtures: Vec<_> = self.texts.iter().filter(is_fixture).collect();
                let (name, text) = *random.pick(&fixtures);
                Self::changed_text(name, text, &mut random)
            }
            _ => {
                let (name, bytes) = random.pick(&self.binaries);
                let other = &random.pick(&self.binaries).1;
                let bytes = mutate::bytes(bytes.clone(), other, &mut random);
                binary(format!("changed {name}"), bytes)
            }
        }
    }
}

/// The modules and components in a folder that are not too large, sorted by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_small = |path: &PathBuf| {
        path.metadata().is_ok_and(|about| about.is_file() && about.len() <= FILE_BYTES_MAX)
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_small).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "wat" || it == "wasm"));
    files.sort();
    files
}

/// A configuration of the generator: the proposals that guests may use, and sizes that can be run.
fn config(unstructured: &mut Unstructured<'_>, random: &mut Random) -> Config {
    let mut config = if random.one_in(2) {
        Config::default()
    } else {
        Config::arbitrary(unstructured).unwrap_or_default()
    };
    config.exceptions_enabled = false;
    config.gc_enabled = false;
    config.custom_page_sizes_enabled = false;
    config.memory64_enabled = false;
    config.threads_enabled = false;
    config.shared_everything_threads_enabled = false;
    config.wide_arithmetic_enabled = false;
    config.bulk_memory_enabled = true;
    config.reference_types_enabled = true;
    config.simd_enabled = true;
    config.multi_value_enabled = true;
    config.tail_call_enabled = true;
    config.extended_const_enabled = true;
    config.saturating_float_to_int_enabled = true;
    config.sign_extension_ops_enabled = true;
    config.canonicalize_nans = false;
    config.max_memories = if random.one_in(4) { 3 } else { 1 };
    config.max_tables = 2;
    config.max_memory32_bytes = 20 << 16;
    config.max_table_elements = 1_000;
    config.max_instructions = *random.pick(&[20, 200, 2_000]);
    // Only exported state can be compared.
    config.export_everything = !random.one_in(3);
    config.disallow_traps = random.one_in(3);
    if random.one_in(3) {
        config.available_imports = wat::parse_str(IMPORTS).ok();
    } else if random.one_in(2) {
        (config.min_imports, config.max_imports) = (0, 0);
    }
    config
}

/// Some functions that guests import.
const IMPORTS: &str = r#"(module
    (import "http_handler" "write_body" (func (param i32 i32 i32)))
    (import "http_handler" "get_status_code" (func (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32))))"#;

fn module(random: &mut Random) -> Vec<u8> {
    let bytes = random.bytes(4_096);
    let mut unstructured = Unstructured::new(&bytes);
    let config = config(&mut unstructured, random);
    let Ok(mut module) = Module::new(config, &mut unstructured) else {
        return b"\0asm\x01\0\0\0".to_vec();
    };
    // Most modules get a bound on their run time, so that their functions can be called.
    if random.one_in(8) || module.ensure_termination(100).is_err() {
        return module.to_bytes();
    }
    module.to_bytes()
}

fn component(random: &mut Random) -> Vec<u8> {
    let bytes = random.bytes(4_096);
    let mut unstructured = Unstructured::new(&bytes);
    let mut config = config(&mut unstructured, random);
    config.available_imports = None;
    let component = Component::new(config, &mut unstructured);
    component.map_or_else(|_| b"\0asm\x0d\0\x01\0".to_vec(), |component| component.to_bytes())
}
