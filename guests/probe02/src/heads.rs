//! Behaviours about heads: what the guest reads of a request, and which status, header fields and
//! trailer fields it may set.

use wasip2::http::types::{Fields, Method, OutgoingResponse, ResponseOutparam, Scheme};

use crate::Behaviour;
use crate::ask::Ask;
use crate::reply::{Reply, made};

pub const BEHAVIOURS: [(&str, Behaviour); 12] = [
    ("echo-head", echo_head),
    ("status", status),
    ("empty", empty),
    ("no-content", no_content),
    ("head-length", head_length),
    ("long-head", long_head),
    ("bad-length", bad_length),
    ("trailers", trailers),
    ("framing-trailers", framing_trailers),
    ("bad-trailers", bad_trailers),
    ("many-fields", many_fields),
    ("many-handles", many_handles),
];

/// Answers with a line each for method, scheme, authority, path with query, and every header.
fn echo_head(ask: Ask) {
    let request = &ask.request;
    let scheme = match request.scheme() {
        Some(Scheme::Http) => "http".to_owned(),
        Some(Scheme::Https) => "https".to_owned(),
        Some(Scheme::Other(scheme)) => scheme,
        None => "none".to_owned(),
    };
    let authority = request.authority().unwrap_or_else(|| "none".to_owned());
    let path = request.path_with_query().unwrap_or_else(|| "none".to_owned());
    let mut text = format!("{}\n{scheme}\n{authority}\n{path}\n", method(request.method()));
    text += &lines(&request.headers());
    ask.answer(text);
}

fn method(method: Method) -> String {
    let name = match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => return name,
    };
    name.to_owned()
}

/// The fields as lines of `name: value`, in their order.
pub fn lines(fields: &Fields) -> String {
    let line =
        |(name, value): (String, Vec<u8>)| format!("{name}: {}\n", String::from_utf8_lossy(&value));
    fields.entries().into_iter().map(line).collect()
}

/// Answers with status N, or says that the status was refused.
fn status(ask: Ask) {
    let status = ask.number.and_then(|number| u16::try_from(number).ok()).unwrap_or(0);
    let response = OutgoingResponse::new(Fields::new());
    let is_taken = response.set_status_code(status).is_ok();
    let text = if is_taken { status.to_string() } else { "refused".to_owned() };
    Reply::open(ask.out, response).end(text);
}

/// Answers 200, and never takes the body resource.
fn empty(ask: Ask) {
    ResponseOutparam::set(ask.out, Ok(OutgoingResponse::new(Fields::new())));
}

fn no_content(ask: Ask) {
    Reply::begin(ask.out, 204, &[]).end("");
}

/// Announces five bytes, and writes none if the method is HEAD.
fn head_length(ask: Ask) {
    let body = if matches!(ask.request.method(), Method::Head) { "" } else { "12345" };
    ask.begin(&[("content-length", "5")]).end(body);
}

/// Answers with a header of N KiB.
fn long_head(ask: Ask) {
    let kib = usize::try_from(ask.number.unwrap_or(1)).expect("a size");
    ask.begin(&[("x-long", &"x".repeat(kib << 10))]).end("long");
}

/// Answers with the number of invalid values of `content-length` that were accepted.
fn bad_length(ask: Ask) {
    let name = "content-length";
    let mut taken = 0;
    for value in ["+5", "-5", "5, 5", "5,5", " 5", "5 ", "0x5", "5.0", "", "99999999999999999999"] {
        let bytes = value.as_bytes().to_vec();
        taken += u32::from(Fields::new().append(name, value.as_bytes()).is_ok());
        taken += u32::from(Fields::new().set(name, std::slice::from_ref(&bytes)).is_ok());
        taken += u32::from(Fields::from_list(&[(name.to_owned(), bytes)]).is_ok());
    }
    let two = [b"5".to_vec(), b"6".to_vec()];
    taken += u32::from(Fields::new().set(name, &two).is_ok());
    taken += u32::from(Fields::from_list(&two.map(|value| (name.to_owned(), value))).is_ok());
    let fields = made(&[(name, "5")]);
    taken += u32::from(fields.append("Content-Length", b"6").is_ok());
    taken += u32::from(fields.clone().append(name, b"5").is_ok());
    ask.answer(taken.to_string());
}

/// Answers `body` with a trailer.
fn trailers(ask: Ask) {
    let reply = ask.begin(&[]);
    reply.write("body");
    reply.finish(Some(made(&[("x-end", "yes")])));
}

/// The same with trailers that would change how the message is framed or routed.
fn framing_trailers(ask: Ask) {
    let reply = ask.begin(&[]);
    reply.write("body");
    let names = [("content-length", "9"), ("te", "gzip"), ("trailer", "x-no"), ("x-end", "yes")];
    reply.finish(Some(made(&names)));
}

/// Answers with a line for each field name that is reserved for the host: whether it was refused.
fn bad_trailers(ask: Ask) {
    let names = [
        "connection",
        "host",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "Transfer-Encoding",
        "upgrade",
    ];
    let mut text = String::new();
    for name in names {
        let fields = made(&[("x-other", "1")]);
        let listed = [(name.to_owned(), b"x".to_vec())];
        let is_taken = fields.append(name, b"x").is_ok()
            || fields.set(name, &[b"x".to_vec()]).is_ok()
            || fields.has(name)
            || Fields::from_list(&listed).is_ok();
        text += &format!("{name}: {}\n", if is_taken { "taken" } else { "refused" });
    }
    ask.answer(text);
}

/// Answers with the number of fields that one set accepts.
fn many_fields(ask: Ask) {
    let fields = Fields::new();
    let is_taken = |number: &u32| fields.append(&format!("x-{number}"), b"").is_ok();
    let taken = (0..1_000_000).take_while(is_taken).count();
    ask.answer(taken.to_string());
}

/// Answers with the number of sets of fields that it could create, of N KiB each.
fn many_handles(ask: Ask) {
    let value = "x".repeat(usize::try_from(ask.number.unwrap_or(0)).expect("a size") << 10);
    let open = |_: &u32| std::mem::forget(made(&[("x-kept", &value)]));
    let opened = (0..100_000).inspect(open).count();
    ask.answer(opened.to_string());
}
