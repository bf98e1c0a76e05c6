//! Executes one request of a guest: to the server, and the response back.
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

use super::body::{
    AwaitedParty, GuestUpload, OutboundRequestBody, OutboundResponseBody, UploadProgress,
};
use super::connection_pool::PooledConnection;
use super::destination_pool::DestinationPool;
use super::failure::{ExchangeError, OutboundFailure};
use super::outbound_connection::{self, OutboundConnection, SendError};
use super::policy::Destination;
use super::{
    AllowedNetworks, Outbound, OutboundRequest, OutboundResponse, PoolKey, Timeouts, log_handler,
};
use crate::message::RequestId;
use crate::message::fields::{check_framing, head_bytes, strip_hop_by_hop, unify_length};

/// Counts a request of a guest as in flight until this is dropped.
struct CountedRequest<'a> {
    outbound: &'a Outbound,
    guest: &'a str,
}

impl Drop for CountedRequest<'_> {
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

/// The settings and the progress of one request.
struct SendContext<'a> {
    key: &'a PoolKey,
    allowed_networks: &'a AllowedNetworks,
    /// How many bytes the response's head may have.
    header_bytes_max: usize,
    timeouts: Timeouts,
    progress: UploadProgress,
    /// When a connection has to be open.
    connected_by: Instant,
}

impl Outbound {
    /// Executes a request until its response's body has ended.
    pub(super) async fn execute(self: Rc<Self>, order: OutboundRequest) {
        let OutboundRequest {
            key, allowed_networks, parent_id, request, timeouts, mut reply, ..
        } = order;
        let header_bytes_max = order.header_bytes_max;
        let Some(_counted) = self.count(&key.guest) else {
            // Sending fails if the guest is gone.
            let _ = reply.send(Err(OutboundFailure::Full));
            return;
        };
        let pool = self.pool(&key, order.in_flight_max);
        let (mut head, mut body) = request.into_parts();
        let announced = tokio::select! {
            biased;
            () = reply.closed() => return,
            announced = declared_length(&mut head.headers, &mut body) => announced,
        };
        let announced = match announced {
            Ok(announced) => announced,
            Err(failure) => {
                let _ = reply.send(Err(failure));
                return;
            }
        };
        let has_trailers = head.headers.contains_key(TRAILER);
        let (upload, progress, mut sent) = GuestUpload::new(body, announced, has_trailers);
        let request = Request::from_parts(head, upload);
        let connected_by = Instant::now() + timeouts.connect;
        let sending = SendContext {
            key: &key,
            allowed_networks: &allowed_networks,
            header_bytes_max,
            timeouts,
            progress,
            connected_by,
        };
        let exchanged = tokio::select! {
            biased;
            () = reply.closed() => return pool.abandon(&sending.progress),
            exchanged = self.exchange(&pool, request, &sending) => exchanged,
        };
        match exchanged {
            Ok((response, pooled, permit)) => {
                let progress = sending.progress;
                let (head, body) = response.into_parts();
                let connection = (pooled.inner.unconsumed().clone(), pooled.inner.is_h2());
                let (body, over) = OutboundResponseBody::new(
                    body,
                    progress.clone(),
                    timeouts.between_bytes,
                    connection,
                );
                let response = Response::from_parts(head, body);
                if reply.send(Ok(OutboundResponse { response, sent })).is_ok() {
                    let is_whole = over.await.unwrap_or(false);
                    pool.release(pooled, is_whole, &progress).await;
                }
                drop(permit);
            }
            Err(failure) => {
                // If a body fails in HTTP/2, the connection reports only that there is no response.
                let own = sent.try_recv().ok().and_then(Result::err);
                let failure = own.filter(|own| *own == OutboundFailure::Body).unwrap_or(failure);
                self.note(&key, parent_id, failure);
                let _ = reply.send(Err(failure));
            }
        }
    }

    /// Counts a request, unless its handler has so many that less than a quarter of the connections
    /// would be left to others.
    fn count<'a>(&'a self, guest: &'a str) -> Option<CountedRequest<'a>> {
        let mut guests = self.guests.borrow_mut();
        let count = guests.entry(guest.into()).or_default();
        *count += 1;
        let counted = CountedRequest { outbound: self, guest };
        let open_max = self.shared.open_max;
        let is_too_many = *count > open_max - open_max / 4;
        drop(guests);
        (!is_too_many).then_some(counted)
    }

    /// Logs failures that the operator can do something about.
    fn note(&self, key: &PoolKey, parent_id: Option<RequestId>, failure: OutboundFailure) {
        let PoolKey { guest, destination } = key;
        tracing::debug!(target: "handler", handler = &**guest, "{destination}: {failure}");
        if failure == OutboundFailure::Prohibited
            && self.shared.denials.is_first(guest, destination)
        {
            let what = format!(
                "its request to {destination} is denied: that is not at a public address; it is \
                 allowed by --allow-outbound '{guest}={destination},NETWORK', where NETWORK is \
                 such as 10.0.0.0/8"
            );
            log_handler(guest, parent_id, &what);
        }
    }

    async fn exchange<'a>(
        &self,
        pool: &'a DestinationPool,
        mut request: Request<GuestUpload>,
        sending: &SendContext<'_>,
    ) -> Result<
        (Response<Incoming>, PooledConnection<GuestUpload>, SemaphorePermit<'a>),
        OutboundFailure,
    > {
        let destination = &sending.key.destination;
        let target = adapt(&mut request, destination)?;
        let permit = timeout_at(sending.connected_by, pool.acquire()).await;
        let permit = permit.map_err(|_| OutboundFailure::Full)??;
        let open = async || self.connect(sending).await;
        let send = async |link: &mut OutboundConnection<GuestUpload>,
                          mut request: Request<GuestUpload>| {
            frame_for(&mut request, link, destination, &target);
            answer(link, request, sending).await
        };
        let (response, pooled) =
            pool.connections.exchange(request, open, send).await.map_err(|it| it.failure())?;
        Ok((check(response, sending.header_bytes_max)?, pooled, permit))
    }

    /// Opens a connection to the request's destination.
    async fn connect(
        &self,
        sending: &SendContext<'_>,
    ) -> Result<OutboundConnection<GuestUpload>, OutboundFailure> {
        let SendContext { key, allowed_networks, header_bytes_max, connected_by: deadline, .. } =
            sending;
        let destination = &key.destination;
        let found =
            self.shared.resolver.addresses(&key.guest, &destination.host, *deadline).await?;
        let admits = |address| allowed_networks.allows(address);
        let addresses = outbound_connection::allowed_addresses(&found, destination.port, admits)?;
        let open = self.reserve()?;
        let (tls, header_bytes_max) = (&self.shared.tls, *header_bytes_max);
        let stream_window = outbound_connection::STREAM_WINDOW;
        let config = outbound_connection::ConnectOptions {
            tls,
            header_bytes_max,
            user_timeout: None,
            stream_window,
        };
        outbound_connection::connect(&key.destination, &addresses, &config, open, *deadline).await
    }
}

/// Sends a request and waits for the response's head. The timeout starts when the server has all
/// that the guest has sent so far.
async fn answer(
    link: &mut OutboundConnection<GuestUpload>,
    request: Request<GuestUpload>,
    sending: &SendContext<'_>,
) -> Result<Response<Incoming>, SendError<GuestUpload>> {
    let max = sending.timeouts.first_byte;
    let mut sent = pin!(link.send(request));
    let mut until = Instant::now() + max;
    loop {
        if let Ok(answered) = timeout_at(until, sent.as_mut()).await {
            return answered;
        }
        let now = Instant::now();
        until = match sending.progress.get() {
            (AwaitedParty::Guest, _) => now + max,
            (_, since) if Instant::from(since) + max > now => Instant::from(since) + max,
            (AwaitedParty::Server, _) => return Err(late(OutboundFailure::WriteTimeout)),
            (AwaitedParty::Nobody, _) => return Err(late(OutboundFailure::ReadTimeout)),
        };
    }
}

fn late(failure: OutboundFailure) -> SendError<GuestUpload> {
    SendError::Ended(ExchangeError::Failed(failure))
}

/// Removes what must not be sent from a guest's request, and returns its absolute target.
fn adapt(
    request: &mut Request<GuestUpload>,
    destination: &Destination,
) -> Result<Uri, OutboundFailure> {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    // There may be a query without a path.
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let target = Uri::builder()
        .scheme(if destination.is_secure { "https" } else { "http" })
        .authority(destination.authority())
        .path_and_query(path)
        .build()
        .map_err(|_| OutboundFailure::BadUri)?;
    let headers = request.headers_mut();
    let takes_trailers = headers.get(TE).is_some_and(|te| te == "trailers");
    strip_hop_by_hop(headers);
    // Expect would announce that the body waits for 100 Continue, but hyper's client does not wait.
    headers.remove(EXPECT);
    headers.remove(HOST);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(target)
}

/// Sets target, version and framing fields of a request for its connection.
fn frame_for(
    request: &mut Request<GuestUpload>,
    link: &OutboundConnection<GuestUpload>,
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
        // Methods that usually have a body announce its absence (RFC 9110, 8.6).
        headers.remove(CONTENT_LENGTH);
        if [Method::POST, Method::PUT, Method::PATCH].contains(&method) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    }
    let has_trailers = !is_empty && headers.contains_key(TRAILER);
    if has_trailers {
        // A body with a length cannot have trailers.
        headers.remove(CONTENT_LENGTH);
    }
    if has_trailers || is_open && !headers.contains_key(CONTENT_LENGTH) {
        // Without this field, hyper would send no body with a GET.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if headers.contains_key(TE) {
        // TE is a hop-by-hop field (RFC 9110, 10.1.4).
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Ok(host) = HeaderValue::try_from(destination.authority()) {
        headers.insert(HOST, host);
    }
    *request.uri_mut() = target.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    *request.version_mut() = Version::HTTP_11;
}

/// The length of the body that a guest has announced, if any.
///
/// # Errors
/// The length is not exactly one number; or a body was announced but there is none, so that the
/// server would take the next request for it; or the first piece is already longer.
async fn declared_length(
    headers: &mut HeaderMap,
    body: &mut OutboundRequestBody,
) -> Result<Option<u64>, OutboundFailure> {
    if !unify_length(headers) {
        return Err(OutboundFailure::Protocol);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length =
        length.map(|length| length.parse().map_err(|_| OutboundFailure::Protocol)).transpose()?;
    let Some(bytes) = length else { return Ok(None) };
    if bytes > 0 && body.is_end_stream() {
        return Err(OutboundFailure::Body);
    }
    if bytes == 0 {
        // hyper does not poll a body whose length is 0.
        body.wait_peeked().await;
    }
    body.fault(bytes).map_or(Ok(length), Err)
}

/// Checks a response's head and removes hop-by-hop fields.
fn check(
    mut response: Response<Incoming>,
    header_bytes_max: usize,
) -> Result<Response<Incoming>, OutboundFailure> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(OutboundFailure::Upgrade);
    }
    if head_bytes(response.headers()) > header_bytes_max {
        return Err(OutboundFailure::HeadTooLarge);
    }
    check_framing(response.headers_mut()).map_err(|_| OutboundFailure::Protocol)?;
    strip_hop_by_hop(response.headers_mut());
    Ok(response)
}
