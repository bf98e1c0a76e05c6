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
    ];
    for example in examples {
        let last = example.lines().find(|line| line.contains("MARKERS")).unwrap_or_default();
        let indent = last.split("MARKERS").next().unwrap_or_default();
        let markers = MARKERS.trim_end().replace('\n', &format!("\n{indent}")) + "\n";
        let example = example.replace("MARKERS", &markers).replace("MARKER", "<!-- table t -->");
        let text = drawn(FIGURES, &format!("{example}\n{MARKERS}"));
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
