//! Tests of the last eighth.

use super::{Budget, Charge, Purpose};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A host with so many bytes left for its guests, and the charge of all others.
fn with_left(left: usize) -> (Budget, Charge) {
    let all = Budget::new(64 * MIB);
    let others = all.force_charge(64 * MIB - left);
    (all, others)
}

#[test]
fn each_guest_has_a_first_instance_and_its_tables() {
    let (all, _others) = with_left(3 * MIB);
    let guest = all.of_guest(1);
    for bytes in [640 * KIB, 1088 * KIB, 64, 0, 10 * KIB] {
        assert!(guest.try_charge(bytes, Purpose::Start).is_ok(), "{bytes}");
    }
    {
        // An instance of 0.3 begins with four stacks.
        let (all, _others) = with_left(5 * MIB);
        let guest = all.of_guest(2);
        for bytes in [2368 * KIB, 2 * MIB, 64] {
            assert!(guest.try_charge(bytes, Purpose::Start).is_ok(), "{bytes}");
        }
    }
    // It gets no second instance, and no more than there is.
    assert!(guest.try_charge(2 * MIB, Purpose::Start).is_err());
    let another = all.of_guest(3);
    assert!(another.try_charge(640 * KIB, Purpose::Start).is_ok());
    assert!(another.try_charge(2 * MIB, Purpose::Start).is_err());
    assert!(all.used() <= all.total());
}

#[test]
fn what_is_waited_for_no_guest_grows_into() {
    let (all, _others) = with_left(26 * MIB);
    let guest = all.of_guest(4);
    assert!(guest.try_charge(10 * MIB, Purpose::Growth).is_ok());
    {
        let _want = all.add_demand(8 * MIB);
        assert!(guest.try_charge(5 * MIB, Purpose::Growth).is_err());
        // A first instance is exempt, and those who wait get the rest.
        assert!(all.of_guest(5).try_charge(MIB, Purpose::Start).is_ok());
        assert!(all.has(7 * MIB));
        assert!(!all.has(8 * MIB));
    }
    assert!(guest.try_charge(5 * MIB, Purpose::Growth).is_ok());
}

/// The last eighth is for guests that have little, whoever waits.
#[test]
fn who_has_little_grows_whoever_waits() {
    let (all, _others) = with_left(8 * MIB);
    let _want = all.add_demand(8 * MIB);
    let guest = all.of_guest(6);
    assert!(guest.try_charge(4 * MIB, Purpose::Growth).is_ok());
    assert!(guest.try_charge(MIB, Purpose::Growth).is_err());
}

/// Many guests of one owner get no more of the last eighth than three guests of different owners.
#[test]
fn an_owner_has_three_times_what_it_leaves() {
    let (all, _others) = with_left(8 * MIB);
    let guests: Vec<Budget> = (0..10).map(|_| all.of_guest(1)).collect();
    let taken = guests.iter().take_while(|guest| guest.try_charge(MIB, Purpose::Growth).is_ok());
    assert_eq!(taken.count(), 6);
    assert!(all.of_guest(2).try_charge(MIB, Purpose::Growth).is_ok());
}
