//! Behaviours about bodies: responses that are longer, shorter or slower than they should be, and
//! different ways to read a request's body.

use wasip2::http::types::ErrorCode;

use crate::Behaviour;
use crate::ask::{Ask, wait};
use crate::heads::lines;
use crate::reply::Reply;
use crate::upload::Upload;

pub const BEHAVIOURS: [(&str, Behaviour); 13] = [
    ("exact", exact),
    ("short", short),
    ("long", long),
    ("write-forever", write_forever),
    ("write-first", write_first),
    ("write-bytes-first", write_bytes_first),
    ("empty-writes", empty_writes),
    ("sse", sse),
    ("upload", upload),
    ("upload-trailers", upload_trailers),
    ("early", early),
    ("ignore-body", ignore_body),
    ("echo", echo),
];

/// The body of behaviours that announce a length.
const TEN: &[u8; 10] = b"1234567890";
const PIECE_BYTES: usize = 64 << 10;
const EVENT_EVERY_MS: u64 = 50;

/// Sends five bytes, as announced.
fn exact(ask: Ask) {
    ask.begin(&[("content-length", "5")]).end(&TEN[..5]);
}

/// Sends five bytes, but announces ten.
fn short(ask: Ask) {
    ask.begin(&[("content-length", "10")]).end(&TEN[..5]);
}

/// Sends ten bytes, but announces five.
fn long(ask: Ask) {
    ask.begin(&[("content-length", "5")]).end(TEN);
}

/// Writes until the write fails.
fn write_forever(ask: Ask) {
    let reply = ask.begin(&[]);
    let piece = vec![b'x'; PIECE_BYTES];
    while reply.write(&piece) {}
}

/// Writes N KiB before it sets its response.
fn write_first(ask: Ask) {
    let kib = usize::try_from(ask.number.unwrap_or(0)).expect("a size");
    let reply = Reply::write_first(ask.out, |reply| reply.write(vec![b'x'; kib << 10]));
    reply.finish(None);
}

/// Writes N pieces of one byte before it sets its response.
fn write_bytes_first(ask: Ask) {
    let count = ask.number.unwrap_or(0);
    let reply = Reply::write_first(ask.out, |reply| (0..count).all(|_| reply.write(b"x")));
    reply.finish(None);
}

/// Writes N empty pieces, a million by default, and then one that is not empty.
fn empty_writes(ask: Ask) {
    let count = ask.number.unwrap_or(1_000_000);
    let reply = ask.begin(&[]);
    if (0..count).all(|_| reply.write_piece(b"")) {
        reply.end("end");
    }
}

/// Sends N events, one at once and the others at intervals.
fn sse(ask: Ask) {
    let count = ask.number.unwrap_or(3);
    let reply = ask.begin(&[("content-type", "text/event-stream")]);
    for number in 0..count {
        if number > 0 {
            wait(EVENT_EVERY_MS);
        }
        if !reply.write(format!("data: {number}\n\n")) {
            return;
        }
    }
    reply.finish(None);
}

/// Reads the request's body with `read`, and answers with the text or the error.
fn answer(ask: Ask, read: impl FnOnce(Upload) -> Result<String, ErrorCode>) {
    match read(Upload::of(&ask.request)) {
        Ok(text) => ask.answer(text),
        Err(code) => ask.fail(code),
    }
}

/// Reads the whole body, and answers with its length and the sum of its bytes.
fn upload(ask: Ask) {
    answer(ask, |upload| upload.count().map(|(bytes, sum)| format!("{bytes} {sum}")));
}

/// Reads the whole body, and answers with its trailers.
fn upload_trailers(ask: Ask) {
    answer(ask, |upload| {
        upload.count()?;
        let trailers = upload.trailers()?;
        Ok(trailers.map_or_else(|| "none".to_owned(), |trailers| lines(&trailers)))
    });
}

/// Answers at once, and reads the body afterwards.
fn early(ask: Ask) {
    let Ask { request, out, .. } = ask;
    Reply::begin(out, 200, &[]).end("early");
    match Upload::of(&request).count() {
        Ok((bytes, _)) => println!("read {bytes} bytes afterwards"),
        Err(code) => println!("could not read afterwards: {code:?}"),
    }
}

fn ignore_body(ask: Ask) {
    ask.answer("ignored");
}

/// Sends the body back piece by piece.
fn echo(ask: Ask) {
    let Ask { request, out, .. } = ask;
    let reply = Reply::begin(out, 200, &[]);
    let upload = Upload::of(&request);
    loop {
        match upload.next() {
            Ok(Some(piece)) if reply.write(&piece) => {}
            Ok(None) => return reply.finish(None),
            // Dropped without an end, so that the client does not take the body for complete.
            _ => return,
        }
    }
}
