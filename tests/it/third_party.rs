//! Components by other authors, built as a user of their toolchains would:
//! `tests/third-party/build.sh` fetches and builds them.
//!
//! If the script has not run, a test says so and passes; with `GUESTHOUSE_TOOLCHAINS=1` in the
//! environment, as in CI, it fails. The routes are chosen so that each example finds the paths it
//! knows.

use std::fs;
use std::path::Path;

use crate::client::message;
use crate::host::{Host, Status};
use crate::languages::skip;
use crate::patience::patience;

/// A host that serves every path by this component. `None` if the component was not built.
fn start(name: &str, isolation: &str) -> Option<Host> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let file = target.join("third-party").join(name).with_extension("wasm");
    let Ok(wasm) = fs::read(&file) else {
        skip(&format!("{name} is not there: tests/third-party/build.sh fetches and builds it"));
        return None;
    };
    // The cache is kept for the next host.
    let cache = target.join("third-party/compiled");
    let host = Host::empty()
        .file("index.wasm", &wasm)
        .file("[...path].wasm", &wasm)
        .args(["--isolation", isolation, "--compile-max", "10m", "--workers", "1"])
        .args(["--cache-dir", cache.to_str().expect("a path in UTF-8")])
        .start();
    let is_loaded = |status: &Status| status.cold == 0 && status.loading == 0;
    // The example in Python takes long to compile.
    let status = host.status_when("loaded", patience() * 3, is_loaded);
    assert_eq!((status.ready, status.failed), (2, 0), "{name}: {:?}", host.lines());
    Some(host)
}

#[test]
fn the_examples_of_wasip2_and_wasip3_are_served() {
    for name in ["wasip2-http-proxy", "wasip2-http-proxy-no_std", "wasip3-http-proxy"] {
        for isolation in ["fresh", "reuse"] {
            let Some(host) = start(name, isolation) else { return };
            for path in ["/", "/any/path", "/any?query"] {
                let answer = host.get(path);
                assert_eq!(answer.status, 200, "{name} {isolation} {path}: {answer:?}");
                assert!(answer.text().starts_with("Hello, "), "{name}: {}", answer.text());
            }
            host.at_rest();
        }
    }
}

#[test]
fn the_server_example_of_wstd_is_served() {
    for isolation in ["fresh", "reuse"] {
        let Some(host) = start("wstd-http_server", isolation) else { return };
        assert_eq!(host.get("/").text(), "Hello, wasi:http/proxy world!\n");
        assert_eq!(host.get("/no/such/path").status, 404);
        // Its clocks and timers: each of these waits for a second.
        for path in ["/wait-response", "/wait-body", "/stream-body"] {
            let answer = host.get(path);
            assert_eq!(answer.status, 200, "{isolation} {path}: {answer:?}");
            assert!(!answer.body.is_empty(), "{isolation} {path}");
        }
        let body: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let echo = host.request("POST", "/echo", &[], &body);
        assert!(echo.status == 200 && echo.body == body, "{isolation}: {}", echo.body.len());
        let headers = host.request("GET", "/echo-headers", &["x-mine: one"], b"");
        assert_eq!(headers.header("x-mine"), Some("one"), "{isolation}: {headers:?}");
        let status = host.request("GET", "/response-status", &["x-response-status: 418"], b"");
        assert_eq!(status.status, 418, "{isolation}: {status:?}");
        assert_eq!(host.get("/response-fail").status, 500, "{isolation}");
        host.assert_serves("/");
        host.at_rest();
    }
}

#[test]
fn the_http_example_of_componentize_py_is_served() {
    assert_echoes("componentize-py-http");
}

/// The same for wasi:http 0.3: CPython, with calls that run concurrently.
#[test]
fn the_http_example_of_0_3_of_componentize_py_is_served() {
    assert_echoes("componentize-py-http-p3");
}

#[track_caller]
fn assert_echoes(name: &str) {
    for isolation in ["fresh", "reuse"] {
        let Some(host) = start(name, isolation) else { return };
        for size in [0, 5, 100_000] {
            let body = vec![b'x'; size];
            let echo = host.request("POST", "/echo", &["content-type: text/plain"], &body);
            assert!(echo.status == 200 && echo.body == body, "{isolation} {size}: {echo:?}");
            assert_eq!(echo.header("content-type"), Some("text/plain"), "{isolation}");
        }
        // Its asyncio loop goes on reading while it writes.
        let mut connection = host.connect();
        connection.send(message("POST", "/echo", &["content-length: 10"], b"first"));
        connection.send("later");
        assert_eq!(connection.read_to("POST").text(), "firstlater");
        assert_eq!(host.get("/no/such/path").status, 400, "{isolation}");
        host.at_rest();
    }
}
