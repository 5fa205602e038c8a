//! The HTTP requests of one connection of the application: routed, answered.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::Service;
use mesh_http::connections::Activity;
use mesh_http::headers;
use mesh_metrics::{Completion, ResourceLabels, RouteLabels};

use super::exchange::{Answered, Exchange};
use super::record::{Asked, Kept, Record};
use super::route::Route;
use super::switch::{Switch, Switching};
use crate::control::Watched;
use crate::labels::resource;
use crate::model::{Outbound, Target};
use crate::worker::Worker;
use crate::worker::answer::{Form, Refusal, answer_version};
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
    /// The last `Host` and what it was read as: clients rarely change it.
    authority: RefCell<Option<(HeaderValue, Authority)>>,
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
                match self.forward(request, &route, &asked).await {
                    Ok(answered) => answered.pass_on(asked),
                    Err(refusal) => {
                        asked.ended(Completion::Failed(refusal.failure()));
                        refusal.answer(form)
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
    ) -> Result<Answered, Refusal> {
        let authority = self.authority_of(&request)?;
        request.headers_mut().remove(headers::ORIG_PROTO);
        let backend = route.backend().ok_or(Refusal::NoBackend)?;
        if request.version() == Version::HTTP_2 {
            if tunnel::is_asked_for(&request)? {
                let timeouts = route.policy.timeouts;
                let tunnel = self.tunnel(request, backend, &authority, asked, timeouts);
                return Box::pin(tunnel).await;
            }
        } else {
            let upgrade = headers::is_upgrade(request.version(), request.headers());
            if upgrade {
                headers::keep_only_upgrade(request.headers_mut());
            } else {
                headers::remove_hop_by_hop(request.headers_mut());
            }
            if upgrade || request.method() == Method::CONNECT {
                let timeouts = route.policy.timeouts;
                let switching = Switching {
                    http: self,
                    backend,
                    authority: &authority,
                    asked,
                };
                // Boxed, as every request's future has room for what few requests do.
                return Box::pin(switching.run(request, timeouts)).await;
            }
        }
        let exchange = Exchange::new(&self.worker, backend, &authority, asked);
        let mut request = RequestBody::of(request, &self.activity);
        exchange.run(&mut request, route.policy.timeouts).await
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
            Some((read, authority)) if read == host => Ok(authority.clone()),
            _ => {
                let authority =
                    Authority::try_from(host.as_bytes()).map_err(|_| Refusal::BadAuthority)?;
                *known = Some((host.clone(), authority.clone()));
                Ok(authority)
            }
        }
    }
}
