//! Tests which paths a line stands for.

use super::{PATHS_MAX, expand, handlers, lines, of_handlers};

#[test]
fn ranges_are_combined_and_as_wide_as_they_are_written() {
    for (line, paths) in [
        ("/", &["/"][..]),
        ("/{8..11}", &["/8", "/9", "/10", "/11"]),
        ("/{08..11}", &["/08", "/09", "/10", "/11"]),
        ("/{1..2}/x{0..1}?q", &["/1/x0?q", "/1/x1?q", "/2/x0?q", "/2/x1?q"]),
    ] {
        assert_eq!(expand(line).expect(line), paths, "{line}");
    }
    for (line, words) in [
        ("x", "does not begin with /"),
        ("/{x}", "braces that are no range"),
        ("/{1..2", "braces that are no range"),
        ("/{2..1}", "braces that are no range"),
        ("/{-1..2}", "braces that are no range"),
        ("/a b", "has to be percent-encoded"),
        ("/ä", "has to be percent-encoded"),
        ("/{0..4294967295}", "stands for more than"),
        ("/{0..999}/{0..999}", "stands for more than"),
    ] {
        let said = expand(line).expect_err(line);
        assert!(said.contains(words), "{line}: {said}");
    }
    let most = format!("/{{1..{PATHS_MAX}}}");
    assert_eq!(expand(&most).map(|paths| paths.len()), Ok(PATHS_MAX));
}

#[test]
fn a_file_has_a_path_on_each_line() {
    assert_eq!(lines("/a\n\n  # no\n /b \r\n"), Ok(vec!["/a".to_owned(), "/b".to_owned()]));
    let said = lines("/a\n#\nb\n").expect_err("the third is none");
    assert!(said.starts_with("line 3: "), "{said}");
}

#[test]
fn the_handlers_of_a_folder_are_asked_for_by_their_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| std::fs::write(folder.path().join(name), "").expect("it is written");
    let paths = |prefix: &str| of_handlers(prefix, &handlers(folder.path()).expect("it is read"));
    ["b.wat", "a.wasm", "c.txt", "d"].into_iter().for_each(file);
    std::fs::create_dir(folder.path().join("e.wasm")).expect("a folder");
    assert_eq!(paths("/x/").expect("good names"), ["/x/a", "/x/b"]);
    let said = paths("x/").expect_err("no path");
    assert!(said.contains("does not begin with /"), "{said}");
    for name in ["a.wat", "a b.wasm", "a?b.wasm", "a#b.wat", "a%20b.wat", "\u{e4}.wasm"] {
        file(name);
        let said = paths("/x/").expect_err(name);
        assert!(said.contains(name) || said.contains("a .wat file for /x/a"), "{said}");
        std::fs::remove_file(folder.path().join(name)).expect("it is there");
    }
}
