//! A request cannot tell a reset instance from a new one.
//!
//! Each guest is a [`Witness`]: it answers with a sum over the state that it sees, and then changes
//! that state, differently in each request. Under `fresh` all its answers equal the first one,
//! which came from a new instance. Under `reuse` the second answer differs, so the guest does see
//! its changes. `check` says which guests are reset, so each test covers what it means to.

use std::collections::BTreeSet;

use crate::client::message;
use crate::host::{Host, command, until};
use crate::patience::patience;

/// How `check` says that a guest's instances are renewed.
const RESET: &str = "instances are reset between requests";
const ANEW: &str = "instances are made anew for each request";
const STARTED: &str = "start-up code runs in each instance";

const PAGE_BYTES: usize = 0x1_0000;
/// Guests with more memory than this are not reset.
const PAGES_MAX: usize = 32;

/// The common part of all witnesses. A witness without memory can write its sum only to the status.
const COMMON: &str = r#"(module
  (import "http_handler" "get_uri" (func $get_uri (param i32 i32) (result i32)))
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (import "http_handler" "set_status_code" (func $set_status_code (param i32)))
  (import "http_handler" "enable_features" (func $enable_features (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (func $mix (param $sum i64) (param $seen i64) (result i64)
    (i64.mul (i64.xor (local.get $sum) (local.get $seen)) (i64.const 0x100000001b3))
    (i64.rotl (i64.const 23)))
  (func $bytes (result i32) (i32.mul (memory.size) (i32.const 0x10000)))
  (func $memory (result i64) (local $at i32) (local $sum i64)
    (if (memory.size)
      (then (loop $more
        (local.set $sum (call $mix (local.get $sum) (i64.load (local.get $at))))
        (local.tee $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $more (i32.lt_u (call $bytes))))))
    (call $mix (local.get $sum) (i64.extend_i32_u (memory.size))))
  (func $answer (param $sum i64)
    (if (memory.size)
      (then (i64.store (i32.const 0) (local.get $sum))
        (call $write_body (i32.const 1) (i32.const 0) (i32.const 8)))
      (else (i64.add (i64.const 400) (i64.rem_u (local.get $sum) (i64.const 199)))
        (call $set_status_code (i32.wrap_i64)))))"#;

/// A function that is called through a table, and another one to replace it.
const TABLE: &str = "(table $table 4 funcref)
  (elem (table $table) (i32.const 1) func $one $two) (elem $passive func $two)
  (func $one (result i32) (i32.const 1)) (func $two (result i32) (i32.const 2))";
const CALL: &str = "(i64.extend_i32_u (call_indirect $table (result i32) (i32.const 1)))";

const MEMORY: &str = "(call $memory)";
const FILL: &str = "(memory.fill (i32.const 0) (local.get $soil) (call $bytes))";
const GROW: &str = "(drop (memory.grow (i32.const 1)))";

/// A guest that sees its own state and changes it.
struct Witness {
    name: String,
    pages: usize,
    /// What `check` says about it.
    reset_mode: &'static str,
    fields: String,
    sees: String,
    soils: String,
    globals: usize,
}

impl Witness {
    fn new(name: &str, pages: usize) -> Witness {
        let mode = if pages > PAGES_MAX { ANEW } else { RESET };
        let (fields, sees, soils) = Default::default();
        Witness { name: name.to_owned(), pages, reset_mode: mode, fields, sees, soils, globals: 0 }
    }

    /// A witness that sees its memory, changes all of it, and calls through a table.
    fn whole(name: &str, pages: usize) -> Witness {
        Witness::new(name, pages).with(TABLE, CALL, "").with("", MEMORY, FILL)
    }

    /// Adds fields of a module, an i64 to the sum, and instructions that change state by `$soil`,
    /// which is never 0, or by `$long`, the same number as an i64.
    fn with(mut self, fields: &str, see: &str, soil: &str) -> Witness {
        self.fields += &format!("  {fields}\n");
        if !see.is_empty() {
            self.sees += &format!("    (local.set $sum (call $mix (local.get $sum) {see}))\n");
        }
        self.soils += &format!("    {soil}\n");
        self
    }

    fn data(self, at: usize, bytes: &[u8]) -> Witness {
        let text: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        self.with(&format!("(data (i32.const {at}) \"{text}\")"), "", "")
    }

    /// Adds a mutable global. A number of any type is seen and changed by its bits.
    fn global(mut self, export: &str, ty: &str, value: &str) -> Witness {
        let (see, set) = match ty {
            "i32" => ("(i64.extend_i32_u GET)", "(i32.wrap_i64 NEW)"),
            "i64" => ("GET", "NEW"),
            "f32" => (
                "(i64.extend_i32_u (i32.reinterpret_f32 GET))",
                "(f32.reinterpret_i32 (i32.wrap_i64 NEW))",
            ),
            "f64" => ("(i64.reinterpret_f64 GET)", "(f64.reinterpret_i64 NEW)"),
            _ => (
                "(call $mix (i64x2.extract_lane 0 GET) (i64x2.extract_lane 1 GET))",
                "(i64x2.add GET (i64x2.splat (local.get $long)))",
            ),
        };
        let name = format!("$global{}", self.globals);
        self.globals += 1;
        let field = format!("(global {name} {export} (mut {ty}) ({ty}.const {value}))");
        let fill = |text: &str| text.replace("GET", &format!("(global.get {name})"));
        let set = set.replace("NEW", &format!("(i64.add {see} (local.get $long))"));
        self.with(&field, &fill(see), &fill(&format!("(global.set {name} {set})")))
    }

    fn wat(&self) -> String {
        let Witness { pages, fields, sees, soils, .. } = self;
        format!(
            "{COMMON}\n  (memory (export \"memory\") {pages})\n{fields}
  (func (export \"handle_request\") (result i64)
    (local $sum i64) (local $soil i32) (local $long i64)
    (local.tee $soil (call $get_uri (i32.const 0) (i32.const 0)))
    (local.set $long (i64.extend_i32_u))
{sees}    (call $answer (local.get $sum))\n{soils}    (i64.const 0)))\n"
        )
    }
}

fn start(isolation: &str, guests: &[Witness]) -> Host {
    let setup = Host::empty().args(["--workers", "1", "--isolation", isolation]);
    let file = |guest: &Witness| format!("{}.wat", guest.name);
    guests.iter().fold(setup, |setup, guest| setup.file(&file(guest), guest.wat())).start()
}

/// The sums of a guest, by status and body. The length of the path decides the change of state.
fn ask(host: &Host, guest: &Witness, turns: usize) -> Vec<(u16, Vec<u8>)> {
    let mut connection = host.connect();
    let ask = |turn| connection.get(&format!("/{}?{}", guest.name, "x".repeat(turn)));
    let sums: Vec<_> = (0..turns).map(ask).map(|it| (it.status, it.body)).collect();
    assert!(matches!(sums[0].1.len(), 0 | 8), "{}: not a sum: {:?}", guest.name, sums[0]);
    sums
}

/// The same with all requests in one write, which use up the ready instances.
fn ask_at_once(host: &Host, guest: &Witness, turns: usize) -> Vec<(u16, Vec<u8>)> {
    let path = |turn| format!("/{}?{}", guest.name, "x".repeat(turn));
    let ask = |turn| message("GET", &path(turn), &[], b"");
    let mut connection = host.connect();
    connection.send((0..turns).flat_map(ask).collect::<Vec<u8>>());
    (0..turns).map(|_| connection.read()).map(|it| (it.status, it.body)).collect()
}

/// Asserts that no request sees another one's changes under `fresh`, and that it does see them
/// under `reuse`. Returns the host under `fresh`.
#[track_caller]
fn assert_fresh(guests: &[Witness], turns: usize) -> Host {
    assert_reset_modes(guests);
    let (fresh, reuse) = (start("fresh", guests), start("reuse", guests));
    for guest in guests {
        let sums = ask(&fresh, guest, turns);
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{}: {sums:?}", guest.name);
        assert_eq!(ask_at_once(&fresh, guest, turns), sums, "{}: pipelined", guest.name);
        let used = ask(&reuse, guest, 2);
        assert!(used[0] == sums[0] && used[1] != sums[0], "{} sees nothing", guest.name);
    }
    fresh.at_rest();
    fresh
}

/// Asserts that `check` says of each guest how it is renewed.
#[track_caller]
fn assert_reset_modes(guests: &[Witness]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut check = command();
    check.arg("check");
    for guest in guests {
        let file = folder.path().join(&guest.name).with_extension("wat");
        std::fs::write(&file, guest.wat()).expect("a file");
        check.arg(file);
    }
    let output = check.output().expect("the program runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let mode = |line: &str| [RESET, ANEW, STARTED].into_iter().find(|mode| line.contains(mode));
    let modes: Vec<&str> = told.lines().filter_map(mode).collect();
    assert_eq!(modes, guests.iter().map(|guest| guest.reset_mode).collect::<Vec<_>>(), "{told}");
}

/// Globals of all types next to immutable ones. The memory has bytes at both ends, across the end
/// of a page, and after gaps of zeros around the length at which the host joins parts.
fn full(pages: usize) -> Witness {
    let guest = Witness::whole(&format!("pages-{pages}"), pages)
        .with("(global i32 (i32.const 5)) (global funcref (ref.func $two))", "", "")
        .global("", "i32", "-5")
        .global("(export \"i64\")", "i64", "0x8000000000000001")
        .with("(global v128 (v128.const i64x2 5 6))", "", "")
        .global("", "f32", "nan:0x200001")
        .global("(export \"f64\")", "f64", "-nan:0x4000000000001")
        .global("", "v128", "i64x2 1 -2");
    let Some(last) = (pages * PAGE_BYTES).checked_sub(1) else { return guest };
    let gaps = [0x4000, 0x4100, 0x4201, 0x4303];
    let guest = gaps.into_iter().fold(guest, |guest, at| guest.data(at, b"!"));
    let end = if pages > 1 { PAGE_BYTES } else { 0x1000 };
    guest.data(0, &[1]).data(last, &[0xff]).data(end - 5, b"across pages")
}

#[test]
fn no_request_sees_what_another_one_changed() {
    let mut guests: Vec<Witness> = [0, 1, 2, 3, 17, PAGES_MAX, PAGES_MAX + 1].map(full).into();
    // One kind of state at a time, so that no change is seen by way of another.
    for ty in ["i32", "i64", "f32", "f64"] {
        guests.push(Witness::new(ty, 1).global("", ty, "1"));
    }
    guests.push(Witness::new("v128", 1).global("", "v128", "i64x2 1 2"));
    let add = |guest: Witness, _| guest.global("", "i32", "7");
    guests.push((0..16).fold(Witness::new("globals-16", 1), add));
    guests.push(Witness::whole("empty", 2));
    guests.push(Witness::whole("last", 2).data(2 * PAGE_BYTES - 1, &[1]));
    // So much data that it is mapped instead of copied.
    let large = Witness::whole("large", 2).data(0x800, &[b'z'; 0x1_8000]);
    guests.push(Witness { reset_mode: ANEW, ..large });
    let byte = "(i32.store8 (i32.const 0x1ffff) (local.get $soil))";
    guests.push(Witness::new("end", 2).with("", MEMORY, byte));
    let init = "(memory.init $abc (i32.const 999) (i32.const 0) (i32.const 3))";
    guests.push(Witness::new("init", 1).with("(data $abc \"abc\")", MEMORY, init));
    // Changes by start-up code are in the snapshot, and so in every instance.
    let store = "(i32.store (i32.const 0x1fffc) (i32.const -1))";
    let set = format!("(global.set $global0 (i64.const 3)) {GROW} {store}");
    let start = format!("(func (export \"_start\") {set})");
    guests.push(Witness::new("start", 1).global("", "i64", "1").with(&start, MEMORY, FILL));
    assert_fresh(&guests, 50);
}

#[test]
fn no_request_sees_that_another_one_grew_its_memory() {
    let grow = |pages| format!("(i64.extend_i32_s (memory.grow (i32.const {pages})))");
    let grown = |name, size| Witness::new(name, size).with("", &grow(2), "").with("", MEMORY, FILL);
    // It grows in some of the requests, after which the instance is renewed. After the others it is
    // reset.
    let some = "(i32.eqz (i32.rem_u (local.get $soil) (i32.const 3)))";
    let grow_some = format!("(if {some} (then {GROW} {FILL}))");
    let sometimes = Witness::whole("sometimes", 1).with("", "", &grow_some);
    // It asks for more than there is, so the memory stays as it is.
    let in_vain = Witness::whole("vain", 1).with("", &grow(0), "").with("", &grow(0xffff), "");
    assert_fresh(&[grown("from-0", 0), grown("from-1", 1), sometimes, in_vain], 20);
}

#[test]
fn guests_that_cannot_be_reset_are_fresh_as_well() {
    let table = |name| Witness { reset_mode: ANEW, ..Witness::new(name, 1).with(TABLE, CALL, "") };
    let then = |instruction: &str| format!("(block (result i64) {instruction} (i64.const 0))");
    let init = "(table.init $table $passive (i32.const 1) (i32.const 0) (i32.const 1))";
    let fill = "(table.fill $table (i32.const 1) (ref.func $two) (i32.const 1))";
    let copy = "(table.copy $table $table (i32.const 1) (i32.const 2) (i32.const 1))";
    let grow = "(drop (table.grow $table (ref.null func) (i32.const 1)))";
    let take = then("(memory.init $data (i32.const 1) (i32.const 1) (i32.const 1))");
    let reference = "(global $ref (mut funcref) (ref.null func))";
    let is_null = "(i64.extend_i32_u (ref.is_null (global.get $ref)))";
    let store = "(i64.store $other (i32.const 0) (local.get $long))";
    let taken = "(export \"guesthouse:global:0\")";
    let add = |guest: Witness, _| guest.global("", "i32", "7");
    let start = "(func $start (i32.store (i32.const 9) (i32.const -1))) (start $start)";
    let guests = [
        table("set").with("", "", "(table.set $table (i32.const 1) (ref.func $two))"),
        table("fill").with("", "", fill),
        table("copy").with("", "", copy),
        table("init").with("", "", init),
        table("grow").with("", "(i64.extend_i32_u (table.size $table))", grow),
        // Once a segment is dropped, using it is a trap.
        table("elem-drop").with("", &then(init), "(elem.drop $passive)"),
        table("data-drop").with("(data $data \"abc\")", &take, "(data.drop $data)"),
        table("ref").with(reference, is_null, "(global.set $ref (ref.func $two))"),
        table("memories").with("(memory $other 1)", "(i64.load $other (i32.const 0))", store),
        (0..17).fold(table("globals-17"), add),
        table("taken-by-global").global(taken, "i32", "7"),
        add(table("taken-by-function"), 0).with(&format!("(func {taken})"), "", ""),
        Witness { reset_mode: STARTED, ..Witness::whole("start", 1).with(start, "", "") },
    ];
    assert_fresh(&guests, 6);
}

/// Output that a request wrote without a line break is a line of its own. A stream that a request
/// closed is open for the next one.
#[test]
fn what_a_request_did_to_its_streams_ends_with_it() {
    const TURNS: usize = 10;
    // One after the other, and pipelined.
    const LINES: usize = 2 * TURNS;
    let text = "(i32.const 64) (i32.const 1) (i32.const 80)";
    let write = format!("(i64.extend_i32_u (call $fd_write (i32.const 1) {text}))");
    let close = "(drop (call $fd_close (i32.const 1)))";
    let guest = Witness::new("stdout", 1).data(64, &[96, 0, 0, 0, 4, 0, 0, 0]).data(96, b"said");
    let host = assert_fresh(&[guest.with("", &write, close)], TURNS);
    let said = until("line for each request", patience(), || {
        let mut lines = host.lines();
        lines.retain(|line| line.json["from"] == "stdout");
        (lines.len() >= LINES).then_some(lines)
    });
    assert!(said.iter().all(|line| line.message() == "said"), "{said:?}");
    let requests: BTreeSet<_> = said.iter().map(|line| line.json["request"].as_str()).collect();
    assert_eq!((said.len(), requests.len()), (LINES, LINES), "{said:?}");
}

/// Under `reuse` as well: a feature belongs to the request that enabled it, or to the guest.
#[test]
fn features_last_if_start_up_code_enabled_them() {
    let enable = |bits| format!("(drop (call $enable_features (i32.const {bits})))");
    let guests = [0, 1, 2, 6].map(|bits| {
        let start = format!("(func (export \"_start\") {})", enable(bits));
        let see = "(i64.extend_i32_u (call $enable_features (i32.const 0)))";
        Witness::new(&format!("enabling-{bits}"), 1).with(&start, see, &enable(7))
    });
    assert_reset_modes(&guests);
    for isolation in ["fresh", "reuse"] {
        let host = start(isolation, &guests);
        let sums: BTreeSet<_> = guests.iter().flat_map(|guest| ask(&host, guest, 10)).collect();
        assert_eq!(sums.len(), guests.len(), "{isolation}: {sums:?}");
    }
}

/// A guest with random contents of its memory and globals, which it changes at random places.
fn random(below: &mut impl FnMut(usize) -> usize, number: usize) -> Witness {
    let pages = [0, 1, 2, 3, 17, PAGES_MAX, PAGES_MAX + 1][below(7)];
    let bytes = pages * PAGE_BYTES;
    let mut guest = Witness::new(&format!("random-{number}"), pages).with("", MEMORY, "");
    for _ in 0..below(8).min(bytes) {
        let data: Vec<u8> = (0..below(900)).map(|_| below(256) as u8).collect();
        guest = guest.data(below(bytes - data.len()), &data);
    }
    for _ in 0..=below(8) {
        let ty = ["i32", "i64", "f32", "f64", "v128"][below(5)];
        let lane = if ty == "v128" { "i64x2 9" } else { "" };
        guest = guest.global("", ty, &format!("{lane} {}", below(1000)));
        guest = guest.with(["", "(global f64 (f64.const 5))"][below(2)], "", "");
    }
    for _ in 0..below(8).min(bytes) {
        let at = below(bytes - 7);
        let store = |at| format!("(i64.store (i32.const {at}) (local.get $long))");
        let soil = match below(4) {
            0 => format!("{GROW} {}", store(bytes + at % 0xfff0)),
            1 => format!("(memory.fill (i32.const 0) (local.get $soil) (i32.const {at}))"),
            _ => store(at),
        };
        guest = guest.with("", "", &soil);
    }
    guest
}

#[test]
fn guests_made_at_random_are_fresh() {
    // A fixed sequence, so that a failure can be repeated.
    let mut state = 7_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        usize::try_from((state >> 32) % bound as u64).expect("less than a usize")
    };
    let guests: Vec<Witness> = (0..30).map(|number| random(&mut below, number)).collect();
    assert_fresh(&guests, 5);
}
