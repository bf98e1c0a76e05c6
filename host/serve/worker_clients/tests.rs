//! Tests of which addresses are one client, and of how many clients are remembered.

use super::*;

fn peers(addresses: impl IntoIterator<Item = String>) -> (WorkerClients, Vec<Rc<ClientShares>>) {
    let peers = WorkerClients::default();
    let enter = |address: String| peers.shares(address.parse().expect("an address"));
    let entered = addresses.into_iter().map(enter).collect();
    (peers, entered)
}

#[test]
fn one_client_has_one_share() {
    let addresses = ["1.2.3.4:1", "1.2.3.4:2", "[::ffff:1.2.3.4]:3", "1.2.3.5:1"];
    let (_peers, entered) = peers(addresses.map(str::to_owned));
    assert!(Rc::ptr_eq(&entered[0], &entered[1]));
    assert!(Rc::ptr_eq(&entered[0], &entered[2]));
    assert!(!Rc::ptr_eq(&entered[0], &entered[3]));
}

#[test]
fn clients_that_have_gone_are_forgotten() {
    let (peers, held) = peers((0..100).map(|at| format!("10.0.0.{at}:1")));
    for at in 0..10_000 {
        let address = format!("10.1.{}.{}:1", at / 250, at % 250);
        drop(peers.shares(address.parse().expect("an address")));
    }
    assert!(peers.clients.borrow().len() <= 2 * held.len() + GONE_MAX);
    let again = peers.shares("10.0.0.7:2".parse().expect("an address"));
    assert!(Rc::ptr_eq(&again, &held[7]));
}
