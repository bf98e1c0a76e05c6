//! How much may be written before and after the first read, and what is charged for it.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::Body as _;
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::p2::body::{HostOutgoingBody, StreamContext};
use wasmtime_wasi_io::poll::Pollable as _;
use wasmtime_wasi_io::streams::{OutputStream as _, StreamError};

use super::{
    BodyReader, BodyWriter, CHUNK_BYTES_MAX, UnopenedBodies, WRITES_MAX, response_bytes_max,
    writes_max,
};
use crate::grants::{Grants, Limits};
use crate::guest::engine::budget::Budget;
use crate::guest::engine::guest_info::GuestInfo;

const MIB: usize = 1 << 20;

/// Both ends of a body of which up to 1 MiB is held, and the memory that it is charged to.
fn body(total: usize) -> (BodyWriter, BodyReader, Budget) {
    let limits = Limits { response_bytes_max: MIB, ..Limits::default() };
    let memory = Budget::new(total);
    let grants = Arc::new(Grants { limits: limits.clone(), ..Grants::default() });
    let about = GuestInfo::new("guest", &grants, &memory);
    let (slots, chunk) = (writes_max(&limits), CHUNK_BYTES_MAX);
    let (mut host, queue): (_, WasiBody) =
        HostOutgoingBody::new(StreamContext::Response, None, slots, chunk);
    let window = UnopenedBodies::default().window(&about, response_bytes_max);
    let stream = host.take_output_stream().expect("it is taken once");
    let writing = BodyWriter { queue: stream, window: Arc::clone(&window), permitted: 0 };
    (writing, BodyReader::new(queue, window), memory)
}

fn read(reading: &mut BodyReader) -> Option<usize> {
    let mut cx = Context::from_waker(Waker::noop());
    match std::pin::Pin::new(reading).poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame.data_ref().map(Bytes::len),
        _ => None,
    }
}

/// Writes until there is no capacity. Returns the number of bytes.
fn fill(writing: &mut BodyWriter) -> usize {
    let mut written = 0;
    loop {
        match writing.check_write().expect("it is open") {
            0 => return written,
            room => {
                writing.write(Bytes::from(vec![b'x'; room])).expect("it was permitted");
                written += room;
            }
        }
    }
}

#[test]
fn what_is_held_before_the_first_read_is_charged_and_given_back() {
    let (mut writing, mut reading, memory) = body(64 * MIB);
    let written = fill(&mut writing);
    assert!((MIB - 8192..MIB).contains(&written), "{written}");
    assert!((MIB - CHUNK_BYTES_MAX..=MIB).contains(&memory.used()), "{}", memory.used());
    let mut came = 0;
    while let Some(bytes) = read(&mut reading) {
        came += bytes;
    }
    assert_eq!((came, memory.used()), (written, 0));
    // Now only a few writes wait, and they are charged in steps.
    assert_eq!(fill(&mut writing), WRITES_MAX * CHUNK_BYTES_MAX);
    drop((writing, reading));
    assert_eq!(memory.used(), 0);
}

/// The first read lowers the capacity, but not below what was promised just before.
#[test]
fn what_was_permitted_may_be_written() {
    let (mut writing, mut reading, _memory) = body(64 * MIB);
    for _ in 0..8 {
        writing.write(Bytes::from_static(&[b'x'; 1024])).expect("there is room");
    }
    let room = writing.check_write().expect("it is open");
    assert_eq!((room, read(&mut reading)), (CHUNK_BYTES_MAX, Some(1024)));
    writing.write(Bytes::from(vec![b'x'; room])).expect("it was permitted");
    // But only once.
    assert_eq!(writing.check_write().expect("it is open"), 0);
    let refused = writing.write(Bytes::from_static(b"x"));
    assert!(matches!(refused, Err(StreamError::Trap(_))), "{refused:?}");
}

/// A task that waits to write, and notes what it finds when it is woken.
struct Finder(Mutex<(Option<BodyWriter>, Vec<String>)>);

impl Wake for Finder {
    fn wake(self: Arc<Self>) {
        let mut this = self.0.lock().expect("nobody has panicked");
        let found = this.0.as_mut().map(|writing| writing.queue.check_write());
        this.1.push(format!("{found:?}"));
    }
}

/// If the guest were woken before its queue is closed, it would find neither capacity nor an end.
#[test]
fn who_waits_for_room_finds_a_body_closed_that_nobody_reads() {
    let (mut writing, mut reading, _memory) = body(64 * MIB);
    assert_eq!(read(&mut reading), None);
    assert_eq!(fill(&mut writing), WRITES_MAX * CHUNK_BYTES_MAX);
    let finder = Arc::new(Finder(Mutex::default()));
    let waker = Waker::from(finder.clone());
    let polled = writing.ready().as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    finder.0.lock().expect("nobody has panicked").0 = Some(writing);
    drop(reading);
    assert_eq!(finder.0.lock().expect("nobody has panicked").1, ["Some(Err(Closed))"]);
}

#[test]
fn without_memory_the_guest_is_stopped() {
    let (mut writing, reading, memory) = body(MIB / 2);
    let refused =
        (0..16).find_map(|_| writing.write(Bytes::from(vec![b'x'; CHUNK_BYTES_MAX])).err());
    assert!(matches!(refused, Some(StreamError::Trap(_))), "{refused:?}");
    assert!(memory.used() <= MIB / 2);
    drop((writing, reading));
    assert_eq!(memory.used(), 0);
}
