//! Names in a file of figures: they are those of the scenario, before anything is measured.

use std::fmt::Write as _;
use std::fs;

use super::Bench;
use super::beside::NUMBERED;
use super::stub::{OK, Stub};
use crate::host::command;

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
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
const MISTAKES: [(&str, &str); 21] = [
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
    ("to = \"*\"", "figure f: to: `*` stands for many rows; name one"),
    ("less = \"*: others\"", "figure f: less: `*: others` stands for many rows; name one"),
    ("to = \"b of 12\"\nover = [\"a of 12\", \"*\"]", "over: `*` stands for many rows; name one"),
    ("side = \"*2\"", "figure f: side: `*2` is no row; write a name, `*` or `*: name`"),
    ("at_most = nan", "figure f: `at_most`, `at_least` and `aim` are numbers"),
    ("at_least = -inf", "figure f: `at_most`, `at_least` and `aim` are numbers"),
    ("aim = inf", "figure f: `at_most`, `at_least` and `aim` are numbers"),
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
        (filled("*", "of 1", "p50_us", "a of 1"), "table g: side: `*` stands for many rows"),
        (filled("a of 1", "of 1", "p50_us", "*"), "table g: to: `*` stands for many rows"),
        (
            filled("a of 1", "of 1", "p50_us", "a of 1") + "digits = 99\n",
            "table g: `digits` goes to",
        ),
        (
            filled("a of 1", "of 1", "p50_us", "a of 1") + "scale = inf\n",
            "table g: `digits` goes to",
        ),
        (format!("[runs]\nss = \"runs/1\"\n{}", file_of("")), "runs: no figure is of a scenario"),
    ] {
        let done = figures(&stub, &text, &[]).run();
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{text}: {}", done.text());
        assert!(done.err.contains(expected), "{text}: {}", done.text());
    }
    assert_eq!(stub.requests(), 0);
}

/// The name is also that of a folder below `--out`.
#[test]
fn a_scenario_is_a_name_and_no_path() {
    let stub = Stub::ok();
    for name in ["", ".", "../scenarios/s", "a/b", "figures.txt"] {
        let file = format!("[runs]\n{name:?} = \"runs/1\"\n{}", file_of(""));
        let file = file.replace("scenario = \"s\"", &format!("scenario = {name:?}"));
        let done = figures(&stub, &file, &[]).run();
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{name}: {}", done.text());
        let expected = format!("figure f: scenario: `{name}` is no name");
        assert!(done.err.contains(&expected), "{name}: {}", done.text());
    }
}

/// Without its run, a scenario without a file is a slip.
#[test]
fn a_scenario_without_a_file_has_a_run() {
    let stub = Stub::ok();
    let grid = "[[grid]]\nname = \"g\"\nfile = \"a.md\"\nscenario = \"other\"\ncorner = \"\"\n\
                rows = [{ title = \"\", side = \"a\" }]\n\
                columns = [{ title = \"\", case = \"c\", quantity = \"p50_us\" }]\n";
    let file = file_of("").replace("scenario = \"s\"", "scenario = \"other\"") + grid;
    let done = figures(&stub, &file, &[]).run();
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{}", done.text());
    for of in ["figure f", "table g"] {
        let expected = format!("{of}: there is no scenarios/other.toml");
        assert!(done.err.contains(&expected), "{}", done.text());
    }
    let done = figures(&stub, &format!("[runs]\nother = \"runs/1\"\n{file}"), &[]).run();
    assert!(done.out.contains("0 figures: ") && done.err.is_empty(), "{}", done.text());
    assert!(done.out.contains("by another program: f"), "{}", done.text());
}

#[test]
fn in_miniature_a_figure_is_found_by_its_name_in_full() {
    let stub = Stub::ok();
    let scenario = SCENARIO.replace("ADDR", &stub.addr().to_string());
    // Miniature measures a few of many cases, but each that a figure names. A range is shorter in
    // it, which is no matter of other tables.
    let counts = scenario.replace("[1, \"{many}\"]", "[1, 2, 4, 5, 6, \"{many}\"]");
    let range = "[[case]]\nname = \"to {n}\"\neach.n = [\"1..{many}\"]\n\
                 [[case.side]]\nurl = \"http://ADDR\"\n";
    let counts = format!("{counts}\n{}", range.replace("ADDR", &stub.addr().to_string()));
    for (keys, said) in [
        ("at_most = 1e9", "of 3"),
        ("case = \"of 2\"\nside = \"a of 2\"\nat_most = 1e9", "of 2"),
        ("side = \"*\"\nat_most = 1e9", "of 3"),
        // Its numbers mean nothing.
        ("at_most = 1e-9", "MISSED"),
    ] {
        let done = figures(&stub, &file_of(keys), &["--mini"]);
        let done = done.file("scenarios/s.toml", &counts).run();
        assert!(done.out.lines().any(|line| line.starts_with("f: ")), "{}", done.text());
        assert!(!done.out.contains("not measured") && done.out.contains(said), "{}", done.text());
        assert_eq!(done.code, Some(0), "{keys}: {}", done.text());
    }
}

/// In miniature, a case may have the name that another one has in full.
#[test]
fn in_full_no_row_has_the_numbers_of_another() {
    let cpus = std::thread::available_parallelism().expect("the CPUs").get();
    let many = cpus + 1;
    let stub = Stub::new(move |asked, client| {
        let is_wrong = asked.request.target == format!("/{cpus}");
        client.say(if is_wrong { NOT_FOUND } else { OK })
    });
    let scenario = format!(
        "title = \"t\"\nduration = \"50ms\"\nrounds = 1\n[load]\nconnections = 1\n\
         [vars]\nmany = {many}\n[mini.vars]\nmany = {cpus}\n\
         [[case]]\nname = \"of {{n}}\"\neach.n = [\"{{many}}\", \"{{cpus}}\"]\n\
         [[case.side]]\nname = \"x\"\nurl = \"http://{}\"\nrequest.path = \"/{{n}}\"\n",
        stub.addr()
    );
    let figure = |name: &str, count: usize| {
        let keys = format!("case = \"of {count}\"\nside = \"x\"\nquantity = \"errors\"\n");
        let keys = keys + "pick = \"sum\"\ndigits = 0\nat_most = 0";
        let text = file_of(&keys).replace("name = \"f\"", &format!("name = {name:?}"));
        text.replace("name = \"t\"", &format!("name = \"t{name}\""))
            .replace("[\"f\"]", &format!("[{name:?}]"))
    };
    let text = figure("good", many) + &figure("bad", cpus);
    let run = |args: &[&str]| {
        let bench = figures(&stub, &text, args).file("scenarios/s.toml", &scenario);
        bench.run()
    };
    let done = run(&["--only", "good"]);
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert_eq!(stub.of_target(&format!("/{cpus}")), 0, "it measured a case of no figure");
    let done = run(&[]);
    assert!(done.out.contains("good: 0, 0: met"), "{}", done.text());
    assert!(done.out.contains("1 miss their targets"), "{}", done.text());
}

/// A figure of many rows is not met by those of them that this machine can measure.
#[test]
fn a_row_that_is_missing_among_many_is_named() {
    let stub = Stub::ok();
    let scenario = SCENARIO.replace("ADDR", &stub.addr().to_string());
    let gone = "[[case.side]]\nserver = \"gone\"\n[[case]]\nname = \"over\"";
    let scenario = scenario.replace("[[case]]\n    name = \"over\"", gone);
    let gone = "[[server]]\nname = \"gone\"\ncommand = [\"no-such-program\"]\n";
    let keys = "side = \"*\"\nat_most = 1e9\nheadline = true";
    let run = |args: &[&str]| {
        let bench = figures(&stub, &file_of(keys), args);
        bench.file("scenarios/s.toml", format!("{scenario}\n{gone}")).run()
    };
    let done = run(&[]);
    assert!(done.out.lines().any(|line| line == "f: not measured: gone"), "{}", done.text());
    assert!(done.out.contains("1 could not be measured here"), "{}", done.text());
    assert_eq!((done.code, run(&["--quick"]).code), (Some(0), Some(1)), "{}", done.text());
}

#[test]
fn a_call_that_chooses_no_figure_says_why() {
    let stub = Stub::ok();
    for (args, expected) in [
        (&["--quick"][..], "there is no headline figure among all figures: a headline has"),
        (&["--quick", "--only", "f"], "there is no headline figure among f: a headline has"),
    ] {
        let done = figures(&stub, &file_of(""), args).run();
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{}", done.text());
        assert!(done.err.contains(expected), "{}", done.text());
    }
    let done = Bench::new(["--only", "f"]).run();
    assert_eq!(done.code, Some(2), "{}", done.text());
    assert!(done.err.contains("--mini and --only are for --scenario FILE or"), "{}", done.text());
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

/// Names that depend on the machine, beside others.
const MACHINE: &str = r#"
    title = "Machine"
    [[server]]
    name = "w{n}"
    each.n = ["1..{cpus}"]
    command = ["true"]
    counters = ["ready"]
    [[case]]
    name = "all {cpus} cores"
    sides = ["w{cpus}"]
    [[case]]
    name = "all one cores"
    sides = ["w1"]
    [[case.side]]
    name = "of {k}"
    each.k = ["1..{cpus}"]
    server = "w1"
    [[case.side]]
    name = "of one"
    url = "http://127.0.0.1:1"
    [[case]]
    name = "{m}"
    measure = "{m}"
    each.m = ["start"]
    [[case.side]]
    each.m = ["load"]
    server = "w1"
    "#;

/// A name that is there as it is written goes before those that some machine may have.
#[test]
fn names_that_depend_on_the_machine_hide_no_others() {
    let names = |case: &str, side: &str, quantity: &str| {
        let keys = format!("case = {case:?}\nside = {side:?}\nquantity = {quantity:?}");
        let bench = Bench::new(["--tables", "figures.toml"]).file("figures.toml", file_of(&keys));
        fs::create_dir(bench.dir.path().join("scenarios")).expect("a folder");
        let bench = bench.file("a.md", "<!-- table t -->\n<!-- end -->\n");
        bench.file("scenarios/s.toml", MACHINE).run()
    };
    for (case, side, quantity) in [
        ("all 8 cores", "w8", "p50_us"),
        ("all 8 cores", "w8", "counter_ready"),
        ("all one cores", "w1", "counter_ready"),
        ("all one cores", "of 8", "counter_ready"),
        ("all one cores", "of one", "p50_us"),
        ("start", "w1", "start_ms"),
    ] {
        let done = names(case, side, quantity);
        assert_eq!(done.code, Some(0), "{case}, {side}, {quantity}: {}", done.text());
    }
    for (case, side, quantity, expected) in [
        ("all 8 cores", "w1", "counter_other", "has no `counter_other`"),
        ("all one cores", "w8", "p50_us", "has no row `w8`"),
        ("all one cores", "of one", "counter_ready", "`of one` of the case `all one cores` has no"),
        ("start", "w1", "p50_us", "has no `p50_us`"),
    ] {
        let done = names(case, side, quantity);
        assert!(done.err.contains(expected), "{case}, {side}, {quantity}: {}", done.text());
    }
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
