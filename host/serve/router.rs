//! Finds the target of a request in this thread's view of the routes.
//!
//! Owns what a request's handler decides before any guest runs: the request's [`Conditions`] and
//! the limit on its head.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use super::counts::Counts;
use super::respond::Conditions;
use super::routed::{HostTarget, Routed};
use crate::config::{Config, LimitMaxima};
use crate::demo::native::Twin;
use crate::grants::Grants;
use crate::message::{Reject, Request, RouteMatch, fields};
use crate::metrics::Metrics;
use crate::registry::route::Param;
use crate::registry::{Registry, RouteTarget, SnapshotReader};

/// The routes as one worker sees them.
pub struct Router {
    /// The largest limits of any handler. They size the buffers that all handlers share.
    pub largest: LimitMaxima,
    /// What a request without a handler may use.
    pub unrouted_grants: Arc<Grants>,
    /// What a request to a twin may use, in the order of [`Twin::ALL`]: the same as with its guest.
    twin_grants: [Arc<Grants>; Twin::ALL.len()],
    registry: Arc<Registry>,
    reader: RefCell<SnapshotReader>,
    /// [`Registry::coarse_ticks`] at the last tick.
    moment: Cell<u32>,
    /// This worker's counters of each handler.
    pub counts: Counts,
}

/// How many bytes the head of a request has in HTTP/1.
fn head_bytes(request: &Request) -> usize {
    const LINE: usize = "  HTTP/1.1\r\n\r\n".len();
    const FIELD: usize = ": \r\n".len();
    let line = request.method.as_str().len() + request.uri.as_str().len() + LINE;
    line + fields::head_bytes(&request.headers) + FIELD * request.headers.len()
}

impl Router {
    /// A view of `registry` for the calling worker.
    pub fn new(config: &Config, registry: &Arc<Registry>, metrics: &Metrics) -> Self {
        Router {
            largest: config.grants.largest(),
            unrouted_grants: config.grants.of_unrouted(),
            twin_grants: Twin::ALL.map(|twin| config.grants.of_twin(twin.name())),
            reader: RefCell::new(registry.reader()),
            moment: Cell::new(registry.coarse_ticks()),
            registry: registry.clone(),
            counts: Counts::new(metrics.clone()),
        }
    }

    /// Takes over the current snapshot, so that a worker without requests does not hold on to an
    /// old one.
    pub fn sync(&self) {
        self.moment.set(self.registry.coarse_ticks());
        self.reader.borrow_mut().load();
    }

    /// Finds a request's target. Sets `conditions` to those of its handler or twin, if it has one.
    ///
    /// # Errors
    /// [`Reject::BadPath`], [`Reject::HeadTooLarge`].
    pub fn route(
        &self,
        request: &mut Request,
        started: Instant,
        conditions: &mut Conditions,
    ) -> Result<Routed, Reject> {
        let mut reader = self.reader.borrow_mut();
        let host = request.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let found = reader.load().table.find(host, request.uri.path());
        let Some(found) = found.map_err(|bad| Reject::BadPath(bad.reason()))? else {
            self.limit_head(request, &self.unrouted_grants)?;
            return Ok(Routed::Host(HostTarget::Upstream));
        };
        let param = |param: &Param<'_>| {
            let value = request.uri.path()[param.value.clone()].to_owned();
            (param.name.to_ascii_lowercase(), value)
        };
        let params = found.params.iter().map(param).collect();
        request.route_match = RouteMatch::new(found.base_len, params);
        match found.target {
            RouteTarget::Handler(handler) => {
                handler.touch(self.moment.get());
                *conditions = Conditions::new(
                    Some((handler.id, self.counts.of(handler))),
                    &handler.grants,
                    started,
                );
                self.limit_head(request, &handler.grants)?;
                Ok(match handler.current() {
                    Some(guest) => Routed::Guest(guest),
                    None => Routed::Unloaded(handler.clone()),
                })
            }
            RouteTarget::Native(number) => {
                let twin = Twin::ALL[*number];
                let grants = self.grants_of(twin);
                *conditions = Conditions::new(None, grants, started);
                self.limit_head(request, grants)?;
                Ok(Routed::Host(HostTarget::Twin(twin)))
            }
            RouteTarget::Landing => {
                self.limit_head(request, &self.unrouted_grants)?;
                Ok(Routed::Host(HostTarget::Landing))
            }
        }
    }

    /// What a request to this twin may use.
    pub fn grants_of(&self, twin: Twin) -> &Grants {
        &self.twin_grants[twin.number()]
    }

    /// Refuses a head that is too large for these grants. hyper has refused one that is too large
    /// for all handlers.
    fn limit_head(&self, request: &Request, grants: &Grants) -> Result<(), Reject> {
        let bytes_max = grants.limits.header_bytes_max;
        if bytes_max < self.largest.header_bytes_max && head_bytes(request) > bytes_max {
            return Err(Reject::HeadTooLarge);
        }
        Ok(())
    }
}
