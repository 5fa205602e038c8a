//! What a policy says of one request.

use std::sync::Arc;

use http::{Request, Version};
use mesh_policy::Meta;
use mesh_policy::filter::Filters;
use mesh_policy::outbound::retry::RetryBudget;
use mesh_policy::outbound::{Protocol, RouteBackend, RoutePolicy};
use mesh_policy::route::{Found, Match, RequestView};

use crate::model::{Backend, Outbound};
use crate::worker::answer::Refusal;

/// What a request takes of a policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route<'p> {
    pub(super) parent: &'p Arc<Meta>,
    pub(super) meta: &'p Arc<Meta>,
    pub(super) policy: &'p RoutePolicy<Arc<Backend>>,
    pub(super) retries: &'p RetryBudget,
    /// The prefix of the path that was matched.
    pub(super) prefix: Option<&'p str>,
    /// Chosen among the route's; `None` when it has none.
    chosen: Option<&'p RouteBackend<Arc<Backend>>>,
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

    fn of<M: Match>(
        policy: &'p Outbound,
        found: Option<Found<'p, M, RoutePolicy<Arc<Backend>>>>,
    ) -> Result<Self, Refusal> {
        let found = found.ok_or(Refusal::NoRoute)?;
        Ok(Self {
            parent: &policy.meta,
            meta: &found.route.meta,
            policy: found.policy,
            retries: &policy.retries,
            prefix: found.matched_prefix(),
            chosen: found.policy.backends.pick(fastrand::u64(..)),
        })
    }

    /// Where it leads.
    pub(super) fn backend(&self) -> Option<&'p Arc<Backend>> {
        self.chosen.map(|chosen| &chosen.backend)
    }

    /// What is done on the way there, in order: by the route, then by the backend.
    pub(super) fn filters(&self) -> impl DoubleEndedIterator<Item = &'p Filters> {
        let of_backend = self.chosen.map(|chosen| &chosen.filters);
        let filters = [Some(&self.policy.filters), of_backend];
        filters
            .into_iter()
            .flatten()
            .filter(|filters| !filters.is_empty())
    }
}
