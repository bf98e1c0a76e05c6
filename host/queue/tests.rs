//! Tests of which request is next, and of which is refused.

use super::*;

const LIMITS: QueueLimits = QueueLimits { length_max: 8, wait_max: Duration::from_secs(5) };

fn client(held: usize) -> Rc<Holder> {
    let client = Rc::<Holder>::default();
    (0..held).for_each(|_| client.acquire());
    client
}

fn given<T>(place: &QueueTicket<'_, T>) -> Option<Result<T, Reject>> {
    match place.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(given) => Some(given),
        Poll::Pending => None,
    }
}

fn join<'a, T>(queue: &'a Queue<T>, client: &Rc<Holder>) -> QueueTicket<'a, T> {
    queue.join(client).expect("there is room")
}

#[test]
fn first_come_first_served_of_one_client() {
    let (queue, client) = (Queue::new(LIMITS, None), client(3));
    let places = [join(&queue, &client), join(&queue, &client)];
    assert_eq!(queue.give(&client, 1), None);
    assert_eq!(queue.give(&client, 2), None);
    assert_eq!(queue.give(&client, 3), Some(3), "nobody else waits");
    assert_eq!(places.each_ref().map(given), [Some(Ok(1)), Some(Ok(2))]);
}

#[test]
fn the_client_that_holds_the_least_is_next() {
    let queue = Queue::new(LIMITS, None);
    let (rich, poor) = (client(3), client(1));
    let places = [join(&queue, &rich), join(&queue, &rich), join(&queue, &poor)];
    assert!(queue.next().is_some_and(|next| Rc::ptr_eq(&next, &poor)));
    // It gets what it is given even if it holds more by then.
    poor.acquire();
    poor.acquire();
    poor.acquire();
    queue.give(&poor, 1);
    assert_eq!(places.each_ref().map(given), [None, None, Some(Ok(1))]);
}

/// A queue that one client has filled has room for another client, but not for more of the same.
#[test]
fn a_full_queue_sends_the_greediest_away() {
    let queue = Queue::<u32>::new(LIMITS, None);
    let (greedy, other) = (client(10), client(0));
    let first: Vec<_> = (0..8).map(|_| join(&queue, &greedy)).collect();
    assert!(queue.join(&greedy).is_err());
    let second = join(&queue, &other);
    // The queue is kept short from now on.
    let left: Vec<bool> = first.iter().map(|place| given(place).is_none()).collect();
    assert_eq!(left, [true, true, true, false, false, false, false, false]);
    assert_eq!(given(&second), None);
    assert_eq!((greedy.waiting.get(), other.waiting.get()), (3, 1));
    drop((first, second));
    assert_eq!((greedy.waiting.get(), other.waiting.get()), (0, 0));
    assert!(queue.is_empty());
}

/// If a request leaves before it takes what it was given, that is dropped and not lost.
#[test]
fn who_goes_away_takes_nothing_along() {
    let (queue, client) = (Queue::new(LIMITS, None), client(0));
    let place = join(&queue, &client);
    let thing = Rc::new(());
    assert!(queue.give(&client, thing.clone()).is_none());
    assert_eq!(Rc::strong_count(&thing), 2);
    drop(place);
    assert_eq!(Rc::strong_count(&thing), 1);
}
