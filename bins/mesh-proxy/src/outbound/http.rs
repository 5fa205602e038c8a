//! The HTTP requests of one connection of the application: routed, answered.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::Authority;
use http::{Method, Request, Response, Version};
use hyper::service::Service;
use mesh_http::Incoming;
use mesh_http::connections::Activity;
use mesh_http::headers;
use mesh_metrics::{Completion, ResourceLabels, RouteLabels};
use mesh_policy::filter::{FilterHead, Filters, Intercept};
use mesh_policy::outbound::Timeouts;
use mesh_policy::outbound::l5d::Overrides;
use mesh_policy::outbound::retry::RetryPolicy;

use super::exchange::{Answered, Exchange};
use super::record::{Asked, Kept, Record};
use super::retry::Retrying;
use super::route::Route;
use super::switch::{Switch, Switching};
use crate::control::Watched;
use crate::labels::resource;
use crate::model::{Outbound, Target};
use crate::worker::Worker;
use crate::worker::answer::{Form, Refusal, answer_version, intercepted};
use crate::worker::body::{RequestBody, ResponseBody};
use crate::worker::tunnel;

/// What the application is answered with.
pub(crate) type Answer = Response<ResponseBody<Record>>;

/// What all requests of one connection share.
#[derive(Debug)]
pub(crate) struct Http {
    pub(super) worker: Rc<Worker>,
    watched: Arc<Watched<Outbound>>,
    pub(super) activity: Activity,
    /// Where the application connected from.
    client: SocketAddr,
    kept: Kept,
    /// Stands in for a `Host` that an HTTP/1.0 client may leave out.
    target_authority: Option<Authority>,
    /// What the last `Host` said: clients rarely change it. A copy, as the header would keep all of hyper's buffer.
    authority: RefCell<Option<Authority>>,
    pub(super) switch: RefCell<Option<Switch>>,
}

/// hyper's service of one connection.
pub(crate) fn service(
    http: Rc<Http>,
) -> impl Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: 'static> {
    hyper::service::service_fn(move |request| {
        let http = http.clone();
        async move { Ok(http.answer(request).await) }
    })
}

impl Http {
    pub(crate) fn new(
        worker: Rc<Worker>,
        watched: Arc<Watched<Outbound>>,
        activity: Activity,
        client: SocketAddr,
        target: &Target,
    ) -> Rc<Self> {
        let target_authority = match target {
            Target::Authority(authority) => Authority::try_from(authority.as_bytes()).ok(),
            Target::Addr(address) => Authority::try_from(address.to_string()).ok(),
        };
        Rc::new(Self {
            worker,
            watched,
            activity,
            client,
            kept: Kept::default(),
            target_authority,
            authority: RefCell::default(),
            switch: RefCell::default(),
        })
    }

    /// What an answer of 101 or a CONNECT has left to be carried.
    pub(crate) fn take_switch(&self) -> Option<Switch> {
        self.switch.take()
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let in_flight = self.activity.request();
        let (version, form) = (request.version(), Form::of(&request));
        // Held until the response has come: what it says goes on for this request though it changes under way.
        let policy = self.watched.load_full();
        let mut response = match Route::find(&policy, &request) {
            Ok(route) => {
                let families = &self.worker.shared.metrics.families;
                let counters = self.kept.counters(families, &route);
                let asked = Asked::new(counters, self.client, in_flight);
                match self.forward(request, &route, &asked, form).await {
                    Ok(mut answered) => {
                        answered.judge(route.policy.failures.as_ref());
                        for filters in route.filters().rev() {
                            filters.on_response(answered.response.headers_mut());
                        }
                        answered.pass_on(asked)
                    }
                    Err(Unsent::Refused(refusal)) => {
                        asked.ended(Completion::Failed(refusal.failure()));
                        refusal.answer(form)
                    }
                    Err(Unsent::Intercepted(intercept)) => {
                        let (answer, completion) = intercepted(&intercept, form);
                        asked.ended(completion);
                        answer
                    }
                }
            }
            Err(refusal) => {
                self.count_unrouted(refusal);
                refusal.answer(form)
            }
        };
        *response.version_mut() = answer_version(version);
        response
    }

    /// Sends `request` where `route` leads.
    async fn forward(
        &self,
        mut request: Request<Incoming>,
        route: &Route<'_>,
        asked: &Asked,
        form: Form,
    ) -> Result<Box<Answered>, Unsent> {
        let mut authority = self.authority_of(&request)?;
        headers::remove_rare(request.headers_mut(), &headers::ORIG_PROTO);
        let special = Special::of(&mut request, route);
        let by_authority =
            request.version() == Version::HTTP_2 && request.uri().authority().is_some();
        if by_authority {
            // It may name another host than the authority, by which the request was routed (RFC 9113, section 8.3.1).
            request.headers_mut().remove(HOST);
        }
        for filters in route.filters() {
            filter(filters, &mut request, &authority, route.prefix)?;
            // A filter may name another host.
            if by_authority && let Some(host) = request.headers_mut().remove(HOST) {
                let host = Authority::try_from(host.as_bytes()).map_err(|_| Refusal::Filter)?;
                headers::to_absolute(request.uri_mut(), host);
            }
            authority = self.authority_of(&request)?;
        }
        let backend = route.backend().ok_or(Refusal::NoBackend)?;
        let timeouts = special
            .as_ref()
            .map_or(route.policy.timeouts, |special| special.timeouts);
        if request.version() == Version::HTTP_2 {
            if tunnel::is_asked_for(&request)? {
                let tunnel = self.tunnel(request, backend, &authority, asked, timeouts);
                return Ok(Box::pin(tunnel).await?);
            }
        } else {
            let upgrade = headers::is_upgrade(request.version(), request.headers());
            if upgrade {
                headers::keep_only_upgrade(request.headers_mut());
            } else {
                headers::remove_hop_by_hop(request.headers_mut());
            }
            if upgrade || request.method() == Method::CONNECT {
                let switching = Switching {
                    http: self,
                    backend,
                    authority: &authority,
                    asked,
                };
                // Boxed, as every request's future has room for what few requests do.
                return Ok(Box::pin(switching.run(request, timeouts)).await?);
            }
        }
        let exchange = Exchange::new(&self.worker, backend, &authority, asked);
        let mut request = RequestBody::of(request, &self.activity);
        if let Some(policy) = special.and_then(|special| special.retry) {
            let retrying = Retrying {
                exchange: &exchange,
                policy,
                budget: route.retries,
                timeouts,
                failures: route.policy.failures.as_ref(),
                form,
            };
            return Ok(Box::pin(retrying.run(request)).await?);
        }
        Ok(exchange.run(&mut request, timeouts).await?)
    }

    /// Counts a request that no route takes, under the policy alone.
    fn count_unrouted(&self, refusal: Refusal) {
        let labels = RouteLabels {
            parent: resource(&self.watched.load().meta),
            route: ResourceLabels::default_named("none"),
        };
        let families = &self.worker.shared.metrics.families;
        let counter = families.outbound_http.route(&labels);
        let failed = Completion::Failed(refusal.failure());
        counter.start().finish(failed, Duration::ZERO);
    }

    /// The authority that `request` names; that of the target when it names none.
    fn authority_of(&self, request: &Request<Incoming>) -> Result<Authority, Refusal> {
        if !headers::names_its_host(request.version(), request.uri(), request.headers()) {
            return Err(Refusal::BadAuthority);
        }
        if let Some(authority) = request.uri().authority() {
            return Ok(authority.clone());
        }
        let Some(host) = request.headers().get(HOST) else {
            return self.target_authority.clone().ok_or(Refusal::BadAuthority);
        };
        let mut known = self.authority.borrow_mut();
        match &*known {
            Some(known) if known.as_str().as_bytes() == host.as_bytes() => Ok(known.clone()),
            _ => {
                let authority =
                    Authority::try_from(host.as_bytes()).map_err(|_| Refusal::BadAuthority)?;
                *known = Some(authority.clone());
                Ok(authority)
            }
        }
    }
}

/// Why a request was not passed on, or not answered by whom it was.
enum Unsent {
    Refused(Refusal),
    Intercepted(Box<Intercept>),
}

impl From<Refusal> for Unsent {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What few requests have: retries, or limits of their own.
struct Special {
    timeouts: Timeouts,
    retry: Option<RetryPolicy>,
}

impl Special {
    /// What `route` and the headers of `request` say, where they say anything. The headers by which they do are removed.
    fn of(request: &mut Request<Incoming>, route: &Route<'_>) -> Option<Box<Self>> {
        let policy = route.policy;
        let overrides = Overrides::take(request.headers_mut(), policy.allow_l5d_request_headers);
        if policy.retry.is_none() && overrides.is_empty() {
            return None;
        }
        let retry = overrides.retry(policy.retry.as_ref());
        Some(Box::new(Self {
            timeouts: overrides.timeouts(policy.timeouts),
            retry: retry.filter(|retry| retry.max_retries > 0),
        }))
    }
}

fn filter(
    filters: &Filters,
    request: &mut Request<Incoming>,
    authority: &Authority,
    prefix: Option<&str>,
) -> Result<(), Unsent> {
    let uri = request.uri().clone();
    let mut head = FilterHead {
        uri: &uri,
        authority: Some(authority),
        headers: request.headers_mut(),
    };
    filters
        .on_request(&mut head, prefix, fastrand::u64(..))
        .map_err(|intercept| Unsent::Intercepted(Box::new(intercept)))
}
