//! HTTP/1.1 byte by byte: a table of cases, each with its section of the RFC and the host's answer.
//!
//! The cases are in `tests/it/grammar/*.txt`; [`cases`] describes the format. They are also a page,
//! `docs/http-grammar.md`, which `UPDATE=1 cargo test --test it grammar` rewrites. Each case runs
//! over a raw socket against one host, as its client or as its upstream.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cases::{Case, Level, Role};

use crate::client::{Connection, Response};
use crate::host::{HELLO, Host};
use crate::middleware::upstream::{Seen, Upstream};
use crate::wat;

#[path = "grammar/cases.rs"]
mod cases;
#[path = "grammar/page.rs"]
mod page;

/// The answer of the upstream in cases that are not about it.
const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup";

/// Requests the answer of the case with this number: `/case/7`.
fn number(target: &str) -> Option<usize> {
    target.strip_prefix("/case/")?.parse().ok()
}

/// An upstream that answers as the cases say. If an answer has no end of its own, the upstream
/// closes the connection.
fn upstream(cases: &Arc<Vec<Case>>) -> Upstream {
    let cases = cases.clone();
    Upstream::scripted(move |seen, stream| {
        let case = number(&seen.target).and_then(|at| cases.get(at));
        stream.write_all(case.map_or(PLAIN, |case| &case.bytes))?;
        Ok(case.is_none_or(|case| !case.closes))
    })
}

fn host(upstream: &Upstream) -> Host {
    Host::with("hello.wat", HELLO)
        .file("reader.wat", wat::reads())
        .file("echo.wat", wat::echoes())
        .file("tells.wat", wat::tells(&["host", "x", "transfer-encoding", "content-length"]))
        .file("s204.wat", wat::status(204))
        .file("s205.wat", wat::status(205))
        .file("s304.wat", wat::status(304))
        .args(["--upstream", &upstream.url(""), "--workers", "1"])
        .start()
}

/// Runs a case. Returns what is wrong with it, if anything.
type Outcome = Result<(), String>;

fn run(case: &Case, at: usize, host: &Host, upstream: &Upstream) -> Outcome {
    let mut connection = host.connect();
    let before = upstream.seen().len();
    let bytes = match case.role {
        Role::Client | Role::Forward => case.bytes.clone(),
        Role::Upstream => {
            let Case { method, version, fields, .. } = case;
            let line = format!("{method} /case/{at} {version}");
            format!("{line}\r\nhost: a.test\r\n{fields}\r\n").into_bytes()
        }
    };
    // The host may answer and close before it has all of it.
    let _ = connection.try_send(&bytes);
    let mut last = None;
    let mut bodies = Vec::new();
    for (status, method) in &case.statuses {
        let answer =
            connection.next(method).map_err(|error| format!("instead of {status}: {error}"));
        let Some(answer) = answer? else { return Err(format!("closed instead of {status}")) };
        if answer.status != *status {
            return Err(format!("{} instead of {status}: {answer:?}", answer.status));
        }
        bodies.push(answer.text());
        last = Some(answer);
    }
    if let Some(expected) = &case.bodies
        && bodies != *expected
    {
        return Err(format!("bodies {bodies:?}"));
    }
    if let Some(answer) = &last {
        judge(case, answer)?;
    }
    end(case, &mut connection)?;
    let seen = upstream.seen();
    look(case, &seen[before..])
}

/// The state of the connection after the answers.
fn end(case: &Case, connection: &mut Connection) -> Outcome {
    if case.is_open {
        connection.assert_silent();
        let answer = connection.get("/hello");
        let is_good = answer.status == 200;
        return if is_good { Ok(()) } else { Err(format!("then {answer:?}")) };
    }
    if case.is_cut {
        return match connection.next("GET") {
            Err(_) | Ok(None) => Ok(()),
            Ok(answer) => Err(format!("{answer:?} instead of an answer that breaks off")),
        };
    }
    if case.is_either {
        connection.finish();
    }
    let rest = connection.read_to_close();
    let text = String::from_utf8_lossy(&rest);
    if rest.is_empty() { Ok(()) } else { Err(format!("then {text:?}")) }
}

/// The fields of the last answer.
fn judge(case: &Case, answer: &Response) -> Outcome {
    let lines: Vec<String> =
        answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let trailers = answer.trailers.iter().map(|(name, value)| format!("trailer {name}: {value}"));
    let lines: Vec<String> = lines.into_iter().chain(trailers).collect();
    for (wanted, is_wanted) in &case.fields_wanted {
        if lines.iter().any(|line| line.starts_with(wanted.as_str())) != *is_wanted {
            return Err(format!("{wanted:?} in {lines:?}"));
        }
    }
    if case.interim.as_ref().is_some_and(|interim| answer.interim != *interim) {
        return Err(format!("interim answers {:?}", answer.interim));
    }
    Ok(())
}

/// What the upstream received.
fn look(case: &Case, seen: &[Seen]) -> Outcome {
    let text: String = seen.iter().map(render).collect();
    if case.role != Role::Forward {
        // No request is sent twice.
        let expected = usize::from(case.role == Role::Upstream);
        let is_right = seen.len() == expected;
        return if is_right { Ok(()) } else { Err(format!("the upstream has seen {text:?}")) };
    }
    for (wanted, is_wanted) in &case.seen {
        if text.contains(wanted.as_str()) != *is_wanted {
            return Err(format!("{wanted:?} in {text:?}"));
        }
    }
    if case.seen.is_empty() && !seen.is_empty() {
        return Err(format!("the upstream has seen {text:?}"));
    }
    Ok(())
}

/// A request as the upstream received it, with a line break before and after each line.
fn render(seen: &Seen) -> String {
    let Seen { method, target, version, headers, body, trailers } = seen;
    let mut text = format!("\n{method} {target} {version}\n");
    for (name, value) in headers {
        text += &format!("\n{name}: {value}\n");
    }
    text += &format!("\nbody {}\n", String::from_utf8_lossy(body));
    for (name, value) in trailers {
        text += &format!("\ntrailer {name}: {value}\n");
    }
    text
}

#[test]
fn every_case_is_answered_as_the_table_says() {
    let cases = Arc::new(cases::all());
    let upstream = upstream(&cases);
    let host = host(&upstream);
    host.settled();
    let mut wrong = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(case, at, &host, &upstream)));
        let outcome = outcome.unwrap_or_else(|_| Err("it panicked; see above".into()));
        if let Err(why) = outcome {
            wrong.push(format!("{} {}: {why}", case.section, case.what));
        }
        host.assert_serves("/hello");
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(host.at_rest().rejects("panic"), 0);
}

#[test]
fn the_table_is_complete() {
    let cases = cases::all();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let unexplained: Vec<_> = cases
        .iter()
        .filter(|case| case.level == Level::Must && case.differs && case.reason.is_empty())
        .map(|case| case.what.as_str())
        .collect();
    assert!(unexplained.is_empty(), "{unexplained:?}");
    page::hold(&cases);
}
