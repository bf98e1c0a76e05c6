//! Tests of how much free slots keep.

use super::{POOLED_PART, SlotPages, SlotShape};

#[test]
fn all_slots_together_keep_their_part() {
    for memory_total in [1 << 20, 24 << 20, 256 << 20, 1 << 30, 18 << 30, 1 << 40] {
        for slots in [1, 8, 250, 5_200] {
            for (tables, stacks) in [(3, 1), (3, 4), (0, 0)] {
                let shape = SlotShape { slots, tables, stacks, eighths: 3 };
                let derived = SlotPages::derive(memory_total, shape);
                let each = derived.memory + derived.table * tables + derived.stack * stacks;
                assert!(
                    each * slots <= memory_total / POOLED_PART / 8 * 3,
                    "{shape:?}: {derived:?}"
                );
            }
        }
    }
}

#[test]
fn a_machine_with_memory_keeps_what_instances_use() {
    let small = SlotShape { slots: 5_200, tables: 3, stacks: 1, eighths: 3 };
    let derived = SlotPages::derive(18 << 30, small);
    assert!(derived.memory >= 64 << 10 && derived.stack == 16 << 10, "{derived:?}");
    let large = SlotShape { slots: 250, ..small };
    let derived = SlotPages::derive(18 << 30, large);
    assert!(derived.memory >= 2 << 20, "{derived:?}");
}
