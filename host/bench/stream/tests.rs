//! Tests which of several addresses is taken.

use std::net::{SocketAddr, TcpListener};

use super::listening;

/// An address at which nobody listens as long as its socket exists.
fn deaf() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().ok().and_then(|it| it.as_socket()).expect("an address");
    (socket, address)
}

#[test]
fn the_first_address_that_takes_a_connection_is_used() {
    let (_one, deaf_one) = deaf();
    let (_other, deaf_other) = deaf();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let good = listener.local_addr().expect("an address");
    for addresses in [[deaf_one, good, deaf_other], [good, deaf_one, deaf_other]] {
        assert_eq!(listening(&addresses), Some(good));
    }
    // If nobody listens, the first address gives the error.
    assert_eq!(listening(&[deaf_one, deaf_other]), Some(deaf_one));
    assert_eq!(listening(&[deaf_one]), Some(deaf_one));
    assert_eq!(listening(&[]), None);
}
