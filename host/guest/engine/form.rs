//! The five forms of a guest, and the only place where they are told apart by name.
//!
//! Owns the enum. What a form has differs from one stage of a guest's life to the next: facts in
//! the cache, compiled code, linked code, an instance. Each stage is this enum with types of its
//! own, so that code of one form cannot meet an instance of another.

use serde::{Deserialize, Serialize};

/// What there is of a guest at one stage, by its form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form<Core, Whole02, Whole03, Flat02, Flat03> {
    /// A core module that speaks the http-wasm handler ABI.
    Core(Core),
    /// A component of wasi:http 0.2, run as it is.
    Whole02(Whole02),
    /// A component of wasi:http 0.3, run as it is.
    Whole03(Whole03),
    /// The one module of a component of wasi:http 0.2, with our own canonical ABI.
    Flat02(Flat02),
    /// The one module of a component of wasi:http 0.3, with our own canonical ABI.
    Flat03(Flat03),
}

impl<Core, Whole02, Whole03, Flat02, Flat03> Form<Core, Whole02, Whole03, Flat02, Flat03> {
    /// Whether it speaks wasi:http 0.3, so that an instance can handle requests beside each other.
    pub fn is_concurrent(&self) -> bool {
        matches!(self, Form::Whole03(_) | Form::Flat03(_))
    }

    /// What `check` calls it.
    pub fn describe(&self) -> &'static str {
        match self {
            Form::Core(_) => "core module (http-wasm handler)",
            Form::Whole02(_) | Form::Flat02(_) => "component (wasi:http 0.2)",
            Form::Whole03(_) | Form::Flat03(_) => "component (wasi:http 0.3)",
        }
    }
}

/// One expression for what there is, whatever the form.
macro_rules! each {
    ($form:expr, $it:pat => $body:expr) => {
        match $form {
            $crate::guest::engine::form::Form::Core($it) => $body,
            $crate::guest::engine::form::Form::Whole02($it) => $body,
            $crate::guest::engine::form::Form::Whole03($it) => $body,
            $crate::guest::engine::form::Form::Flat02($it) => $body,
            $crate::guest::engine::form::Form::Flat03($it) => $body,
        }
    };
}
pub(in crate::guest) use each;
