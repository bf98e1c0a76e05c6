//! Tests of how descriptors are divided between clients, the upstream and everything else.

use super::{connection_descriptors, upstream_max};

#[test]
fn a_quarter_is_left_for_everything_else_and_a_half_of_the_rest_for_the_upstream() {
    for (files, clients, upstream) in
        [(64, 48, 12), (1_024, 768, 192), (4_096, 3_072, 256), (1 << 20, (1 << 20) - 4_096, 256)]
    {
        assert_eq!((connection_descriptors(files), upstream_max(files, 2)), (clients, upstream));
        assert!(upstream_max(files, 2) * 2 <= connection_descriptors(files) / 2);
    }
    assert_eq!(upstream_max(64, 256), 1);
}
