//! Tests with lookups that take as long as a test lets them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::{GUEST_LOOKUPS_MAX, LOOKUPS_MAX, OutboundFailure, Resolver};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(20);

/// A resolver whose answers for names with `slow` in them wait for [`Slow::release`].
#[derive(Clone, Default)]
struct Slow(Arc<(Mutex<bool>, Condvar, AtomicUsize, AtomicUsize)>);

impl Slow {
    fn resolver(&self) -> Arc<Resolver> {
        let it = self.clone();
        Resolver::with_lookup(move |name| {
            let (is_released, changed, running, begun) = &*it.0;
            begun.fetch_add(1, Ordering::SeqCst);
            running.fetch_add(1, Ordering::SeqCst);
            if name.contains("slow") {
                let mut guard = is_released.lock().expect("no test panics with it");
                while !*guard {
                    guard = changed.wait(guard).expect("no test panics with it");
                }
            }
            running.fetch_sub(1, Ordering::SeqCst);
            if name.contains("none") {
                Err(std::io::ErrorKind::NotFound.into())
            } else {
                Ok(vec![ADDRESS])
            }
        })
    }

    fn release(&self) {
        *self.0.0.lock().expect("no test panics with it") = true;
        self.0.1.notify_all();
    }

    fn running(&self) -> usize {
        self.0.2.load(Ordering::SeqCst)
    }

    fn begun(&self) -> usize {
        self.0.3.load(Ordering::SeqCst)
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

fn late() -> Instant {
    Instant::now() + PATIENCE
}

/// Requests `count` names for one guest, and cancels all requests.
async fn give_up(resolver: &Arc<Resolver>, guest: &str, count: usize) {
    let tasks: Vec<_> = (0..count)
        .map(|at| {
            let (resolver, guest) = (resolver.clone(), guest.to_owned());
            let name = format!("{at}.slow.{guest}");
            tokio::task::spawn_local(async move { resolver.find(&guest, &name, soon()).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), Err(OutboundFailure::NameTimeout));
    }
}

async fn until(what: impl Fn() -> bool) {
    let end = late();
    while !what() {
        assert!(Instant::now() < end, "not in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// No request waits for these lookups any more, but they still have their threads.
#[test]
fn one_guest_has_a_share_of_the_lookups() {
    let slow = Slow::default();
    let resolver = slow.resolver();
    run(async {
        give_up(&resolver, "bad", 100).await;
        until(|| slow.running() == GUEST_LOOKUPS_MAX).await;
        assert_eq!(slow.begun(), GUEST_LOOKUPS_MAX);
        // Another guest does not notice.
        let found = resolver.find("good", "quick", late()).await;
        assert_eq!(&*found.expect("an address"), [ADDRESS]);
        slow.release();
        let found = resolver.find("bad", "again", late()).await;
        assert_eq!(&*found.expect("an address"), [ADDRESS]);
        until(|| slow.running() == 0).await;
    });
}

#[test]
fn all_guests_together_have_so_many_lookups() {
    let slow = Slow::default();
    let resolver = slow.resolver();
    run(async {
        for at in 0..LOOKUPS_MAX / GUEST_LOOKUPS_MAX + 4 {
            give_up(&resolver, &format!("guest{at}"), GUEST_LOOKUPS_MAX + 1).await;
        }
        until(|| slow.running() == LOOKUPS_MAX).await;
        assert_eq!(slow.begun(), LOOKUPS_MAX);
        slow.release();
        until(|| slow.running() == 0).await;
        assert!(resolver.find("good", "quick", late()).await.is_ok());
    });
}

#[test]
fn a_name_that_many_ask_for_is_asked_for_once() {
    let slow = Slow::default();
    let resolver = slow.resolver();
    run(async {
        let tasks: Vec<_> = (0..20)
            .map(|at| {
                let resolver = resolver.clone();
                let guest = format!("guest{at}");
                tokio::task::spawn_local(
                    async move { resolver.find(&guest, "slow.test", late()).await },
                )
            })
            .collect();
        until(|| slow.running() == 1).await;
        slow.release();
        for task in tasks {
            assert_eq!(&*task.await.expect("no panic").expect("an address"), [ADDRESS]);
        }
        assert_eq!(slow.begun(), 1);
        // Answers are not cached.
        assert!(resolver.find("guest", "slow.test", late()).await.is_ok());
        assert_eq!(slow.begun(), 2);
        assert_eq!(resolver.find("guest", "none", late()).await, Err(OutboundFailure::NoName));
    });
}

/// Guests are forgotten, but not while a lookup of theirs is running.
#[test]
fn guests_are_forgotten() {
    let slow = Slow::default();
    let resolver = slow.resolver();
    run(async {
        give_up(&resolver, "bad", GUEST_LOOKUPS_MAX).await;
        for at in 0..300 {
            assert!(resolver.find(&format!("guest{at}"), "quick", late()).await.is_ok());
        }
        assert!(resolver.state().guests.len() <= 2 * super::GUESTS_MIN);
        give_up(&resolver, "bad", 1).await;
        until(|| slow.running() == GUEST_LOOKUPS_MAX).await;
        slow.release();
    });
}
