//! Serves requests that other workers hand over because they have no permit for them.
//!
//! Owns when such a request ends: with its response, or when the worker of its connection stops
//! waiting for it.

use std::pin::pin;
use std::rc::Rc;

use http_body_util::BodyExt as _;

use super::handover::{
    AdmittedRequest, BodyRelay, HandoverReply, HandoverRequest, PipelineEntry, RemoteFrame,
    RemoteResponse,
};
use super::pipeline;
use super::respond::RequestMeta;
use super::worker::Worker;

/// Counts a request of another worker until this is dropped.
struct TakeoverGuard(Rc<Worker>);

impl TakeoverGuard {
    fn new(worker: Rc<Worker>) -> Self {
        worker.taken_over.set(worker.taken_over.get() + 1);
        TakeoverGuard(worker)
    }
}

impl Drop for TakeoverGuard {
    fn drop(&mut self) {
        self.0.taken_over.set(self.0.taken_over.get() - 1);
    }
}

/// Begins to serve a request that another worker hands over.
pub fn start(worker: &Rc<Worker>, order: HandoverRequest) {
    tokio::task::spawn_local(serve(TakeoverGuard::new(worker.clone()), order));
}

async fn serve(busy: TakeoverGuard, order: HandoverRequest) {
    let worker = &busy.0;
    let HandoverRequest { guest, mut request, started, mut reply } = order;
    // Each worker counts a client's share by itself, so this is the share here.
    let client = worker.worker_clients.shares(request.origin.peer.address);
    let permit = match worker.gates.try_admit(&guest, &client) {
        Ok(Some(permit)) => permit,
        Ok(None) => {
            // Sending fails, here as below, if the other worker no longer waits for the reply.
            let _ = reply.send(HandoverReply::Full(request));
            return;
        }
        Err(reject) => {
            let left = std::mem::take(&mut request.body);
            let _ = reply.send(HandoverReply::Served(Err(reject), left));
            return;
        }
    };
    worker.counters().reasons.calls.handed.add(1);
    let mut meta = RequestMeta::handed_over(&request, &guest.info.grants, started);
    let admitted = AdmittedRequest { guest: guest.into(), request, permit, waited: true };
    let result = {
        let start = PipelineEntry::Admitted(Box::new(admitted));
        let served = pin!(pipeline::handle(worker, &client, start, &mut meta));
        tokio::select! {
            biased;
            () = reply.closed() => return,
            result = served => result,
        }
    };
    let (result, rest) = match result {
        Ok(response) => {
            let (answer, rest) = RemoteResponse::new(response);
            (Ok(answer), rest)
        }
        Err(reject) => (Err(reject), None),
    };
    if reply.send(HandoverReply::Served(result, meta.unread_body)).is_ok()
        && let Some(rest) = rest
    {
        relay_body(rest).await;
    }
}

/// Sends a body piece by piece. It polls for the next piece once the last one was received.
async fn relay_body((mut body, to): BodyRelay) {
    loop {
        let Ok(place) = to.reserve().await else { return };
        let frame = tokio::select! {
            biased;
            () = to.closed() => return,
            frame = body.frame() => frame,
        };
        let is_end = frame.is_none() || body.is_end_stream();
        let is_last = is_end || matches!(frame, Some(Err(_)));
        place.send(RemoteFrame { frame, hint: body.size_hint(), is_end });
        if is_last {
            return;
        }
    }
}
