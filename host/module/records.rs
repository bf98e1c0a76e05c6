//! Computes the cost of making an instance of a guest: the bytes of the engine's records beside
//! memories, tables and stack, and the pages and elements that are initialised.
//!
//! Owns these sums. They are read from the sections of a module or component, never from code, and
//! are upper bounds: the engine has records only for functions that can be referenced, and this
//! file counts every possible reference. The sizes are those of wasmtime's `VMOffsets` on 64 bits,
//! rounded up. Data segments are counted as wasmtime's `try_static_init` treats them.

mod size;
#[cfg(test)]
mod tests;

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, ConstExpr, DataKind, ElementItems, ElementKind, Encoding, ExternalKind,
    Instance, Operator, Parser, Payload, TypeRef,
};

use super::limits::ELEMENTS_MAX;
pub use size::Size;
use size::{given_component, given_module};

/// The part of an instance that is the same for all.
const FIXED_BYTES: usize = 1024;
/// The engine's record of a function or an import.
const RECORD_BYTES: usize = 32;
/// The engine's record of a canonical function of a component.
const CANON_BYTES: usize = 128;
const GLOBAL_BYTES: usize = 16;
const TABLE_BYTES: usize = 256;
const MEMORY_BYTES: usize = 256;
/// A passive segment, and each element of it.
const SEGMENT_BYTES: usize = 64;
const ELEMENT_BYTES: usize = 16;

/// The engine's memory for one decoded item of a section, rounded up: 900,000 exports took 105
/// bytes each. For a component's own sections, the memory is given for each byte of the section,
/// because a type can be as short as two bytes.
const TYPE_BYTES: usize = 256;
const IMPORT_BYTES: usize = 256;
const FUNCTION_BYTES: usize = 96;
const VARIABLE_BYTES: usize = 96;
const EXPORT_BYTES: usize = 128;
const COMPONENT_BYTES_PER_BYTE: usize = 16;

/// The most memory pages that may be written when an instance is made, which takes 2.5 us each.
/// Pages that can be mapped are not written.
const COPIED_PAGES_MAX: usize = 2_048;
/// The image of a memory may be sparse up to this size. Above it, the image may have at most twice
/// the bytes of its data. For all images of a file together the bound is twice the file's size.
const SPARSE_IMAGE_BYTES_MAX: u64 = 16 << 20;
const PAGE_BYTES: u64 = 4096;
/// The number of short segments that take as long to write as one page.
const SEGMENTS_PER_PAGE: usize = 128;

/// The cost of an instance of a module, or of all core instances in an instance of a component.
///
/// # Errors
/// A sentence that says which limit is exceeded, or that the bytes are not valid.
pub fn read(wasm: &[u8]) -> Result<Size, String> {
    let size = size(wasm)?;
    if size.given_components > 0 {
        return Err("it instantiates a component that it has imported, or that another one \
                    exports, so its size is not known: put it where it is instantiated"
            .into());
    }
    if size.elements > ELEMENTS_MAX {
        return Err(format!(
            "has {} elements for its tables, which can hold {ELEMENTS_MAX} at most",
            size.elements
        ));
    }
    if size.image_bytes > SPARSE_IMAGE_BYTES_MAX && size.image_bytes > 2 * wasm.len() as u64 {
        return Err(format!(
            "its memories begin with {} KiB from the first data to the last, most of which are \
             zeros, {} KiB at most: put the data close to each other",
            size.image_bytes >> 10,
            SPARSE_IMAGE_BYTES_MAX >> 10
        ));
    }
    if size.copied_pages > COPIED_PAGES_MAX {
        return Err(format!(
            "its data segments would be copied to {} pages of 4 KiB in each instance, \
             {COPIED_PAGES_MAX} at most: give them constant offsets, close to each other, in a \
             memory of their own module",
            size.copied_pages
        ));
    }
    Ok(size)
}

fn size(wasm: &[u8]) -> Result<Size, String> {
    let mut frames: Vec<Frame> = Vec::new();
    let (mut decoded_bytes, mut image_bytes, mut most) = (0, 0, Size::default());
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(|error| super::sniff::damaged(&error))?;
        match &payload {
            Payload::Version { encoding: Encoding::Module, .. } => {
                frames.push(Frame::Module(ModuleRecord::default()));
            }
            Payload::Version { encoding: Encoding::Component, .. } => {
                frames.push(Frame::Component(ComponentRecord::default()));
            }
            Payload::End(_) => {
                let Some(ended) = frames.pop() else { break };
                let size = ended.size();
                if let Frame::Module(_) = &ended {
                    image_bytes += size.image_bytes;
                }
                match (&ended, frames.last_mut()) {
                    (_, None) => {
                        return Ok(Size { decoded_bytes, image_bytes, ..size.resolved(most) });
                    }
                    (Frame::Module(_), Some(Frame::Component(in_))) => {
                        most = most.max(size);
                        in_.modules.push(size);
                    }
                    (_, Some(Frame::Component(in_))) => in_.components.push(size),
                    (_, Some(Frame::Module(_))) => {}
                }
            }
            payload => {
                decoded_bytes += decoded(payload).map_err(|error| super::sniff::damaged(&error))?;
                let (last, outer) = frames.split_last_mut().ok_or("it has no header")?;
                match last {
                    Frame::Module(module) => module.note(payload),
                    Frame::Component(component) => component.note(payload, outer),
                }
                .map_err(|error| super::sniff::damaged(&error))?;
            }
        }
    }
    Err("it has no end".into())
}

/// The bytes that the engine keeps for a decoded section.
fn decoded(payload: &Payload<'_>) -> wasmparser::Result<usize> {
    let of = |count: u32, bytes: usize| count as usize * bytes;
    Ok(match payload {
        Payload::TypeSection(section) => of(section.count(), TYPE_BYTES),
        Payload::FunctionSection(section) => of(section.count(), FUNCTION_BYTES),
        Payload::GlobalSection(section) => of(section.count(), VARIABLE_BYTES),
        Payload::TableSection(section) => of(section.count(), VARIABLE_BYTES),
        Payload::MemorySection(section) => of(section.count(), VARIABLE_BYTES),
        Payload::DataSection(section) => of(section.count(), VARIABLE_BYTES),
        Payload::ImportSection(section) => {
            let mut bytes = 0;
            for import in section.clone().into_imports() {
                let import = import?;
                bytes += IMPORT_BYTES + import.module.len() + import.name.len();
            }
            bytes
        }
        Payload::ExportSection(section) => {
            let mut bytes = 0;
            for export in section.clone() {
                bytes += EXPORT_BYTES + 2 * export?.name.len();
            }
            bytes
        }
        Payload::ElementSection(section) => {
            of(section.count(), VARIABLE_BYTES) + section.range().len() * ELEMENT_BYTES
        }
        Payload::CustomSection(section) if section.name() == "name" => 2 * section.data().len(),
        Payload::ComponentCanonicalSection(section) => of(section.count(), CANON_BYTES),
        Payload::ComponentTypeSection(_)
        | Payload::CoreTypeSection(_)
        | Payload::ComponentImportSection(_)
        | Payload::ComponentExportSection(_)
        | Payload::ComponentAliasSection(_)
        | Payload::InstanceSection(_)
        | Payload::ComponentInstanceSection(_) => {
            payload.as_section().map_or(0, |(_, range)| range.len() * COMPONENT_BYTES_PER_BYTE)
        }
        _ => 0,
    })
}

/// The module or component that is being read. Components nest, so there is a stack of them.
enum Frame {
    Module(ModuleRecord),
    Component(ComponentRecord),
}

#[derive(Default)]
struct ModuleRecord {
    imports: usize,
    functions: usize,
    globals: usize,
    tables: usize,
    memories: usize,
    /// The most functions that can be referenced: by exports, elements and initial values.
    references: usize,
    elements: usize,
    passive_segments: usize,
    passive_elements: usize,
    passive_data: usize,
    data: Data,
}

/// The data segments of a module.
#[derive(Default)]
struct Data {
    bytes: usize,
    imported_memories: usize,
    /// The initial bytes of each memory that the module defines.
    memories: Vec<u64>,
    /// The active segments with a constant offset: memory, begin and end.
    ranges: Vec<(u32, u64, u64)>,
    /// Whether the segments are copied into each instance, because the compiler cannot make images
    /// of them.
    is_dynamic: bool,
    /// Pages of the segments without a constant offset.
    dynamic_pages: usize,
}

/// A component: the costs of its modules and components, by index, and in `inside` the sum over all
/// instances that are made when it is instantiated.
#[derive(Default)]
struct ComponentRecord {
    modules: Vec<Size>,
    components: Vec<Size>,
    inside: Size,
}

impl Frame {
    fn size(&self) -> Size {
        match self {
            Frame::Module(module) => module.size(),
            Frame::Component(component) => component.inside,
        }
    }

    fn component(&self) -> Option<&ComponentRecord> {
        match self {
            Frame::Module(_) => None,
            Frame::Component(component) => Some(component),
        }
    }
}

impl ModuleRecord {
    fn note(&mut self, payload: &Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    let is_memory = matches!(import?.ty, TypeRef::Memory(_));
                    self.data.imported_memories += usize::from(is_memory);
                    self.imports += 1;
                }
            }
            Payload::FunctionSection(section) => self.functions += section.count() as usize,
            Payload::TagSection(section) => self.globals += section.count() as usize,
            Payload::TableSection(section) => self.tables += section.count() as usize,
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    let memory = memory?;
                    // The compiler makes no image of a memory with pages that are smaller than the
                    // kernel's. 64-bit memories are counted the same, to be safe.
                    self.data.is_dynamic |= memory.page_size_log2.is_some() || memory.memory64;
                    self.data.memories.push(memory.initial.saturating_mul(64 * 1024));
                    self.memories += 1;
                }
            }
            Payload::GlobalSection(section) => {
                self.globals += section.count() as usize;
                for global in section.clone() {
                    self.references += usize::from(global?.ty.content_type.is_reference_type());
                }
            }
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    let kind = export?.kind;
                    let is_function = matches!(kind, ExternalKind::Func | ExternalKind::FuncExact);
                    self.references += usize::from(is_function);
                }
            }
            Payload::ElementSection(section) => {
                for element in section.clone() {
                    let element = element?;
                    let count = match element.items {
                        ElementItems::Functions(items) => items.count(),
                        ElementItems::Expressions(_, items) => items.count(),
                    } as usize;
                    self.references += count;
                    self.elements += count;
                    if matches!(element.kind, ElementKind::Passive) {
                        self.passive_segments += 1;
                        self.passive_elements += count;
                    }
                }
            }
            Payload::DataSection(section) => {
                for data in section.clone() {
                    let data = data?;
                    self.data.bytes += data.data.len();
                    match data.kind {
                        DataKind::Passive => self.passive_data += 1,
                        DataKind::Active { memory_index, offset_expr } => {
                            let start = constant(&offset_expr)?;
                            self.data.note(memory_index, start, data.data.len() as u64);
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn size(&self) -> Size {
        let functions = self.references.min(self.functions + self.imports) + 1;
        let bytes = FIXED_BYTES
            + (self.imports + functions) * RECORD_BYTES
            + self.globals * GLOBAL_BYTES
            + self.tables * TABLE_BYTES
            + self.memories * MEMORY_BYTES
            + self.passive_segments * SEGMENT_BYTES
            + self.passive_elements * ELEMENT_BYTES
            + self.passive_data * GLOBAL_BYTES;
        let (copied_pages, pages, image_pages) = self.data.pages();
        Size {
            bytes,
            elements: self.elements,
            data_bytes: self.data.bytes,
            copied_pages,
            pages,
            image_bytes: image_pages as u64 * PAGE_BYTES,
            instances: 1,
            memories: self.memories,
            tables: self.tables,
            images: self.data.images(),
            ..Size::default()
        }
    }
}

impl Data {
    fn note(&mut self, memory: u32, start: Option<u64>, bytes: u64) {
        match start {
            Some(start) => self.ranges.push((memory, start, start + bytes)),
            None => {
                self.is_dynamic = true;
                self.dynamic_pages += (bytes / PAGE_BYTES) as usize + 2;
            }
        }
    }

    /// The number of memories with initial data.
    fn images(&self) -> usize {
        let mut memories: Vec<u32> = self.ranges.iter().map(|(memory, ..)| *memory).collect();
        memories.sort_unstable();
        memories.dedup();
        memories.len()
    }

    /// Three counts of pages: those written to an instance if images are mapped, those written if
    /// images are copied, and those of the images.
    fn pages(&self) -> (usize, usize, usize) {
        let mut ranges = self.ranges.clone();
        ranges.sort_unstable();
        let (mut pages, mut image_pages, mut is_dynamic) = (0, 0, self.is_dynamic);
        for ranges in ranges.chunk_by(|one, other| one.0 == other.0) {
            let (memory, first, _) = ranges[0];
            let (mut next, mut end, mut data_bytes) = (0, first, 0);
            for (_, start, stop) in ranges {
                (end, data_bytes) = (end.max(*stop), data_bytes + stop - start);
                if stop > start {
                    let from = (start / PAGE_BYTES).max(next);
                    next = next.max(stop.div_ceil(PAGE_BYTES));
                    pages += next.saturating_sub(from) as usize;
                }
            }
            let span = end - first;
            let defined = (memory as usize).checked_sub(self.imported_memories);
            let size = defined.and_then(|index| self.memories.get(index));
            is_dynamic |= size.is_none_or(|size| end > *size)
                || (span >= SPARSE_IMAGE_BYTES_MAX && span >= 2 * data_bytes);
            image_pages += span.div_ceil(PAGE_BYTES) as usize;
        }
        if is_dynamic {
            let copied = pages + self.dynamic_pages + self.ranges.len() / SEGMENTS_PER_PAGE;
            (copied, copied, 0)
        } else {
            (0, image_pages, image_pages)
        }
    }
}

/// The value of an expression that is one `i32.const`.
fn constant(expression: &ConstExpr<'_>) -> wasmparser::Result<Option<u64>> {
    let mut operators = expression.get_operators_reader();
    let value = match operators.read()? {
        Operator::I32Const { value } => u64::from(value.cast_unsigned()),
        _ => return Ok(None),
    };
    Ok(matches!(operators.read()?, Operator::End).then_some(value))
}

impl ComponentRecord {
    fn note(&mut self, payload: &Payload<'_>, outer: &[Frame]) -> wasmparser::Result<()> {
        match payload {
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        self.inside += module(&self.modules, module_index);
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.clone() {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                        self.inside += component(&self.components, component_index);
                        // The engine's adapter module through which other components call it.
                        self.inside += Size { instances: 1, ..Size::default() };
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                let bytes = section.count() as usize * CANON_BYTES;
                self.inside += Size { bytes, ..Size::default() };
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    self.alias(&alias?, outer);
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    match import?.ty {
                        ComponentTypeRef::Module(_) => self.modules.push(given_module()),
                        ComponentTypeRef::Component(_) => self.components.push(given_component()),
                        _ => {}
                    }
                }
            }
            // An export also adds an entry to the index space of its kind.
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    match export.kind {
                        ComponentExternalKind::Module => {
                            self.modules.push(module(&self.modules, export.index));
                        }
                        ComponentExternalKind::Component => {
                            self.components.push(component(&self.components, export.index));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>, outer: &[Frame]) {
        match alias {
            ComponentAlias::Outer { kind, count, index } => {
                let depth = outer.len().checked_sub(*count as usize);
                let from = depth.and_then(|depth| outer.get(depth)).and_then(Frame::component);
                let from = if *count == 0 { Some(&*self) } else { from };
                let (modules, components) =
                    from.map_or((&[][..], &[][..]), |it| (&it.modules, &it.components));
                match kind {
                    ComponentOuterAliasKind::CoreModule => {
                        let size = module(modules, *index);
                        self.modules.push(size);
                    }
                    ComponentOuterAliasKind::Component => {
                        let size = component(components, *index);
                        self.components.push(size);
                    }
                    _ => {}
                }
            }
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => {
                self.modules.push(given_module());
            }
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                self.components.push(given_component());
            }
            _ => {}
        }
    }
}

fn module(all: &[Size], index: u32) -> Size {
    all.get(index as usize).copied().unwrap_or_else(given_module)
}

fn component(all: &[Size], index: u32) -> Size {
    all.get(index as usize).copied().unwrap_or_else(given_component)
}
