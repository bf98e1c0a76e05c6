//! Tests of a panic on a worker. No input can cause one, so this tests the guard itself.

use std::pin::pin;

use super::catch_panic;
use crate::message::Reject;

#[tokio::test]
async fn a_panic_ends_one_request() {
    let broken = pin!(async {
        tokio::task::yield_now().await;
        panic!("of the host itself")
    });
    assert!(matches!(catch_panic::<()>(broken).await, Err(Reject::Panic)));
}
