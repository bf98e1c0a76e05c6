//! Outbound requests over TLS: which certificates are trusted, and HTTP/2.

use std::path::Path;

use super::{assert_code, fetch, fetch_with, good, setup};
use crate::component::assert_as_new;
use crate::host::Host;
use crate::secure::{Said, Secure, Then, trust};

/// A host whose probe may send to all of this machine over TLS, and trusts this certificate.
#[track_caller]
fn trusting(pem: &str, folder: &Path) -> Host {
    let allow = "probe=https://localhost:*";
    let host = setup(&["--allow-outbound", allow, "--workers", "1"]);
    let host = trust(host, pem, folder).start();
    host.settled();
    host
}

#[test]
fn many_requests_share_one_connection_of_http2() {
    let server = Secure::start("localhost", &[b"h2", b"http/1.1"]);
    let folder = tempfile::tempdir().expect("a folder");
    let host = trusting(&server.pem, folder.path());
    let url = server.url("localhost");
    let authority = url.trim_start_matches("https://").trim_end_matches('/');
    // These errors come before there is a connection.
    let told = fetch_with(&host, "fetch-many", &url, &["x-times: 10"]);
    assert_eq!(told, format!("10 x 200 HTTP/2.0 {authority} false\n"));
    for _ in 0..10 {
        assert_eq!(fetch(&host, &url), format!("200 HTTP/2.0 {authority} false"));
    }
    assert_eq!(server.connections(), 1);
    assert_as_new(&host);
}

#[test]
fn a_server_may_speak_nothing_but_http1() {
    let folder = tempfile::tempdir().expect("a folder");
    for protocols in [&[b"http/1.1".as_slice()][..], &[]] {
        let server = Secure::start("localhost", protocols);
        let host = trusting(&server.pem, folder.path());
        let url = server.url("localhost");
        let authority = url.trim_start_matches("https://").trim_end_matches('/');
        for _ in 0..5 {
            assert_eq!(fetch(&host, &url), format!("200 HTTP/1.1 {authority} true"));
        }
        assert_eq!(server.connections(), 1);
        assert_as_new(&host);
    }
}

#[test]
fn a_server_has_to_be_who_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let (right, wrong) = (Secure::start("localhost", &[]), Secure::start("other.test", &[]));
    // The first certificate is not trusted, and the second one is for another name.
    for (pem, url) in [(&wrong.pem, right.url("localhost")), (&wrong.pem, wrong.url("localhost"))] {
        let host = trusting(pem, folder.path());
        assert_code(&fetch(&host, &url), "TlsCertificateError");
        assert_as_new(&host);
    }
    let host = trusting(&right.pem, folder.path());
    let plain = good();
    let port = plain.url("").rsplit(':').next().map(str::to_owned).expect("a port");
    let told = fetch(&host, &format!("https://localhost:{port}/"));
    assert!(told.contains("Tls") || told.contains("ConnectionTerminated"), "{told}");
    assert_as_new(&host);
}

/// A stream that is reset without an error has not ended (RFC 9113, 8.1), even if the server may
/// only want no more of the request. After a complete response it may reset the stream.
#[test]
fn a_body_of_http2_that_breaks_off_is_not_complete() {
    let broken = b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x03\0\0\0\0\0\x01hel\
        \0\0\x04\x03\0\0\0\0\x01\0\0\0\0";
    let whole = b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x03\0\x01\0\0\0\x01hel\
        \0\0\x04\x03\0\0\0\0\x01\0\0\0\0";
    let folder = tempfile::tempdir().expect("a folder");
    for behaviour in ["fetch", "fetch-open"] {
        for (frames, is_whole) in [(broken, false), (whole, true)] {
            let server = Secure::saying(&[Said { frames, then: Then::Stay }]);
            let host = trusting(&server.pem, folder.path());
            let url = server.url("localhost");
            let told = fetch_with(&host, behaviour, &url, &["x-method: POST"]);
            match is_whole {
                true => assert_eq!(told, "200 hel", "{behaviour}"),
                // With an upload, the stream may be reset before anybody has seen the head.
                false if behaviour == "fetch-open" && told.contains("ConnectionTerminated") => {}
                false => assert_code(&told, "HttpResponseIncomplete"),
            }
            assert_as_new(&host);
        }
    }
}

/// Many certificates can form more chains than there is time to check.
#[test]
fn a_server_sends_no_more_certificates_than_a_chain_has() {
    let folder = tempfile::tempdir().expect("a folder");
    for (others, is_one_name) in [(8, false), (8, true), (9, false), (150, true)] {
        let server = Secure::with_others(others, is_one_name);
        let host = trusting(&server.pem, folder.path());
        let told = fetch(&host, &server.url("localhost"));
        if others > 8 {
            assert_code(&told, "TlsCertificateError");
        } else {
            assert!(told.starts_with("200 "), "{others}: {told}");
        }
        assert_as_new(&host);
    }
}

/// If a server endlessly sends data that no guest gets, its connection is closed: interim answers
/// of HTTP/2, and session tickets of TLS.
#[test]
fn what_nobody_gets_anything_of_has_an_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let frames = b"\0\0\x05\x01\x04\0\0\0\x01\x08\x03103";
    let interim = Secure::saying(&[Said { frames, then: Then::Repeat }]);
    let tickets = Secure::start_with("localhost", &[b"http/1.1"], 60_000);
    for server in [interim, tickets] {
        let host = trusting(&server.pem, folder.path());
        let told = fetch(&host, &server.url("localhost"));
        assert!(told.contains("ConnectionTerminated") || told.contains("Protocol"), "{told}");
        assert_as_new(&host);
    }
}
