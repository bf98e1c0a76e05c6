//! The demo handlers as plain functions: what each one answers, not how it is served.
//!
//! This code is compiled twice: into the guests (`src/bin/`, one file each) and, as a path
//! dependency, into the native twins of the host. Both do the same work, so their costs can be
//! compared. Nothing here knows the guest ABI or the host. Only `respond.rs` knows the ABI.

use std::borrow::Cow;

use pulldown_cmark::{Options, Parser, html};
use serde::Serialize;

#[cfg(all(target_family = "wasm", target_env = "p1"))]
pub mod respond;
pub mod stream;

/// The answer of a handler. The host adds the framing and `Date`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code. A guest need not send 200, which is the host's default.
    pub status: u16,
    /// The value of `content-type`.
    pub content_type: &'static str,
    /// Whether to send [`SERVER`] in a `server` header, as TechEmpower's rules require.
    pub server: bool,
    /// The whole body.
    pub body: Cow<'static, [u8]>,
}

impl Reply {
    fn ok(content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Reply {
        Reply { status: 200, content_type, server: false, body: body.into() }
    }
}

/// The value of the `server` header, if [`Reply::server`] asks for one.
pub const SERVER: &str = "guesthouse";

const HELLO: &str = "Hello, World!";
const TEXT: &str = "text/plain";

/// The largest number that [`fib`] accepts: a few hundred million calls.
pub const FIB_MAX: u32 = 40;

const FIB_EXPECTED: &str =
    "expected one decimal number from 0 to 40 after the route, as in /fib/32\n";

/// The document that [`render`] turns into HTML, about 10 KiB.
const DOCUMENT: &str = include_str!("document.md");

const PAGE_HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<title>The guesthouse</title>\n";

/// The least that a handler can do.
pub fn hello() -> Reply {
    Reply::ok(TEXT, HELLO.as_bytes())
}

/// The plaintext test of the TechEmpower framework benchmarks.
pub fn plaintext() -> Reply {
    Reply { server: true, ..Reply::ok(TEXT, HELLO.as_bytes()) }
}

/// The JSON test of the TechEmpower framework benchmarks.
///
/// Its rules require that the object is made and serialised for every request.
pub fn json() -> Reply {
    #[derive(Serialize)]
    struct Message {
        message: &'static str,
    }

    let body = serde_json::to_vec(&Message { message: HELLO })
        .expect("a struct of one string always serialises");
    Reply { server: true, ..Reply::ok("application/json", body) }
}

/// Computes: `/fib/32` is answered with `2178309` and a newline.
///
/// `base` is the path of the route (`/fib`, or `/native/fib` for the twin). `uri` is the path and
/// query as they came, beginning with `base`. A slash and one number in plain decimal digits must
/// follow, from 0 to [`FIB_MAX`] and without leading zeros. Anything else is a 400 that says so.
/// The query is ignored.
pub fn fib(base: &str, uri: &str) -> Reply {
    match fib_number(base, uri) {
        Some(n) => Reply::ok(TEXT, format!("{}\n", fibonacci(n)).into_bytes()),
        None => Reply { status: 400, ..Reply::ok(TEXT, FIB_EXPECTED.as_bytes()) },
    }
}

fn fib_number(base: &str, uri: &str) -> Option<u32> {
    let path = uri.split_once('?').map_or(uri, |(path, _query)| path);
    let digits = path.strip_prefix(base.trim_end_matches('/'))?.strip_prefix('/')?;
    // `parse` alone also accepts a sign and leading zeros, which would be several addresses for one
    // resource.
    let plain = digits == "0" || !digits.starts_with(['0', '+']);
    digits.parse().ok().filter(|n| plain && *n <= FIB_MAX)
}

/// The `n`th Fibonacci number by naive recursion. The point is the cost: it consists of calls,
/// without memory accesses or host calls.
pub fn fibonacci(n: u32) -> u64 {
    if n < 2 { u64::from(n) } else { fibonacci(n - 1) + fibonacci(n - 2) }
}

/// Answers with the request as text: request line, headers in their order, a blank line, body.
///
/// A header with several values is several pairs.
pub fn echo<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    method: &str,
    uri: &str,
    headers: impl IntoIterator<Item = (N, V)>,
    body: &[u8],
) -> Reply {
    // Room for a usual head, so that a small request needs one allocation.
    let mut text = Vec::with_capacity(1024 + body.len());
    for part in [method, " ", uri, "\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    for (name, value) in headers {
        for part in [name.as_ref(), b": ", value.as_ref(), b"\n"] {
            text.extend_from_slice(part);
        }
    }
    text.push(b'\n');
    text.extend_from_slice(body);
    Reply::ok(TEXT, text)
}

/// Renders the document to HTML, again on every call. It parses, allocates and copies, as a
/// template or a small application would.
pub fn render() -> Reply {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut page = String::with_capacity(2 * DOCUMENT.len());
    page.push_str(PAGE_HEAD);
    html::push_html(&mut page, Parser::new_ext(DOCUMENT, options));
    Reply::ok("text/html; charset=utf-8", page.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &Reply) -> &str {
        std::str::from_utf8(&reply.body).expect("the reply is text")
    }

    #[test]
    fn greetings_are_exact() {
        assert_eq!(hello(), Reply::ok("text/plain", b"Hello, World!".as_slice()));
        assert_eq!(plaintext(), Reply { server: true, ..hello() });
        let json = json();
        assert_eq!((json.status, json.content_type, json.server), (200, "application/json", true));
        assert_eq!(text(&json), r#"{"message":"Hello, World!"}"#);
        assert_eq!(json.body.len(), 27);
    }

    #[test]
    fn fib_answers_one_plain_number() {
        for (base, uri, expected) in [
            ("/fib", "/fib/0", "0\n"),
            ("/fib", "/fib/1", "1\n"),
            ("/fib", "/fib/20", "6765\n"),
            ("/fib", "/fib/20?", "6765\n"),
            ("/fib", "/fib/20?n=/41&7", "6765\n"),
            ("/native/fib", "/native/fib/32", "2178309\n"),
            ("/fib/", "/fib/10", "55\n"),
            ("/", "/10", "55\n"),
            ("", "/10", "55\n"),
        ] {
            assert_eq!(fib(base, uri), Reply::ok("text/plain", expected.as_bytes()), "{uri}");
        }
    }

    #[test]
    fn fib_takes_nothing_else() {
        for uri in [
            "/fib",
            "/fib/",
            "/fib?n=3",
            "/fib/?3",
            "/fib/41",
            "/fib/4294967297",
            "/fib/99999999999999999999",
            "/fib/+5",
            "/fib/-1",
            "/fib/007",
            "/fib/00",
            "/fib/3/",
            "/fib/3/4",
            "/fib//3",
            "/fib/%33",
            "/fib/3.0",
            "/fib/3%20",
            "/fib/0x3",
            "/fib/٣",
            "/fibonacci/3",
            "/other/3",
            "/",
            "",
        ] {
            let reply = fib("/fib", uri);
            assert_eq!((reply.status, reply.content_type), (400, "text/plain"), "{uri}");
            assert_eq!(text(&reply), FIB_EXPECTED, "{uri}");
        }
        assert!(FIB_EXPECTED.contains(&FIB_MAX.to_string()));
    }

    #[test]
    fn echo_keeps_order_and_bytes() {
        let headers: [(&str, &[u8]); 3] = [("host", b"x"), ("accept", b"\xff"), ("accept", b"")];
        let reply = echo("POST", "/echo/a?b=c", headers, b"\0\nbody");
        assert_eq!((reply.status, reply.content_type), (200, "text/plain"));
        assert_eq!(&*reply.body, b"POST /echo/a?b=c\nhost: x\naccept: \xff\naccept: \n\n\0\nbody");
        let bare = echo("GET", "/", [("", ""); 0], b"");
        assert_eq!(text(&bare), "GET /\n\n");
    }

    #[test]
    fn render_uses_what_the_document_is_for() {
        assert!((10_000..11_000).contains(&DOCUMENT.len()), "{} bytes", DOCUMENT.len());
        let reply = render();
        assert_eq!((reply.status, reply.content_type), (200, "text/html; charset=utf-8"));
        let page = text(&reply);
        for part in [
            "<h1>",
            "<h2>",
            "<ol>",
            "<ul>",
            "<table>",
            "<pre><code",
            "<em>",
            "<strong>",
            "<del>",
            "<blockquote>",
            "<a href=",
            "&lt;",
            "type=\"checkbox\"",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        assert!(!page.contains("http://") && !page.contains("https://"), "links are relative");
        assert_eq!(reply, render());
    }
}
