//! Figures: what is measured for them, which of them miss, and that no table says another number
//! than its run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use super::stub::{OK, Stub};
use super::{Bench, Outcome};
use crate::host::command;

const SCENARIO: &str = r#"
    title = "Two sides"
    duration = "100ms"
    rounds = 2
    [load]
    connections = 1
    [[case]]
    name = "one"
    [[case.side]]
    name = "a"
    url = "http://ADDR"
    request.path = "/a"
    [[case.side]]
    name = "b"
    url = "http://ADDR"
    request.path = "/b"
    [[case]]
    name = "other"
    [[case.side]]
    name = "a"
    url = "http://ADDR"
    request.path = "/other"
    "#;

/// Two figures, one of which no server can meet.
const FIGURES: &str = r#"
    [[figure]]
    name = "met"
    title = "requests of one to those of the other"
    scenario = "two"
    case = "one"
    side = "a"
    to = "b"
    quantity = "req_per_s"
    at_least = 0.001
    headline = true
    [[figure]]
    name = "missed"
    title = "microseconds"
    scenario = "two"
    case = "one"
    side = "a"
    quantity = "p50_us"
    at_most = 0.001
    [[figure]]
    name = "elsewhere"
    title = "another case"
    scenario = "two"
    case = "other"
    side = "a"
    quantity = "errors"
    pick = "sum"
    of = "answers"
    digits = 0
    at_most = 0
    [[table]]
    name = "all"
    file = "README.md"
    figures = ["met", "missed", "elsewhere"]
    "#;

/// A call for figures in a folder with one scenario of a stub.
fn figures(stub: &Stub, args: &[&str]) -> Bench {
    let bench = Bench::new(["--figures", "figures.toml"]).args(args);
    fs::create_dir(bench.dir.path().join("scenarios")).expect("a folder");
    let scenario = SCENARIO.replace("ADDR", &stub.addr().to_string());
    bench.file("figures.toml", FIGURES).file("scenarios/two.toml", scenario)
}

fn says(done: &Outcome, line: &str) {
    assert!(done.out.lines().any(|it| it.starts_with(line)), "no {line:?}: {}", done.text());
}

#[test]
fn figures_are_measured_and_say_which_miss() {
    let stub = Stub::ok();
    let done = figures(&stub, &["--out", "run"]).run();
    assert_eq!(done.code, Some(1), "{}", done.text());
    says(&done, "met: ");
    says(&done, "missed: ");
    says(&done, "elsewhere: 0 of ");
    says(&done, "3 figures: 1 miss their targets, 0 failed");
    for file in ["figures.txt", "two/summary.txt", "two/raw.csv"] {
        assert!(done.path("run").join(file).is_file(), "no {file}");
    }
}

/// The short form judges what failed, not how fast it was, and asks for the headline alone.
#[test]
fn the_short_form_fails_for_failures_alone() {
    let stub = Stub::ok();
    let done = figures(&stub, &["--quick"]).run();
    assert_eq!(done.code, Some(0), "{}", done.text());
    says(&done, "1 figures: 0 miss their targets, 0 failed");
    let asked = |path: &str| stub.of_target(path);
    assert!(asked("/a") > 0 && asked("/other") == 0, "the case of no headline is measured");
    let failing = Stub::new(|asked, client| match asked.of_target {
        0..10 => client.say(OK),
        _ => client.say(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
    });
    let done = figures(&failing, &["--quick"]).run();
    assert_eq!(done.code, Some(1), "{}", done.text());
    says(&done, "met: FAILED: ");
}

#[test]
fn only_the_figures_that_are_named_are_measured() {
    let stub = Stub::ok();
    let done = figures(&stub, &["--only", "elsewhere"]).run();
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert_eq!(stub.of_target("/a"), 0);
    let done = figures(&stub, &["--only", "elswhere"]).run();
    assert_eq!(done.code, Some(1), "{}", done.text());
    assert!(done.err.contains("there is no figure elswhere; there are met, missed, elsewhere"));
}

/// One that no machine could measure is not told from an older run.
#[test]
fn what_is_not_measured_says_so() {
    let stub = Stub::ok();
    let figures = |args: &[&str]| {
        let text = FIGURES.replace("side = \"a\"\n    to = \"b\"", "side = \"missing\"");
        let text = format!("[runs]\ntwo = \"runs/old\"\n{text}");
        let scenario = SCENARIO.replace("ADDR", &stub.addr().to_string());
        let (before, other) = scenario.rsplit_once("[[case]]").expect("two cases");
        let missing = "[[case.side]]\nserver = \"missing\"\n[[server]]\nname = \"missing\"\n\
                       command = [\"no-such-program\"]\n";
        let scenario = format!("{before}{missing}[[case]]{other}");
        let bench = figures(&stub, args).file("figures.toml", text);
        let bench = bench.file("scenarios/two.toml", scenario);
        fs::create_dir_all(bench.dir.path().join("runs/old")).expect("a folder");
        let old = "case,row,round,position,quantity,value\none,missing,1,1,req_per_s,7\n";
        bench.file("runs/old/raw.csv", old).run()
    };
    let done = figures(&["--only", "met"]);
    says(&done, "met: not measured");
    says(&done, "1 figures: 0 miss their targets, 0 failed, 1 could not be measured here");
    // The short form is there to measure each of them.
    assert_eq!((done.code, figures(&["--quick"]).code), (Some(0), Some(1)), "{}", done.text());
}

/// A server that is too slow for the rate has not been asked for everything.
#[test]
fn a_round_that_was_not_sent_fails_its_figure() {
    let stub = Stub::after(Duration::from_millis(50));
    let bench = figures(&stub, &["--only", "elsewhere"]);
    let scenario = SCENARIO.replace("ADDR", &stub.addr().to_string());
    let scenario = scenario.replace("connections = 1\n", "connections = 1\n    rate = 1000\n");
    let done = bench.file("scenarios/two.toml", scenario).run();
    assert_eq!(done.code, Some(1), "{}", done.text());
    says(&done, "elsewhere: FAILED: ");
    assert!(done.out.contains("of what was due was sent"), "{}", done.text());
}

/// The longest of all rounds is the longest, and not the middle one of them.
#[test]
fn the_highest_of_many_rows_is_of_all_rounds() {
    let copy = tempfile::tempdir().expect("a folder");
    let run = copy.path().join("runs/one");
    fs::create_dir_all(&run).expect("a folder");
    let rows = ["one,a,1,1,max_us,1", "one,a,2,1,max_us,9000", "one,a,3,1,max_us,2"];
    let raw = format!("case,row,round,position,quantity,value\n{}\n", rows.join("\n"));
    fs::write(run.join("raw.csv"), raw).expect("the numbers");
    let figures = r#"
        [[figure]]
        name = "f"
        title = "longest"
        scenario = "no"
        run = "runs/one"
        case = "one"
        side = "*"
        quantity = "max_us"
        pick = "max"
        digits = 0
        [[table]]
        name = "t"
        file = "a.md"
        figures = ["f"]
        "#;
    let file = copy.path().join("figures.toml");
    fs::write(&file, figures).expect("the figures");
    let document = copy.path().join("a.md");
    let draw = || command().arg("bench").arg("--tables").arg(&file).output().expect("it runs");
    fs::write(&document, "<!-- table t -->\n<!-- end -->\n").expect("a document");
    assert!(draw().status.success());
    let drawn = fs::read_to_string(&document).expect("the document");
    assert!(drawn.contains("| longest | 9,000 |"), "{drawn}");
    // Between a marker and another one's end nothing may be lost.
    for wrong in ["<!-- table t -->\n", "<!-- table t -->\ntext\n<!-- table u -->\n<!-- end -->\n"]
    {
        fs::write(&document, wrong).expect("a document");
        assert!(!draw().status.success());
        assert_eq!(fs::read_to_string(&document).expect("the document"), wrong);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn check(file: &Path) -> Output {
    command().arg("bench").arg("--tables").arg(file).arg("--check").output().expect("it runs")
}

/// Every figure and every table in the documents is as the run says that it names.
#[test]
fn no_table_of_this_repository_says_another_number_than_its_run() {
    let done = check(&root().join("benches/figures.toml"));
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.is_empty(), "{said}{}", {
        String::from_utf8_lossy(&done.stderr)
    });
}

/// A copy of what the tables are made of, in a folder of its own.
fn copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    let benches = copy.path().join("benches");
    fs::create_dir_all(benches.join("scenarios")).expect("a folder");
    for file in ["README.md", "benches/README.md", "benches/figures.toml"] {
        fs::copy(root().join(file), copy.path().join(file)).expect("a copy");
    }
    for entry in fs::read_dir(root().join("benches/scenarios")).expect("the scenarios") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let name = path.file_name().expect("a name");
            fs::copy(&path, benches.join("scenarios").join(name)).expect("a copy");
        }
    }
    let figures = fs::read_to_string(benches.join("figures.toml")).expect("the figures");
    let runs = figures.split('"').filter(|text| text.starts_with("runs/"));
    for run in runs.map(|run| PathBuf::from(run).join("raw.csv")) {
        let (from, to) = (root().join("benches").join(&run), benches.join(&run));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        if from.exists() {
            fs::copy(from, to).expect("a copy");
        }
    }
    copy
}

#[test]
fn a_digit_that_was_changed_is_found() {
    for file in ["README.md", "benches/README.md"] {
        let copy = copy();
        let figures = copy.path().join("benches/figures.toml");
        assert!(check(&figures).status.success());
        let path = copy.path().join(file);
        let text = fs::read_to_string(&path).expect("a document");
        let table = text.find("<!-- table ").expect("a table");
        let below = table + text[table..].find("|---|").expect("its head") + 20;
        let at = below + text[below..].find(|it: char| it.is_ascii_digit()).expect("a digit");
        let digit = text.as_bytes()[at] - b'0';
        let mut changed = text.clone();
        changed.replace_range(at..=at, &((digit + 1) % 10).to_string());
        fs::write(&path, &changed).expect("the document is written");
        let done = check(&figures);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let line = text[..at].lines().count();
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{file}:{line}: ")), "{line}: {said}");
        // Drawn anew, it is as before.
        let drawn = command().arg("bench").arg("--tables").arg(&figures).status();
        assert!(drawn.expect("it runs").success());
        assert_eq!(fs::read_to_string(&path).expect("the document"), text);
    }
}

/// What is wrong with a file of figures, and what is said of it.
const MISTAKES: [(&str, &str); 8] = [
    ("scale = nan", "`scale` is a number"),
    ("side = \"*\"\nto = \"b\"", "figure new: a `side` of many rows is compared with nothing"),
    ("name = \"met\"", "two figures are called met"),
    ("less = \"b\"\nto = \"a\"", "figure new: write one of `to` and `less`"),
    ("over = [\"a\", \"b\"]", "figure new: `over` divides a ratio, which needs `to`"),
    ("to_case = \"one\"", "figure new: `to_case` needs `to` or `less`"),
    ("", "figure new: no table shows it"),
    ("quantiti = \"p50_us\"", "unknown field `quantiti`"),
];

#[test]
fn mistakes_in_a_file_of_figures_are_named() {
    let stub = Stub::ok();
    for (more, expected) in MISTAKES {
        let name = if more.starts_with("name") { "" } else { "name = \"new\"\n" };
        let side = if more.starts_with("side") { "" } else { "side = \"a\"\n" };
        let rest = format!("title = \"t\"\nscenario = \"two\"\ncase = \"one\"\n{side}");
        let text = format!("{FIGURES}\n[[figure]]\n{name}{rest}quantity = \"p50_us\"\n{more}\n");
        let done = figures(&stub, &[]).file("figures.toml", text).run();
        assert_eq!(done.code, Some(1), "{more}: {}", done.text());
        assert!(done.err.contains(expected), "{more}: {}", done.text());
    }
}
