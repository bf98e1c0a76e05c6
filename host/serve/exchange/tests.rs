//! What a connection knows of its request.

use bytes::Bytes;
use http_body_util::{Empty, Full};

use super::*;

fn begun(expect: &str, version: Version) -> Exchange {
    let exchange = Exchange::default();
    let mut http = Request::new(Full::new(Bytes::from_static(b"body")));
    *http.version_mut() = version;
    http.headers_mut().insert(EXPECT, expect.parse().expect("a value"));
    exchange.begin(&http);
    exchange
}

#[test]
fn a_client_waits_for_continue_if_it_says_so_and_has_a_body() {
    assert!(begun("100-Continue", Version::HTTP_11).awaits_continue());
    assert!(!begun("100-continue", Version::HTTP_10).awaits_continue());
    assert!(!begun("something", Version::HTTP_11).awaits_continue());
    let exchange = begun("100-continue", Version::HTTP_11);
    exchange.begin(&Request::new(Empty::<Bytes>::new()));
    assert!(!exchange.awaits_continue());
}

#[test]
fn a_client_is_told_once() {
    let head = [CONTINUE, b"HTTP/1.1 200 OK\r\n"].concat();
    let exchange = begun("100-continue", Version::HTTP_11);
    exchange.continued();
    assert!(exchange.is_told_twice(&head));
    assert!(!exchange.is_told_twice(&head));
    let exchange = begun("100-continue", Version::HTTP_11);
    assert!(!exchange.is_told_twice(b"HTTP/1.1 200 OK\r\n"));
    assert!(!exchange.is_told_twice(&head));
    assert!(!exchange.awaits_continue());
}

#[test]
fn a_body_is_left_until_it_was_read_to_its_end() {
    let exchange = begun("", Version::HTTP_11);
    // It may be refused before anybody takes it up.
    assert!(exchange.is_body_left() && !exchange.is_body_open());
    let body = Arc::<Progress>::default();
    exchange.expect_body(body.clone());
    assert!(exchange.is_body_left() && exchange.is_body_open());
    body.leave();
    assert!(exchange.is_body_left() && !exchange.is_body_open());
    body.come(4, true);
    exchange.in_flight.set(false);
    assert!(!exchange.is_body_left() && exchange.is_over());
}
