//! Tests of the order.

use super::*;

const SLICE: Duration = Duration::from_millis(1);

/// A queue whose round is used up, so that all calls wait for the next.
fn busy() -> Rc<RunQueue> {
    let queue = RunQueue::default();
    queue.state.borrow_mut().round = ROUND_MAX;
    Rc::new(queue)
}

/// Guests from 100 on have one owner. Each of the others has its own.
fn owner_of(guest: usize) -> u64 {
    guest.min(100) as u64
}

fn join_for(queue: &Rc<RunQueue>, guest: usize, expected: Duration) -> RunPermit {
    let payer = Payer { owner: owner_of(guest), guest };
    queue.join(payer, expected, &Context::from_waker(Waker::noop()))
}

fn join(queue: &Rc<RunQueue>, guest: usize) -> RunPermit {
    join_for(queue, guest, SLICE)
}

fn has_turn(turn: &RunPermit) -> bool {
    turn.poll(&Context::from_waker(Waker::noop()))
}

/// Gives a turn, ends it, and returns the guest.
fn next(queue: &RunQueue, turns: &mut Vec<RunPermit>) -> usize {
    queue.start_round();
    let at = turns.iter().position(has_turn).expect("somebody has the turn");
    let turn = turns.swap_remove(at);
    assert!(!turns.iter().any(has_turn), "more than one has the turn");
    let guest = turn.payer.guest;
    turn.end(SLICE);
    guest
}

#[test]
fn guests_take_turns_and_not_calls() {
    let queue = busy();
    let mut turns: Vec<RunPermit> = (0..10).map(|_| join(&queue, 1)).collect();
    assert_eq!(next(&queue, &mut turns), 1);
    assert_eq!(next(&queue, &mut turns), 1);
    // A newcomer is next, though eight came before.
    turns.extend((0..2).map(|_| join(&queue, 2)));
    let order: Vec<usize> = (0..10).map(|_| next(&queue, &mut turns)).collect();
    assert_eq!(order, [2, 1, 2, 1, 1, 1, 1, 1, 1, 1]);
    assert!(turns.is_empty());
}

/// Ten guests of one owner get no more turns than one guest of another, and share them.
#[test]
fn owners_take_turns_and_not_their_guests() {
    let queue = busy();
    let many = 101..111;
    let mut turns: Vec<RunPermit> = many.clone().map(|guest| join(&queue, guest)).collect();
    assert_eq!(next(&queue, &mut turns), 101);
    turns.push(join(&queue, 101));
    turns.extend((0..10).map(|_| join(&queue, 1)));
    let order: Vec<usize> = (0..20).map(|_| next(&queue, &mut turns)).collect();
    assert_eq!(order.iter().filter(|guest| **guest == 1).count(), 10);
    assert!(order.chunks(2).all(|two| two.contains(&1)), "{order:?}");
    let mut others: Vec<usize> = order.into_iter().filter(|guest| *guest != 1).collect();
    // The guest that has had a turn before is last.
    assert_eq!(others.last(), Some(&101));
    others.sort_unstable();
    assert!(others.into_iter().eq(many));
}

#[test]
fn nobody_saves_up() {
    let queue = busy();
    let mut turns = vec![join(&queue, 2)];
    assert_eq!(next(&queue, &mut turns), 2);
    turns.extend((0..100).map(|_| join(&queue, 1)));
    for _ in 0..50 {
        assert_eq!(next(&queue, &mut turns), 1);
    }
    // It has used 50 ms less, but gets one slice for each of the other's.
    turns.extend((0..10).map(|_| join(&queue, 2)));
    let order: Vec<usize> = (0..20).map(|_| next(&queue, &mut turns)).collect();
    assert_eq!(order.iter().filter(|guest| **guest == 2).count(), 10);
    assert!(order.chunks(4).all(|four| four.contains(&1)), "{order:?}");
}

/// A call that has its turn and is not polled, as its client does not read, holds up no other.
#[test]
fn a_turn_that_is_not_taken_holds_up_nobody() {
    let queue = busy();
    let turns: Vec<RunPermit> = (0..3).map(|_| join(&queue, 1)).collect();
    for given in 1..=3 {
        queue.start_round();
        assert_eq!(turns.iter().filter(|turn| has_turn(turn)).count(), given);
    }
    drop(turns);
    assert!(queue.state.borrow().owners.is_empty());
}

#[test]
fn who_goes_away_leaves_the_queue() {
    let queue = busy();
    let turns: Vec<RunPermit> = (0..3).map(|_| join(&queue, 1)).collect();
    let [first, second, third]: [RunPermit; 3] = turns.try_into().ok().expect("three");
    drop(first);
    drop(second);
    queue.start_round();
    assert!(has_turn(&third));
    third.end(SLICE);
    assert!(!queue.state.borrow().has_waiting());
}

/// Short calls run in one round, long ones in a round each.
#[test]
fn a_round_has_an_end() {
    for (expected, given) in [(SLICE, 1), (ROUND_MAX / 5, 5)] {
        let queue = busy();
        let turns: Vec<RunPermit> = (0..10).map(|_| join_for(&queue, 1, expected)).collect();
        queue.start_round();
        assert_eq!(turns.iter().filter(|turn| has_turn(turn)).count(), given);
    }
}

/// A call runs at once if none waits and the round has time left.
#[test]
fn a_call_alone_runs_at_once() {
    let queue = Rc::default();
    for _ in 0..3 {
        let first = join(&queue, 1);
        assert!(has_turn(&first));
        let second = join(&queue, 2);
        assert!(!has_turn(&second), "the first has used the round up");
        first.end(SLICE);
        queue.start_round();
        assert!(has_turn(&second));
        second.end(SLICE);
        queue.start_round();
    }
}
