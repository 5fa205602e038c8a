//! What a policy says of one request.

use std::sync::Arc;

use http::{Request, Version};
use mesh_policy::Meta;
use mesh_policy::outbound::{Protocol, RoutePolicy};
use mesh_policy::route::{Found, RequestView};

use crate::model::{Backend, Outbound};
use crate::worker::answer::Refusal;

/// What a request takes of a policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route<'p> {
    pub(super) parent: &'p Arc<Meta>,
    pub(super) meta: &'p Arc<Meta>,
    pub(super) policy: &'p RoutePolicy<Arc<Backend>>,
    /// Chosen among the route's; `None` when it has none.
    backend: Option<&'p Arc<Backend>>,
}

impl<'p> Route<'p> {
    /// The route that `request` takes.
    pub(super) fn find<B>(policy: &'p Outbound, request: &Request<B>) -> Result<Self, Refusal> {
        let view = RequestView::from(request);
        match &policy.protocol {
            Protocol::Detect { http1, http2, .. } => {
                let routes = if request.version() == Version::HTTP_2 {
                    http2
                } else {
                    http1
                };
                Self::of(policy, routes.find(&view))
            }
            Protocol::Http1(routes) | Protocol::Http2(routes) => {
                Self::of(policy, routes.find(&view))
            }
            Protocol::Grpc(routes) => Self::of(policy, routes.find(&view)),
            Protocol::Opaque(_) | Protocol::Tls(_) => Err(Refusal::NoRoute),
        }
    }

    fn of<M>(
        policy: &'p Outbound,
        found: Option<Found<'p, M, RoutePolicy<Arc<Backend>>>>,
    ) -> Result<Self, Refusal> {
        let found = found.ok_or(Refusal::NoRoute)?;
        Ok(Self {
            parent: &policy.meta,
            meta: &found.route.meta,
            policy: found.policy,
            backend: found
                .policy
                .backends
                .pick(fastrand::u64(..))
                .map(|picked| &picked.backend),
        })
    }

    /// Where it leads.
    pub(super) fn backend(&self) -> Option<&'p Arc<Backend>> {
        self.backend
    }
}
