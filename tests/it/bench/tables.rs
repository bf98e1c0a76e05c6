//! Tables that are drawn into documents: into which lines, and what may be in a cell.

use std::fs;
use std::process::Output;

use tempfile::TempDir;

use crate::host::command;

/// Two tables of one run, a figure's and a grid's.
const FIGURES: &str = r#"
    [runs]
    no = "runs/one"
    [[figure]]
    name = "f"
    title = "longest"
    scenario = "no"
    run = "runs/one"
    case = "one"
    side = "a"
    quantity = "max_us"
    digits = 0
    [[table]]
    name = "t"
    file = "a.md"
    figures = ["f"]
    [[grid]]
    name = "g"
    file = "a.md"
    scenario = "no"
    corner = "server"
    columns = [{ title = "max", case = "one", quantity = "max_us", digits = 0 }]
    rows = [{ title = "mine", side = "a" }]
    "#;
const MARKERS: &str = "<!-- table t -->\n<!-- end -->\n\n<!-- table g -->\n<!-- end -->\n";

/// A folder with a run, a file of figures and a document.
fn folder(figures: &str, document: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(dir.path().join("runs/one")).expect("a folder");
    let raw = "case,row,round,position,quantity,value\none,a,1,1,max_us,9000\n";
    for (file, text) in [("runs/one/raw.csv", raw), ("figures.toml", figures), ("a.md", document)] {
        fs::write(dir.path().join(file), text).expect("a file");
    }
    dir
}

fn tables(dir: &TempDir, args: &[&str]) -> Output {
    let file = dir.path().join("figures.toml");
    command().arg("bench").arg("--tables").arg(file).args(args).output().expect("it runs")
}

/// The document once its tables are drawn. A second time nothing changes.
#[track_caller]
fn drawn(figures: &str, document: &str) -> String {
    let dir = folder(figures, document);
    let read = || fs::read_to_string(dir.path().join("a.md")).expect("the document");
    let done = tables(&dir, &[]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = read();
    for args in [&["--check"][..], &[]] {
        let done = tables(&dir, args);
        assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
    }
    assert_eq!(read(), text);
    text
}

/// Where a document explains the markers, they are an example.
#[test]
fn markers_in_code_are_left_alone() {
    let examples = [
        "```\nMARKERS```\n",
        "~~~~ markdown\n~~~\nMARKERS```\n~~~~~\n",
        "1. so\n\n   ```md\n   MARKERS   ```\n",
        "* ```md\n  MARKERS  ```\n",
        "> ```\n> MARKERS> ```\n",
        "text:\n\n    MARKERS\n",
        "text:\n\n\tMARKERS\n",
        "In `MARKER` and ``` MARKER ``` it is text.\n",
        // A fence ends in the quotation or the list in which it began, or with that.
        "```\n> ```\nMARKERS```\n",
        "> ```\n> - ```\n> MARKERS> ```\n",
        "> ```\n> code\n\n```\nMARKERS```\n",
        "- ```\n  code\n```\nMARKERS```\n",
        "> 1. ~~~\n>    > ~~~\n>    MARKERS>    ~~~\n",
        "- ```\n\n  MARKERS  ```\n",
        "<!-- for example:\n```\nMARKER\n-->\n",
        "<!--\n<!-- table t\n-->\n",
        "> <!--\n> MARKER\n> -->\n",
        "> <!--\n\n",
        "- ```\n\n",
    ];
    for example in examples {
        let last = example.lines().find(|line| line.contains("MARKERS")).unwrap_or_default();
        let indent = last.split("MARKERS").next().unwrap_or_default();
        let markers = MARKERS.trim_end().replace('\n', &format!("\n{indent}")) + "\n";
        let example = example.replace("MARKERS", &markers).replace("MARKER", "<!-- table t -->");
        let text = drawn(FIGURES, &format!("{example}\ntext\n\n{MARKERS}"));
        assert!(text.starts_with(&example), "{text}");
        assert!(text[example.len()..].contains("| longest | 9,000 |"), "{text}");
        // An example alone is no place for a table.
        let document = format!("{example}\n");
        let dir = folder(FIGURES, &document);
        let done = tables(&dir, &[]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(said.contains("there is no line `<!-- table t -->`"), "{said}");
        let now = fs::read_to_string(dir.path().join("a.md")).expect("the document");
        assert_eq!(now, document);
    }
}

#[test]
fn lines_end_as_in_the_document() {
    let document = format!("# Title\n\n{MARKERS}\nbehind\n").replace('\n', "\r\n");
    let text = drawn(FIGURES, &document);
    assert!(text.contains("| longest | 9,000 |"), "{text:?}");
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "{text:?}");
    assert!(text.starts_with("# Title\r\n") && text.ends_with("behind\r\n"), "{text:?}");
}

/// A bar would begin another cell, and a line break another line.
#[test]
fn a_bar_in_a_text_stays_in_its_cell() {
    let changes = [
        (r#"title = "longest""#, r#"title = "`a|b`, c\\|d\ne""#),
        (
            r#"quantity = "max_us"
    digits = 0"#,
            r#"quantity = "max_us"
    unit = "a|b""#,
        ),
        (r#"corner = "server""#, r#"corner = "a|b""#),
        (r#"title = "max""#, r#"unit = "x|y", title = "a|b""#),
        (r#"title = "mine""#, r#"title = "a|b""#),
    ];
    let figures = changes.iter().fold(FIGURES.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "no {from} in {text}");
        text.replace(from, to)
    });
    let text = drawn(&figures, MARKERS);
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    assert_eq!(rows.len(), 4, "{text}");
    for row in rows {
        let bars = row.replace("\\|", "").matches('|').count();
        assert!(bars == 6 || bars == 3, "{row}");
    }
    assert!(text.contains(r"| `a\|b`, c\|d e | 9000.00 a\|b |"), "{text}");
    assert!(text.contains(r"| a\|b | 9,000 x\|y |"), "{text}");
}

#[test]
fn a_grid_names_its_run() {
    let text = drawn(FIGURES, MARKERS);
    let grid = text.split("<!-- table g -->").nth(1).expect("the grid");
    assert!(grid.contains("| mine | 9,000 |\n\nRun: [one](runs/one)\n"), "{text}");
    let text = drawn(
        &FIGURES.replace("runs/one\"\n    [[figure]]", "runs/two\"\n    [[figure]]"),
        MARKERS,
    );
    assert!(text.contains("| mine | - |\n\nRun: [two](runs/two)\n"), "{text}");
}

/// Some editors begin a file with a mark of the order of bytes.
#[test]
fn a_first_line_may_have_a_mark_before_it() {
    let text = drawn(FIGURES, &format!("\u{feff}{MARKERS}"));
    assert!(text.starts_with("\u{feff}<!-- table t -->\n\n| figure"), "{text:?}");
    assert!(text.contains("| longest | 9,000 |"), "{text}");
}

/// Nobody would draw it again, and its numbers would stay.
#[test]
fn a_table_that_the_file_has_no_more_is_named() {
    for other in ["gone", "t2"] {
        let figures =
            format!("{FIGURES}\n[[table]]\nname = \"t2\"\nfile = \"b.md\"\nfigures = [\"f\"]\n");
        let document = format!("{MARKERS}\n<!-- table {other} -->\nold\n<!-- end -->\n");
        let dir = folder(&figures, &document);
        let elsewhere = "<!-- table t2 -->\n<!-- end -->\n";
        fs::write(dir.path().join("b.md"), elsewhere).expect("a file");
        for args in [&["--check"][..], &[]] {
            let done = tables(&dir, args);
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            let expected = format!("a.md:7: the figures file draws no table {other} here");
            assert!(said.contains(&expected), "{said}");
            assert_eq!(done.status.code(), Some(1), "{said}");
        }
        let now = fs::read_to_string(dir.path().join("a.md")).expect("the document");
        assert_eq!(now, document);
    }
}

/// Whatever the folder of the call is, and however a path is written.
#[test]
fn a_link_leads_from_the_document_to_the_run() {
    for (file, link) in [
        ("a.md", "runs/one"),
        ("./a.md", "runs/one"),
        ("docs/a.md", "../runs/one"),
        ("docs/../docs/./a.md", "../runs/one"),
        ("../a.md", "c/runs/one"),
        ("../../a.md", "b/c/runs/one"),
        ("../other/a.md", "../c/runs/one"),
        ("../../c/a.md", "../b/c/runs/one"),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("b/c");
        for name in ["runs/one", "docs", "../other", "../../c"] {
            fs::create_dir_all(folder.join(name)).expect("a folder");
        }
        let raw = "case,row,round,position,quantity,value\none,a,1,1,max_us,9000\n";
        let figures = FIGURES.replace("a.md", file);
        for (name, text) in [("runs/one/raw.csv", raw), ("figures.toml", &figures)] {
            fs::write(folder.join(name), text).expect("a file");
        }
        for (from, path) in [
            ("b/c", "figures.toml"),
            ("b/c", "./figures.toml"),
            ("b", "c/figures.toml"),
            (".", "b/../b/c/figures.toml"),
            ("c", "../b/c/figures.toml"),
        ] {
            fs::write(folder.join(file), MARKERS).expect("the document");
            let mut command = command();
            command.current_dir(dir.path().join(from)).args(["bench", "--tables", path]);
            let done = command.output().expect("it runs");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let text = fs::read_to_string(folder.join(file)).expect("the document");
            assert_eq!(text.matches(&format!("[one]({link})")).count(), 2, "{file} {path}: {text}");
        }
    }
}

/// Else the second would be written over the first.
#[test]
fn two_paths_of_one_document_are_one_document() {
    for other in ["./a.md", "runs/../a.md", "link.md"] {
        let figures = FIGURES.replacen("a.md", other, 1);
        let dir = folder(&figures, MARKERS);
        std::os::unix::fs::symlink("a.md", dir.path().join("link.md")).expect("a link");
        assert!(tables(&dir, &[]).status.success());
        let text = fs::read_to_string(dir.path().join("a.md")).expect("the document");
        assert!(
            text.contains("| longest | 9,000 |") && text.contains("| mine | 9,000 |"),
            "{text}"
        );
        assert!(tables(&dir, &["--check"]).status.success());
    }
}

/// A number that was changed by hand, or lost half of a line, is not passed over.
#[test]
fn a_number_of_a_run_that_cannot_be_read_is_named() {
    for (line, expected) in [
        ("one,a,1,1,errors_status,1O", "line 3: \"1O\" is no number"),
        ("one,a,2,1,max_us,", "line 3: \"\" is no number"),
        ("one,a,2,1,max_us,nan", "line 3: \"nan\" is no number"),
        ("one,a,2,1,max_us,inf", "line 3: \"inf\" is no number"),
        ("one,a,x,1,max_us,1", "line 3: \"x\" is no round"),
        ("one,a,2,1,max_us", "caused by: a line is no record"),
        ("one,a,1,1,max_us,9000", "line 3: `max_us` of round 1 of one: a stands there twice"),
        ("one,a,1,1,errors_status,-1", "line 3: `errors_status` counts, and -1 is below zero"),
        ("one,a,1,1,answers,-2", "line 3: `answers` counts, and -2 is below zero"),
        ("one,a,1,1,e,1\none,a,1,1,e,2", "line 4: `e` of round 1 of one: a stands there twice"),
    ] {
        let dir = folder(FIGURES, MARKERS);
        let path = dir.path().join("runs/one/raw.csv");
        let raw = fs::read_to_string(&path).expect("the numbers");
        fs::write(&path, format!("{raw}{line}\n")).expect("the numbers");
        let done = tables(&dir, &["--check"]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{line}: {said}");
        assert!(said.contains("runs/one/raw.csv") && said.contains(expected), "{line}: {said}");
    }
    // Some quantities are differences.
    let dir = folder(FIGURES, MARKERS);
    let path = dir.path().join("runs/one/raw.csv");
    let raw = fs::read_to_string(&path).expect("the numbers");
    fs::write(&path, format!("{raw}one,a,1,1,rss_growth_bytes,-4096\n")).expect("the numbers");
    assert!(tables(&dir, &[]).status.success());
}
