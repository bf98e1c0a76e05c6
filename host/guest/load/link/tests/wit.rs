//! The interfaces in the WIT texts of wasmtime's crates and of wasi:config, from which wasmtime's
//! own linkers are generated.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use guesthouse_module::interfaces::DROP;
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Function, LiftLowerAbi, ManglingAndAbi, Resolve, Type, TypeDefKind};

/// One function of an interface.
pub struct WitFunction {
    /// Its type as a core function.
    pub params: Vec<String>,
    pub results: Vec<String>,
    /// The parameters of its asynchronous form, for callers that do not wait.
    pub async_params: Vec<String>,
    /// Whether its result may contain text or lists.
    pub has_text: bool,
}

/// Drafts that the host has beyond the released interfaces.
const FEATURES: [&str; 1] = ["informational-outbound-responses"];

/// The interfaces of WASI 0.2 with wasi:config, and those of 0.3.
static RESOLVED: LazyLock<[Resolve; 2]> = LazyLock::new(|| {
    let http = sources("wasmtime-wasi-http");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    [vec![http.join("wit"), root.join("guests/wit")], vec![http.join("src/p3/wit")]].map(resolve)
});

fn resolve(folders: Vec<PathBuf>) -> Resolve {
    let mut resolve = Resolve::default();
    for feature in FEATURES {
        resolve.features.insert(feature.to_owned());
    }
    for folder in folders {
        let pushed = resolve.push_dir(&folder);
        drop(pushed.unwrap_or_else(|error| panic!("{}: {error:?}", folder.display())));
    }
    resolve
}

/// The folder of a dependency's sources.
fn sources(name: &str) -> PathBuf {
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["metadata", "--offline", "--locked", "--format-version", "1"]);
    // What only other systems need was never fetched. The variable comes from `.ci/timed`.
    cargo.args(["--filter-platform", "host-tuple"]).env_remove("RUSTC_BOOTSTRAP");
    let told = cargo.output().expect("cargo runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    let packages = told["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == name).expect("the crate");
    let manifest = PathBuf::from(package["manifest_path"].as_str().expect("a path"));
    manifest.parent().expect("a folder").to_owned()
}

/// Every function of WASI and wasi:config, by its module in the flat form and its name.
pub fn functions() -> BTreeMap<(String, String), WitFunction> {
    let mut known = BTreeMap::new();
    let all =
        RESOLVED.iter().flat_map(|it| it.interfaces.iter().map(move |(id, one)| (it, id, one)));
    for (resolve, id, interface) in all {
        let name = resolve.id_of(id).expect("an interface with a name");
        let Some((name, version)) = name.split_once('@') else { continue };
        let suffix = if version.starts_with("0.3.") { "@0.3" } else { "" };
        let module = format!("{name}{suffix}");
        for function in interface.functions.values() {
            let key = (module.clone(), function.name.clone());
            known.insert(key, of_function(resolve, function));
        }
        for (name, ty) in &interface.types {
            if matches!(resolve.types[*ty].kind, TypeDefKind::Resource) {
                let one = || vec!["i32".to_owned()];
                let (params, async_params) = (one(), one());
                let drop = WitFunction { params, results: vec![], async_params, has_text: false };
                known.insert((module.clone(), format!("{DROP}{name}")), drop);
            }
        }
    }
    known
}

fn of_function(resolve: &Resolve, function: &Function) -> WitFunction {
    let sync = resolve.wasm_signature(AbiVariant::GuestImport, function);
    let begun = resolve.wasm_signature(AbiVariant::GuestImportAsync, function);
    let texts = |types: &[WasmType]| types.iter().map(|ty| text(*ty).to_owned()).collect();
    WitFunction {
        params: texts(&sync.params),
        results: texts(&sync.results),
        async_params: texts(&begun.params),
        has_text: function.result.is_some_and(|ty| has_text(resolve, ty)),
    }
}

fn text(ty: WasmType) -> &'static str {
    match ty {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    }
}

/// Whether a value of this type may contain text or lists, other than behind a handle.
fn has_text(resolve: &Resolve, ty: Type) -> bool {
    let Type::Id(id) = ty else { return ty == Type::String };
    let has = |ty: &Type| has_text(resolve, *ty);
    match &resolve.types[id].kind {
        TypeDefKind::List(_) | TypeDefKind::Map(..) => true,
        TypeDefKind::Record(record) => record.fields.iter().any(|field| has(&field.ty)),
        TypeDefKind::Tuple(tuple) => tuple.types.iter().any(has),
        TypeDefKind::Variant(variant) => {
            variant.cases.iter().filter_map(|case| case.ty.as_ref()).any(has)
        }
        TypeDefKind::Option(ty) | TypeDefKind::Type(ty) | TypeDefKind::FixedLengthList(ty, _) => {
            has(ty)
        }
        TypeDefKind::Result(result) => [&result.ok, &result.err].into_iter().flatten().any(has),
        TypeDefKind::Resource
        | TypeDefKind::Handle(_)
        | TypeDefKind::Flags(_)
        | TypeDefKind::Enum(_)
        | TypeDefKind::Future(_)
        | TypeDefKind::Stream(_)
        | TypeDefKind::Unknown => false,
    }
}

/// A component that imports all of these interfaces with all their functions.
pub fn component(interfaces: &[String]) -> Vec<u8> {
    let is_03 = interfaces.iter().any(|name| name.contains("@0.3."));
    let mut resolve = RESOLVED[usize::from(is_03)].clone();
    let imports: String = interfaces.iter().map(|name| format!("import {name};\n")).collect();
    let world = format!("package test:all;\nworld all {{\n{imports}}}");
    let package = resolve.push_str("all.wit", &world).expect("a world");
    let world = resolve.select_world(&[package], Some("all")).expect("the world");
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Legacy(LiftLowerAbi::Sync));
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a module");
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    encoder.expect("a module").encode().expect("a component")
}
