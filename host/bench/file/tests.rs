//! Tests how far a file is read.

use super::{read, text};

#[test]
fn a_file_is_read_up_to_its_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, "four").expect("it is written");
    assert_eq!(read(&path, 4).expect("it fits"), b"four");
    assert_eq!(text(&path, 4).expect("it is text"), "four");
    let error = read(&path, 3).expect_err("it does not fit");
    assert_eq!(error.to_string(), "it has 4 bytes or more, which is too long");
    std::fs::write(&path, b"\xff").expect("it is written");
    assert!(text(&path, 4).is_err());
}

#[test]
fn what_has_no_end_is_left_off() {
    let error = read("/dev/zero".as_ref(), 1000).expect_err("it does not fit");
    assert_eq!(error.to_string(), "it has 1001 bytes or more, which is too long");
}
