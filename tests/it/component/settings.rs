//! What flags set for a component: its environment, and the variables of `wasi:config`.

use super::{assert_as_new, setup, start, text};

#[test]
fn a_component_has_the_environment_that_it_is_given() {
    for isolation in crate::hostile::ISOLATIONS {
        let flags = ["--env", "probe:ONE=1", "--env", "*:TWO=a:b=c", "--env", "other:THREE=3"];
        let host = start(&[&flags[..], &["--isolation", isolation]].concat());
        for _ in 0..2 {
            assert_eq!(text(&host, "/probe/env"), "ONE=1\nTWO=a:b=c");
        }
        assert_as_new(&host);
    }
}

#[test]
fn a_component_has_the_variables_that_it_is_given() {
    for isolation in crate::hostile::ISOLATIONS {
        let flags = ["--config-var", "probe:key=é", "--config-var", "*:key=all"];
        let more = ["--config-var", "*:other:key=", "--config-var", "other:no=1"];
        let host = start(&[&flags[..], &more, &["--isolation", isolation]].concat());
        for _ in 0..2 {
            assert_eq!(text(&host, "/probe/config"), "key=é\nother:key=");
            assert_eq!(text(&host, "/probe/config-key"), "é");
        }
        assert_eq!(
            text(&host, "/probe/env"),
            "",
            "a variable of the one kind is none of the other"
        );
        assert_as_new(&host);
    }
}

#[test]
fn a_component_without_variables_finds_none() {
    let host = start(&["--env", "probe:key=1"]);
    assert_eq!(text(&host, "/probe/config"), "");
    assert_eq!(text(&host, "/probe/config-key"), "none");
    assert_as_new(&host);
}

/// Many and long variables are passed, and one handler does not get those of another.
#[test]
fn a_component_is_told_much() {
    let value = "v".repeat(100_000);
    let flags = (0..10)
        .flat_map(|number| ["--config-var".to_owned(), format!("probe:k{number}={value}{number}")]);
    let setup = setup(&[]).file("other.wasm", super::probe()).args(flags);
    let host = setup.start();
    host.settled();
    let told = text(&host, "/probe/config");
    let expected: Vec<String> =
        (0..10).map(|number| format!("k{number}={value}{number}")).collect();
    assert!(told.lines().eq(&expected), "{} bytes", told.len());
    assert_eq!(text(&host, "/other/config"), "");
    assert_as_new(&host);
}

/// A component is not compiled again for another environment.
#[test]
fn a_component_is_compiled_once_whatever_it_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let entries = || std::fs::read_dir(&cache).expect("a cache").count();
    for value in ["one", "two"] {
        let env = format!("probe:KEY={value}");
        let host = setup(&["--env", &env]).arg("--cache-dir").arg(&cache).start();
        host.settled();
        assert_eq!(text(&host, "/probe/env"), format!("KEY={value}"));
        assert_eq!(entries(), 1);
    }
}
