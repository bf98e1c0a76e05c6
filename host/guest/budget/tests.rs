//! What the last eighth is for.

use super::{Budget, Charge, Purpose};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A host with so much left for its guests, and what the others have.
fn with_left(left: usize) -> (Budget, Charge) {
    let all = Budget::new(64 * MIB);
    let others = all.take_anyway(64 * MIB - left);
    (all, others)
}

#[test]
fn each_guest_has_a_first_instance_and_its_tables() {
    let (all, _others) = with_left(3 * MIB);
    let guest = all.of_guest();
    for bytes in [640 * KIB, 1088 * KIB, 64, 0, 10 * KIB] {
        assert!(guest.take(bytes, Purpose::Start).is_ok(), "{bytes}");
    }
    {
        // One of 0.3 begins with four stacks.
        let (all, _others) = with_left(5 * MIB);
        let guest = all.of_guest();
        for bytes in [2368 * KIB, 2 * MIB, 64] {
            assert!(guest.take(bytes, Purpose::Start).is_ok(), "{bytes}");
        }
    }
    // Not a second one, and no more than there is.
    assert!(guest.take(2 * MIB, Purpose::Start).is_err());
    let another = all.of_guest();
    assert!(another.take(640 * KIB, Purpose::Start).is_ok());
    assert!(another.take(2 * MIB, Purpose::Start).is_err());
    assert!(all.used() <= all.total());
}

#[test]
fn what_is_waited_for_no_guest_grows_into() {
    let (all, _others) = with_left(26 * MIB);
    let guest = all.of_guest();
    assert!(guest.take(10 * MIB, Purpose::Growth).is_ok());
    {
        let _want = all.want(8 * MIB);
        assert!(guest.take(5 * MIB, Purpose::Growth).is_err());
        // A first instance comes before, and who waits gets it.
        assert!(all.of_guest().take(MIB, Purpose::Start).is_ok());
        assert!(all.has(7 * MIB));
        assert!(!all.has(8 * MIB));
    }
    assert!(guest.take(5 * MIB, Purpose::Growth).is_ok());
}

/// The last eighth is for who has little, whoever waits.
#[test]
fn who_has_little_grows_whoever_waits() {
    let (all, _others) = with_left(8 * MIB);
    let _want = all.want(8 * MIB);
    let guest = all.of_guest();
    assert!(guest.take(4 * MIB, Purpose::Growth).is_ok());
    assert!(guest.take(MIB, Purpose::Growth).is_err());
}
