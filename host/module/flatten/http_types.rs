//! Recognises the types of wasi:http 0.3. The host has task, stream and future built-ins for these
//! types only.

use super::builtin::{Builtin, Ty};
use super::graph::Graph;

impl Builtin {
    /// The name under which the host has the built-in for this type, if it has it.
    pub fn host_name(&self, graph: &Graph<'_>) -> Option<String> {
        let Some(ty) = self.ty else { return Some(self.name.to_owned()) };
        let is = |kind| graph.is_type(ty, kind);
        if self.name == "task.return" {
            return is("result<response>").then(|| self.name.to_owned());
        }
        if self.name.starts_with("stream.") {
            return matches!(graph.types.get(ty as usize)?, Ty::Bytes)
                .then(|| self.name.to_owned());
        }
        let kind = ["sent", "trailers"].into_iter().find(|kind| is(kind))?;
        Some(format!("{} {kind}", self.name))
    }
}

impl Graph<'_> {
    /// Whether a type is of one of the kinds that the host knows:
    ///
    /// * `sent`: `future<result<_, error-code>>`
    /// * `trailers`: `future<result<option<trailers>, error-code>>`
    /// * `result<response>`: `result<response, error-code>`
    fn is_type(&self, ty: u32, kind: &str) -> bool {
        self.find_type(ty, kind).is_some()
    }

    fn find_type(&self, ty: u32, kind: &str) -> Option<()> {
        let get = |index: u32| self.types.get(index as usize).copied();
        let result = match (kind, get(ty)?) {
            ("result<response>", result) => result,
            (_, Ty::Future(result)) => get(result)?,
            _ => return None,
        };
        let Ty::Result(ok, Some(error)) = result else { return None };
        self.is_named(error, &["error-code"])?;
        match (kind, ok.map(get)) {
            ("sent", None) => Some(()),
            ("trailers", Some(Some(Ty::Option(fields)))) => match get(fields)? {
                Ty::Own(fields) => self.is_named(fields, &["fields", "trailers", "headers"]),
                _ => None,
            },
            ("result<response>", Some(Some(Ty::Own(response)))) => {
                self.is_named(response, &["response"])
            }
            _ => None,
        }
    }

    /// Checks that `wasi:http/types@0.3.x` exports the type under one of these names.
    fn is_named(&self, ty: u32, names: &[&str]) -> Option<()> {
        let Ty::Named(instance, name) = *self.types.get(ty as usize)? else { return None };
        let interface = self.import_name(instance)?;
        let is_http = interface.starts_with("wasi:http/types@0.3.");
        (is_http && names.contains(&name)).then_some(())
    }
}
