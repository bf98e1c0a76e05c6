//! Tests of what a connection knows about its requests.

use bytes::Bytes;
use http_body_util::{Empty, Full};

use super::*;

fn begun(expect: &str, version: Version) -> Exchanges {
    let exchanges = Exchanges::default();
    let mut http = Request::new(Full::new(Bytes::from_static(b"body")));
    *http.version_mut() = version;
    http.headers_mut().insert(EXPECT, expect.parse().expect("a value"));
    assert_eq!(exchanges.begin(&http), 0);
    exchanges
}

#[test]
fn a_client_waits_for_continue_if_it_says_so_and_has_a_body() {
    assert!(begun("100-Continue", Version::HTTP_11).state(0).awaits_continue());
    assert!(!begun("100-continue", Version::HTTP_10).state(0).awaits_continue());
    assert!(!begun("something", Version::HTTP_11).state(0).awaits_continue());
    let exchanges = begun("100-continue", Version::HTTP_11);
    exchanges.state(0).enter(ExchangePhase::Over);
    assert_eq!(exchanges.begin(&Request::new(Empty::<Bytes>::new())), 0);
    assert!(!exchanges.state(0).awaits_continue());
}

#[test]
fn a_client_is_told_once() {
    let head = [CONTINUE, b"HTTP/1.1 200 OK\r\n"].concat();
    let exchanges = begun("100-continue", Version::HTTP_11);
    exchanges.state(0).note_continue_sent();
    assert!(exchanges.is_repeated_continue(&head));
    assert!(!exchanges.is_repeated_continue(&head));
    let exchanges = begun("100-continue", Version::HTTP_11);
    assert!(!exchanges.is_repeated_continue(b"HTTP/1.1 200 OK\r\n"));
    assert!(!exchanges.is_repeated_continue(&head));
    assert!(!exchanges.state(0).awaits_continue());
}

#[test]
fn a_body_is_left_until_it_was_read_to_its_end() {
    let exchanges = begun("", Version::HTTP_11);
    // The body may be refused before anything reads it.
    assert!(exchanges.has_unread_body() && !exchanges.is_body_open());
    let body = Arc::<BodyProgress>::default();
    exchanges.state(0).expect_body(body.clone());
    assert!(exchanges.has_unread_body() && exchanges.is_body_open());
    body.note_dropped();
    assert!(exchanges.has_unread_body() && !exchanges.is_body_open());
    body.note_received(4, true);
    exchanges.state(0).enter(ExchangePhase::Over);
    assert!(!exchanges.has_unread_body() && exchanges.are_answered());
}

#[test]
fn a_request_takes_the_place_of_one_that_is_over() {
    let exchanges = begun("", Version::HTTP_11);
    let http = Request::new(Empty::<Bytes>::new());
    assert_eq!(exchanges.begin(&http), 1);
    exchanges.state(0).enter(ExchangePhase::Over);
    assert!(exchanges.is_any_in_flight() && exchanges.has_unread_body());
    assert_eq!(exchanges.begin(&http), 0);
    assert!(!exchanges.has_unread_body());
}
