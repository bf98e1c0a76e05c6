//! One request, from its guest to the server, and the response on its way back.
//!
//! Owns the order of the steps.

use std::pin::pin;
use std::rc::Rc;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::body::{Outgoing, Progress, Returning, Turn, Upload};
use super::connections::Lent;
use super::failure::{Ended, Failure};
use super::link::{self, Link, Unanswered};
use super::policy::Destination;
use super::way::Way;
use super::{Answer, Key, Leave, Order, Outbound, Times, tell};
use crate::message::RequestId;
use crate::message::fields::{check_framing, head_bytes, strip_hop_by_hop, unify_length};

/// Counts a request of a guest.
struct Counted<'a> {
    outbound: &'a Outbound,
    guest: &'a str,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut guests = self.outbound.guests.borrow_mut();
        if let Some(count) = guests.get_mut(self.guest) {
            *count -= 1;
            if *count == 0 {
                guests.remove(self.guest);
            }
        }
    }
}

/// A request that is to be sent, and what is known of it.
struct Sending<'a> {
    key: &'a Key,
    leave: &'a Leave,
    /// Bytes that the response's head may have.
    header_bytes_max: usize,
    times: Times,
    progress: Progress,
    /// When there has to be a connection.
    connected_by: Instant,
}

impl Outbound {
    /// Takes a request to its end.
    pub(super) async fn carry_out(self: Rc<Self>, order: Order) {
        let Order { key, leave, whose, request, times, mut reply, .. } = order;
        let header_bytes_max = order.header_bytes_max;
        let Some(_counted) = self.count(&key.guest) else {
            // The guest may be gone.
            let _ = reply.send(Err(Failure::Full));
            return;
        };
        let way = self.way(&key, order.in_flight_max);
        let (mut head, mut body) = request.into_parts();
        let announced = tokio::select! {
            biased;
            () = reply.closed() => return,
            announced = announced(&mut head.headers, &mut body) => announced,
        };
        let announced = match announced {
            Ok(announced) => announced,
            Err(failure) => {
                let _ = reply.send(Err(failure));
                return;
            }
        };
        let is_trailed = head.headers.contains_key(TRAILER);
        let (upload, progress, mut sent) = Upload::new(body, announced, is_trailed);
        let request = Request::from_parts(head, upload);
        let connected_by = Instant::now() + times.connect;
        let sending =
            Sending { key: &key, leave: &leave, header_bytes_max, times, progress, connected_by };
        let exchanged = tokio::select! {
            biased;
            () = reply.closed() => return way.give_up(&sending.progress),
            exchanged = self.exchange(&way, request, &sending) => exchanged,
        };
        match exchanged {
            Ok((response, lent, place)) => {
                let progress = sending.progress;
                let (head, body) = response.into_parts();
                let connection = (lent.link.heard().clone(), lent.link.is_h2());
                let (body, over) =
                    Returning::new(body, progress.clone(), times.between_bytes, connection);
                let response = Response::from_parts(head, body);
                if reply.send(Ok(Answer { response, sent })).is_ok() {
                    let is_whole = over.await.unwrap_or(false);
                    way.give_back(lent, is_whole, &progress).await;
                }
                drop(place);
            }
            Err(failure) => {
                // By HTTP/2 a connection says only that there is no answer.
                let own = sent.try_recv().ok().and_then(Result::err);
                let failure = own.filter(|own| *own == Failure::Body).unwrap_or(failure);
                self.note(&key, whose, failure);
                let _ = reply.send(Err(failure));
            }
        }
    }

    /// Counts a request in, if its guest leaves a quarter of the connections to others.
    fn count<'a>(&'a self, guest: &'a str) -> Option<Counted<'a>> {
        let mut guests = self.guests.borrow_mut();
        let count = guests.entry(guest.into()).or_default();
        *count += 1;
        let counted = Counted { outbound: self, guest };
        let open_max = self.shared.open_max;
        let is_too_many = *count > open_max - open_max / 4;
        drop(guests);
        (!is_too_many).then_some(counted)
    }

    /// Tells the log what whoever runs the host can do something about.
    fn note(&self, key: &Key, whose: Option<RequestId>, failure: Failure) {
        let Key { guest, destination } = key;
        tracing::debug!(target: "handler", guest = &**guest, "{destination}: {failure}");
        if failure == Failure::Prohibited && self.shared.denials.is_news(guest, destination) {
            let what = format!(
                "its request to {destination} is denied: that is not at a public address; it is \
                 allowed by --allow-outbound '{guest}={destination},NETWORK', where NETWORK is \
                 such as 10.0.0.0/8"
            );
            tell(guest, whose, &what);
        }
    }

    async fn exchange<'a>(
        &self,
        way: &'a Way,
        mut request: Request<Upload>,
        sending: &Sending<'_>,
    ) -> Result<(Response<Incoming>, Lent<Upload>, SemaphorePermit<'a>), Failure> {
        let destination = &sending.key.destination;
        let target = adapt(&mut request, destination)?;
        let place = timeout_at(sending.connected_by, way.place()).await;
        let place = place.map_err(|_| Failure::Full)??;
        let open = async || self.link(sending).await;
        let send = async |link: &mut Link<Upload>, mut request: Request<Upload>| {
            fit(&mut request, link, destination, &target);
            answer(link, request, sending).await
        };
        let (response, lent) =
            way.connections.exchange(request, open, send).await.map_err(|it| it.failure())?;
        Ok((check(response, sending.header_bytes_max)?, lent, place))
    }

    /// Opens a connection.
    async fn link(&self, sending: &Sending<'_>) -> Result<Link<Upload>, Failure> {
        let Sending { key, leave, header_bytes_max, connected_by: deadline, .. } = sending;
        let destination = &key.destination;
        let found =
            self.shared.resolver.addresses(&key.guest, &destination.host, *deadline).await?;
        let admits = |address| leave.admits(address);
        let addresses = link::admitted(&found, destination.port, admits)?;
        let open = self.open()?;
        let (tls, header_bytes_max) = (&self.shared.tls, *header_bytes_max);
        let stream_window = link::STREAM_WINDOW;
        let config = link::Config { tls, header_bytes_max, untaken_max: None, stream_window };
        link::connect(&key.destination, &addresses, &config, open, *deadline).await
    }
}

/// Waits for the response's head, but no longer than it may take once the server has all that there
/// is of the request.
async fn answer(
    link: &mut Link<Upload>,
    request: Request<Upload>,
    sending: &Sending<'_>,
) -> Result<Response<Incoming>, Unanswered<Upload>> {
    let max = sending.times.first_byte;
    let mut sent = pin!(link.send(request));
    let mut until = Instant::now() + max;
    loop {
        if let Ok(answered) = timeout_at(until, sent.as_mut()).await {
            return answered;
        }
        let now = Instant::now();
        until = match sending.progress.get() {
            (Turn::Guest, _) => now + max,
            (_, since) if Instant::from(since) + max > now => Instant::from(since) + max,
            (Turn::Server, _) => return Err(late(Failure::WriteTimeout)),
            (Turn::Nobody, _) => return Err(late(Failure::ReadTimeout)),
        };
    }
}

fn late(failure: Failure) -> Unanswered<Upload> {
    Unanswered::Ended(Ended::By(failure))
}

/// Makes a guest's request one that can be sent, and gives its target.
fn adapt(request: &mut Request<Upload>, destination: &Destination) -> Result<Uri, Failure> {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    // A query may have no path before it.
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let target = Uri::builder()
        .scheme(if destination.is_secure { "https" } else { "http" })
        .authority(destination.authority())
        .path_and_query(path)
        .build()
        .map_err(|_| Failure::BadUri)?;
    let headers = request.headers_mut();
    let takes_trailers = headers.get(TE).is_some_and(|te| te == "trailers");
    strip_hop_by_hop(headers);
    // It would be waited for, and hyper does not wait.
    headers.remove(EXPECT);
    headers.remove(HOST);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(target)
}

/// Writes a request as its connection has it.
fn fit(
    request: &mut Request<Upload>,
    link: &Link<Upload>,
    destination: &Destination,
    target: &Uri,
) {
    let body = request.body();
    let is_empty = body.is_end_stream();
    let is_open = !is_empty && body.size_hint().exact().is_none();
    let method = request.method().clone();
    let headers = request.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONNECTION);
    if link.is_h2() {
        headers.remove(HOST);
        *request.uri_mut() = target.clone();
        *request.version_mut() = Version::HTTP_2;
        return;
    }
    if is_empty {
        // Where a body has a meaning, its absence is said (RFC 9110, 8.6).
        headers.remove(CONTENT_LENGTH);
        if [Method::POST, Method::PUT, Method::PATCH].contains(&method) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    }
    let is_trailed = !is_empty && headers.contains_key(TRAILER);
    if is_trailed {
        // Nothing comes behind a body with a length.
        headers.remove(CONTENT_LENGTH);
    }
    if is_trailed || is_open && !headers.contains_key(CONTENT_LENGTH) {
        // Without it hyper would send no body with a GET.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if headers.contains_key(TE) {
        // It is for this connection (RFC 9110, 10.1.4).
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Ok(host) = HeaderValue::try_from(destination.authority()) {
        headers.insert(HOST, host);
    }
    *request.uri_mut() = target.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    *request.version_mut() = Version::HTTP_11;
}

/// How long the body is that a guest has announced, if it has.
///
/// # Errors
/// That is not one number; there is no body and should be one: the server would take the next
/// request for it; or the body has more than that from the beginning.
async fn announced(headers: &mut HeaderMap, body: &mut Outgoing) -> Result<Option<u64>, Failure> {
    if !unify_length(headers) {
        return Err(Failure::Protocol);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.map(|length| length.parse().map_err(|_| Failure::Protocol)).transpose()?;
    let Some(bytes) = length else { return Ok(None) };
    if bytes > 0 && body.is_end_stream() {
        return Err(Failure::Body);
    }
    if bytes == 0 {
        // hyper does not look at a body of no bytes.
        body.known().await;
    }
    body.fault(bytes).map_or(Ok(length), Err)
}

/// Judges a response's head.
fn check(
    mut response: Response<Incoming>,
    header_bytes_max: usize,
) -> Result<Response<Incoming>, Failure> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::Upgrade);
    }
    if head_bytes(response.headers()) > header_bytes_max {
        return Err(Failure::HeadTooLarge);
    }
    check_framing(response.headers_mut()).map_err(|_| Failure::Protocol)?;
    strip_hop_by_hop(response.headers_mut());
    Ok(response)
}
