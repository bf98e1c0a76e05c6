//! Behaviours by interfaces that a flat component cannot import.

use wasip3::cli::{stderr, stdout};
use wasip3::http::client;
use wasip3::http::types::Fields;
use wasip3::wit_stream;

use crate::ask::{Ask, answer};
use crate::fetch::{aim, bare};
use crate::{Answer, Behaviour, behaviours};

pub const BEHAVIOURS: [(&str, Behaviour); 2] = behaviours! {
    "print": print,
    "outbound": outbound,
};

/// Writes lines to stdout and stderr. The last one has no line break.
async fn print(_ask: Ask) -> Answer {
    let (mut out, piece) = wit_stream::new();
    let out_taken = stdout::write_via_stream(piece);
    let (mut err, piece) = wit_stream::new();
    let err_taken = stderr::write_via_stream(piece);
    out.write_all(b"out one\n".to_vec()).await;
    err.write_all(b"err one\n".to_vec()).await;
    out.write_all(b"out two".to_vec()).await;
    drop((out, err));
    let taken = (out_taken.await, err_taken.await);
    assert!(matches!(taken, (Ok(()), Ok(()))), "the host takes it");
    answer("printed")
}

/// Answers with the result of an outbound request.
async fn outbound(_ask: Ask) -> Answer {
    let request = bare(Fields::new(), None);
    aim(&request, "http://127.0.0.1:1/");
    answer(match client::send(request).await {
        Ok(response) => format!("status {}", response.get_status_code()),
        Err(code) => format!("{code:?}"),
    })
}
