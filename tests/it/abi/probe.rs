//! Makes a guest from a few lines of text that call the host and write down the results.
//!
//! The lines are WebAssembly text with two shorthands: `#7` is `(i32.const 7)`, and `'abc'` is a
//! text in the guest's memory, as two operands: pointer and length. Within quotes `\0d` is one
//! byte. `'` and `#` have to be written that way.
//!
//! A line may call every function of `http_handler` by its name (`$get_uri`), `$fd_write` and
//! `$random_get`. To write into the response body, it may call:
//!
//! * `(call $say 'text')`: a text;
//! * `(call $number (i64))`, `(call $int (i32))`: a number and a line break;
//! * `(call $pair (i64))`: the high half, a slash, the low half, and a line break;
//! * `(call $clean)`: fills the buffer with dots;
//! * `(call $show (i32))`: the first bytes of the buffer and a line break.
//!
//! The buffer is the second page of memory, 64 KiB from [`BUFFER`] (`#65536`) on. The third page is
//! the last.

/// The address of a probe's buffer.
pub const BUFFER: u32 = 0x1_0000;

/// The end of a probe's memory.
pub const END: u32 = 0x3_0000;

/// The address of the texts. The memory below is used by `$number`.
const TEXTS: usize = 1024;

const IMPORTS: &[(&str, &str)] = &[
    ("enable_features", "(param i32) (result i32)"),
    ("get_config", "(param i32 i32) (result i32)"),
    ("log_enabled", "(param i32) (result i32)"),
    ("log", "(param i32 i32 i32)"),
    ("get_method", "(param i32 i32) (result i32)"),
    ("set_method", "(param i32 i32)"),
    ("get_uri", "(param i32 i32) (result i32)"),
    ("set_uri", "(param i32 i32)"),
    ("get_protocol_version", "(param i32 i32) (result i32)"),
    ("get_source_addr", "(param i32 i32) (result i32)"),
    ("get_header_names", "(param i32 i32 i32) (result i64)"),
    ("get_header_values", "(param i32 i32 i32 i32 i32) (result i64)"),
    ("set_header_value", "(param i32 i32 i32 i32 i32)"),
    ("add_header_value", "(param i32 i32 i32 i32 i32)"),
    ("remove_header", "(param i32 i32 i32)"),
    ("read_body", "(param i32 i32 i32) (result i64)"),
    ("write_body", "(param i32 i32 i32)"),
    ("get_status_code", "(result i32)"),
    ("set_status_code", "(param i32)"),
];

const HELPERS: &str = r#"
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get"
    (func $random_get (param i32 i32) (result i32)))
  (memory (export "memory") 3)
  (func $say (param $ptr i32) (param $len i32)
    (call $write_body (i32.const 1) (local.get $ptr) (local.get $len)))
  (func $digits (param $n i64) (param $after i32)
    (local $at i32) (local $minus i32)
    (local.set $at (i32.const 63))
    (i32.store8 (local.get $at) (local.get $after))
    (if (i64.lt_s (local.get $n) (i64.const 0))
      (then
        (local.set $minus (i32.const 1))
        (local.set $n (i64.sub (i64.const 0) (local.get $n)))))
    (loop $more
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10)))))
      (local.set $n (i64.div_u (local.get $n) (i64.const 10)))
      (br_if $more (i64.ne (local.get $n) (i64.const 0))))
    (if (local.get $minus)
      (then
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (i32.store8 (local.get $at) (i32.const 45))))
    (call $say (local.get $at) (i32.sub (i32.const 64) (local.get $at))))
  (func $number (param $n i64) (call $digits (local.get $n) (i32.const 10)))
  (func $int (param $n i32) (call $number (i64.extend_i32_s (local.get $n))))
  (func $pair (param $n i64)
    (call $digits (i64.shr_s (local.get $n) (i64.const 32)) (i32.const 47))
    (call $number (i64.extend_i32_s (i32.wrap_i64 (local.get $n)))))
  (func $clean (memory.fill (i32.const 0x10000) (i32.const 46) (i32.const 0x10000)))
  (func $show (param $len i32)
    (call $say (i32.const 0x10000) (local.get $len))
    (i32.store8 (i32.const 0) (i32.const 10))
    (call $say (i32.const 0) (i32.const 1)))
"#;

/// The parts of a guest.
#[derive(Clone, Default)]
pub struct Probe {
    request: String,
    next: bool,
    response: Option<String>,
    start: Option<String>,
    fields: String,
}

impl Probe {
    /// A guest that runs this code for each request and then answers.
    pub fn new(request: &str) -> Probe {
        Probe { request: request.to_owned(), ..Probe::default() }
    }

    /// Passes the request on, with the context 7.
    pub fn next(mut self) -> Probe {
        self.next = true;
        self
    }

    /// The code of `handle_response`, which has the parameters `$context` and `$is_error`.
    pub fn response(mut self, text: &str) -> Probe {
        self.response = Some(text.to_owned());
        self
    }

    /// The code of `_start`.
    pub fn start(mut self, text: &str) -> Probe {
        self.start = Some(text.to_owned());
        self
    }

    /// More fields of the module: globals, tables, functions.
    pub fn fields(mut self, text: &str) -> Probe {
        self.fields = text.to_owned();
        self
    }

    /// The module's text.
    pub fn wat(&self) -> String {
        let mut module = "(module\n".to_owned();
        for (name, ty) in IMPORTS {
            module += &format!("  (import \"http_handler\" \"{name}\" (func ${name} {ty}))\n");
        }
        module += HELPERS;
        let mut code = format!(
            "{}\n  (func (export \"handle_request\") (result i64)\n{}\n    (i64.const {}))\n",
            self.fields,
            self.request,
            if self.next { 1 | (7_i64 << 32) } else { 0 }
        );
        if let Some(start) = &self.start {
            code += &format!("  (func (export \"_start\")\n{start})\n");
        }
        if let Some(response) = &self.response {
            code += &format!(
                "  (func (export \"handle_response\") (param $context i32) (param $is_error i32)\n\
                 {response})\n"
            );
        }
        module + &expand(&code) + ")\n"
    }
}

/// Expands the shorthands, and adds the texts as data segments.
fn expand(code: &str) -> String {
    let mut expanded = String::new();
    let mut data = String::new();
    let mut at = TEXTS;
    for (index, part) in code.split('\'').enumerate() {
        if index % 2 == 0 {
            expanded += &numbers(part);
            continue;
        }
        let len = part.len() - 2 * part.matches('\\').count();
        expanded += &format!("(i32.const {at}) (i32.const {len})");
        data += &format!("  (data (i32.const {at}) \"{part}\")\n");
        at += len;
    }
    assert!(at < BUFFER as usize, "the texts of a probe fit its first page");
    expanded + &data
}

fn numbers(code: &str) -> String {
    let mut parts = code.split('#');
    let mut expanded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '-';
        let (number, rest) = part.split_at(part.find(is_end).unwrap_or(part.len()));
        expanded += &format!("(i32.const {number}){rest}");
    }
    expanded
}
