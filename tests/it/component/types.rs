//! An interface that a component imports only for its types: such imports are left when a world
//! could be middleware, or when an interface only names types of another one.

use wasm_encoder::{
    Alias, ComponentAliasSection, ComponentExportKind, ComponentImportSection,
    ComponentOuterAliasKind, ComponentSection as _, ComponentTypeRef, ComponentTypeSection,
    InstanceType, TypeBounds,
};
use wasmparser::{Parser, Payload, ValidPayload, Validator, WasmFeatures};

use super::{Host, assert_as_new, is_03, probe};

/// The probe with an import of the handler behind it. It takes only the name of a resource from it,
/// and wasi:http/types defines this resource.
fn importing_types() -> Vec<u8> {
    let (types, resource, handler) = match is_03() {
        true => ("wasi:http/types@0.3.", "request", "wasi:http/handler@0.3.0"),
        false => ("wasi:http/types@0.2.", "incoming-request", "wasi:http/incoming-handler@0.2.0"),
    };
    let mut component = probe().to_vec();
    let (instance, next) = places(&component, types);
    let mut aliases = ComponentAliasSection::new();
    let kind = ComponentExportKind::Type;
    aliases.alias(Alias::InstanceExport { instance, kind, name: resource });
    let mut named = InstanceType::new();
    let kind = ComponentOuterAliasKind::Type;
    named.alias(Alias::Outer { kind, count: 1, index: next });
    named.export(resource, ComponentTypeRef::Type(TypeBounds::Eq(0)));
    let mut described = ComponentTypeSection::new();
    described.instance(&named);
    let mut imports = ComponentImportSection::new();
    imports.import(handler, ComponentTypeRef::Instance(next + 1));
    aliases.append_to_component(&mut component);
    described.append_to_component(&mut component);
    imports.append_to_component(&mut component);
    component
}

/// The index of the instance whose import name begins like this, and the index of the next type.
fn places(component: &[u8], begins: &str) -> (u32, u32) {
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let (mut depth, mut instances, mut found, mut next) = (0, 0, None, 0);
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.expect("a component");
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section.clone() {
                    let import = import.expect("an import");
                    if import.name.name.starts_with(begins) {
                        found = Some(instances);
                    }
                    let is_instance =
                        matches!(import.ty, wasmparser::ComponentTypeRef::Instance(_));
                    instances += u32::from(is_instance);
                }
            }
            _ => {}
        }
        if let ValidPayload::End(types) = validator.payload(&payload).expect("a valid component")
            && depth == 0
        {
            next = types.as_ref().component_type_count();
        }
    }
    (found.expect("it imports that"), next)
}

#[test]
fn an_interface_may_be_imported_for_its_types_alone() {
    for isolation in crate::hostile::ISOLATIONS {
        let host =
            Host::with("probe.wasm", importing_types()).args(["--isolation", isolation]).start();
        host.settled();
        host.assert_serves("/probe/exact");
        assert_as_new(&host);
    }
}
