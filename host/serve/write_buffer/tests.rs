//! Tests of a write buffer with a socket that takes little at a time.

use std::task::Waker;

use tokio::io::{AsyncRead, DuplexStream, ReadBuf, duplex};

use super::*;

fn write(buffer: &WriteBuffer, socket: &mut DuplexStream, bytes: &[u8]) -> Poll<usize> {
    let mut cx = Context::from_waker(Waker::noop());
    let written = buffer.write(socket, &mut cx, &[IoSlice::new(bytes)]);
    written.map(|written| written.expect("the socket is whole"))
}

fn flush(buffer: &WriteBuffer, socket: &mut DuplexStream) -> Poll<io::Result<()>> {
    buffer.flush(socket, &mut Context::from_waker(Waker::noop()))
}

/// The bytes that have arrived at the other end.
fn received(client: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = vec![0; 64 * 1024];
    let mut buffer = ReadBuf::new(&mut bytes);
    let mut cx = Context::from_waker(Waker::noop());
    let _ = Pin::new(client).poll_read(&mut cx, &mut buffer);
    buffer.filled().to_vec()
}

#[test]
fn what_is_small_is_held_until_it_is_flushed() {
    let (mut socket, mut client) = duplex(1024);
    let buffer = WriteBuffer::new(Rc::default());
    assert_eq!(write(&buffer, &mut socket, b"one "), Poll::Ready(4));
    assert!(buffer.insert(b"two "));
    assert_eq!(write(&buffer, &mut socket, b"three"), Poll::Ready(5));
    assert!(received(&mut client).is_empty() && buffer.is_untouched());
    assert!(flush(&buffer, &mut socket).is_ready() && buffer.is_empty());
    assert_eq!(received(&mut client), b"one two three");
    assert_eq!(buffer.sent_bytes(), 13);
    assert_eq!(buffer.free_list.borrow().len(), 1, "the empty buffer is not kept");
}

#[test]
fn what_is_large_goes_behind_what_is_held() {
    let (mut socket, mut client) = duplex(10);
    let buffer = WriteBuffer::new(Rc::default());
    let large = [b'x'; DIRECT_BYTES_MIN];
    assert_eq!(write(&buffer, &mut socket, b"held before "), Poll::Ready(12));
    assert!(write(&buffer, &mut socket, &large).is_pending());
    assert!(!buffer.insert(b"between"), "its writer is in the middle of something");
    assert!(!buffer.is_untouched() && !buffer.is_empty());
    assert_eq!(received(&mut client), b"held befor");
    assert_eq!(write(&buffer, &mut socket, &large), Poll::Ready(8));
    assert_eq!(received(&mut client), b"e xxxxxxxx");
    assert!(buffer.insert(b"next"));
}

#[test]
fn a_socket_that_has_failed_takes_no_more() {
    let (mut socket, client) = duplex(1024);
    let buffer = WriteBuffer::new(Rc::default());
    assert_eq!(write(&buffer, &mut socket, b"lost"), Poll::Ready(4));
    drop(client);
    assert!(matches!(flush(&buffer, &mut socket), Poll::Ready(Err(_))));
    let mut cx = Context::from_waker(Waker::noop());
    let written = buffer.write(&mut socket, &mut cx, &[IoSlice::new(b"more")]);
    assert!(matches!(written, Poll::Ready(Err(_))) && buffer.is_broken());
    assert!(!buffer.insert(b"more"));
}
