//! Generates a good guest from its number alone.
//!
//! Owns how a guest is drawn, what it computes and how it is encoded. Most guests answer from state
//! that they change afterwards. So if an answer differs from the first one, the request did not get
//! a fresh sandbox.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, CustomSection, DataSection, ElementSection, Elements,
    EntityType, ExportKind, ExportSection, Function, FunctionSection, GlobalSection, GlobalType,
    HeapType, ImportSection, InstructionSink, MemArg, MemorySection, MemoryType, Module, RefType,
    TableSection, TableType, TypeSection, ValType,
};

fn greeting(index: usize) -> String {
    format!("stranger {index:05}: ")
}

/// splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
/// Consecutive seeds give unrelated sequences.
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `range`. The bias of the remainder does not matter here.
    fn within(&mut self, range: RangeInclusive<u32>) -> u32 {
        let span = u64::from(range.end() - range.start()) + 1;
        range.start() + (self.draw() % span) as u32
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.within(1..=count) == 1
    }

    /// A constant of 32 bits, which takes at most five bytes of code.
    fn constant(&mut self) -> i64 {
        i64::from(self.draw() as i32)
    }
}

/// The custom section with the guest's answer. The host ignores it.
const ANSWER_SECTION: &str = "answer";
/// Name and value of a header. All guests have it in memory after their answer; some set it.
const TYPE_HEADER: [&str; 2] = ["content-type", "text/plain"];
/// The address where the request's URI is read to, after the data of any guest.
const SCRATCH: i32 = 0x8000;
const SCRATCH_BYTES: i32 = 4096;

/// One step of a computation. Every step is reversible, so no bit of the input is lost.
enum Step {
    Add(i64),
    Xor(i64),
    /// Multiply by an odd number.
    Multiply(i64),
    /// Rotate left by this many bits.
    Rotate(i64),
    /// `x ^ (x >> bits)`.
    Fold(i64),
    /// Xor with the eight bytes at this address.
    Word(u32),
}

impl Step {
    fn draw(random: &mut Random, segments: &[(u32, Vec<u8>)]) -> Self {
        match random.within(0..=5) {
            0 => Step::Add(random.constant()),
            1 => Step::Xor(random.constant()),
            2 => Step::Multiply(random.constant() | 1),
            3 => Step::Rotate(random.within(1..=63).into()),
            4 => Step::Fold(random.within(1..=63).into()),
            _ => {
                let number = random.within(1..=segments.len() as u32) as usize - 1;
                let (start, data) = &segments[number];
                Step::Word(start + random.within(0..=data.len() as u32 - 8))
            }
        }
    }

    fn apply(&self, x: u64, memory: &[u8]) -> u64 {
        match *self {
            Step::Add(c) => x.wrapping_add(c.cast_unsigned()),
            Step::Xor(c) => x ^ c.cast_unsigned(),
            Step::Multiply(c) => x.wrapping_mul(c.cast_unsigned()),
            Step::Rotate(bits) => x.rotate_left(bits as u32),
            Step::Fold(bits) => x ^ (x >> bits),
            Step::Word(at) => {
                let bytes = memory[at as usize..].iter().take(8).rev();
                x ^ bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
            }
        }
    }

    /// Takes one i64 from the stack and leaves one. Local 0 is free.
    fn encode(&self, code: &mut InstructionSink<'_>) {
        match *self {
            Step::Add(c) => code.i64_const(c).i64_add(),
            Step::Xor(c) => code.i64_const(c).i64_xor(),
            Step::Multiply(c) => code.i64_const(c).i64_mul(),
            Step::Rotate(bits) => code.i64_const(bits).i64_rotl(),
            Step::Fold(bits) => {
                code.local_tee(0).local_get(0).i64_const(bits).i64_shr_u().i64_xor()
            }
            Step::Word(at) => code.i32_const(at.cast_signed()).i64_load(UNALIGNED).i64_xor(),
        };
    }
}

const UNALIGNED: MemArg = MemArg { offset: 0, align: 0, memory_index: 0 };

/// One function of the chain, from one number to another.
struct ChainFunction {
    steps: Vec<Step>,
    /// Whether it calls the next function before its own steps, or after them.
    calls_first: bool,
}

/// State that a request leaves behind and that cannot be reset in place, so the host has to make a
/// new instance.
enum LastingState {
    /// The chain is called through a table, whose entry is removed after the answer.
    Table,
    /// The memory grows by a page, and the answer depends on its size before that.
    Memory,
}

/// A good guest, before it is encoded as WebAssembly.
pub struct Stranger {
    index: usize,
    /// The address of the answer's digits; the answer begins at 0.
    digits_at: i32,
    /// The size of the memory in pages of 64 KiB.
    pages: u32,
    /// Data segments by address. The first begins with the answer and a header.
    segments: Vec<(u32, Vec<u8>)>,
    /// The argument of the first function, before the globals are added to it.
    seed: i64,
    /// The initial values of the globals.
    globals: Vec<i64>,
    chain: Vec<ChainFunction>,
    /// Whether it sets a response header.
    sets_type: bool,
    /// Whether it reads the request's URI.
    asks: bool,
    /// After the answer, overwrites a part of its memory: address, value, number of bytes.
    fill: Option<[i32; 3]>,
    lasting_state: Option<LastingState>,
}

impl Stranger {
    /// The guest of this number.
    pub fn new(index: usize) -> Self {
        let random = &mut Random(index as u64);
        let greeting = greeting(index);
        let texts = format!("{greeting}{:016}\n{}", 0, TYPE_HEADER.concat());
        let segments = segments(random, texts.into_bytes());
        let mut chain = Vec::new();
        for _ in 0..random.within(3..=30) {
            let steps = random.within(3..=40);
            let steps = (0..steps).map(|_| Step::draw(random, &segments)).collect();
            chain.push(ChainFunction { steps, calls_first: random.one_in(2) });
        }
        Stranger {
            index,
            digits_at: greeting.len() as i32,
            pages: random.within(1..=2),
            segments,
            seed: random.constant(),
            globals: (0..random.within(0..=4)).map(|_| random.constant()).collect(),
            chain,
            sets_type: random.one_in(8),
            asks: random.one_in(16),
            fill: random.one_in(8).then(|| {
                let fill = [0..=4096, 1..=255, 2048..=6144].map(|range| random.within(range));
                fill.map(u32::cast_signed)
            }),
            lasting_state: match random.within(1..=32) {
                1 => Some(LastingState::Table),
                2 => Some(LastingState::Memory),
                _ => None,
            },
        }
    }

    /// The number that a fresh instance computes, by the same steps as its code.
    fn digits(&self) -> u64 {
        let mut memory = Vec::new();
        for (start, data) in &self.segments {
            memory.resize(*start as usize, 0);
            memory.extend(data);
        }
        let add = |sum: u64, global: &i64| sum.wrapping_add(global.cast_unsigned());
        let start = self.globals.iter().fold(self.seed.cast_unsigned(), add);
        let end = run(&self.chain, start, &memory);
        match self.lasting_state {
            Some(LastingState::Memory) => end.wrapping_add(self.pages.into()),
            _ => end,
        }
    }

    /// The response body of a fresh instance.
    fn answer(&self) -> String {
        format!("{}{:016x}\n", greeting(self.index), self.digits())
    }

    /// The module. Its last section contains the answer, so that a test can look it up.
    pub fn encode(&self) -> Vec<u8> {
        let (types, imports) = types_and_imports();
        let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
        functions.function(HANDLE_REQUEST).function(WRITE_DIGITS);
        code.function(&self.handle_request()).function(&self.write_digits());
        let last = CHAIN + self.chain.len() as u32 - 1;
        for (link, index) in self.chain.iter().zip(CHAIN..) {
            functions.function(CHAIN);
            code.function(&link.encode((index < last).then_some(index + 1)));
        }
        let (mut tables, mut elements) = (TableSection::new(), ElementSection::new());
        if let Some(LastingState::Table) = self.lasting_state {
            tables.table(TableType {
                element_type: RefType::FUNCREF,
                table64: false,
                minimum: 1,
                maximum: Some(1),
                shared: false,
            });
            let first = Elements::Functions([CHAIN][..].into());
            elements.active(None, &ConstExpr::i32_const(0), first);
        }
        let (mut memories, mut globals) = (MemorySection::new(), GlobalSection::new());
        memories.memory(MemoryType {
            minimum: self.pages.into(),
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        for value in &self.globals {
            let ty = GlobalType { val_type: ValType::I64, mutable: true, shared: false };
            globals.global(ty, &ConstExpr::i64_const(*value));
        }
        let mut exports = ExportSection::new();
        exports.export("memory", ExportKind::Memory, 0);
        exports.export("handle_request", ExportKind::Func, HANDLE_REQUEST);
        let mut data = DataSection::new();
        for (start, bytes) in &self.segments {
            let start = ConstExpr::i32_const(start.cast_signed());
            data.active(0, &start, bytes.iter().copied());
        }
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions).section(&tables);
        module.section(&memories).section(&globals).section(&exports).section(&elements);
        module.section(&code).section(&data);
        let data = Cow::from(self.answer().into_bytes());
        module.section(&CustomSection { name: ANSWER_SECTION.into(), data });
        module.finish()
    }

    fn handle_request(&self) -> Function {
        let mut function = Function::new([(1, ValType::I64)]);
        let mut code = function.instructions();
        self.talk(&mut code);
        code.i64_const(self.seed);
        let globals = 0..self.globals.len() as u32;
        for global in globals.clone() {
            code.global_get(global).i64_add();
        }
        match self.lasting_state {
            Some(LastingState::Table) => code.i32_const(0).call_indirect(0, CHAIN),
            Some(LastingState::Memory) => {
                code.call(CHAIN).i32_const(1).memory_grow(0).i64_extend_i32_u().i64_add()
            }
            None => code.call(CHAIN),
        };
        code.local_tee(0).call(WRITE_DIGITS);
        code.i32_const(1).i32_const(0).i32_const(self.answer_bytes()).call(WRITE_BODY);
        for global in globals {
            code.local_get(0).global_get(global).i64_add().global_set(global);
        }
        if let Some([at, with, bytes]) = self.fill {
            code.i32_const(at).i32_const(with).i32_const(bytes).memory_fill(0);
        }
        if let Some(LastingState::Table) = self.lasting_state {
            code.i32_const(0).ref_null(HeapType::FUNC).table_set(0);
        }
        code.i64_const(0).end();
        function
    }

    /// The calls of host functions before the answer is computed.
    fn talk(&self, code: &mut InstructionSink<'_>) {
        if self.sets_type {
            let [name, value] = TYPE_HEADER.map(|text| text.len() as i32);
            let at = self.answer_bytes();
            code.i32_const(1).i32_const(at).i32_const(name);
            code.i32_const(at + name).i32_const(value).call(SET_HEADER);
        }
        if self.asks {
            code.i32_const(SCRATCH).i32_const(SCRATCH_BYTES).call(GET_URI).drop();
        }
    }

    /// The function that writes a number as 16 hexadecimal digits into the answer, from the last
    /// digit to the first.
    fn write_digits(&self) -> Function {
        let mut function = Function::new([(2, ValType::I32)]);
        let mut code = function.instructions();
        code.i32_const(self.digits_at + 15).local_set(1).loop_(BlockType::Empty);
        code.local_get(0).i32_wrap_i64().i32_const(15).i32_and().local_set(2);
        // In ASCII, 39 characters lie between `9` and `a`.
        code.local_get(1).local_get(2).i32_const(i32::from(b'0')).i32_add();
        code.local_get(2).i32_const(9).i32_gt_u().i32_const(39).i32_mul().i32_add();
        code.i32_store8(UNALIGNED);
        code.local_get(0).i64_const(4).i64_shr_u().local_set(0);
        code.local_get(1).i32_const(1).i32_sub().local_tee(1);
        code.i32_const(self.digits_at).i32_ge_s().br_if(0).end().end();
        function
    }

    fn answer_bytes(&self) -> i32 {
        self.digits_at + 17
    }
}

/// One to three data segments, with 64 to 6144 random bytes in all. The first begins with `texts`.
fn segments(random: &mut Random, texts: Vec<u8>) -> Vec<(u32, Vec<u8>)> {
    let count = random.within(1..=3);
    let mut left = random.within(64..=6144);
    let mut segments = Vec::new();
    let (mut start, mut data) = (0, texts);
    for number in 1..=count {
        // Leave at least 16 bytes for each of the others.
        let bytes = if number == count { left } else { random.within(16..=left / 2) };
        left -= bytes;
        let end = data.len() + bytes as usize;
        while data.len() < end {
            data.extend(random.draw().to_le_bytes());
        }
        data.truncate(end);
        let next = start + end as u32 + random.within(0..=512);
        segments.push((start, std::mem::take(&mut data)));
        start = next;
    }
    segments
}

fn run(chain: &[ChainFunction], x: u64, memory: &[u8]) -> u64 {
    let Some((link, rest)) = chain.split_first() else { return x };
    let x = if link.calls_first { run(rest, x, memory) } else { x };
    let x = link.steps.iter().fold(x, |x, step| step.apply(x, memory));
    if link.calls_first { x } else { run(rest, x, memory) }
}

/// The indices of a guest's functions; each function has the type with the same index. The first
/// three are imported, even if they are never called. The chain begins at the last.
const WRITE_BODY: u32 = 0;
const SET_HEADER: u32 = 1;
const GET_URI: u32 = 2;
const HANDLE_REQUEST: u32 = 3;
const WRITE_DIGITS: u32 = 4;
const CHAIN: u32 = 5;

fn types_and_imports() -> (TypeSection, ImportSection) {
    const I32: ValType = ValType::I32;
    const I64: ValType = ValType::I64;
    let mut types = TypeSection::new();
    types.ty().function([I32; 3], []);
    types.ty().function([I32; 5], []);
    types.ty().function([I32; 2], [I32]);
    types.ty().function([], [I64]);
    types.ty().function([I64], []);
    types.ty().function([I64], [I64]);
    let mut imports = ImportSection::new();
    for (ty, name) in (0..).zip(["write_body", "set_header_value", "get_uri"]) {
        imports.import("http_handler", name, EntityType::Function(ty));
    }
    (types, imports)
}

impl ChainFunction {
    /// Encodes the function. `next` is the index of the function that it calls, if there is one.
    fn encode(&self, next: Option<u32>) -> Function {
        let mut function = Function::new([]);
        let mut code = function.instructions();
        code.local_get(0);
        if let (true, Some(next)) = (self.calls_first, next) {
            code.call(next);
        }
        for step in &self.steps {
            step.encode(&mut code);
        }
        if let (false, Some(next)) = (self.calls_first, next) {
            code.call(next);
        }
        code.end();
        function
    }
}
