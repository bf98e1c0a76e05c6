//! Routes: the grammar of file names, which route serves a path, and what a match says about it.

use super::{BadPath, Pattern, Table};

mod oracle;
#[path = "../../../tests/it/random.rs"]
mod random;

/// A table of files; each is its own target.
fn table(files: &[&str]) -> Table<String> {
    let entry = |file: &&str| {
        let pattern = Pattern::parse(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        (pattern, (*file).to_owned(), format!("{file}.wasm"))
    };
    Table::build(files.iter().map(entry)).unwrap_or_else(|error| panic!("{files:?}: {error}"))
}

/// The route that serves `at` (`/path`, or `host/path`), as `file base name=value`, without an
/// empty base. `-` stands for no route.
fn serve(table: &Table<String>, at: &str) -> String {
    let (host, path) = at.split_at(at.find('/').unwrap_or(at.len()));
    let host = (!host.is_empty()).then_some(host);
    match table.find(host, path) {
        Err(bad) => format!("{bad:?}"),
        Ok(None) => "-".into(),
        Ok(Some(found)) => {
            let mut words = vec![found.target.clone()];
            words.extend((found.base_len > 0).then(|| path[..found.base_len].to_owned()));
            words.extend(
                found.params.iter().map(|it| format!("{}={}", it.name, &path[it.value.clone()])),
            );
            words.join(" ")
        }
    }
}

#[track_caller]
fn check(files: &[&str], expected: &[(&str, &str)]) {
    let table = table(files);
    for (at, expected) in expected {
        assert_eq!(serve(&table, at), *expected, "{at} in {files:?}");
    }
}

#[test]
fn a_file_serves_its_name_and_everything_below() {
    let expected = [
        ("/hello", "hello /hello"),
        ("/hello/", "hello /hello"),
        ("/hello//", "hello /hello"),
        ("/hello/a/b/", "hello /hello"),
        ("/", "-"),
        ("/hell", "-"),
        ("/hello2", "-"),
        ("/Hello", "-"),
        ("//hello", "-"),
        ("/docs", "-"),
        ("/docs/intro", "docs/intro /docs/intro"),
        ("/docs/intro/x", "docs/intro /docs/intro"),
        ("/docs//intro", "-"),
    ];
    check(&["hello", "docs/intro"], &expected);
}

#[test]
fn an_index_serves_its_folder_and_nothing_below() {
    let expected = [
        ("/", "index /"),
        ("//", "-"),
        ("/index", "-"),
        ("/docs", "docs/index /docs"),
        ("/docs/", "docs/index /docs/"),
        ("/docs//", "-"),
        ("/docs/x", "-"),
        ("/docs/index", "-"),
        ("/users/7/", "users/[id]/index /users/7/ id=7"),
    ];
    check(&["index", "docs/index", "users/[id]/index"], &expected);
    let both = [
        ("/hello", "hello/index /hello"),
        ("/hello/", "hello/index /hello/"),
        ("/hello/x", "hello /hello"),
    ];
    check(&["hello", "hello/index"], &both);
}

#[test]
fn parameters_take_one_segment_and_the_rest_takes_the_rest() {
    let expected = [
        ("/users/7", "users/[id] /users/7 id=7"),
        ("/users/7/", "users/[id] /users/7/ id=7"),
        ("/users/a%20b", "users/[id] /users/a%20b id=a%20b"),
        ("/users", "-"),
        ("/users/", "-"),
        ("/users//", "-"),
        ("/users/7/x", "-"),
        ("/users/7/posts", "users/[id]/posts /users/7/posts id=7"),
        ("/users/7/posts/1", "users/[id]/posts /users/7/posts id=7"),
        ("/users//posts", "-"),
        ("/users/7/likes/9", "users/[user]/likes/[Like-_1] /users/7/likes/9 user=7 Like-_1=9"),
        ("/files", "-"),
        ("/files/", "-"),
        ("/files//", "files/[...path] /files path=/"),
        ("/files/a", "files/[...path] /files path=a"),
        ("/files/a//b%C3%A9/", "files/[...path] /files path=a//b%C3%A9/"),
        ("/v/1/x/y", "v/[n]/[...more] /v/1 n=1 more=x/y"),
        ("/v/1", "-"),
    ];
    let files = [
        "users/[id]",
        "users/[id]/posts",
        "users/[user]/likes/[Like-_1]",
        "files/[...path]",
        "v/[n]/[...more]",
    ];
    check(&files, &expected);
    check(&["[...all]"], &[("/", "-"), ("//", "[...all] all=/"), ("/a/", "[...all] all=a/")]);
}

#[test]
fn the_most_specific_route_wins() {
    let expected = [
        ("/a/b", "a/b /a/b"),
        ("/a/b/", "a/b /a/b"),
        ("/a/x", "a/[x] /a/x x=x"),
        ("/a/b/c", "a/[x]/c /a/b/c x=b"),
        ("/a/b/c/d", "a/[x]/c /a/b/c x=b"),
        ("/a/b/d", "a/b /a/b"),
        ("/a/x/d", "[...rest] rest=a/x/d"),
        ("/fib/32", "fib /fib"),
        ("/fib", "fib /fib"),
        ("/docs/a", "docs/[...page] /docs page=a"),
        ("/docs/a/b", "docs/[...page] /docs page=a/b"),
        ("/docs", "docs /docs"),
        ("/deep/er/x", "deep/er /deep/er"),
        ("/deep/x", "deep /deep"),
        ("/nothing", "[...rest] rest=nothing"),
        ("/", "-"),
    ];
    let files = [
        "a/b",
        "a/[x]",
        "a/[x]/c",
        "fib",
        "docs",
        "docs/[...page]",
        "deep",
        "deep/er",
        "[...rest]",
    ];
    check(&files, &expected);
    // Among routes that name as many segments, the static segment further left decides.
    let left = [("/a/b", "a/[y] /a/b y=b"), ("/c/b", "[x]/b /c/b x=c"), ("/c/d", "-")];
    check(&["a/[y]", "[x]/b"], &left);
    let open = [("/a/b/c", "a/[...rest] /a rest=b/c"), ("/x/b", "[x]/[...rest] /x x=x rest=b")];
    check(&["a", "a/[...rest]", "[x]/[...rest]"], &open);
    check(&["a", "[x]/[...rest]"], &[("/a/b", "a /a"), ("/a", "a /a")]);
}

#[test]
fn a_host_folder_serves_its_host_before_the_others() {
    let expected = [
        ("/hello", "hello /hello"),
        ("other.org/hello", "hello /hello"),
        ("example.com/hello", "@Example.COM/hello /hello"),
        ("example.com:8080/hello", "@Example.COM/hello /hello"),
        ("EXAMPLE.com./hello", "@Example.COM/hello /hello"),
        ("example.com.:80/hello/x", "@Example.COM/hello /hello"),
        ("www.example.com/hello", "hello /hello"),
        ("example.com/", "index /"),
        ("example.com/hello/exact", "@Example.COM/hello /hello"),
        ("10.0.0.1:80/x", "@10.0.0.1/[...all] all=x"),
        ("10.0.0.1/", "index /"),
        ("[::1]:8080/hello", "hello /hello"),
        ("[::1]/hello", "hello /hello"),
        (":80/hello", "hello /hello"),
    ];
    let files = ["index", "hello", "hello/exact", "@Example.COM/hello", "@10.0.0.1/[...all]"];
    check(&files, &expected);
}

#[test]
fn names_are_compared_in_decoded_form() {
    let expected = [
        ("/a%20b", "a b /a%20b"),
        ("/a%20b/c", "a b /a%20b"),
        ("/%68ello", "hello /%68ello"),
        ("/h%65llo/%31", "hello /h%65llo"),
        ("/caf%C3%A9", "café /caf%C3%A9"),
        ("/caf%c3%a9", "café /caf%c3%a9"),
        ("/caf%C3", "-"),
        ("/100%2525", "100%25 /100%2525"),
        ("/100%25", "-"),
        ("/style.css", "style.css /style.css"),
        ("/...", "... /..."),
        ("/users/@me", "users/@me /users/@me"),
        ("/bytes/%FF%fe", "bytes/[raw] /bytes/%FF%fe raw=%FF%fe"),
    ];
    let files = ["a b", "hello", "café", "100%25", "style.css", "...", "users/@me", "bytes/[raw]"];
    check(&files, &expected);
}

#[test]
fn an_ambiguous_path_is_refused() {
    let table = table(&["[...all]", "index"]);
    let expected: [(BadPath, &[&str]); 6] = [
        (BadPath::NotAbsolute, &["", "a", "*", "hello/", "%2F"]),
        (BadPath::BadEscape, &["/%", "/a%", "/%2", "/%zz", "/%+1", "/%%20", "/a%2/b", "/%é"]),
        (
            BadPath::DotSegment,
            &["/.", "/..", "/a/./b", "/a/../b", "/a/..", "/./", "/%2e", "/%2E%2e/", "/.%2e/a"],
        ),
        (BadPath::EncodedSlash, &["/%2f", "/a%2Fb", "/..%2f"]),
        (BadPath::Backslash, &["/\\", "/a\\b", "/%5c", "/..%5C.."]),
        (BadPath::Nul, &["/%00", "/a%00b", "/\0"]),
    ];
    for (bad, paths) in expected {
        for path in paths {
            assert_eq!(table.find(None, path).err(), Some(bad), "{path:?}");
        }
        assert!(bad.to_string().starts_with("the path "));
    }
    for fine in ["/...", "/.a", "/a.", "/..a", "/%252e%252e", "/a%252Fb", "/;..", "/.%20"] {
        assert!(matches!(table.find(None, fine), Ok(Some(_))), "{fine}");
    }
}

#[test]
fn a_name_outside_the_grammar_says_what_to_do() {
    let expected = [
        ("", "a name is empty"),
        ("a/", "a name is empty"),
        ("a//b", "a name is empty"),
        ("[]", "no parameter name"),
        ("[...]", "no parameter name"),
        ("[a b]", "use ASCII letters"),
        ("[é]", "use ASCII letters"),
        ("[[id]]", "use ASCII letters"),
        ("[a.b]/c", "use ASCII letters"),
        ("post-[id]", "brackets in the middle"),
        ("[id", "brackets in the middle"),
        ("[...x]/y", "nothing can come after it"),
        ("[...x]/index", "nothing can come after it"),
        ("[id]/[id]", "used twice"),
        ("[id]/a/[...ID]", "used twice"),
        ("a\\b", "backslash"),
        ("a\nb", "control character"),
        ("a/../b", "rename it"),
        ("@example.com", "must be a folder"),
        ("a/@example.com/b", "move it to the top"),
        ("@a.org/@b.org/c", "move it to the top"),
        ("@/a", "no host name"),
        ("@example.com:80/a", "leave the port out"),
        ("@bücher.example/a", "`xn--` form"),
        ("@a..b/a", "is not a host name"),
        ("@-a.com/a", "is not a host name"),
        ("@[id]/a", "is not a host name"),
        (&"a/".repeat(65), "a name is empty"),
        (&format!("{}b", "a/".repeat(64)), "use fewer folders"),
    ];
    for (name, expected) in expected {
        let error = Pattern::parse(name).expect_err(name).to_string();
        assert!(error.contains(expected), "{name:?}: {error}");
        assert!(error.contains(": ") && !error.contains('\n'), "{name:?}: {error}");
    }
    assert!(Pattern::parse(&format!("{}b", "a/".repeat(63))).is_ok());
}

#[test]
fn the_table_prints_the_most_specific_first() {
    let files = [
        "[...rest]",
        "fib",
        "index",
        "hello",
        "users/[id]",
        "users/me",
        "users/[id]/posts",
        "@b.org/[...all]",
        "@a.org/index",
        "docs/index",
        "docs",
        "docs/[...page]",
        "[page]",
    ];
    let routes: Vec<String> =
        table(&files).routes().iter().map(|route| route.pattern.to_string()).collect();
    let expected = [
        "a.org/",
        "b.org/[...all]",
        "/users/[id]/posts/*",
        "/users/me/*",
        "/users/[id]",
        "/docs",
        "/docs/[...page]",
        "/docs/*",
        "/fib/*",
        "/hello/*",
        "/[page]",
        "/",
        "/[...rest]",
    ];
    assert_eq!(routes, expected);
}

#[test]
fn two_sources_of_one_route_are_all_named() {
    let entry =
        |name: &str, source: &str| (Pattern::parse(name).expect(name), (), source.to_owned());
    let built_in = Pattern::prefix(&["native", "hello"]);
    let entries = [
        entry("users/[id]", "users/[id].wasm"),
        entry("users/[name]", "users/[name].wat"),
        entry("users/[id]/index", "users/[id]/index.wasm"),
        entry("users/[name]/posts", "users/[name]/posts.wasm"),
        entry("hello", "hello.wat"),
        entry("hello", "hello.wasm"),
        entry("hello/index", "hello/index.wasm"),
        entry("native/hello", "native/hello.wasm"),
        (built_in, (), "a built-in route".to_owned()),
        entry("@a.org/hello", "@a.org/hello.wasm"),
    ];
    let error = Table::build(entries).expect_err("three conflicts").to_string();
    let expected = "\
the route /native/hello/* is claimed by a built-in route and native/hello.wasm: keep one of them
the route /users/[id] is claimed by users/[id].wasm and users/[id]/index.wasm and \
users/[name].wat: keep one of them
the route /hello/* is claimed by hello.wasm and hello.wat: keep one of them";
    assert_eq!(error, expected);
}

#[test]
fn a_built_in_route_is_a_prefix() {
    let routes = [&["native", "hello"][..], &[]];
    let entries = routes.map(|names| (Pattern::prefix(names), names.len(), String::new()));
    let table = Table::build(entries).expect("two routes");
    for (path, target, base_len) in
        [("/native/hello/x", 2, 13), ("/native", 0, 0), ("/", 0, 0), ("//", 0, 0)]
    {
        let found = table.find(None, path).expect(path).expect(path);
        assert_eq!((*found.target, found.base_len), (target, base_len), "{path}");
    }
}

/// If the search tried both branches at every segment of the path, this would not end.
#[test]
fn a_long_path_does_not_make_the_search_explode() {
    const DEPTH: usize = 12;
    let name = |choice: usize| {
        let part = |at: usize| {
            if choice >> at & 1 == 0 { "a/".into() } else { format!("[p{at}]/") }
        };
        (0..DEPTH).map(part).collect::<String>() + "end"
    };
    let files: Vec<String> = (0..1 << DEPTH).map(name).collect();
    let table = table(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let long = "/a".repeat(5_000);
    for _ in 0..100 {
        assert_eq!(serve(&table, &long), "-");
        assert_eq!(serve(&table, &format!("{long}/end")), "-");
    }
    let short = "/a".repeat(DEPTH) + "/end/x";
    assert_eq!(serve(&table, &short), format!("{} {}", files[0], &short[..short.len() - 2]));
}
