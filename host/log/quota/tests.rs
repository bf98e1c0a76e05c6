//! Tests of the quota.

use super::*;

#[test]
fn a_second_has_so_many_lines_and_bytes() {
    let quota = Quota::new(3, 100);
    let taken = [10, 10, 10, 10].map(|bytes| quota.take_at(0, bytes));
    assert_eq!(taken, [Some(0), Some(0), Some(0), None]);
    assert_eq!(quota.take_at(1, 99), Some(1), "one was dropped");
    assert_eq!(quota.take_at(1, 99), Some(0));
    assert_eq!(quota.take_at(1, 1), None);
    assert_eq!(quota.take_at(2, 1), Some(1));
}
