//! Behaviours about bodies: responses that are longer, shorter or slower than they should be, and
//! different ways to read a request's body.

use crate::ask::{Ask, answer, begin, wait};
use crate::heads::lines;
use crate::reply::Reply;
use crate::upload::Upload;
use crate::{Answer, Behaviour, behaviours};

pub const BEHAVIOURS: [(&str, Behaviour); 12] = behaviours! {
    "exact": exact,
    "short": short,
    "long": long,
    "write-forever": write_forever,
    "empty-writes": empty_writes,
    "sse": sse,
    "upload": upload,
    "upload-trailers": upload_trailers,
    "let-go": let_go,
    "early": early,
    "ignore-body": ignore_body,
    "echo": echo,
};

/// The body of behaviours that announce a length.
const TEN: &[u8; 10] = b"1234567890";
const PIECE_BYTES: usize = 64 << 10;
const EVENT_EVERY_MS: u64 = 50;

/// Sends five bytes, as announced.
async fn exact(_ask: Ask) -> Answer {
    begin(&[("content-length", "5")], |reply| reply.end(&TEN[..5]))
}

/// Sends five bytes, but announces ten.
async fn short(_ask: Ask) -> Answer {
    begin(&[("content-length", "10")], |reply| reply.end(&TEN[..5]))
}

/// Sends ten bytes, but announces five.
async fn long(_ask: Ask) -> Answer {
    begin(&[("content-length", "5")], |reply| reply.end(TEN))
}

/// Writes until the write fails.
async fn write_forever(_ask: Ask) -> Answer {
    begin(&[], async |mut reply: Reply| while reply.write(vec![b'x'; PIECE_BYTES]).await {})
}

/// Writes N empty pieces, a million by default, and then one that is not empty.
async fn empty_writes(ask: Ask) -> Answer {
    let count = ask.number.unwrap_or(1_000_000);
    begin(&[], async move |mut reply: Reply| {
        for _ in 0..count {
            if !reply.write_piece(Vec::new()).await {
                return;
            }
        }
        reply.end("end").await;
    })
}

/// Sends N events, one at once and the others at intervals.
async fn sse(ask: Ask) -> Answer {
    let count = ask.number.unwrap_or(3);
    begin(&[("content-type", "text/event-stream")], async move |mut reply: Reply| {
        for number in 0..count {
            if number > 0 {
                wait(EVENT_EVERY_MS).await;
            }
            if !reply.write(format!("data: {number}\n\n")).await {
                return;
            }
        }
        reply.finish(Ok(None)).await;
    })
}

/// Reads the whole body, and answers with its length and the sum of its bytes.
async fn upload(ask: Ask) -> Answer {
    let mut upload = Upload::of(ask.request);
    let (bytes, sum) = upload.count().await;
    upload.end().await?;
    answer(format!("{bytes} {sum}"))
}

/// Reads the whole body, and answers with its trailers.
async fn upload_trailers(ask: Ask) -> Answer {
    let mut upload = Upload::of(ask.request);
    upload.count().await;
    let trailers = upload.end().await?;
    answer(trailers.map_or_else(|| "none".to_owned(), |trailers| lines(&trailers)))
}

/// Reads the whole body with its trailers, answers, and drops its stream N milliseconds later.
async fn let_go(ask: Ask) -> Answer {
    let ms = ask.number.unwrap_or(0);
    begin(&[], async move |mut reply: Reply| {
        let mut upload = Upload::of(ask.request);
        upload.count().await;
        let Upload { stream, end } = upload;
        let is_whole = end.await.is_ok();
        reply.write(format!("read, {is_whole}\n")).await;
        wait(ms).await;
        drop(stream);
        reply.end("let go\n").await;
    })
}

/// Answers at once, and reads the body afterwards.
async fn early(ask: Ask) -> Answer {
    begin(&[], async move |reply: Reply| {
        reply.end("early").await;
        let mut upload = Upload::of(ask.request);
        let (bytes, _) = upload.count().await;
        match upload.end().await {
            Ok(_) => println!("read {bytes} bytes afterwards"),
            Err(code) => println!("could not read afterwards: {code:?}"),
        }
    })
}

async fn ignore_body(_ask: Ask) -> Answer {
    answer("ignored")
}

/// Sends the body back piece by piece.
async fn echo(ask: Ask) -> Answer {
    let mut upload = Upload::of(ask.request);
    begin(&[], async move |mut reply: Reply| {
        while let Some(piece) = upload.next().await {
            if !reply.write(piece).await {
                return;
            }
        }
        // After an error, the client must not take the body for complete.
        let end = upload.end().await.map(|_| None);
        reply.finish(end).await;
    })
}
