//! The reports of a run: text, JSON, CSV and a page.
//!
//! Names in them may come from anywhere, and must not be taken for markup or escapes.

use std::fs;

use serde_json::Value;

use super::stub::{OK, Stub};
use super::{Bench, Outcome};

const ERRORS: [&str; 7] = ["connect", "read", "write", "timeout", "status", "body", "total"];
const LATENCIES: [&str; 6] = ["p50_us", "p90_us", "p99_us", "p99_9_us", "p99_99_us", "max_us"];
const CPU: [&str; 3] = ["cpu_us_per_req", "cpu_user_us_per_req", "cpu_kernel_us_per_req"];

/// Two stubs. The first one belongs to a process, which is this one and is not idle.
#[track_caller]
fn measured() -> Outcome {
    let stubs = [Stub::ok(), Stub::ok()];
    let done = Bench::new(stubs.each_ref().map(|stub| stub.url("/hello")))
        .args(["--pid", &std::process::id().to_string(), "--rounds", "3"])
        .args(["--html", "run.html", "--csv", "run.csv", "--connections", "4", "--seed", "77"])
        .args(["--header", "X-Tag: <script>alert('&')</script>"])
        .run();
    done.assert_good();
    done
}

#[test]
fn the_json_has_all_of_it() {
    let done = measured();
    for key in ["title", "started_at"] {
        assert!(done.json[key].as_str().is_some_and(|text| !text.is_empty()), "{}", done.json);
    }
    assert_eq!(done.json["seed"], 77);
    assert_eq!(done.json["interrupted"], false);
    assert_eq!(done.json["skipped"], Value::Array(Vec::new()));
    let command = done.json["command"].as_array().expect("a list");
    assert!(command.contains(&Value::from("X-Tag: <script>alert('&')</script>")), "{command:?}");
    let about = done.json["about"].as_array().expect("a list");
    for title in ["CPU", "Kernel"] {
        assert!(about.iter().any(|fact| fact["title"] == title), "{about:?}");
    }
    let targets = done.targets();
    assert_eq!(targets.len(), 2);
    for target in &targets {
        let keys = ["req_per_s", "mb_per_s", "client_cpu_us_per_req"];
        for key in keys.iter().chain(&LATENCIES) {
            let spread = &target.0["spread"][key];
            let (least, greatest) = (spread[0].as_f64(), spread[1].as_f64());
            let median = target.get(key);
            assert!(median > 0.0, "{key}");
            assert!(least <= Some(median) && Some(median) <= greatest, "{key}: {spread}");
            let mut rounds: Vec<f64> = target
                .rounds()
                .iter()
                .map(|round| round[key].as_f64().expect("a number"))
                .collect();
            rounds.sort_by(f64::total_cmp);
            assert_eq!(median, rounds[1], "{key}");
        }
        for kind in ERRORS {
            assert_eq!(target.errors(kind), 0);
            assert!(target.rounds().iter().all(|round| round["errors"][kind] == 0));
        }
        assert!(target.0["beside"] == false && target.notes().is_empty());
        assert_curve(&target.0["latency"], target.get("max_us"));
    }
    let ratio = &targets[1].0["ratio"];
    assert_eq!((ratio["to"].as_str(), targets[0].0.get("ratio")), (Some(targets[0].name()), None));
    assert!(ratio["req_per_s"].is_f64() && ratio["spread"]["req_per_s"][1].is_f64(), "{ratio}");
}

/// The latency curve rises, and ends at the maximum.
#[track_caller]
fn assert_curve(latency: &Value, max_us: f64) {
    let points = latency.as_array().expect("a list");
    let point = |point: &Value| Some((point["quantile"].as_f64()?, point["us"].as_f64()?));
    let points: Vec<_> = points.iter().map(|it| point(it).expect("two numbers")).collect();
    assert!(points.is_sorted(), "{points:?}");
    assert!(points.is_sorted_by_key(|(_, us)| *us), "{points:?}");
    let (quantile, us) = points.last().expect("a point");
    // The maximum of all rounds, while the summary has their median.
    assert!(*quantile == 1.0 && *us >= max_us, "{points:?}");
    for wanted in [0.0, 0.5, 0.9, 0.99] {
        assert!(points.iter().any(|(quantile, _)| (quantile - wanted).abs() < 1e-9), "{wanted}");
    }
}

#[test]
fn a_known_process_has_its_cpu_time_told() {
    let done = measured();
    let [known, unknown] = done.targets()[..] else { panic!("{}", done.text()) };
    for key in CPU {
        assert!(known.get(key) >= 0.0, "{key}");
        assert_eq!(unknown.find(key), None, "{key}");
    }
    assert!(known.get("cpu_us_per_req") > 0.0);
    assert!(known.get("rss_peak_bytes") > 1e6, "{}", done.text());
    for round in known.rounds() {
        let [cpu, user, kernel] = CPU.map(|key| round[key].as_f64().expect("a number"));
        assert!((user + kernel - cpu).abs() < 1e-6 * cpu, "{round}");
    }
    // Values that cannot be compared have no ratio.
    assert_eq!(unknown.0["ratio"].get("cpu_us_per_req"), None);
    assert!(done.out.contains("CPU"), "{}", done.text());
}

#[test]
fn a_process_that_is_not_there_is_named() {
    let stub = Stub::ok();
    // The greatest number of a process, and one more.
    let done = Bench::new([stub.url("/")]).args(["--pid", "4194305"]).run();
    assert_eq!((done.code, done.err.as_str()), (Some(1), ""), "{}", done.text());
    assert!(done.target().notes().contains("no process 4194305"), "{}", done.text());
}

#[test]
fn the_text_says_how_to_read_it() {
    let done = measured();
    for words in ["seed 77", "when a request was due", "req/s", "p99.9", "errors", "CPU", "ratio"] {
        assert!(done.out.contains(words), "no {words}: {}", done.text());
    }
    assert!(done.out.contains("Medians of 3 rounds"), "{}", done.text());
    assert!(done.out.contains("min..max"), "{}", done.text());
    let first = done.targets()[0].name();
    assert!(done.out.contains(&format!("to {first}")), "{}", done.text());
    let lines = done.out.lines().filter(|line| !line.starts_with("$ "));
    for line in lines {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn the_csv_has_a_line_for_each_number() {
    let done = measured();
    let text = fs::read_to_string(done.path("run.csv")).expect("the file");
    let mut expected = 1;
    for target in done.targets() {
        for round in target.rounds() {
            let round = round.as_object().expect("an object");
            let quantities = round.len() - ["round", "position", "errors"].len();
            expected += quantities + ERRORS.len() - 1;
            let place = format!("{},{}", round["round"], round["position"]);
            for key in ["req_per_s", "p99_us"] {
                let value = round[key].as_f64().expect("a number");
                let line = format!("\n,{},{place},{key},{value}\n", target.name());
                assert!(text.contains(&line), "{line}: {text}");
            }
        }
    }
    assert_eq!(text.lines().count(), expected, "{text}");
    assert!(text.starts_with("case,row,round,position,quantity,value\n"), "{text}");
    assert!(text.lines().all(|line| line.split(',').count() == 6), "{text}");
}

#[test]
fn the_page_needs_no_other() {
    let done = measured();
    let page = fs::read_to_string(done.path("run.html")).expect("the page");
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    let lower = page.to_ascii_lowercase();
    for loads in ["src=", "href=\"http", "href='http", "href=http", "url(", "@import", "<script"] {
        assert!(!lower.contains(loads), "{loads} in {page}");
    }
    for there in ["<svg", "req/s", "p99.99", "77", "when a request was due", "--header"] {
        assert!(page.contains(there), "no {there} in {page}");
    }
    assert!(page.contains("&lt;script&gt;"), "{page}");
    for target in done.targets() {
        assert!(page.contains(target.name()), "{page}");
    }
    for (open, close) in [("<section", "</section>"), ("<svg", "</svg>"), ("<table", "</table>")] {
        assert_eq!(page.matches(open).count(), page.matches(close).count(), "{open}");
    }
}

#[test]
fn what_cannot_be_written_is_told_before_anything_is_measured() {
    for flag in ["--json", "--html", "--csv"] {
        let stub = Stub::ok();
        let done = Bench::new([stub.url("/")]).args([flag, "no/such/folder/run"]).run();
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{}", done.text());
        assert!(done.err.contains("no/such/folder/run"), "{}", done.text());
        assert_eq!(stub.requests(), 0);
    }
}

#[test]
fn two_reports_do_not_go_into_one_file() {
    let stub = Stub::ok();
    for (json, csv) in [("run", "run"), ("run", "./run")] {
        let done = Bench::new([stub.url("/")]).args(["--json", json, "--csv", csv]).run();
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{}", done.text());
        assert!(done.err.contains(&format!("{json} and {csv} are one file")), "{}", done.text());
        assert_eq!(stub.requests(), 0);
    }
    // Both may go to /dev/null, where neither overwrites the other.
    let args = ["--json", "/dev/null", "--csv", "/dev/null", "--rounds", "1", "--duration", "50ms"];
    Bench::new([stub.url("/")]).args(args).run().assert_good();
}

#[test]
fn no_name_is_more_than_text() {
    let stub = Stub::new(|_, client| client.say(OK));
    let evil = "\\u001b[31m<u>\\\"evil\\\"</u>,\\u202e\\r\\n&";
    let scenario = format!(
        "title = \"title {evil}\"\nrounds = 1\nduration = \"50ms\"\n\
         [[server]]\nname = \"dies {evil}\"\n\
         command = [\"sh\", \"-c\", \"printf '\\\\033[31mlast <i>words</i>\\\\n'; exit 3\"]\n\
         [[server]]\nname = \"missing {evil}\"\ncommand = [\"no-such-program-{evil}\"]\n\
         [[case]]\nname = \"case {evil}\"\n\
         sides = [\"dies {evil}\", \"missing {evil}\"]\n\
         [[case.side]]\nname = \"side {evil}\"\nurl = \"http://{}\"\nrequest.path = \"/{evil}\"\n",
        stub.addr()
    );
    // The path must not be evil: it would be sent to the server.
    let refused = Bench::new(["--scenario", "evil.toml"]).file("evil.toml", &scenario).run();
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""), "{}", refused.text());
    assert!(refused.err.contains("evil.toml:"), "{}", refused.text());
    let scenario = scenario.replace(&format!("\"/{evil}\""), "\"/\"");
    let done = Bench::new(["--scenario", "evil.toml"])
        .file("evil.toml", scenario)
        .args(["--html", "run.html", "--csv", "run.csv", "--only", "case"])
        .run();
    assert_eq!((done.code, done.err.as_str()), (Some(1), ""), "{}", done.text());
    assert!(done.out.contains("last <i>words</i>"), "{}", done.text());
    assert!(done.out.contains("skipped: missing"), "{}", done.text());
    let page = fs::read_to_string(done.path("run.html")).expect("the page");
    let csv = fs::read_to_string(done.path("run.csv")).expect("the file");
    for text in [&refused.err, &done.out, &done.err, &page, &csv] {
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(steers), "{text:?}");
    }
    for tag in ["<u>", "<i>"] {
        assert!(!page.contains(tag), "{page}");
    }
    // Quoted, because it has commas.
    assert!(csv.contains("\"case "), "{csv}");
    assert!(csv.lines().all(|line| line.starts_with("case,") || line.starts_with('"')), "{csv}");
}

#[test]
fn what_an_overloaded_server_does_is_in_the_tables() {
    let stub = Stub::after(std::time::Duration::from_millis(5));
    let scenario = format!(
        "title = \"Overload\"\nduration = \"100ms\"\nrounds = 2\n\
         [[case]]\nname = \"over\"\nmeasure = \"overload\"\nload.connections = 20\n\
         overload = {{ capacity_connections = 1 }}\n\
         [[case.side]]\nname = \"it\"\nurl = \"http://{}\"\n",
        stub.addr()
    );
    let done = Bench::new(["--scenario", "over.toml", "--html", "run.html"])
        .file("over.toml", scenario)
        .run();
    done.assert_good();
    let page = fs::read_to_string(done.path("run.html")).expect("the page");
    for title in ["goodput", "p99 to unloaded", "refused"] {
        assert!(done.out.contains(title), "no {title}: {}", done.text());
        assert!(page.contains(&format!(">{title}<")), "no {title}: {page}");
    }
}
