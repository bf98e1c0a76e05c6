//! What is wrong with a scenario is said with its line before anything is measured.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use super::{Bench, scenario};

/// Six correct lines that can stand before a mistake.
const HEAD: &str = "title = \"Wrong\"\n[[server]]\nname = \"a\"\ncommand = [\"false\"]\n\
                    [[case]]\nname = \"c\"\n";

/// The wrong lines that follow, and the message with its line number.
const MISTAKES: [(&str, &str); 28] = [
    ("sides = [\"b\"]", "test.toml:7: server: there is no `b`; there are a"),
    ("sides = [\"a\"]\nduraton = \"1s\"", "test.toml:8: unknown field `duraton`"),
    ("sides = [\"a\"]\nduration = \"soon\"", "test.toml:8: duration: \"soon\" is not a time"),
    ("sides = [\"a\"]\nduration = 5", "test.toml:8: duration: \"5\" is not a time"),
    ("sides = [\"a\"]\nduration = \"0s\"", "test.toml:8: duration: \"0s\" is less than"),
    ("sides = [\"a\"]\nload.timeout = \"500000000000y\"", "test.toml:8: timeout: \"500000000"),
    ("sides = [\"a\"]\nrounds = 0", "test.toml:8: rounds: \"0\" is not a number from 1 to 1000"),
    ("[[case.side]]\nserver = \"a\"\nname = \"{no}\"", "test.toml:9: there is no {no}; there are"),
    ("sides = [\"a\"]\nmeasure = \"speed\"", "test.toml:8: measure: \"speed\" is not a choice"),
    ("sides = [\"a\"]\nmeasure = \"drop\"", "test.toml:6: versions: what is dropped?"),
    ("sides = [\"a\"]\nload.connections = 0", "test.toml:8: connections: \"0\" is not a number"),
    ("sides = [\"a\"]\nload.rate = -1", "test.toml:8: rate: \"-1\" is not a number"),
    ("sides = [\"a\"]\nload.pipeline = \"x\"", "test.toml:8: pipeline: \"x\" is not a number"),
    ("sides = [\"a\"]\nload.speed = 5", "test.toml:8: unknown field `speed`"),
    ("sides = [\"a\"]\nload.cpus = \"last 1\"", "test.toml:8: cpus: \"last 1\" is no set of CPUs"),
    ("sides = [\"a\"]\nrequest.path = \"hello\"", "test.toml:8: \"hello\" does not begin with /"),
    ("sides = [\"a\"]\nrequest.path = \"/a b\"", "test.toml:8: \"/a b\" has a character"),
    ("sides = [\"a\"]\nrequest.paths = []", "test.toml:8: paths: there is no path in it"),
    ("sides = [\"a\"]\nrequest.method = \"get\"", "test.toml:8: method: \"get\" is none"),
    ("sides = [\"a\"]\nrequest.spread = \"zipf\"", "test.toml:8: spread: write \"uniform\""),
    ("sides = [\"a\"]\nrequest.headers = { \"a b\" = \"c\" }", "test.toml:8: headers: \"a b\""),
    ("measure = \"curve\"\ncurve.loads = [0.5, 0.1]", "test.toml:8: curve.loads: write parts"),
    ("sides = [\"a\"]\ncurve.quantile = 0.9", "test.toml:8: curve: it is for measure"),
    ("sides = [\"a\"]\neach.x = []", "test.toml:8: each.x: there is no value in it"),
    ("sides = [\"a\", \"a\"]", "test.toml:6: name: two sides are called `a`"),
    ("sides = []", "test.toml:6: sides: there is nothing to measure"),
    ("[[case.side]]\nurl = \"https://a.test:1\"", "test.toml:8: url: \"https://a.test:1\" is not"),
    ("sides = [", "test.toml:"),
];

/// Lines that are right elsewhere, and have no effect where they stand. FILES stands for two
/// versions.
const WITHOUT_EFFECT: [(&str, &str); 17] = [
    (
        "[[case.side]]\nserver = \"a\"\n\
         request = { paths = [\"/a\", \"/b\"], bodies = \"as before\" }\nswaps = { FILES }",
        "test.toml:10: swaps: only the first stream may",
    ),
    (
        "[[case.side]]\nserver = \"a\"\nrequest.bodies = \"as before\"\nswaps = { FILES }\n\
         beside = [{ name = \"b\", request.bodies = \"as before\" }]",
        "test.toml:10: swaps: only the first stream may",
    ),
    (
        "measure = \"overload\"\n[[case.side]]\nurl = \"http://127.0.0.1:1\"\npid = 5",
        "test.toml:10: pid: measure = \"overload\"",
    ),
    (
        "sides = [\"a\"]\nmeasure = \"overload\"\nrequest.bodies = \"as before\"",
        "test.toml:9: bodies: measure = \"overload\" does not use it",
    ),
    (
        "sides = [\"a\"]\nmeasure = \"overload\"\nbeside = [{ name = \"b\" }]",
        "test.toml:9: beside: measure = \"overload\"",
    ),
    (
        "sides = [\"a\"]\nmeasure = \"overload\"\nload.rate = 5",
        "test.toml:9: rate: measure = \"overload\"",
    ),
    (
        "sides = [\"a\"]\nmeasure = \"overload\"\nrequest.spread = \"once\"",
        "test.toml:9: spread: \"once\" is for",
    ),
    (
        "sides = [\"a\"]\nmeasure = \"start\"\nduration = \"1s\"",
        "test.toml:9: duration: measure = \"start\"",
    ),
    (
        "measure = \"idle\"\n[[case.side]]\nserver = \"a\"\nalong = { command = [\"true\"] }",
        "test.toml:10: along: measure",
    ),
    (
        "measure = \"curve\"\n[[case.side]]\nserver = \"a\"\nload.threads = 2",
        "test.toml:10: threads: measure",
    ),
    (
        "sides = [\"a\"]\nrequest.spread = \"once\"\nload.rate = 5",
        "test.toml:9: rate: paths that are asked for once",
    ),
    (
        "sides = [\"a\"]\nload.arrivals = \"poisson\"",
        "test.toml:8: arrivals: they are for requests with",
    ),
    (
        "sides = [\"a\"]\nmeasure = \"drop\"\nload.rate = 5\n\
         versions = { files = [\"none\", \"none\"], path = \"x\" }",
        "test.toml:9: rate: measure = \"drop\"",
    ),
    ("[[case.side]]\nserver = \"a\"\npid = 5", "test.toml:9: pid: it is for a `url`"),
    (
        "sides = [\"a\"]\nmeasure = \"drop\"\nversions = { FILES, every = \"1s\" }",
        "test.toml:9: versions: `every`",
    ),
    (
        "[[case.side]]\nserver = \"a\"\nswaps = { FILES, count = 3 }",
        "test.toml:9: count: it is for",
    ),
    (
        "sides = [\"a\"]\n[[prepare]]\nname = \"p\"\ncommand = [\"true\"]\nrestart = \"round\"",
        "test.toml:11: restart: [[prepare]]",
    ),
];

#[test]
fn each_mistake_has_its_line() {
    let mut wrong = Vec::new();
    for (more, words) in MISTAKES.into_iter().chain(WITHOUT_EFFECT) {
        let files = "files = [\"test.toml\", \"test.toml\"], path = \"x\"";
        let more = more.replace("FILES", files);
        let done = scenario(&format!("{HEAD}{more}\n")).run();
        let is_told =
            done.err.contains(words) && done.err.lines().all(|it| it.contains("test.toml:"));
        if done.code != Some(1) || !done.out.is_empty() || !is_told {
            wrong.push(format!("{more}, and not {words:?}: {}", done.text()));
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
    // All mistakes at once, in the order of the lines.
    let text = format!("{HEAD}sides = [\"a\"]\nrounds = 0\nduration = \"x\"\nload.rate = 0\n");
    let done = scenario(&text).run();
    let lines: Vec<&str> = done.err.lines().collect();
    assert_eq!(lines.len(), 3, "{}", done.text());
    for (line, number) in lines.iter().zip(8..) {
        assert!(line.contains(&format!("test.toml:{number}: ")), "{}", done.text());
    }
    let done = Bench::new(["--scenario", "no-such-file.toml"]).run();
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{}", done.text());
    assert!(done.err.contains("cannot read no-such-file.toml"), "{}", done.text());
}

/// What a table has for several cases or sides is for those of them that can use it.
#[test]
fn a_default_need_not_suit_all_that_it_is_for() {
    let server = "[[server]]\nname = \"a\"\ncommand = [\"./none\"]\n";
    for (file, case) in [
        ("request.spread = \"once\"", "measure = \"curve\"\nsides = [\"a\"]"),
        ("request.spread = \"once\"", "measure = \"overload\"\nsides = [\"a\"]"),
        ("request.bodies = \"answer\"", "measure = \"overload\"\nsides = [\"a\"]"),
        ("load.rate = 5", "request.spread = \"once\"\nsides = [\"a\"]"),
        ("load.arrivals = \"poisson\"", "sides = [\"a\"]"),
        (
            "",
            "load.arrivals = \"poisson\"\n[[case.side]]\nserver = \"a\"\nload.rate = 5\n\
              [[case.side]]\nserver = \"a\"\nname = \"b\"",
        ),
        (
            "",
            "load.rate = 5\n[[case.side]]\nserver = \"a\"\n\
              [[case.side]]\nserver = \"a\"\nname = \"b\"\nrequest.spread = \"once\"",
        ),
    ] {
        let text = format!("title = \"t\"\n{file}\n{server}[[case]]\nname = \"c\"\n{case}\n");
        let done = scenario(&text).run();
        assert!(done.text().contains("none"), "{case}: {}", done.text());
        assert!(!done.err.contains("test.toml:"), "{case}: {}", done.text());
    }
}

/// Of a folder of handlers, each has to be one that can be asked for.
#[test]
fn handlers_that_cannot_be_asked_for_are_named() {
    for (file, bodies, words) in [
        (&b"a b.wasm"[..], "any", "paths_folder: {here}/handlers/a b.wasm: \"/x/a b\" has a char"),
        (b"a%20b.wat", "any", "paths_folder: rename {here}/handlers/a%20b.wat: no path can"),
        (b"\xff.wasm", "any", "paths_folder: rename {here}/handlers/\u{fffd}.wasm: no path can"),
        (b"good.wat", "any", "paths_folder: there are a .wasm and a .wat file for /x/good"),
        (b"text.wat", "answer", "bodies: \"answer\" is read from `.wasm` files, and {here}"),
    ] {
        let text = "sides = [\"a\"]\nrequest = { bodies = \"BODIES\", paths_folder = \
                    { folder = \"handlers\", prefix = \"/x/\" } }\n";
        let bench = scenario(&format!("{HEAD}{}", text.replace("BODIES", bodies)));
        let here = bench.dir.path().canonicalize().expect("a folder");
        let folder = bench.dir.path().join("handlers");
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("good.wasm"), b"\0asm\x01\0\0\0").expect("a file");
        fs::write(folder.join(OsStr::from_bytes(file)), "").expect("a file");
        let done = bench.run();
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{}", done.text());
        let words = format!("test.toml:8: {}", words.replace("{here}", &here.to_string_lossy()));
        assert!(done.err.contains(&words), "no {words}: {}", done.text());
    }
}
