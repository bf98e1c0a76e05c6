//! The canonical built-ins of the component model that a module may import: for tasks, waitable
//! sets, streams and futures.
//!
//! Owns the names under which the host has them.

use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentDefinedType, ComponentValType, PrimitiveValType,
};

/// One canonical built-in, such as `stream.read`.
#[derive(Clone, Copy)]
pub struct Builtin {
    /// Its name in the component model, without a type.
    pub name: &'static str,
    /// The index of the stream, future or result type that it is for.
    pub ty: Option<u32>,
    memory: Option<Options>,
}

/// The canonical options of a lifted or lowered function or of a built-in. Memories and functions
/// are indices into the core index spaces of the component.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// The memory that values are passed in.
    pub memory: Option<u32>,
    /// The function that allocates in that memory.
    pub realloc: Option<u32>,
    /// Whether the call returns before the result is there.
    pub is_async: bool,
    /// The function that receives the events of an asynchronous task.
    pub callback: Option<u32>,
    /// Whether there is an option that flat components may not have.
    pub is_odd: bool,
}

/// A type of the component, in as much detail as is needed to recognise the types of wasi:http.
/// Numbers are indices of types.
#[derive(Clone, Copy)]
pub enum Ty<'a> {
    /// A type that the instance of this index exports under this name.
    Named(u32, &'a str),
    Own(u32),
    Option(u32),
    Result(Option<u32>, Option<u32>),
    Future(u32),
    Bytes,
    Other,
}

impl Ty<'_> {
    pub fn of(defined: &ComponentDefinedType<'_>) -> Self {
        let index = |ty: &ComponentValType| match ty {
            ComponentValType::Type(index) => Some(*index),
            ComponentValType::Primitive(_) => None,
        };
        let of = match defined {
            ComponentDefinedType::Own(index) => Some(Ty::Own(*index)),
            ComponentDefinedType::Option(ty) => index(ty).map(Ty::Option),
            ComponentDefinedType::Future(Some(ty)) => index(ty).map(Ty::Future),
            ComponentDefinedType::Stream(Some(ty)) => {
                (*ty == ComponentValType::Primitive(PrimitiveValType::U8)).then_some(Ty::Bytes)
            }
            ComponentDefinedType::Result { ok, err } => {
                let is_simple = |ty: &Option<ComponentValType>| {
                    ty.is_none_or(|ty| matches!(ty, ComponentValType::Type(_)))
                };
                let parts = (ok.as_ref().and_then(index), err.as_ref().and_then(index));
                (is_simple(ok) && is_simple(err)).then_some(Ty::Result(parts.0, parts.1))
            }
            _ => None,
        };
        of.unwrap_or(Ty::Other)
    }
}

impl Builtin {
    /// The built-in that a canonical function is, if the host may have it.
    pub fn of(function: &CanonicalFunction) -> Option<Builtin> {
        use CanonicalFunction as F;
        let plain = |name| Some(Builtin { name, ty: None, memory: None });
        let of = |name, ty: &u32| Some(Builtin { name, ty: Some(*ty), memory: None });
        let copies = |name, ty: &u32, options: &[_]| {
            let options = Options::read(options);
            // A synchronous one suspends the module in the middle of its call.
            let memory = options.is_async.then_some(options);
            memory.map(|memory| Builtin { name, ty: Some(*ty), memory: Some(memory) })
        };
        let polls = |name, memory: &u32| {
            let memory = Options { memory: Some(*memory), ..Options::default() };
            Some(Builtin { name, ty: None, memory: Some(memory) })
        };
        match function {
            F::ContextGet { slot: 0, .. } => plain("context.get 0"),
            F::ContextSet { slot: 0, .. } => plain("context.set 0"),
            F::ContextGet { slot: 1, .. } => plain("context.get 1"),
            F::ContextSet { slot: 1, .. } => plain("context.set 1"),
            F::TaskCancel => plain("task.cancel"),
            F::BackpressureInc => plain("backpressure.inc"),
            F::BackpressureDec => plain("backpressure.dec"),
            F::SubtaskDrop => plain("subtask.drop"),
            F::SubtaskCancel { .. } => plain("subtask.cancel"),
            F::WaitableSetNew => plain("waitable-set.new"),
            F::WaitableSetDrop => plain("waitable-set.drop"),
            F::WaitableJoin => plain("waitable.join"),
            F::WaitableSetPoll { memory, .. } => polls("waitable-set.poll", memory),
            F::WaitableSetWait { memory, .. } => polls("waitable-set.wait", memory),
            F::StreamNew { ty } => of("stream.new", ty),
            F::StreamRead { ty, options } => copies("stream.read", ty, options),
            F::StreamWrite { ty, options } => copies("stream.write", ty, options),
            F::StreamCancelRead { ty, .. } => of("stream.cancel-read", ty),
            F::StreamCancelWrite { ty, .. } => of("stream.cancel-write", ty),
            F::StreamDropReadable { ty } => of("stream.drop-readable", ty),
            F::StreamDropWritable { ty } => of("stream.drop-writable", ty),
            F::FutureNew { ty } => of("future.new", ty),
            F::FutureRead { ty, options } => copies("future.read", ty, options),
            F::FutureWrite { ty, options } => copies("future.write", ty, options),
            F::FutureCancelRead { ty, .. } => of("future.cancel-read", ty),
            F::FutureCancelWrite { ty, .. } => of("future.cancel-write", ty),
            F::FutureDropReadable { ty } => of("future.drop-readable", ty),
            F::FutureDropWritable { ty } => of("future.drop-writable", ty),
            F::TaskReturn { result: Some(ComponentValType::Type(ty)), options } => Some(Builtin {
                name: "task.return",
                ty: Some(*ty),
                memory: Some(Options::read(options)),
            }),
            _ => None,
        }
    }

    pub fn options(&self) -> Options {
        self.memory.unwrap_or_default()
    }
}

impl Options {
    pub fn read(options: &[CanonicalOption]) -> Self {
        let mut read = Options::default();
        for option in options {
            match option {
                CanonicalOption::UTF8 => {}
                CanonicalOption::Memory(index) => read.memory = Some(*index),
                CanonicalOption::Realloc(index) => read.realloc = Some(*index),
                CanonicalOption::Async => read.is_async = true,
                CanonicalOption::Callback(index) => read.callback = Some(*index),
                _ => read.is_odd = true,
            }
        }
        read
    }
}
