//! Reads what the rewriting has to know of a module before it comes to the code.

use std::collections::BTreeSet;

use wasmparser::{
    ConstExpr, DataKind, ElementItems, ElementKind, Encoding, ExternalKind, FuncType, FunctionBody,
    Operator, Parser, Payload, TableInit, TypeRef, ValType,
};

use super::base::{Divisible, Result, damaged};
use super::call_graph::CallGraph;

/// An imported function.
pub struct ImportedFunction {
    /// The index of its type.
    pub ty: u32,
    pub name: String,
    /// Whether a call with a long range may become several calls.
    pub is_divisible: bool,
}

/// A module's types, functions and data segments, as far as the rewriting needs them.
#[derive(Default)]
pub struct Plan {
    pub types: Vec<FuncType>,
    pub imports: Vec<ImportedFunction>,
    /// The type indices of the functions that the module defines.
    pub defined: Vec<u32>,
    /// Imported functions that are not only called directly: a table, a global or an export has a
    /// reference to them, or may get one.
    pub referenced: BTreeSet<u32>,
    /// The lengths of its data segments in bytes, 0 for active ones.
    pub segments: Vec<u32>,
    /// For each defined function, what [`CallGraph::deep`] says.
    pub deep: Vec<bool>,
    graph: CallGraph,
    is_component: bool,
    /// Whether it imports or exports a function by its exact type (custom descriptors).
    is_exact: bool,
}

impl Plan {
    /// Reads a module.
    ///
    /// # Errors
    /// The module is not valid, or is a component.
    pub fn read(wasm: &[u8], divisible: &[Divisible]) -> Result<Plan> {
        let mut plan = Plan::default();
        for payload in Parser::new(0).parse_all(wasm) {
            plan.note(&payload.map_err(damaged)?, divisible).map_err(damaged)?;
        }
        plan.check()?;
        let imports = plan.imports.len() as u32;
        let targets = plan.referenced.iter().filter_map(|function| function.checked_sub(imports));
        plan.graph.targets = targets.collect();
        plan.deep = std::mem::take(&mut plan.graph).deep();
        plan.referenced.retain(|function| *function < imports);
        Ok(plan)
    }

    /// Checks that the indices that the rewriting uses are in bounds, as in any valid module.
    fn check(&self) -> Result<()> {
        if self.is_exact {
            return Err(
                "it imports or exports a function by its exact type, which is not served".into()
            );
        }
        let (types, functions) = (self.types.len() as u32, self.functions() as u32);
        let mut used = self.imports.iter().map(|it| it.ty).chain(self.defined.iter().copied());
        let defined = self.defined.len();
        let mut called = self.graph.calls.iter().flatten();
        let holds = !self.is_component
            && used.all(|ty| ty < types)
            && self.graph.calls.len() == defined
            && called.all(|callee| (*callee as usize) < defined)
            && self.referenced.last().is_none_or(|function| *function < functions);
        if holds {
            Ok(())
        } else {
            Err("not a valid module: it names what it does not have".into())
        }
    }

    /// The number of functions, imported and defined, before any is added.
    pub fn functions(&self) -> usize {
        self.imports.len() + self.defined.len()
    }

    pub fn ty(&self, index: u32) -> &FuncType {
        &self.types[index as usize]
    }

    fn note(&mut self, payload: &Payload<'_>, divisible: &[Divisible]) -> wasmparser::Result<()> {
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => self.is_component = true,
            Payload::TypeSection(section) => {
                for ty in section.clone().into_iter_err_on_gc_types() {
                    self.types.push(ty?);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    let import = import?;
                    self.is_exact |= matches!(import.ty, TypeRef::FuncExact(_));
                    let TypeRef::Func(ty) = import.ty else { continue };
                    let is_divisible = self.types.get(ty as usize).is_some_and(is_range)
                        && divisible
                            .iter()
                            .any(|it| (it.module, it.name) == (import.module, import.name));
                    self.imports.push(ImportedFunction {
                        ty,
                        name: import.name.to_owned(),
                        is_divisible,
                    });
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section.clone() {
                    self.defined.push(ty?);
                }
            }
            Payload::DataSection(section) => {
                for data in section.clone() {
                    let data = data?;
                    let is_passive = matches!(data.kind, DataKind::Passive);
                    // An active one is dropped as soon as it has been copied.
                    let len = if is_passive { data.data.len() } else { 0 };
                    self.segments.push(len as u32);
                }
            }
            Payload::CodeSectionEntry(body) => self.note_calls(body)?,
            payload => self.note_references(payload)?,
        }
        Ok(())
    }

    /// Notes which functions a function calls or refers to.
    fn note_calls(&mut self, body: &FunctionBody<'_>) -> wasmparser::Result<()> {
        let imports = self.imports.len() as u32;
        let (mut calls, mut is_indirect) = (Vec::new(), false);
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            match operators.read()? {
                Operator::RefFunc { function_index } => {
                    self.referenced.insert(function_index);
                }
                Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                    calls.extend(function_index.checked_sub(imports));
                }
                Operator::CallIndirect { .. }
                | Operator::ReturnCallIndirect { .. }
                | Operator::CallRef { .. }
                | Operator::ReturnCallRef { .. } => is_indirect = true,
                _ => {}
            }
        }
        calls.sort_unstable();
        calls.dedup();
        self.graph.calls.push(calls);
        self.graph.is_indirect.push(is_indirect);
        Ok(())
    }

    /// Notes the functions that other sections refer to.
    fn note_references(&mut self, payload: &Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    self.is_exact |= export.kind == ExternalKind::FuncExact;
                    if export.kind == ExternalKind::Func {
                        self.referenced.insert(export.index);
                    }
                }
            }
            Payload::GlobalSection(section) => {
                for global in section.clone() {
                    self.note_expression(&global?.init_expr)?;
                }
            }
            Payload::TableSection(section) => {
                for table in section.clone() {
                    if let TableInit::Expr(expression) = &table?.init {
                        self.note_expression(expression)?;
                    }
                }
            }
            Payload::ElementSection(section) => {
                for element in section.clone() {
                    let element = element?;
                    if let ElementKind::Active { offset_expr, .. } = &element.kind {
                        self.note_expression(offset_expr)?;
                    }
                    match element.items {
                        ElementItems::Functions(functions) => {
                            for function in functions {
                                self.referenced.insert(function?);
                            }
                        }
                        ElementItems::Expressions(_, expressions) => {
                            for expression in expressions {
                                self.note_expression(&expression?)?;
                            }
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note_expression(&mut self, expression: &ConstExpr<'_>) -> wasmparser::Result<()> {
        let mut operators = expression.get_operators_reader();
        while !operators.eof() {
            if let Operator::RefFunc { function_index } = operators.read()? {
                self.referenced.insert(function_index);
            }
        }
        Ok(())
    }
}

/// Whether a function's last two parameters can be a pointer and a length, and its result, if any,
/// an error number.
fn is_range(ty: &FuncType) -> bool {
    ty.params().ends_with(&[ValType::I32, ValType::I32])
        && matches!(ty.results(), [] | [ValType::I32])
}
