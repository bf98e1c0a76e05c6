//! Tests which URLs are accepted, and the reasons why others are not.

use super::Url;

#[test]
fn a_url_is_taken_apart_as_curl_does() {
    for (text, authority, path) in [
        ("http://127.0.0.1:8080/hello", "127.0.0.1:8080", "/hello"),
        ("127.0.0.1:8080/hello", "127.0.0.1:8080", "/hello"),
        ("localhost", "localhost:80", "/"),
        ("localhost:8080", "localhost:8080", "/"),
        ("HTTP://localhost/", "localhost:80", "/"),
        ("http://h:8080?x=1", "h:8080", "/?x=1"),
        ("h?x=/y?z", "h:80", "/?x=/y?z"),
        ("http://h", "h:80", "/"),
        ("h?to=http://x/", "h:80", "/?to=http://x/"),
        ("http://h:/x", "h:80", "/x"),
        ("http://h/#part", "h:80", "/"),
        ("http://h#part", "h:80", "/"),
        ("http://h/a?b=c#d?e", "h:80", "/a?b=c"),
        ("http://[::1]:8080/x", "[::1]:8080", "/x"),
        ("[::1]", "[::1]:80", "/"),
        ("http://h:065/", "h:65", "/"),
        ("http://h/a%20b", "h:80", "/a%20b"),
        ("http://h/a:b@c", "h:80", "/a:b@c"),
        ("http://h/\u{e4}?{}", "h:80", "/%C3%A4?%7B%7D"),
        ("http://h//x", "h:80", "//x"),
        ("http:/h:8080/x", "h:8080", "/x"),
        ("http://h/a/../b", "h:80", "/b"),
        ("http://h/../../b?../c", "h:80", "/b?../c"),
        ("http://h/a/b/%2e%2E/./", "h:80", "/a/"),
        ("http://h/a/..", "h:80", "/"),
        ("http://h/a/.", "h:80", "/a/"),
        ("http://h/...", "h:80", "/..."),
    ] {
        let url = Url::parse(text).expect(text);
        assert_eq!((url.authority.as_str(), url.path.as_str()), (authority, path), "{text}");
        assert_eq!(url.text, text);
    }
}

#[test]
fn what_is_no_url_has_its_reason() {
    for (text, words) in [
        ("", "it names no host"),
        ("/hello", "it names no host"),
        ("http://", "it names no host"),
        ("http:///x", "it names no host"),
        ("http://:80/", "it names no host"),
        ("http://?x", "it names no host"),
        ("https://h/", "only http is measured"),
        ("ftp://h/", "only http is measured"),
        ("http://user:secret@h/", "give user and password as a header"),
        ("user@h", "give user and password as a header"),
        ("http://a b/", "a space in it, which is written %20"),
        ("http://h/a b", "a space in it, which is written %20"),
        ("http://h/\t", "a control character"),
        ("http://h/\r\nX: y", "a control character"),
        ("http://::1:80/", "stands in brackets, as in http://[::1]:8080/"),
        ("::1", "stands in brackets, as in http://[::1]:8080/"),
        ("http://[::1/", "a bracket is not closed"),
        ("http://[1.2.3.4]/", "[1.2.3.4] is no IPv6 address"),
        ("http://[fe80::1%25eth0]/", "is no IPv6 address"),
        ("http://[::1]x/", "stands behind the host"),
        ("http://h:0/", "a port is a number from 1 to 65535"),
        ("http://h:65536/", "a port is a number from 1 to 65535"),
        ("http://h:+80/", "a port is a number from 1 to 65535"),
        ("http://h:port/", "a port is a number from 1 to 65535"),
        ("http://h<b>/", "no name of a host has '<' in it"),
    ] {
        let said = Url::parse(text).expect_err(text);
        assert!(said.contains(words), "{text:?}: {said}");
        assert!(said.starts_with(&format!("{text:?} ")), "{text:?}: {said}");
    }
}
