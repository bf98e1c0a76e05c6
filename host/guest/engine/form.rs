//! The five forms of a guest, and the only place that names all of them.
//!
//! Owns the enum. What each form has differs between the stages of a guest's life: metadata in the
//! cache, compiled code, linked code, an instance. Each stage is this enum with its own types, so
//! that code of one form cannot meet an instance of another.

use serde::{Deserialize, Serialize};

/// One stage of a guest's life, by the guest's form.
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
    /// Whether it speaks wasi:http 0.3, so that an instance can handle several requests at once.
    pub fn is_concurrent(&self) -> bool {
        matches!(self, Form::Whole03(_) | Form::Flat03(_))
    }

    /// The name of the form for `guesthouse check`.
    pub fn describe(&self) -> &'static str {
        match self {
            Form::Core(_) => "core module (http-wasm handler)",
            Form::Whole02(_) | Form::Flat02(_) => "component (wasi:http 0.2)",
            Form::Whole03(_) | Form::Flat03(_) => "component (wasi:http 0.3)",
        }
    }
}

/// Evaluates an expression on what is inside, whatever the form.
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
