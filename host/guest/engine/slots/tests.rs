//! Tests of how a machine's mappings and address space are divided.

use super::{Headroom, Slots};
use crate::guest::engine::class::Class;
use crate::guest::engine::resources::MAPPINGS_PER_GUEST;

/// Address space of a process with 48-bit addresses, and mappings that it has at its start.
const ADDRESSES: u64 = 127 << 40;
const TAKEN: u64 = 200;

fn stock(workers: usize) -> (Headroom, Slots) {
    let room = Headroom { mappings: 65_530 - TAKEN, address_bytes: ADDRESSES };
    (room, Slots::derive(room, workers))
}

#[test]
fn instances_and_ten_thousand_guests_fit_a_stock_kernel() {
    for workers in [1, 2, 4, 16, 128] {
        let (room, slots) = stock(workers);
        let guests = slots.mappings_for_guests(room.mappings);
        assert!(guests / 8 * 7 >= 10_000 * MAPPINGS_PER_GUEST, "{workers}: {guests}, {slots:?}");
        assert!(slots.mappings() + guests < room.mappings, "{workers}: {slots:?}");
        assert!(slots.small >= 1_000 && slots.large >= 200, "{workers}: {slots:?}");
    }
}

/// A slot of a small engine takes a stack, its guard page, and the two parts of a memory.
#[test]
fn stacks_and_guard_pages_count() {
    let slots = Slots { small: 100, large: 10, concurrent: 20 };
    assert_eq!(slots.mappings(), 4 * 100 * (2 + 2) + 10 * (2 + 4) + 20 * (4 * 2 + 4));
}

#[test]
fn more_is_used_where_there_is_more() {
    let (_, small) = stock(2);
    let room = Headroom { mappings: 1 << 20, address_bytes: ADDRESSES };
    let large = Slots::derive(room, 2);
    assert!(large.small == 2_560 && large.small > small.small, "{large:?} {small:?}");
    let guests = large.mappings_for_guests(room.mappings);
    assert!(guests > 900_000, "{guests}");
}

#[test]
fn what_is_ready_and_in_flight_fits_each_engine() {
    for workers in [1, 2, 4, 16] {
        let (_, slots) = stock(workers);
        for class in Class::ALL {
            let ready = slots.ready_max_of(class, workers) * workers;
            assert!(ready <= slots.of(class) as usize, "{class:?} {ready} {slots:?}");
        }
        let ready = slots.ready_max_of(Class::Small, workers);
        let all = (ready + slots.in_flight_max(workers)) * workers;
        assert!(all <= slots.small as usize, "{workers}: {all} {slots:?}");
    }
}

#[test]
fn little_address_space_means_fewer_instances() {
    let limits = [(1_u64 << 40, 30..60), (4 << 40, 150..250), (512 << 30, 16..30)];
    for (address_bytes, expected) in limits {
        let slots = Slots::derive(Headroom { mappings: 65_000, address_bytes }, 2);
        assert!(slots.address_bytes() <= address_bytes, "{slots:?}");
        assert!(expected.contains(&slots.small), "{slots:?}");
    }
    // The least number stays: then reserving fails, and says so.
    let least = Slots::derive(Headroom { mappings: 0, address_bytes: 0 }, 2);
    assert_eq!((least.small, least.halved()), (16, None));
    assert_eq!(least.mappings_for_guests(0), 0);
}
