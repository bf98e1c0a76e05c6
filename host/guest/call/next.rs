//! A request that a core guest passes on to the next handler, and the response on its way back.

use http::HeaderMap;

use super::context::{CallContext, InstancePool};
use crate::guest::engine::budget::Budget;
use crate::guest::engine::form::Form;
use crate::guest::instance::core::{CoreInstance, NextResponse};
use crate::guest::schedule::{Meter, Scheduler};
use crate::guest::services::buffer::Buffer;
use crate::message::{Reject, Response, ResponseBody};

/// Sends a request on that a guest did not answer (`next`), and shows the guest the response if it
/// has a `handle_response`. `passed` is the context that this gets back.
pub async fn forward_request<P: InstancePool>(
    instance: Box<CoreInstance>,
    passed: i32,
    meter: &mut Meter<'_>,
    context: &CallContext<'_, P>,
) -> Result<Response, Reject> {
    let CallContext { pool, next, .. } = *context;
    let schedule = pool.schedule();
    let mut suspended = SuspendedInstance { instance: Some(instance), schedule };
    let instance = suspended.instance();
    let info = schedule.shared_info(instance.guest().id, &instance.guest().info);
    let guest = (instance.guest().id, &**info);
    let (held, mut request, headers) = instance.next_request(meter).await?;
    if !instance.wants_response() {
        pool.give_back(Form::Core(suspended.end()));
        let response = next.forward(guest, &mut request, &meter.deadline()).await?;
        return Ok(with_headers(response, headers));
    }
    let id = request.id;
    let (mut response, is_error) = match next.forward(guest, &mut request, &meter.deadline()).await
    {
        Ok(response) => (with_headers(response, headers), false),
        // That nobody serves the path is an answer of the host, not an error.
        Err(Reject::NoRoute) => (Response::problem(Reject::NoRoute, id), false),
        Err(reject) => {
            schedule.counters().reject(reject.index());
            (Response::problem(reject, id), true)
        }
    };
    let instance = suspended.instance();
    if instance.buffers_response() {
        let bytes_max = info.grants.limits.response_bytes_max;
        let buffered = buffer(response, bytes_max, &instance.guest().info.memory, meter).await;
        response = buffered.inspect_err(|reject| {
            next.warn(id, &format!("its response cannot be kept whole: {reject}"));
        })?;
    }
    let answer = NextResponse { response, is_error, held };
    let instance = suspended.end();
    let (instance, response) = instance.response(request, answer, passed, meter, schedule).await?;
    pool.give_back(Form::Core(instance));
    Ok(response)
}

/// An instance whose request is with the next handler. If it is dropped meanwhile, that happens as
/// in the pool: giving back a large memory takes a while.
struct SuspendedInstance<'a> {
    instance: Option<Box<CoreInstance>>,
    schedule: &'a Scheduler,
}

impl SuspendedInstance<'_> {
    fn instance(&mut self) -> &mut CoreInstance {
        self.instance.as_mut().expect("it is there until the end")
    }

    fn end(mut self) -> Box<CoreInstance> {
        self.instance.take().expect("this is the end")
    }
}

impl Drop for SuspendedInstance<'_> {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.schedule.drop_or_defer(instance);
        }
    }
}

/// Adds the headers that the guest had set before it passed the request on. Those of the next
/// handler win.
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

/// Collects the whole body, at most `bytes_max` of it.
async fn buffer(
    mut response: Response,
    bytes_max: usize,
    memory: &Budget,
    meter: &mut Meter<'_>,
) -> Result<Response, Reject> {
    let ResponseBody::Stream(mut stream) = response.body else { return Ok(response) };
    let (mut body_buffer, mut trailers) = (Buffer::default(), None);
    let collect = async {
        while let Some(frame) = http_body_util::BodyExt::frame(&mut stream).await {
            match frame.map_err(|_| Reject::UpstreamFailed)?.into_data() {
                Ok(data) if body_buffer.len() + data.len() > bytes_max => {
                    return Err(Reject::UpstreamFailed);
                }
                Ok(data) => body_buffer.extend(memory, &data)?,
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(())
    };
    let collected = meter.deadline().within(collect).await;
    collected.unwrap_or(Err(Reject::UpstreamDeadline))?;
    let bytes = body_buffer.into_bytes();
    response.body = match trailers {
        Some(trailers) => ResponseBody::WithTrailers(bytes, Box::new(trailers)),
        None => ResponseBody::Full(bytes),
    };
    Ok(response)
}
