//! Which addresses a host listens on, if one stands for several.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use crate::client::Connection;
use crate::host::{HELLO, Host};

/// Whether this machine has IPv6. Without it there is nothing to test.
fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn every_address_of_ipv6_is_every_address_of_ipv4_too() {
    if !has_ipv6() {
        return;
    }
    let host = Host::with("good.wat", HELLO).args(["--listen", "[::]:0"]).start();
    host.wait_log_with(&["listening on", "(IPv6 and IPv4)"]);
    host.settled();
    let port = host.addr().port();
    for address in [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()] {
        let answer = Connection::open(address).get("/good");
        assert_eq!(answer.status, 200, "{address}");
    }
    host.at_rest();
}

/// If both are listed, each stands for itself.
#[test]
fn an_address_of_ipv4_beside_it_leaves_ipv6_alone() {
    if !has_ipv6() {
        return;
    }
    let both = ["--listen", "[::]:0", "--listen", "127.0.0.1:0"];
    let host = Host::with("good.wat", HELLO).args(both).start();
    host.wait_log_with(&["listening on", "(IPv6 alone)"]);
    host.settled();
    let port = host.addr().port();
    assert_eq!(Connection::open((Ipv6Addr::LOCALHOST, port).into()).get("/good").status, 200);
    let other = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    // Another program may have the same port on that address.
    let is_ours = other.is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    assert!(!is_ours);
    host.at_rest();
}
