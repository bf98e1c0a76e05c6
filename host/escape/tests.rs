//! Tests of how a text is escaped, and where it is cut.

use super::escape;

#[test]
fn what_is_plain_stays_and_what_steers_is_spelled_out() {
    for (text, escaped) in [
        ("a line, as it is: ä €", "a line, as it is: ä €"),
        ("a\nb\r\n\tc", r"a\nb\r\n\tc"),
        (r"C:\x", r"C:\\x"),
        ("\x1b[31mred\x07\0\x7f", r"\x1b[31mred\x07\x00\x7f"),
        ("\u{9b}31m\u{85}", r"\u{9b}31m\u{85}"),
        ("a\u{202e}b\u{2066}c\u{200f}\u{61c}", r"a\u{202e}b\u{2066}c\u{200f}\u{61c}"),
        ("a\u{2028}b\u{2029}", r"a\u{2028}b\u{2029}"),
    ] {
        assert_eq!(escape(text.as_bytes(), 200), escaped, "{text:?}");
    }
    assert_eq!(escape(b"a\xff\xe2\x82", 200), r"a\xff\xe2\x82");
}

#[test]
fn what_does_not_fit_is_counted() {
    assert_eq!(escape(b"abcd", 4), "abcd");
    assert_eq!(escape(b"abcde", 4), "abcd…(1 more bytes)");
    assert_eq!(escape("abcd€".as_bytes(), 6), "abcd…(3 more bytes)");
    // An escape sequence is never cut in two.
    assert_eq!(escape(b"abc\n", 4), "abc…(1 more bytes)");
    assert_eq!(escape(b"abc\xff", 6), "abc…(1 more bytes)");
    assert_eq!(escape(&[b'x'; 1000], 0), "…(1000 more bytes)");
    // The bound falls inside a character, which is left out as a whole.
    assert_eq!(escape("€€€€€".as_bytes(), 4), "€…(12 more bytes)");
}

#[test]
fn no_line_is_longer_than_its_bound() {
    let all: Vec<u8> = (0..=u8::MAX).cycle().take(4096).collect();
    for bytes_max in 0..600 {
        let line = escape(&all, bytes_max);
        let (text, _) = line.split_once('…').expect("it does not fit");
        assert!(text.len() <= bytes_max, "{} bytes of {bytes_max}", text.len());
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}
