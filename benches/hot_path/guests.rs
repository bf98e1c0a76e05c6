//! The rows in the sandbox: take an instance, call it, take its response, and renew it.
//!
//! Owns the engines and the guests. Compiles in this process and reads no cache, since all guests
//! are our own. From the machine code on, everything happens as in a serving process.

use std::cell::RefCell;
use std::hint::black_box;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use guesthouse::config::GrantTable;
use guesthouse::grants::{Grants, Isolation};
use guesthouse::guest::engine::budget::Budget;
use guesthouse::guest::engine::engines::Engines;
use guesthouse::guest::engine::form::Form;
use guesthouse::guest::engine::load_failure::LoadFailure;
use guesthouse::guest::engine::slots::{ENGINES, ReadyMax};
use guesthouse::guest::load::cache::Artifact;
use guesthouse::guest::load::compiler::{CompileJob, Compiler};
use guesthouse::guest::load::link::{GuestSpec, Linkers};
use guesthouse::guest::schedule::{Lane, Meter, Scheduler, Ticker};
use guesthouse::guest::{Guest, Instance, Pool};
use guesthouse::message::{Request, Response};
use guesthouse::metrics::Metrics;
use guesthouse::outbound::{self, Outbound};
use http::{HeaderMap, StatusCode};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::case::{Case, Row};

include!(concat!(env!("OUT_DIR"), "/demo_guests.rs"));

/// Ready instances of one row, which has one request at a time.
const READY_MAX: usize = 2;
/// After so many slices of no time, the host knows a guest as short.
const SHORT_SLICES: usize = 2048;
/// How often a guest calls its header function in one request. Beside that, the request itself
/// takes no time.
const LOOPS: usize = 1000;

/// Makes a request for this path and query.
pub type Ask = fn(&'static str) -> Request;

/// The request for guests whose row does not measure their work.
const HELLO: &str = "/hello?name=world";

/// Makes guests, as a loader does.
struct Maker {
    compiler: Compiler,
    linkers: Linkers,
    house: Rc<House>,
}

/// The parts of a host that all rows share.
struct House {
    engines: Engines,
    ticker: Ticker,
    lane: Lane,
    runtime: LocalRuntime,
    request: Ask,
}

/// One guest under load: each turn is a request.
struct Calls {
    name: &'static str,
    /// The path and query of its requests.
    target: &'static str,
    /// Whether its calls are short enough to stay on this thread.
    is_short: bool,
    house: Rc<House>,
    guest: Arc<Guest>,
    schedule: Rc<Scheduler>,
    pool: Rc<Pool>,
    #[expect(clippy::vec_box, reason = "a guest takes it boxed, and the box is not to be timed")]
    requests: Vec<Box<Request>>,
    spare: HeaderMap,
}

/// The rows of this file. `request` makes the requests of the guests. Without `pooled`, for a place
/// with too little address space, there is no pooling allocator, and the row that makes a new
/// instance each time is left out.
pub fn rows(request: Ask, pooled: bool) -> Result<Vec<Row>> {
    let memory_bytes_max = Grants::default().limits.memory_bytes_max;
    let pools = || Engines::new(memory_bytes_max, 1, Budget::unlimited(), None);
    let engines = if pooled { pools() } else { Engines::unpooled() }?;
    let (compiler, linkers) = (Compiler::new()?, Linkers::new(&engines)?);
    let runtime =
        Builder::new_current_thread().enable_time().build_local(LocalOptions::default())?;
    let ticker = Ticker::start(engines.advance(), 1)?;
    let house = Rc::new(House { engines, ticker, lane: Lane::start(1, 0)?, runtime, request });
    let maker = Maker { compiler, linkers, house };

    let asked = |name: &'static str, guest: &str, target, isolation| {
        let found = DEMO_GUESTS.iter().find(|(name, _)| *name == guest);
        let (_, wasm) = found.with_context(|| format!("there is no demo guest {guest}"))?;
        maker.row(name, target, wasm, isolation)
    };
    let demo = |name, guest: &str, isolation| asked(name, guest, HELLO, isolation);
    let work = |name, guest: &str, target| asked(name, guest, target, Isolation::Reuse);
    let looped = |name, imports: &str, body: &str| {
        let row = maker.row(name, HELLO, looping(imports, body).as_bytes(), Isolation::Reuse)?;
        Ok::<_, anyhow::Error>(Row { ops_per_turn: LOOPS, ..row })
    };
    let mut rows = vec![
        maker.checkout("checkout: take and give back", looping("", "").as_bytes())?,
        demo("call: hello, reuse", "hello", Isolation::Reuse)?,
        demo("call: hello, fresh, reset", "hello", Isolation::Fresh)?,
        demo("call: echo, reuse", "echo", Isolation::Reuse)?,
        demo("call: echo, fresh, reset", "echo", Isolation::Fresh)?,
        work("compute: fib 24", "fib", "/fib/24")?,
        work("compute: render", "render", "/render")?,
        work("compute: json", "json", "/json")?,
        looped("headers: names of all 8", NAMES, "(drop (call $names (i32.const 0) OUT))")?,
        looped("headers: value of 1", VALUES, "(drop (call $values (i32.const 0) NAME OUT))")?,
        looped("headers: set 1", SET, "(call $set (i32.const 1) NAME VALUE)")?,
    ];
    if pooled {
        rows.push(demo("call: render, fresh, made anew", "render", Isolation::Fresh)?);
    }
    Ok(rows)
}

const NAMES: &str = r#"
  (import "http_handler" "get_header_names" (func $names (param i32 i32 i32) (result i64)))"#;
const VALUES: &str = r#"
  (import "http_handler" "get_header_values"
    (func $values (param i32 i32 i32 i32 i32) (result i64)))"#;
const SET: &str = r#"
  (import "http_handler" "set_header_value" (func $set (param i32 i32 i32 i32 i32)))"#;

/// The text of a guest that runs `body` [`LOOPS`] times. In `body`, `NAME`, `VALUE` and `OUT` are
/// pairs of address and length: a field's name, a value, and a buffer.
fn looping(imports: &str, body: &str) -> String {
    let body = body
        .replace("NAME", "(i32.const 0) (i32.const 10)")
        .replace("VALUE", "(i32.const 16) (i32.const 11)")
        .replace("OUT", "(i32.const 1024) (i32.const 4096)");
    format!(
        r#"(module {imports}
  (memory (export "memory") 1)
  (data (i32.const 0) "user-agent")
  (data (i32.const 16) "a/1.0 (b c)")
  (func (export "handle_request") (result i64)
    (local $left i32)
    (local.set $left (i32.const {LOOPS}))
    (loop $more
      {body}
      (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i64.const 0)))"#
    )
}

impl Maker {
    fn row(
        &self,
        name: &'static str,
        target: &'static str,
        bytes: &[u8],
        isolation: Isolation,
    ) -> Result<Row> {
        let calls = self.calls(name, target, bytes, isolation);
        let calls = calls.with_context(|| format!("the row \"{name}\""))?;
        Ok(Row::new(name, calls))
    }

    /// A row that takes an instance from the pool and gives it back, without a call.
    fn checkout(&self, name: &'static str, bytes: &[u8]) -> Result<Row> {
        let Calls { pool, guest, .. } = self.calls(name, HELLO, bytes, Isolation::Reuse)?;
        Ok(Row::new(name, move || {
            if let Some(instance) = pool.take(black_box(&guest)) {
                pool.give_back(instance);
            }
        }))
    }

    fn calls(
        &self,
        name: &'static str,
        target: &'static str,
        bytes: &[u8],
        isolation: Isolation,
    ) -> Result<Calls> {
        let guest =
            Arc::new(self.guest(bytes, isolation).map_err(|failure| anyhow!(failure.reason))?);
        let house = self.house.clone();
        let (pulse, memory) = (house.ticker.handle_of(0), house.engines.memory.clone());
        // No guest here sends requests, so nobody serves this handle.
        let outbound = outbound::OutboundShared::new(&GrantTable::default().largest(), false, 1);
        let (_, door, _) = Outbound::new(&outbound);
        // Nobody waits for this notification, because each row recycles instances itself after a
        // request. A task would do so at a later time, which depends on other tasks.
        let work = Rc::default();
        let schedule = Rc::new(Scheduler::new(
            pulse,
            house.lane.new_handle(),
            Metrics::new(1, &[]).of_worker(0),
        ));
        let ready_max = ReadyMax { all: READY_MAX, by_engine: [READY_MAX; ENGINES] };
        let pool = Rc::new(Pool::new(schedule.clone(), door, memory, ready_max, work));
        // On a busy machine, a short call can look long and then has to wait in the run queue.
        house.runtime.spawn_local(schedule.run_queue().clone().run());
        let (requests, spare) = (Vec::new(), HeaderMap::new());
        let is_short = target == HELLO;
        let mut calls =
            Calls { name, target, is_short, house, guest, schedule, pool, requests, spare };
        calls.begin()?;
        Ok(calls)
    }

    /// Compiles and links a guest. If its instances can be reset, it also gets the baseline that
    /// they are reset to.
    fn guest(&self, bytes: &[u8], isolation: Isolation) -> Result<Guest, LoadFailure> {
        let name = "bench";
        let is_text = !bytes.starts_with(b"\0asm");
        let grants = Arc::new(Grants { isolation, ..Grants::default() });
        let job = CompileJob { name: name.to_owned(), is_text, grants: grants.clone() };
        let compiled = self.compiler.compile(&job, bytes);
        let (facts, code) = compiled.unwrap_or_else(|panic| resume_unwind(panic))?;
        let engine = self.house.engines.get(facts.class, facts.memory_bytes);
        let code = Artifact::compiled(code).code(&facts.kind, engine);
        let code = code.map_err(|error| error.to_string())?;
        let identity = GuestSpec { id: 0, name, grants: &grants };
        let guest = self.linkers.link(&identity, &facts, &code)?;
        if facts.reset_globals.is_none() {
            return Ok(guest);
        }
        let guest = Arc::new(guest);
        let shown = Instance::try_now(guest.clone())?;
        let baseline = shown.and_then(|mut instance| instance.baseline());
        let mut guest = Arc::into_inner(guest).ok_or("the guest is still in use".to_owned())?;
        guest.baseline = baseline;
        Ok(guest)
    }
}

impl Calls {
    /// Makes the first instance, and asks it once to see that it answers.
    fn begin(&mut self) -> Result<()> {
        let Calls { house, guest, pool, .. } = self;
        let made = house.runtime.block_on(pool.make(guest.clone(), None));
        pool.give_back(made.map_err(|reject| anyhow!("no instance: {reject}"))?);
        self.prepare(1);
        let answer = RefCell::new(None);
        self.each(|response| *answer.borrow_mut() = Some(response.status));
        let status = answer.into_inner();
        anyhow::ensure!(status == Some(StatusCode::OK), "the guest answers {status:?}");
        Ok(())
    }

    /// Serves the requests that were prepared, as `serve/pipeline.rs` does.
    fn each(&mut self, answered: impl Fn(Response)) {
        let Calls { name, is_short, house, guest, schedule, pool, requests, spare, .. } = self;
        let limits = &guest.info.grants.limits;
        house.runtime.block_on(async {
            for request in requests.drain(..) {
                pool.recycle_retired();
                let meter = Meter::new(limits, Instant::now());
                let mut meter = if *is_short { meter.in_lanes(schedule, guest.id) } else { meter };
                let Some(Form::Core(mut instance)) = pool.take(guest) else {
                    panic!("{name}: none ready");
                };
                instance.accept(request, std::mem::take(spare));
                let active = schedule.begin();
                let called = instance.request(&mut meter, schedule).await;
                let (mut instance, _) = called.unwrap_or_else(|end| panic!("{name}: {end}"));
                let response;
                (response, *spare) = instance.respond();
                spare.clear();
                pool.give_back(Form::Core(instance));
                drop(active);
                answered(response);
            }
            pool.recycle_retired();
        });
    }
}

impl Case for Calls {
    fn prepare(&mut self, turns: usize) {
        let (request, target) = (self.house.request, self.target);
        self.requests.extend((0..turns).map(|_| Box::new(request(target))));
        // Valgrind makes every call fifty times as long. The host still has to know the guest as
        // short, as it does without valgrind, so that the same instructions are counted.
        self.schedule.note(self.guest.id, |usage| {
            for _ in 0..SHORT_SLICES {
                usage.note_slice(Duration::ZERO, Instant::now);
            }
        });
    }

    fn run(&mut self, _turns: usize) {
        self.each(|response| drop(black_box(response)));
    }
}
