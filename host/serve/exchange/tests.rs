//! Tests of how a request ends.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::Full;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::serve::socket::Socket;

async fn connection(clock: Rc<Cell<u32>>) -> Rc<Connection> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    drop(client.expect("a client"));
    let (socket, peer) = accepted.expect("a connection");
    let socket = Socket::Tcp(socket);
    let origin = socket.origin(peer).expect("a connection");
    Connection::new(socket, (origin, Rc::default()), Rc::default(), clock)
}

fn begin(connection: &Rc<Connection>) -> Exchange {
    Exchange::begin(connection, &Request::new(Full::new(Bytes::from_static(b"body"))))
}

#[tokio::test]
async fn a_request_is_over_when_its_future_is_dropped_early() {
    let connection = connection(Rc::default()).await;
    let exchange = begin(&connection);
    let mut served = Box::pin(async move {
        std::future::pending::<()>().await;
        drop(exchange);
    });
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(Pin::new(&mut served).poll(&mut cx), Poll::Pending));
    assert!(connection.exchanges.is_any_in_flight());
    drop(served);
    assert!(!connection.exchanges.is_any_in_flight() && connection.exchanges.are_answered());
    // The body was not read.
    assert!(connection.exchanges.has_unread_body());
}

#[tokio::test]
async fn requests_of_one_connection_end_one_by_one() {
    let connection = connection(Rc::default()).await;
    let (one, other) = (begin(&connection), begin(&connection));
    one.stream();
    assert!(connection.exchanges.is_any_streaming() && connection.exchanges.is_any_in_flight());
    drop(other);
    assert!(connection.exchanges.is_any_streaming() && !connection.exchanges.is_any_in_flight());
    drop(one);
    assert!(connection.exchanges.are_answered());
}

#[tokio::test]
async fn a_head_that_comes_behind_a_stream_has_its_time_from_its_end() {
    let clock = Rc::<Cell<u32>>::default();
    let connection = connection(clock.clone()).await;
    let exchange = begin(&connection);
    exchange.stream();
    connection.life.partial_since.set(Some(clock.replace(7)));
    drop(exchange);
    assert_eq!(connection.life.partial_since.get(), Some(7));
}
