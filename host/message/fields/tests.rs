//! Tests of what the fields say about a message's framing.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Coding, check_framing, coding, compact, has_good_host, strip_hop_by_hop, unify_length,
};

/// Fields of one name with these values.
fn fields(name: &'static str, values: &[&str]) -> HeaderMap {
    let name = HeaderName::from_static(name);
    let value = |value: &&str| HeaderValue::from_str(value).expect("a value");
    values.iter().map(|it| (name.clone(), value(it))).collect()
}

#[test]
fn a_coding_is_chunked_or_none() {
    for (values, expected) in [
        (&[][..], Coding::Plain),
        (&["chunked"], Coding::Chunked),
        (&["Chunked\t"], Coding::Chunked),
        (&[", chunked ,"], Coding::Chunked),
        (&["", "chunked"], Coding::Chunked),
        (&["gzip, chunked"], Coding::Unknown),
        (&["gzip", "chunked"], Coding::Unknown),
        (&["gzip"], Coding::Unknown),
        (&["chunked;q=1"], Coding::Unknown),
        (&["chunked, chunked"], Coding::Faulty),
        (&["chunked", "chunked"], Coding::Faulty),
        (&["chunked, gzip"], Coding::Faulty),
        (&[""], Coding::Faulty),
        (&[","], Coding::Faulty),
    ] {
        assert_eq!(coding(&fields("transfer-encoding", values)), expected, "{values:?}");
    }
}

#[test]
fn a_length_is_one_number() {
    for (values, expected) in [
        (&[][..], Some("")),
        (&["5"], Some("5")),
        (&["5, 5"], Some("5")),
        (&["5", "5"], Some("5")),
        (&["18446744073709551615"], Some("18446744073709551615")),
        (&["18446744073709551616"], None),
        (&["5", "6"], None),
        (&["5, 6"], None),
        (&["5", "05"], None),
        (&["+5"], None),
        (&["-5"], None),
        (&["5 5"], None),
        (&["five"], None),
        (&[""], None),
        (&["5,"], None),
    ] {
        let mut headers = fields("content-length", values);
        let is_one = unify_length(&mut headers);
        assert_eq!(is_one, expected.is_some(), "{values:?}");
        if let Some(expected) = expected {
            let left: Vec<_> = headers.get_all("content-length").iter().collect();
            let expected: Vec<&str> =
                Some(expected).filter(|it| !it.is_empty()).into_iter().collect();
            assert_eq!(left, expected, "{values:?}");
        }
    }
}

#[test]
fn a_response_has_one_framing() {
    let mut both = fields("transfer-encoding", &["chunked"]);
    assert_eq!(check_framing(&mut both), Ok(()));
    both.insert("content-length", HeaderValue::from_static("5"));
    assert!(check_framing(&mut both).is_err());
    assert!(check_framing(&mut fields("transfer-encoding", &["gzip, chunked"])).is_err());
    assert!(check_framing(&mut fields("content-length", &["5", "6"])).is_err());
    assert_eq!(check_framing(&mut HeaderMap::new()), Ok(()));
}

#[test]
fn a_request_names_one_host_or_none() {
    for good in [&[][..], &[""], &["a.test"], &["a.test:80"], &["[::1]:80"], &["127.0.0.1"]] {
        assert!(has_good_host(&fields("host", good)), "{good:?}");
    }
    for bad in [&["a", "a"][..], &["a b"], &["a/b"], &["u@a"], &["a:b"], &["[::1"], &["a,b:1:2"]] {
        assert!(!has_good_host(&fields("host", bad)), "{bad:?}");
    }
}

/// An element of `Connection` that is not ASCII is no field name. The elements beside it still are.
#[test]
fn what_connection_names_goes_whatever_stands_beside_it() {
    for value in [&b"x-named, \xe9"[..], b"\xe9,x-named", b"\xff\xfe, X-Named , close"] {
        let mut headers = fields("x-named", &["1"]);
        headers.extend(fields("x-other", &["1"]));
        headers.insert("connection", HeaderValue::from_bytes(value).expect("a value"));
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, fields("x-other", &["1"]), "{value:?}");
    }
}

#[test]
fn fields_that_were_removed_leave_no_room() {
    let name = |number: usize| format!("x-{number}").parse::<HeaderName>().expect("a name");
    let mut headers = HeaderMap::new();
    for number in 0..1_000 {
        headers.append(name(number), HeaderValue::from_static("one"));
        headers.append(name(number), HeaderValue::from_static("two"));
    }
    for number in 3..1_000 {
        headers.remove(name(number));
    }
    assert!(headers.capacity() >= 1_000);
    let before = headers.clone();
    compact(&mut headers);
    assert!(headers.capacity() < 16, "{}", headers.capacity());
    assert_eq!(headers, before);
    let values: Vec<_> = headers.get_all("x-2").iter().collect();
    assert_eq!(values, ["one", "two"]);
}
