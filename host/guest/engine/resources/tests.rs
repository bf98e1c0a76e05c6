//! Tests of the counts, and of which errors are shortages.

use std::io;

use rustix::io::Errno;

use super::{
    Mappings, ResourceAmount, Resources, count_descriptors, count_mappings, is_engine_shortage,
    is_shortage,
};
use crate::guest::engine::slots::Slots;

const GUEST: ResourceAmount = ResourceAmount { mappings: 3, descriptors: 1 };

#[test]
fn what_guests_hold_is_given_back() {
    let slots = Slots { small: 16, large: 8, concurrent: 8 };
    let resources = Resources::new(Mappings { used: 100, max: 2_000 }, slots);
    let most = resources.guests_max().mappings;
    assert_eq!(most, slots.mappings_for_guests(1_900));
    let used = resources.mappings().used;
    let held: Vec<_> = (0..most / 3).map(|_| resources.reserve_for_guest(GUEST)).collect();
    assert!(!resources.has_room(0));
    assert_eq!(resources.mappings().used, used + most / 3 * 3);
    assert_eq!(resources.mappings().max, 2_000);
    drop(held);
    assert!(resources.has_room(0));
    assert!(!resources.has_room(most as usize / 3), "those under way count, too");
    assert_eq!(resources.mappings().used, used);
}

#[test]
fn guests_get_less_where_the_rest_has_more_than_was_planned() {
    let all = count_mappings();
    let slots = Slots { small: 16, large: 8, concurrent: 8 };
    let resources = Resources::new(Mappings { used: 0, max: all + 200 }, slots);
    let planned = resources.guests_max().mappings;
    resources.recount_mappings();
    assert!(resources.guests_max().mappings <= planned.min(200), "{:?}", resources.guests_max());
}

#[test]
fn this_process_has_mappings_and_descriptors() {
    let mappings = Mappings::read(Some(1_000_000_000));
    assert!(mappings.used > 10 && mappings.max > mappings.used, "{mappings:?}");
    assert!(mappings.max < 1_000_000_000 || mappings.max > 65_000);
    assert_eq!(Mappings::read(Some(5_000)).max, 5_000);
    let files: Vec<_> = (0..20).map(|_| std::fs::File::open("/dev/null")).collect();
    assert!(count_descriptors() >= files.len() as u64);
}

#[test]
fn amounts_are_compared_in_each_kind() {
    let mut sum = ResourceAmount::default();
    sum.add(GUEST);
    sum.add(GUEST);
    assert!(sum.exceeds(ResourceAmount { mappings: 5, descriptors: 9 }));
    assert!(sum.exceeds(ResourceAmount { mappings: 9, descriptors: 1 }));
    sum.sub(GUEST);
    assert!(!sum.exceeds(GUEST));
    assert_eq!(ResourceAmount { mappings: 17, descriptors: 8 }.eighths(7).mappings, 14);
    assert_eq!(ResourceAmount { mappings: u64::MAX, descriptors: 8 }.eighths(7).descriptors, 7);
}

#[test]
fn a_shortage_of_the_kernel_is_told_from_a_fault() {
    for errno in [Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::AGAIN] {
        assert!(is_shortage(&io::Error::from(errno)), "{errno}");
        let error = wasmtime::Error::from(errno).context("unable to make memory executable");
        assert!(is_engine_shortage(&error), "{error:#}");
        let error = wasmtime::Error::from(io::Error::from(errno)).context("outer");
        assert!(is_engine_shortage(&error), "{error:#}");
    }
    for errno in [Errno::NOENT, Errno::ACCESS, Errno::PERM] {
        assert!(!is_shortage(&io::Error::from(errno)), "{errno}");
        assert!(!is_engine_shortage(&wasmtime::Error::from(errno)), "{errno}");
    }
    let text = wasmtime::Error::msg("Cannot allocate memory (os error 12)");
    assert!(!is_engine_shortage(&text), "words of a guest are no error of the kernel");
}
