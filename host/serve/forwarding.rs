//! Requests that go on to the upstream.
//!
//! Owns what becomes of one that a guest passes on, and what the guest sees of the answer. Knows
//! nothing of connections; `upstream.rs` has those.

use std::rc::Rc;

use http::HeaderMap;

use super::respond;
use super::worker::Worker;
use crate::grants::Grants;
use crate::guest::budget::Budget;
use crate::guest::core::{Answer, CoreInstance};
use crate::guest::kept::Kept;
use crate::guest::schedule::Meter;
use crate::guest::{Instance, Schedule};
use crate::message::progress::Deadline;
use crate::message::{Reject, Request, Response, ResponseBody};

/// Sends a request on that a guest did not answer (`next`), and lets the guest see the answer.
pub async fn pass_on(
    worker: &Rc<Worker>,
    instance: Box<CoreInstance>,
    context: i32,
    meter: &mut Meter<'_>,
) -> Result<Response, Reject> {
    let mut waiting = Waiting { instance: Some(instance), schedule: &worker.schedule };
    let instance = waiting.instance();
    let about = worker.schedule.about(instance.guest().id, &instance.guest().about);
    let guest = (Some(instance.guest().id), &*about.grants);
    let (held, mut request, headers) = instance.next_request(meter).await?;
    if !instance.wants_response() {
        worker.pool.give_back(Instance::Core(waiting.end()));
        let response = forward(worker, guest, &mut request, &meter.deadline()).await?;
        return Ok(with_headers(response, headers));
    }
    let id = request.id;
    let (mut response, is_error) =
        match forward(worker, guest, &mut request, &meter.deadline()).await {
            Ok(response) => (with_headers(response, headers), false),
            // That nobody serves the path is the host's answer, not an error.
            Err(Reject::NoRoute) => (respond::problem(Reject::NoRoute, id), false),
            Err(reject) => {
                worker.counters().reject(reject.index());
                (respond::problem(reject, id), true)
            }
        };
    let instance = waiting.instance();
    if instance.buffers_response() {
        let bytes_max = about.grants.limits.response_bytes_max;
        let buffered = buffer(response, bytes_max, &instance.guest().about.memory, meter).await;
        response = buffered.inspect_err(|reject| {
            if let Some(upstream) = &worker.upstream {
                upstream.warn(id, &format!("its response cannot be kept whole: {reject}"));
            }
        })?;
    }
    let answer = Answer { response, is_error, held };
    let schedule = &worker.schedule;
    let instance = waiting.end();
    let (instance, response) = instance.response(request, answer, context, meter, schedule).await?;
    worker.pool.give_back(Instance::Core(instance));
    Ok(response)
}

/// An instance whose request is elsewhere. It is dropped as its pool drops one: to give a large
/// memory back takes a while.
struct Waiting<'a> {
    instance: Option<Box<CoreInstance>>,
    schedule: &'a Schedule,
}

impl Waiting<'_> {
    fn instance(&mut self) -> &mut CoreInstance {
        self.instance.as_mut().expect("it is there until the end")
    }

    fn end(mut self) -> Box<CoreInstance> {
        self.instance.take().expect("this is the end")
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.schedule.dispose(instance);
        }
    }
}

/// What the guest had set before it passed the request on, under what the next handler has set.
fn with_headers(mut response: Response, headers: HeaderMap) -> Response {
    for name in headers.keys() {
        if !response.headers.contains_key(name) {
            for value in headers.get_all(name) {
                response.headers.append(name, value.clone());
            }
        }
    }
    response
}

/// Waits for a whole body, at most `bytes_max` of it.
async fn buffer(
    mut response: Response,
    bytes_max: usize,
    memory: &Budget,
    meter: &mut Meter<'_>,
) -> Result<Response, Reject> {
    let ResponseBody::Stream(mut stream) = response.body else { return Ok(response) };
    let (mut kept, mut trailers) = (Kept::default(), None);
    let collect = async {
        while let Some(frame) = http_body_util::BodyExt::frame(&mut stream).await {
            match frame.map_err(|_| Reject::UpstreamFailed)?.into_data() {
                Ok(data) if kept.len() + data.len() > bytes_max => {
                    return Err(Reject::UpstreamFailed);
                }
                Ok(data) => kept.extend(memory, &data)?,
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(())
    };
    let collected = meter.deadline().within(collect).await;
    collected.unwrap_or(Err(Reject::UpstreamDeadline))?;
    let bytes = kept.into_bytes();
    response.body = match trailers {
        Some(trailers) => ResponseBody::Trailed(bytes, Box::new(trailers)),
        None => ResponseBody::Full(bytes),
    };
    Ok(response)
}

/// Sends a request to the upstream. What is left of it stays for the guest to look at. `guest` is
/// the id of the handler that passes it on, if one does, and what it may use or nobody.
///
/// # Errors
/// [`Reject::NoRoute`] where there is no upstream; else as [`super::upstream::Upstream::forward`].
pub async fn forward(
    worker: &Worker,
    guest: (Option<usize>, &Grants),
    request: &mut Request,
    deadline: &Deadline,
) -> Result<Response, Reject> {
    let Some(upstream) = &worker.upstream else { return Err(Reject::NoRoute) };
    let client = worker.peers.enter(request.peer).client;
    upstream.forward(request, deadline, guest, &client.upstream).await
}
