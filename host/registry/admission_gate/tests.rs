//! Tests of which request gets a permit.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;

const PLACES: usize = 240;
const QUEUE: QueueLimits = QueueLimits { length_max: 64, wait_max: Duration::from_secs(5) };

/// Takes as many permits as possible.
fn fill(guest: &Rc<GuestGate>, client: &Rc<Holder>) -> Vec<Permit> {
    std::iter::from_fn(|| guest.admit(client).ok()).collect()
}

fn guest(gate: &Rc<AdmissionGate>) -> Rc<GuestGate> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let share = Share::of_other(NUMBER.fetch_add(1, Ordering::Relaxed));
    GuestGate::new(gate, share, usize::MAX, QUEUE)
}

/// A guest of an owner that has many.
fn guest_of(gate: &Rc<AdmissionGate>, owner: u64) -> Rc<GuestGate> {
    GuestGate::new(gate, Share { id: owner, is_sole: false }, usize::MAX, QUEUE)
}

type PendingPermit = Pin<Box<dyn Future<Output = Result<Permit, Reject>>>>;

fn wait(guest: &Rc<GuestGate>, client: &Rc<Holder>) -> PendingPermit {
    let (guest, client) = (guest.clone(), client.clone());
    let deadline = Instant::now() + Duration::from_secs(60);
    Box::pin(async move { guest.wait(&client, deadline).await })
}

fn poll(wait: &mut PendingPermit) -> Option<Permit> {
    match wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(admitted) => Some(admitted.expect("it has not been refused")),
        Poll::Pending => None,
    }
}

#[test]
fn one_guest_gets_three_quarters() {
    let gate = AdmissionGate::new(PLACES);
    let (guest, client) = (guest(&gate), Rc::default());
    assert_eq!(fill(&guest, &client).len(), PLACES / 4 * 3);
    assert_eq!(gate.free(), PLACES, "they are back");
}

#[test]
fn some_places_are_left_however_many_want_all() {
    for guests in 1..20 {
        let gate = AdmissionGate::new(PLACES);
        let held: Vec<_> = (0..guests).map(|_| fill(&guest(&gate), &Rc::default())).collect();
        let other = guest(&gate);
        assert!(other.admit(&Rc::default()).is_ok(), "{guests} guests leave nothing");
        assert!(held.iter().all(|held| !held.is_empty()));
    }
}

#[test]
fn a_client_leaves_places_to_others() {
    let gate = AdmissionGate::new(PLACES);
    let (greedy, other) = (Rc::<Holder>::default(), Rc::default());
    let held: Vec<_> = (0..50).map(|_| fill(&guest(&gate), &greedy)).collect();
    assert_eq!(greedy.held(), PLACES / 8 * 7);
    let new = guest(&gate);
    assert!(new.admit(&greedy).is_err());
    assert_eq!(fill(&new, &other).len(), FEW);
    drop(held);
    assert_eq!(greedy.held(), 0);
}

/// With few permits nothing can be reserved, and all are used.
#[test]
fn few_places_are_used_whole() {
    for places in 1..3 {
        let gate = AdmissionGate::new(places);
        assert_eq!(fill(&guest(&gate), &Rc::default()).len(), places);
    }
}

#[tokio::test]
async fn who_holds_the_least_is_next() {
    let gate = AdmissionGate::new(PLACES);
    let (first, second, third) = (guest(&gate), guest(&gate), guest(&gate));
    let client = Rc::default();
    let mut held = fill(&first, &client);
    held.extend(fill(&second, &client));
    held.extend(fill(&third, &client));
    let mut waiting = [wait(&first, &client), wait(&second, &client), wait(&third, &client)];
    assert!(waiting.iter_mut().all(|it| poll(it).is_none()));
    let counts = [&first, &second, &third].map(|guest| guest.held.get());
    let least = (0..3).min_by_key(|at| counts[*at]).expect("three");
    // Drop a permit of the guest that has the most. That guest does not get it back.
    held.swap_remove(0);
    let got: Vec<bool> = waiting.iter_mut().map(|it| poll(it).is_some()).collect();
    assert!(got[least] && !got[0], "{got:?} of {counts:?}");
}

#[tokio::test]
async fn guests_take_turns_at_one_place() {
    let gate = AdmissionGate::new(1);
    let (first, second) = (guest(&gate), guest(&gate));
    let client = Rc::default();
    let mut permit = first.admit(&client).ok();
    let mut waiting: Vec<_> = [&first, &first, &second, &second]
        .map(|guest| (guest.clone(), wait(guest, &client)))
        .into();
    assert!(waiting.iter_mut().all(|(_, it)| poll(it).is_none()));
    let mut order = Vec::new();
    while permit.take().is_some() && !waiting.is_empty() {
        let at = waiting.iter_mut().position(|(_, it)| {
            permit = poll(it);
            permit.is_some()
        });
        let (guest, _) = waiting.remove(at.expect("a place goes to somebody"));
        order.push(Rc::ptr_eq(&guest, &first));
    }
    assert_eq!(order, [true, false, true, false]);
}

#[tokio::test]
async fn a_place_that_nobody_takes_goes_on() {
    let gate = AdmissionGate::new(1);
    let (guest, client) = (guest(&gate), Rc::default());
    let permit = guest.admit(&client).ok();
    let (mut gone, mut next) = (wait(&guest, &client), wait(&guest, &client));
    assert!(poll(&mut gone).is_none() && poll(&mut next).is_none());
    drop(permit);
    drop(gone);
    assert!(poll(&mut next).is_some());
    assert_eq!(gate.free(), 1);
}

/// A hundred guests of one owner have one share, and none of them takes all of it.
#[test]
fn an_owner_is_one_share_however_many_guests_it_has() {
    let gate = AdmissionGate::new(PLACES);
    let guests: Vec<_> = (0..100).map(|_| guest_of(&gate, 1)).collect();
    let first = fill(&guests[0], &Rc::default());
    assert!((PLACES / 2..PLACES / 4 * 3).contains(&first.len()), "{}", first.len());
    let second = fill(&guests[1], &Rc::default());
    assert!(second.len() >= FEW, "the first one leaves {} to the others", second.len());
    let rest: Vec<_> = guests[2..].iter().map(|it| fill(it, &Rc::default())).collect();
    let others = rest.iter().filter(|it| !it.is_empty()).count();
    assert!(others >= 3, "the first two leave places to {others} of the others");
    let held = first.len() + second.len() + rest.iter().map(Vec::len).sum::<usize>();
    assert!(held <= PLACES / 4 * 3, "{held}");
    assert!(held - first.len() >= 8, "the first one leaves {} of {held}", held - first.len());
    // Another owner gets as many as if there were a single guest besides.
    let single = AdmissionGate::new(PLACES);
    let _single_held = fill(&guest(&single), &Rc::default());
    let beside_single = fill(&guest(&single), &Rc::default()).len();
    assert_eq!(fill(&guest(&gate), &Rc::default()).len(), beside_single);
}

/// Some guests of an owner do not use up all that the owner may hold.
#[test]
fn many_of_an_owner_leave_some_places_to_its_others() {
    for guests in 1..60 {
        let gate = AdmissionGate::new(PLACES);
        let all: Vec<_> = (0..guests).map(|_| guest_of(&gate, 7)).collect();
        let mut held = Vec::new();
        // In each round, each guest takes one.
        loop {
            let before = held.len();
            held.extend(all.iter().filter_map(|guest| guest.admit(&Rc::default()).ok()));
            if held.len() == before {
                break;
            }
        }
        let (sibling, other) = (guest_of(&gate, 7), guest_of(&gate, 8));
        assert!(sibling.admit(&Rc::default()).is_ok(), "{guests} of its owner leave it nothing");
        assert!(other.admit(&Rc::default()).is_ok(), "{guests} leave another owner nothing");
        assert!(held.len() > PLACES / 8 * 5, "{guests} have no more than {}", held.len());
    }
}

/// However few permits there are, a guest takes neither its owner's last one nor the last of all.
#[test]
fn of_few_places_an_owner_leaves_one_to_its_others() {
    for places in 4..PLACES {
        let gate = AdmissionGate::new(places);
        let (first, sibling, other) = (guest_of(&gate, 7), guest_of(&gate, 7), guest_of(&gate, 8));
        let held = fill(&first, &Rc::default());
        assert!(held.len() >= places / 2, "{} of {places}", held.len());
        let _sibling = sibling.admit(&Rc::default()).expect("one for its owner's others");
        other.admit(&Rc::default()).expect("one for other owners");
    }
}

/// Next is the waiting owner that holds the fewest, and among its guests the one with the fewest.
#[tokio::test]
async fn the_owner_that_holds_the_least_is_next() {
    let gate = AdmissionGate::new(4);
    let client = Rc::<Holder>::default();
    let (a, b, other) = (guest_of(&gate, 1), guest_of(&gate, 1), guest(&gate));
    let all = guest(&gate);
    let mut held = vec![a.admit(&client).expect("there is room")];
    held.push(b.admit(&client).expect("there is room"));
    let others = fill(&all, &client);
    let mut waits = [wait(&b, &client), wait(&a, &client), wait(&other, &client)];
    assert!(waits.iter_mut().all(|wait| poll(wait).is_none()));
    drop(others);
    assert!(poll(&mut waits[2]).is_some());
    drop(held);
}

/// A guest's queue may be as long as any, but all queues of an owner together only four times that.
#[tokio::test]
async fn the_queues_of_an_owner_are_bounded_together() {
    let gate = AdmissionGate::new(1);
    let client = Rc::<Holder>::default();
    let _held = fill(&guest(&gate), &client);
    let guests: Vec<_> = (0..20).map(|_| guest_of(&gate, 1)).collect();
    // Add as many requests as the queues take.
    let mut waits: Vec<PendingPermit> = Vec::new();
    let mut refused = 0;
    for _ in 0..QUEUE.length_max {
        for guest in &guests {
            let mut wait = wait(guest, &client);
            match wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending if refused == 0 => waits.push(wait),
                Poll::Pending => {}
                Poll::Ready(_) => refused += 1,
            }
        }
    }
    assert!(refused > 0);
    assert!((12 * 20..=4 * QUEUE.length_max).contains(&waits.len()), "{}", waits.len());
}

/// A permit goes to the client that it counts for: the waiting client that held the fewest, which
/// holds one more by then.
#[tokio::test]
async fn who_is_next_gets_the_place_that_it_is_charged_for() {
    let gate = AdmissionGate::new(100);
    let guest = GuestGate::new(&gate, Share::of_other(usize::MAX), 1, QUEUE);
    let clients: Vec<Rc<Holder>> = (0..3).map(|_| Rc::default()).collect();
    let held = guest.admit(&clients[0]).ok();
    let mut first = wait(&guest, &clients[1]);
    let mut second = wait(&guest, &clients[2]);
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    drop(held);
    let admitted = poll(&mut first).expect("it came first");
    assert!(poll(&mut second).is_none());
    assert_eq!((clients[1].held(), clients[2].held()), (1, 0));
    drop(admitted);
    assert!(poll(&mut second).is_some());
}

/// A guest whose owner has filled all its other queues still has a few places of its own.
#[tokio::test]
async fn a_guest_may_wait_however_many_do_for_its_siblings() {
    let gate = AdmissionGate::new(1);
    let (greedy, other) = (Rc::<Holder>::default(), Rc::<Holder>::default());
    let _held = fill(&guest(&gate), &greedy);
    let siblings: Vec<_> = (0..100).map(|_| guest_of(&gate, 1)).collect();
    let waits = (0..3).flat_map(|_| siblings.iter().map(|it| wait(it, &greedy)));
    let mut waits: Vec<PendingPermit> = waits.collect();
    assert!(waits.iter_mut().all(|wait| poll(wait).is_none()));
    let quiet = guest_of(&gate, 1);
    let mut few: Vec<PendingPermit> = (0..4).map(|_| wait(&quiet, &other)).collect();
    assert!(few.iter_mut().all(|wait| poll(wait).is_none()));
}
