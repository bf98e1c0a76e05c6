//! The cases as a page of the documentation.

use std::fs;
use std::path::Path;

use super::cases::{Case, Level, Role};

const INTRODUCTION: &str = "\
# HTTP/1.1, rule by rule

This page says what the host makes of messages at the edge of the grammar and beyond it. Sections
are of [RFC 9112](https://www.rfc-editor.org/rfc/rfc9112) unless they say 9110. A test sends every
row over a raw socket. The page is made from these tests, `tests/it/grammar/`, by `UPDATE=1 cargo
test --test it grammar`.

*Answer* is the statuses that come back, and what becomes of the connection: it stays open, is
closed, or breaks off within the answer, so that nobody can take the answer for a whole one.
**Differs** marks a row in which the host does not do what the RFC says, and the remark says why. If
the remark names hyper, the library that reads the bytes decides, and has no setting for it.
";

/// Compares the page with the cases, or rewrites it.
pub fn hold(cases: &[Case]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/http-grammar.md");
    let actual = text(cases);
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(&path, actual).expect("the page");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "docs/http-grammar.md is not made of the cases; UPDATE=1 writes it anew"
    );
}

fn text(cases: &[Case]) -> String {
    let mut text = INTRODUCTION.to_owned();
    for (role, title) in [
        (Role::Client, "Requests, from a client to the host"),
        (Role::Forward, "Requests, from the host to the upstream"),
        (Role::Upstream, "Responses, from the upstream"),
    ] {
        text += &format!("\n## {title}\n\n");
        text += match role {
            Role::Client => "| RFC | | case | answer | remark |\n|---|---|---|---|---|\n",
            Role::Forward => {
                "| RFC | | case | the client gets | the upstream sees | remark |\n\
                 |---|---|---|---|---|---|\n"
            }
            Role::Upstream => {
                "| RFC | | case | the client gets | remark |\n|---|---|---|---|---|\n"
            }
        };
        for case in cases.iter().filter(|case| case.role == role) {
            text += &row(case);
        }
    }
    let musts = cases.iter().filter(|case| case.level == Level::Must).count();
    text + &format!("\n{} cases, {musts} of them of a MUST.\n", cases.len())
}

fn row(case: &Case) -> String {
    let level = match case.level {
        Level::Must => "MUST",
        Level::Should => "SHOULD",
        Level::May => "MAY",
    };
    let mut cells = vec![case.section.replace(':', " "), level.into(), case.what.clone()];
    cells.push(answer(case));
    if case.role == Role::Forward {
        let lines: Vec<String> = case
            .seen
            .iter()
            .map(|(line, is_seen)| {
                let line = line.trim();
                if *is_seen { format!("`{line}`") } else { format!("no `{line}`") }
            })
            .collect();
        cells.push(if lines.is_empty() { "nothing".into() } else { lines.join(", ") });
    }
    let differs = if case.differs { "**Differs.** " } else { "" };
    cells.push(format!("{differs}{}", case.reason));
    let cells: Vec<String> = cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | ")).replace("|  |", "| |")
}

fn answer(case: &Case) -> String {
    let statuses: Vec<String> =
        case.statuses.iter().map(|(status, _)| status.to_string()).collect();
    let end = match case {
        Case { is_open: true, .. } => "open",
        Case { is_cut: true, .. } => "breaks off",
        Case { is_either: true, .. } => "open or closed",
        _ => "closed",
    };
    let mut parts = vec![statuses.join(", "), end.to_owned()];
    if case.role == Role::Upstream && case.is_open {
        parts.pop();
    }
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}
