//! What loads leave to the guests that are served.

use super::Room;
use crate::guest::budget::Budget;
use crate::guest::child::Cancel;
use crate::guest::failure::Cause;

const MIB: u64 = 1 << 20;

#[test]
fn a_file_that_would_take_more_than_a_half_is_refused() {
    let room = Room::new(Budget::new(64 << 20));
    let place = room.enter(10 * MIB, &Cancel::default());
    assert!(place.is_ok());
    drop(place);
    let refused = room.enter(11 * MIB, &Cancel::default()).err().expect("it is too large");
    assert_eq!(refused.cause, Cause::File);
    assert!(refused.reason.contains("3 times its 11264 KiB"), "{}", refused.reason);
}

#[test]
fn guests_that_are_served_keep_their_memory() {
    let memory = Budget::new(64 << 20);
    let room = Room::new(memory.clone());
    let guests = memory.take_anyway(40 << 20);
    let cancel = Cancel::default();
    // Of 56 MiB that may be taken for anything, 16 are left.
    drop(room.enter(5 * MIB, &cancel).expect("it fits"));
    let shortages = memory.shortages();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| room.enter(6 * MIB, &cancel).map(drop));
        while memory.shortages() == shortages && !waits.is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(memory.used(), 40 << 20);
        drop(guests);
        assert!(waits.join().expect("no panic").is_ok());
    });
    assert_eq!(memory.used(), 0);
    let _guests = memory.take_anyway(60 << 20);
    cancel.cancel();
    let refused = room.enter(MIB, &cancel).err().expect("there is no memory");
    assert_eq!(refused.cause, Cause::Shortage);
}

#[test]
fn small_files_are_loaded_however_little_there_is() {
    let memory = Budget::new(64 << 20);
    let _guests = memory.take_anyway(64 << 20);
    assert!(Room::new(memory).enter(16 << 10, &Cancel::default()).is_ok());
}
