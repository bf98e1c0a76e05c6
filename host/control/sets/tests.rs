//! Tests of sets: a set is served all or nothing if its source says so, else handler by handler.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::control::entries::{Entries, LoadState};
use crate::control::followed::{begin, snapshot};
use crate::control::load_memory::{LoadEstimate, LoadMemory};
use crate::control::loaded_capacity::LoadedCapacity;
use crate::control::loaders::{FinishedLoad, LoadOutcome, Loaders};
use crate::control::reload::{ControlEvent, Reload, ReloadParts};
use crate::grants::Grants;
use crate::guest::Guest;
use crate::guest::engine::budget::Budget;
use crate::guest::engine::engines::Engines;
use crate::guest::engine::load_failure::LoadFailure;
use crate::guest::engine::resources::Resources;
use crate::guest::load::cache::{Artifact, CacheKey};
use crate::guest::load::compiler::{CompileJob, Compiler};
use crate::guest::load::link::{GuestSpec, Linkers};
use crate::guest::load::loader::{Contents, Loaded, Size};
use crate::registry::route::Pattern;
use crate::registry::{Handler, HandlerState, Registry, RouteTarget};
use crate::source::{
    Blob, BlobError, Change, ContentVersion, HandlerItem, HandlerSet, Source, Wake,
};

/// The module of every guest.
const GUEST: &str = r#"(module (memory (export "memory") 1)
    (func (export "handle_request") (result i64) (i64.const 0)))"#;

/// A source that gives what a test tells it to.
struct FakeSource {
    first: Option<HandlerSet>,
    changes: Arc<Mutex<Vec<Change>>>,
}

impl Source for FakeSource {
    fn begin(&mut self, _wake: Wake) -> Result<HandlerSet> {
        Ok(self.first.take().unwrap_or_default())
    }

    fn changes(&mut self, _now: Instant) -> Vec<Change> {
        std::mem::take(&mut self.changes.lock().expect("no panic"))
    }
}

/// A blob that no test reads.
struct UnusedBlob;

impl Blob for UnusedBlob {
    fn read(&self, _bytes_max: u64) -> Result<Option<(ContentVersion, Contents)>, BlobError> {
        Ok(None)
    }
}

/// A set of handlers by name and version. Each serves the route of its name.
fn set(is_atomic: bool, grants: &Arc<Grants>, handlers: &[(&str, u8)]) -> HandlerSet {
    let item = |(name, version): &(&str, u8)| {
        Arc::new(HandlerItem {
            label: (*name).into(),
            name: (*name).into(),
            pattern: Pattern::parse(name).expect("a pattern"),
            grants: grants.clone(),
            version: ContentVersion::of(&[*version]),
            blob: Arc::new(UnusedBlob),
        })
    };
    let items = handlers.iter().map(item).collect();
    HandlerSet { items, native: Vec::new(), is_atomic }
}

/// A control path whose loads end when and how a test says.
struct TestReload {
    reload: Reload,
    grants: Arc<Grants>,
    changes: Vec<Arc<Mutex<Vec<Change>>>>,
    ended: UnboundedReceiver<String>,
    guest: Box<dyn Fn() -> Guest>,
    _events: Sender<ControlEvent>,
}

impl TestReload {
    /// Starts with one source for each of these first sets.
    fn start(is_atomic: bool, first: &[&[(&str, u8)]]) -> TestReload {
        let grants = Arc::<Grants>::default();
        let mut changes = Vec::new();
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        for handlers in first {
            let told = Arc::<Mutex<Vec<Change>>>::default();
            changes.push(told.clone());
            let first = Some(set(is_atomic, &grants, handlers));
            sources.push(Box::new(FakeSource { first, changes: told }));
        }
        let mut entries = Entries::new(Arc::new(|_| ()), sources.len());
        let wake: Wake = Arc::new(|| ());
        let sources = begin(sources, &mut entries, &wake).expect("sets");
        let snapshot = snapshot(&entries, &sources, None).expect("routes");
        let (end, ended) = unbounded_channel();
        let (sender, events) = channel();
        let mut reload = Reload::new(ReloadParts {
            entries,
            registry: Arc::new(Registry::new(snapshot)),
            sources,
            ended: end,
            guest_capacity: LoadedCapacity::new(usize::MAX, Resources::unlimited()),
            load_memory: LoadMemory::new(Budget::unlimited()),
            loaders: Loaders::without_threads(),
            events,
        });
        reload.run_due();
        let guest = Box::new(maker());
        TestReload { reload, grants, changes, ended, guest, _events: sender }
    }

    /// Makes a source give another set.
    fn give(&mut self, source: usize, is_atomic: bool, handlers: &[(&str, u8)]) {
        let set = set(is_atomic, &self.grants, handlers);
        self.changes[source].lock().expect("no panic").push(Change::Set(set));
        self.reload.run_due();
    }

    /// Ends the load of a handler, with this failure or successfully.
    #[track_caller]
    fn end_load(&mut self, name: &str, failure: Option<LoadFailure>) {
        let mut running = self.reload.entries.iter().filter_map(|(id, entry)| {
            let LoadState::Running(serial) = entry.load_state else { return None };
            (*entry.handler.name == *name).then_some((id, serial, entry.item.version))
        });
        let (id, serial, version) = running.next().expect("it is being loaded");
        drop(running);
        let outcome = match failure {
            Some(failure) => LoadOutcome::Failed(failure),
            None => LoadOutcome::Loaded(Box::new(Loaded {
                guest: (self.guest)(),
                key: CacheKey::new(GUEST.as_bytes(), true, &[]),
                size: Size::default(),
                compiled: true,
                not_flat: None,
            })),
        };
        let (need, took) = (LoadEstimate::default(), Duration::ZERO);
        let done = FinishedLoad { serial, id, version: Some(version), need, outcome, took };
        self.reload.handle_event(ControlEvent::Done(done));
        self.reload.run_due();
    }

    fn load(&mut self, names: &[&str]) {
        for name in names {
            self.end_load(name, None);
        }
    }

    fn fail(&mut self, name: &str) {
        self.end_load(name, Some(LoadFailure::of_file("it is bad".into())));
    }

    /// The handlers with routes.
    fn handlers(&self) -> Vec<Arc<Handler>> {
        let mut reader = self.reload.registry.reader();
        let routes = reader.load().table.routes().iter();
        routes
            .filter_map(|route| match &route.target {
                RouteTarget::Handler(handler) => Some(handler.clone()),
                RouteTarget::Native(_) | RouteTarget::Landing => None,
            })
            .collect()
    }

    #[track_caller]
    fn assert_serves(&self, expected: &[(&str, HandlerState)]) {
        let handlers = self.handlers();
        let served: Vec<(&str, HandlerState)> =
            handlers.iter().map(|handler| (&*handler.name, handler.state())).collect();
        assert_eq!(served, expected);
    }
}

/// Makes guests without a process.
fn maker() -> impl Fn() -> Guest {
    let engines = Engines::unpooled().expect("engines");
    let (linkers, compiler) = (Linkers::new(&engines).expect("linkers"), Compiler::new());
    let grants = Arc::<Grants>::default();
    let job = CompileJob { name: "guest".into(), is_text: true, grants: grants.clone() };
    let compiled = compiler.expect("a compiler").compile(&job, GUEST.as_bytes());
    let (facts, code) = compiled.expect("no panic").map_err(|it| it.reason).expect("it compiles");
    let engine = engines.get(facts.class, facts.memory_bytes);
    let code = Artifact::compiled(code).code(&facts.kind, engine).expect("code");
    move || {
        let whose = GuestSpec { id: 0, name: "guest", grants: &grants };
        linkers.link(&whose, &facts, &code).map_err(|it| it.reason).expect("it links")
    }
}

#[test]
fn an_atomic_set_is_served_once_all_of_it_is_loaded() {
    let mut control = TestReload::start(true, &[&[("a", 1), ("b", 1)]]);
    control.load(&["a", "b"]);
    let before = control.handlers();
    // `b` is removed, `a` changes, `c` is added.
    control.give(0, true, &[("a", 2), ("c", 1)]);
    control.assert_serves(&[("a", HandlerState::Ready), ("b", HandlerState::Ready)]);
    control.load(&["c"]);
    control.assert_serves(&[("a", HandlerState::Ready), ("b", HandlerState::Ready)]);
    assert!(Arc::ptr_eq(&control.handlers()[0], &before[0]), "the set before it");
    control.load(&["a"]);
    control.assert_serves(&[("a", HandlerState::Ready), ("c", HandlerState::Ready)]);
    assert!(!Arc::ptr_eq(&control.handlers()[0], &before[0]), "the new one");
    assert_eq!(before[1].state(), HandlerState::Gone);
    let [old, new] = [&before[0], &control.handlers()[0]].map(|handler| handler.guest().clone());
    assert!(Arc::ptr_eq(&old.expect("a guest"), &new.expect("a guest")), "for those who wait");
    assert_eq!(control.reload.entries.routes(), 2);
}

#[test]
fn an_atomic_set_waits_for_what_it_keeps_of_the_one_before_it() {
    let mut control = TestReload::start(true, &[&[("a", 1), ("b", 1)]]);
    control.give(0, true, &[("a", 1), ("c", 1)]);
    control.load(&["c"]);
    control.assert_serves(&[("a", HandlerState::Loading), ("b", HandlerState::Loading)]);
    control.load(&["a"]);
    control.assert_serves(&[("a", HandlerState::Ready), ("c", HandlerState::Ready)]);
}

#[test]
fn an_atomic_set_with_a_bad_handler_leaves_the_one_before_it() {
    let mut control = TestReload::start(true, &[&[("a", 1)]]);
    control.load(&["a"]);
    let before = control.handlers();
    control.give(0, true, &[("a", 2), ("b", 1), ("c", 1)]);
    control.load(&["b"]);
    control.fail("c");
    control.assert_serves(&[("a", HandlerState::Ready)]);
    assert!(Arc::ptr_eq(&control.handlers()[0], &before[0]), "the set before it");
    assert_eq!(control.reload.entries.iter().count(), 1, "nothing is left of the bad one");
    assert!(control.ended.try_recv().is_err(), "the host goes on");
    control.give(0, true, &[("a", 1), ("c", 2)]);
    control.load(&["c"]);
    control.assert_serves(&[("a", HandlerState::Ready), ("c", HandlerState::Ready)]);
    assert!(Arc::ptr_eq(&control.handlers()[0], &before[0]), "what is the same stays");
}

#[test]
fn a_newer_set_takes_the_place_of_one_that_is_not_served_yet() {
    let mut control = TestReload::start(true, &[&[("a", 1)]]);
    control.load(&["a"]);
    control.give(0, true, &[("a", 1), ("b", 1)]);
    control.give(0, true, &[("c", 1)]);
    control.load(&["c"]);
    control.assert_serves(&[("c", HandlerState::Ready)]);
    control.give(0, true, &[]);
    control.assert_serves(&[]);
}

#[test]
fn the_host_ends_where_its_first_atomic_set_has_a_bad_handler() {
    let mut control = TestReload::start(true, &[&[("a", 1), ("b", 1)]]);
    control.assert_serves(&[("a", HandlerState::Loading), ("b", HandlerState::Loading)]);
    control.load(&["a"]);
    assert!(control.ended.try_recv().is_err(), "all is well so far");
    control.fail("b");
    let why = control.ended.try_recv().expect("a reason");
    assert!(why.starts_with("b: it is bad; "), "{why}");
}

#[test]
fn a_bad_handler_of_another_set_costs_its_own_route() {
    let mut control = TestReload::start(false, &[&[("a", 1), ("b", 1)]]);
    control.load(&["a"]);
    control.fail("b");
    control.assert_serves(&[("a", HandlerState::Ready), ("b", HandlerState::Failed)]);
    control.give(0, false, &[("a", 2), ("c", 1)]);
    // Routes exist at once. A bad version leaves the previous one served.
    control.assert_serves(&[("a", HandlerState::Ready), ("c", HandlerState::Loading)]);
    control.fail("a");
    control.load(&["c"]);
    control.assert_serves(&[("a", HandlerState::Ready), ("c", HandlerState::Ready)]);
    assert!(control.ended.try_recv().is_err(), "the host goes on");
}

#[test]
fn a_set_that_claims_a_route_of_another_source_is_refused() {
    for is_atomic in [true, false] {
        let mut control = TestReload::start(is_atomic, &[&[("a", 1)], &[("b", 1)]]);
        control.load(&["a", "b"]);
        control.give(1, is_atomic, &[("a", 1), ("c", 1)]);
        control.assert_serves(&[("a", HandlerState::Ready), ("b", HandlerState::Ready)]);
        assert_eq!(control.reload.entries.iter().count(), 2);
        // Once the route is free, the set is accepted.
        control.give(0, is_atomic, &[]);
        control.give(1, is_atomic, &[("a", 1), ("c", 1)]);
        control.load(&["a", "c"]);
        control.assert_serves(&[("a", HandlerState::Ready), ("c", HandlerState::Ready)]);
    }
}

#[test]
fn two_sources_that_claim_one_route_stop_the_start() {
    let grants = Arc::<Grants>::default();
    let told = |handlers: &[(&str, u8)]| -> Box<dyn Source> {
        let first = Some(set(false, &grants, handlers));
        Box::new(FakeSource { first, changes: Arc::default() })
    };
    let sources = vec![told(&[("a", 1)]), told(&[("a/index", 1), ("b", 1), ("a", 2)])];
    let mut entries = Entries::new(Arc::new(|_| ()), sources.len());
    let wake: Wake = Arc::new(|| ());
    let sources = begin(sources, &mut entries, &wake).expect("sets");
    let conflict = snapshot(&entries, &sources, None).err().expect("a conflict").to_string();
    assert!(conflict.contains("the route /a/* is claimed by a and a"), "{conflict}");
}
