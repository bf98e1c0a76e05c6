//! The rows before the sandbox: route a request, admit it, and strip its headers.
//!
//! Owns the route tables that are searched. No guest runs here.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use guesthouse::demo::native::Twin;
use guesthouse::grants::{QueueLimits, Share};
use guesthouse::message::Request;
use guesthouse::queue::Holder;
use guesthouse::registry::admission_gate::{AdmissionGate, GuestGate};
use guesthouse::registry::route::{Pattern, Table};
use guesthouse::registry::{Registry, RouteTarget, Snapshot};

use crate::case::Row;

/// The routes of a small site.
const FEW: [&str; 6] = ["index", "hello", "fib", "json", "docs/[page]", "files/[...path]"];
/// The handlers of a large site, named as `guesthouse demo --many` names them.
const MANY: usize = 10_000;
/// Coprime to [`MANY`], so that the paths are spread over the whole table.
const STRIDE: usize = 617;

/// The rows of this file. `request` has the headers that one of them strips.
pub fn rows(mut request: Request) -> Result<Vec<Row>> {
    let few = || FEW.iter().map(ToString::to_string);
    let many = || (0..MANY).map(|number| format!("stranger/{number:05}"));
    let spread = (0..MANY).map(|number| format!("/stranger/{:05}", number * STRIDE % MANY));
    let by_host = many().map(|name| format!("@{}.example/index", name.replace('/', "-")));
    let host = "stranger-00617.example:8080";
    let params = ["users/[id]/posts/[post]".to_owned()];

    let guest =
        GuestGate::new(&AdmissionGate::new(256), Share::of_other(0), 192, QueueLimits::default());
    let client = Rc::default();
    Ok(vec![
        route("route: one of 6", few(), None, vec!["/hello".to_owned()])?,
        route("route: one of 10,000", many(), None, spread.collect())?,
        route("route: one of 10,000 hosts", by_host, Some(host), vec!["/".to_owned()])?,
        route("route: two parameters", params, None, vec!["/users/7/posts/42".to_owned()])?,
        Row::new("admit: guest and worker, and leave", move || admit(&guest, &client)),
        Row::new("headers: strip the host's own", move || {
            black_box(&mut request).strip_reserved();
        }),
    ])
}

/// A row that does what each request does: loads the snapshot and looks a path up. Takes the paths
/// in turn.
fn route(
    name: &'static str,
    names: impl IntoIterator<Item = String>,
    host: Option<&'static str>,
    paths: Vec<String>,
) -> Result<Row> {
    let line = |name: String| -> Result<_> {
        let pattern = Pattern::parse(&name).context("the name of a route")?;
        Ok((pattern, RouteTarget::Native(Twin::Hello.number()), name))
    };
    let lines: Result<Vec<_>> = names.into_iter().map(line).collect();
    let table = Table::build(lines?).context("the routes of a row")?;
    for path in &paths {
        let found = table.find(host, path).context("a path of a row")?;
        ensure!(found.is_some(), "{name}: nothing serves {path}");
    }
    let mut reader = Arc::new(Registry::new(Snapshot { table })).reader();
    let mut at = 0;
    Ok(Row::new(name, move || {
        at = if at + 1 < paths.len() { at + 1 } else { 0 };
        let found = reader.load().table.find(black_box(host), black_box(&paths[at]));
        black_box(found.is_ok());
    }))
}

fn admit(gate: &Rc<GuestGate>, client: &Rc<Holder>) {
    let permit = black_box(gate).admit(client);
    black_box(permit.is_ok());
}
