//! Names in a file of figures: they are those of the scenario, before anything is measured.

use std::fmt::Write as _;
use std::fs;

use super::Bench;
use super::beside::NUMBERED;
use super::stub::Stub;
use crate::host::command;

/// Cases with names of several kinds. `ADDR` stands for the address of a stub.
const SCENARIO: &str = r#"
    title = "Names"
    duration = "50ms"
    rounds = 1
    [vars]
    many = 12
    [mini.vars]
    many = 3
    [load]
    connections = 1
    [[case]]
    name = "of {count}"
    each.count = [1, "{many}"]
    [[case.side]]
    name = "{kind} of {count}"
    each.kind = ["a", "b"]
    url = "http://ADDR"
    request.path = "/{kind}"
    beside = [{ name = "others", request.path = "/others" }]
    [[case]]
    name = "over"
    measure = "overload"
    overload = { capacity_connections = 1 }
    [[case.side]]
    url = "http://ADDR"
    "#;

/// A file with one figure of these keys, and of the usual ones that are not among them.
fn file_of(keys: &str) -> String {
    let mut text = format!("[[figure]]\nname = \"f\"\ntitle = \"t\"\nscenario = \"s\"\n{keys}\n");
    for (key, value) in [("case", "of 12"), ("side", "a of 12"), ("quantity", "p50_us")] {
        if !keys.lines().any(|line| line.starts_with(&format!("{key} ="))) {
            writeln!(text, "{key} = {value:?}").expect("a text grows");
        }
    }
    text + "[[table]]\nname = \"t\"\nfile = \"a.md\"\nfigures = [\"f\"]\n"
}

/// A call for the figures of a file in a folder with the scenario.
fn figures(stub: &Stub, figures: &str, args: &[&str]) -> Bench {
    let bench = Bench::new(["--figures", "figures.toml"]).args(args);
    fs::create_dir(bench.dir.path().join("scenarios")).expect("a folder");
    let scenario = SCENARIO.replace("ADDR", &stub.addr().to_string());
    bench.file("figures.toml", figures).file("scenarios/s.toml", scenario)
}

/// Keys of a figure, and what is said of them.
const MISTAKES: [(&str, &str); 14] = [
    (
        "case = \"of 11\"",
        "figures.toml: figure f: case: the scenario has no case `of 11`; there are `of 1`, `of \
         12`, `over`",
    ),
    ("side = \"c\"", "side: the case `of 12` has no row `c`; there are `a of 12`, `a of 12: othe"),
    ("side = \"*: other\"", "figure f: side: the case `of 12` has no row `*: other`"),
    ("to = \"a of 1\"", "figure f: to: the case `of 12` has no row `a of 1`"),
    ("less = \"no\"", "figure f: less: the case `of 12` has no row `no`"),
    ("to = \"b of 12\"\nover = [\"a of 12\", \"no\"]", "over: the case `of 12` has no row `no`"),
    ("to = \"b of 12\"\nto_case = \"of 1\"", "to: the case `of 1` has no row `b of 12`"),
    ("to = \"b of 12\"\nto_case = \"of\"", "to_case: the scenario has no case `of`"),
    ("quantity = \"p50\"", "quantity: `a of 12` of the case `of 12` has no `p50`; there are `answ"),
    // Another measure has it.
    ("quantity = \"refused\"", "quantity: `a of 12` of the case `of 12` has no `refused`"),
    // The process of a server at a URL is not known.
    ("quantity = \"cpu_us_per_req\"", "has no `cpu_us_per_req`"),
    ("quantity = \"rate_reached\"", "has no `rate_reached`"),
    (
        "side = \"*: others\"\nquantity = \"swaps\"",
        "`*: others` of the case `of 12` has no `swaps`",
    ),
    ("of = \"asked\"", "figure f: of: `a of 12` of the case `of 12` has no `asked`"),
];

#[test]
fn names_that_the_scenario_lacks_are_said_before_anything_is_measured() {
    let stub = Stub::ok();
    for (keys, expected) in MISTAKES {
        let done = figures(&stub, &file_of(keys), &[]).run();
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{keys}: {}", done.text());
        assert!(done.err.contains(expected), "{keys}: {}", done.text());
    }
    let grid = "[[grid]]\nname = \"g\"\nfile = \"a.md\"\nscenario = \"s\"\ncorner = \"\"\n\
                rows = [{ title = \"\", side = \"SIDE\" }]\n\
                [[grid.columns]]\ntitle = \"t\"\ncase = \"CASE\"\nquantity = \"QUANTITY\"\n\
                to = \"TO\"\n";
    let filled = |side: &str, case: &str, quantity: &str, to: &str| {
        let names = [("SIDE", side), ("CASE", case), ("QUANTITY", quantity), ("TO", to)];
        let grid = names.iter().fold(grid.to_owned(), |text, (key, it)| text.replace(key, it));
        file_of("") + &grid
    };
    for (text, expected) in [
        (filled("no", "of 1", "p50_us", "a of 1"), "table g: side: no case has a row `no`"),
        (filled("a of 1", "no", "p50_us", "a of 1"), "table g: case: the scenario has no case"),
        (filled("a of 1", "of 1", "p50", "a of 1"), "quantity: `t` of the case `of 1` has no"),
        (filled("a of 1", "of 1", "p50_us", "no"), "to: the case `of 1` has no row `no`"),
        (format!("[runs]\nss = \"runs/1\"\n{}", file_of("")), "runs: no figure is of a scenario"),
    ] {
        let done = figures(&stub, &text, &[]).run();
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{text}: {}", done.text());
        assert!(done.err.contains(expected), "{text}: {}", done.text());
    }
    assert_eq!(stub.requests(), 0);
}

#[test]
fn in_miniature_a_figure_is_found_by_its_name_in_full() {
    let stub = Stub::ok();
    let done = figures(&stub, &file_of("at_most = 1e9"), &["--mini"]).run();
    assert!(done.out.lines().any(|line| line.starts_with("f: ")), "{}", done.text());
    assert!(!done.out.contains("not measured") && done.out.contains("of 3"), "{}", done.text());
    assert_eq!(done.code, Some(0), "{}", done.text());
}

/// What a scenario prepares may take minutes.
#[test]
fn a_name_that_is_not_there_is_said_before_anything_is_prepared() {
    let stub = Stub::ok();
    let prepare = "[[prepare]]\nname = \"p\"\nready_within = \"100ms\"\n\
                   command = [\"sh\", \"-c\", \"echo > \\\"$0\\\"\", \"{here}/prepared\"]\n";
    let scenario = SCENARIO.replace("ADDR", &stub.addr().to_string());
    let scenario = format!("{scenario}\n{prepare}");
    let figures = |name| {
        let bench = figures(&stub, &file_of(""), &["--only", name]);
        bench.file("scenarios/s.toml", &scenario).run()
    };
    let wrong = figures("g");
    assert!(wrong.err.contains("there is no figure g; there are f"), "{}", wrong.text());
    assert!(!wrong.path("scenarios/prepared").exists(), "{}", wrong.text());
    let right = figures("f");
    assert!(right.path("scenarios/prepared").exists(), "{}", right.text());
    let alone = |part| {
        let bench = Bench::new(["--scenario", "s.toml", "--only", part]);
        bench.file("s.toml", &scenario).run()
    };
    let wrong = alone("of 13");
    assert!(wrong.err.contains("no case and no side has of 13 in its name"), "{}", wrong.text());
    assert!(!wrong.path("prepared").exists(), "{}", wrong.text());
    let right = alone("of 12");
    assert!(right.path("prepared").exists(), "{}", right.text());
}

/// A case of each measure.
const MEASURES: &str = r#"
    title = "Measures"
    duration = "100ms"
    rounds = 1
    [load]
    connections = 2
    [[server]]
    name = "host"
    command = ["{guesthouse}", "serve", "{dir}", "--listen", "127.0.0.1:{port}", "--no-cache"]
    files = { "a.wat" = "version.wat" }
    ready = "/a"
    counters = ["ready"]
    [request]
    path = "/a"
    [[case]]
    name = "load"
    beside = [{ name = "others", load.rate = 100 }]
    sides = ["host"]
    [[case]]
    name = "alone"
    load.rate = 100
    [[case.side]]
    server = "host"
    swaps = { template = "version.wat", path = "a.wat" }
    [[case]]
    name = "idle"
    measure = "idle"
    at_rest = "20ms"
    sides = ["host"]
    [[case]]
    name = "start"
    measure = "start"
    sides = ["host"]
    [[case]]
    name = "drop"
    measure = "drop"
    versions = { template = "version.wat", path = "a.wat" }
    sides = ["host"]
    [[case]]
    name = "curve"
    measure = "curve"
    curve.loads = [0.1]
    sides = ["host"]
    [[case]]
    name = "overload"
    measure = "overload"
    sides = ["host"]
    "#;

/// What a scenario measures may be in a figure, whatever the measure.
#[test]
fn every_number_of_a_run_can_be_a_figure() {
    let done = Bench::new(["--scenario", "s.toml", "--csv", "raw.csv", "--allow-errors"])
        .file("s.toml", MEASURES)
        .file("version.wat", NUMBERED)
        .run();
    assert_eq!(done.code, Some(0), "{}", done.text());
    let (mut figures, mut names) = (String::new(), Vec::new());
    let raw = fs::read_to_string(done.path("raw.csv")).expect("the raw numbers");
    for line in raw.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let (case, side, quantity) = (fields[0], fields[1], fields[4]);
        let quantity = if quantity.starts_with("errors_") { "errors" } else { quantity };
        let name = format!("{case}, {side}, {quantity}");
        if names.contains(&name) {
            continue;
        }
        figures += &format!(
            "[[figure]]\nname = {name:?}\ntitle = \"t\"\nscenario = \"s\"\ncase = {case:?}\n\
             side = {side:?}\nquantity = {quantity:?}\n"
        );
        names.push(name);
    }
    for part in ["swaps", "counter_ready", "refused", "start_ms", "drop_ms", "idle", "load_max"] {
        assert!(names.iter().any(|name| name.contains(part)), "no {part}: {raw}");
    }
    let table = format!("[[table]]\nname = \"t\"\nfile = \"a.md\"\nfigures = {names:?}\n");
    fs::create_dir(done.path("scenarios")).expect("a folder");
    for (file, text) in [
        ("scenarios/s.toml", MEASURES),
        ("figures.toml", &format!("{figures}{table}")),
        ("a.md", "<!-- table t -->\n<!-- end -->\n"),
    ] {
        fs::write(done.path(file), text).expect("a file");
    }
    let drawn = command().arg("bench").arg("--tables").arg(done.path("figures.toml")).output();
    let drawn = drawn.expect("it runs");
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
}
