//! Tests of a panic in the slow lane. No input can cause one, so this uses the lane itself.

use std::time::Duration;

use super::{BoxedCall, Lane, Payer};
use crate::message::Reject;

const PAYER: Payer = Payer { owner: 1, guest: 7 };

#[tokio::test]
async fn a_panic_ends_one_call_and_the_threads_go_on() {
    let lane = Lane::start(1, 0).expect("a thread");
    for round in 0..3 {
        let call: BoxedCall<u32> = Box::pin(async move {
            tokio::task::yield_now().await;
            assert!(round == 1, "of the host itself");
            round
        });
        let cpu_left = Duration::from_secs(60);
        let ended = lane.new_handle().hand_over(PAYER, call, cpu_left, Default::default()).await;
        match (round, ended) {
            (1, Ok((1, _))) | (_, Err(Reject::Panic)) => {}
            (_, ended) => panic!("{ended:?} in round {round}"),
        }
    }
}
