//! Behaviours about heads: what the guest reads of a request, and which status, header fields and
//! trailer fields it may set.

use wasip3::http::types::{Fields, Method, Response, Scheme};
use wasip3::wit_future;

use crate::ask::{Ask, answer, begin};
use crate::reply::{Reply, made};
use crate::{Answer, Behaviour, behaviours};

pub const BEHAVIOURS: [(&str, Behaviour); 12] = behaviours! {
    "echo-head": echo_head,
    "status": status,
    "empty": empty,
    "no-content": no_content,
    "head-length": head_length,
    "long-head": long_head,
    "bad-length": bad_length,
    "trailers": trailers,
    "framing-trailers": framing_trailers,
    "bad-trailers": bad_trailers,
    "many-fields": many_fields,
    "many-handles": many_handles,
};

/// Answers with a line each for method, scheme, authority, path with query, and every header.
async fn echo_head(ask: Ask) -> Answer {
    let request = &ask.request;
    let scheme = match request.get_scheme() {
        Some(Scheme::Http) => "http".to_owned(),
        Some(Scheme::Https) => "https".to_owned(),
        Some(Scheme::Other(scheme)) => scheme,
        None => "none".to_owned(),
    };
    let authority = request.get_authority().unwrap_or_else(|| "none".to_owned());
    let path = request.get_path_with_query().unwrap_or_else(|| "none".to_owned());
    let mut text = format!("{}\n{scheme}\n{authority}\n{path}\n", method(request.get_method()));
    text += &lines(&request.get_headers());
    answer(text)
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
    fields.copy_all().into_iter().map(line).collect()
}

/// Answers with status N, or says that the status was refused.
async fn status(ask: Ask) -> Answer {
    let status = ask.number.and_then(|number| u16::try_from(number).ok()).unwrap_or(0);
    let Some((response, reply)) = Reply::open(status, Fields::new()) else {
        return answer("refused");
    };
    wasip3::spawn_local(reply.end(status.to_string()));
    Ok(response)
}

/// Answers 200 without a body.
async fn empty(_ask: Ask) -> Answer {
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), None, trailers);
    drop(end);
    Ok(response)
}

async fn no_content(_ask: Ask) -> Answer {
    Reply::whole(204, "")
}

/// Announces five bytes, and writes none if the method is HEAD.
async fn head_length(ask: Ask) -> Answer {
    let body = if matches!(ask.request.get_method(), Method::Head) { "" } else { "12345" };
    begin(&[("content-length", "5")], move |reply| reply.end(body))
}

/// Answers with a header of N KiB.
async fn long_head(ask: Ask) -> Answer {
    let kib = usize::try_from(ask.number.unwrap_or(1)).expect("a size");
    begin(&[("x-long", &"x".repeat(kib << 10))], |reply| reply.end("long"))
}

/// Answers with the number of invalid values of `content-length` that were accepted.
async fn bad_length(_ask: Ask) -> Answer {
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
    answer(taken.to_string())
}

/// Answers `body` with a trailer.
async fn trailers(_ask: Ask) -> Answer {
    trailed(&[("x-end", "yes")])
}

fn trailed(trailers: &'static [(&str, &str)]) -> Answer {
    begin(&[], async |mut reply: Reply| {
        reply.write("body").await;
        reply.finish(Ok(Some(made(trailers)))).await;
    })
}

/// The same with trailers that would change how the message is framed or routed.
async fn framing_trailers(_ask: Ask) -> Answer {
    trailed(&[("content-length", "9"), ("te", "gzip"), ("trailer", "x-no"), ("x-end", "yes")])
}

/// Answers with a line for each field name that is reserved for the host: whether it was refused.
async fn bad_trailers(_ask: Ask) -> Answer {
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
    answer(text)
}

/// Answers with the number of fields that one set accepts.
async fn many_fields(_ask: Ask) -> Answer {
    let fields = Fields::new();
    let is_taken = |number: &u32| fields.append(&format!("x-{number}"), b"").is_ok();
    let taken = (0..1_000_000).take_while(is_taken).count();
    answer(taken.to_string())
}

/// Answers with the number of sets of fields that it could create, of N KiB each.
async fn many_handles(ask: Ask) -> Answer {
    let value = "x".repeat(usize::try_from(ask.number.unwrap_or(0)).expect("a size") << 10);
    let open = |_: &u32| std::mem::forget(made(&[("x-kept", &value)]));
    let opened = (0..100_000).inspect(open).count();
    answer(opened.to_string())
}
