//! The HTTP requests of one connection of the application: routed, answered.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_balance::core::Pick;
use mesh_breaker::{FailureKind, Outcome};
use mesh_http::body::Observed;
use mesh_http::client::Switched;
use mesh_http::connections::{Activity, Connection};
use mesh_http::{Error, headers, tcp};
use mesh_metrics::{Completion, ResourceLabels, RouteLabels};
use mesh_policy::outbound::{Protocol, RoutePolicy, Timeouts};
use mesh_policy::route::{Found, RequestView};
use mesh_policy::{Meta, outbound};

use super::choose::{Tried, choose};
use super::exchange::{Exchange, respond, set_host};
use super::opaque::until_closed;
use super::record::{Asked, Attempt, Kept, Record};
use crate::control::Watched;
use crate::labels::resource;
use crate::model::{Backend, Endpoint, Outbound, Target};
use crate::worker::Worker;
use crate::worker::answer::{Form, Refusal, answer_version};
use crate::worker::body::{RequestBody, ResponseBody};
use crate::worker::deadlines::Deadlines;
use crate::worker::stream::Stream;
use crate::worker::upstream::Held;

/// What the application is answered with.
pub(crate) type Answer = Response<ResponseBody<Record>>;

/// What all requests of one connection share.
#[derive(Debug)]
pub(crate) struct Http {
    worker: Rc<Worker>,
    watched: Arc<Watched<Outbound>>,
    activity: Activity,
    kept: Kept,
    /// Stands in for a `Host` that an HTTP/1.0 client may leave out.
    target_authority: Option<Authority>,
    /// The last `Host` and what it was read as: clients rarely change it.
    authority: RefCell<Option<(HeaderValue, Authority)>>,
    switch: RefCell<Option<Switch>>,
}

/// A connection that switches protocols: both of its ends, as they will be once the heads have been sent.
#[derive(Debug)]
pub(crate) struct Switch {
    client: OnUpgrade,
    upstream: Switched<Stream>,
    /// In flight until the tunnel ends.
    pick: Option<Pick<Endpoint>>,
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
        let mut response = match self.route(&request) {
            Ok(route) => {
                let counters = self.kept.counters(
                    &self.worker.shared.metrics.families,
                    &route.parent,
                    &route.meta,
                    &route.backend,
                );
                let mut asked = Some(Asked::new(counters, in_flight));
                match self.forward(request, &route, &mut asked).await {
                    Ok(response) => response,
                    Err(refusal) => {
                        if let Some(asked) = asked {
                            asked.refused(refusal.failure());
                        }
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

    /// Sends `request` where `route` leads. `asked` goes into the response, if there is one.
    async fn forward(
        &self,
        mut request: Request<Incoming>,
        route: &Route,
        asked: &mut Option<Asked>,
    ) -> Result<Answer, Refusal> {
        let authority = self.authority_of(&request)?;
        request.headers_mut().remove(headers::ORIG_PROTO);
        if request.version() == Version::HTTP_2 {
            if request.method() == Method::CONNECT {
                return Err(Refusal::Unsupported);
            }
        } else {
            let upgrade = headers::is_upgrade(request.version(), request.headers());
            if upgrade {
                headers::keep_only_upgrade(request.headers_mut());
            } else {
                headers::remove_hop_by_hop(request.headers_mut());
            }
            if upgrade || request.method() == Method::CONNECT {
                // Boxed, as every request's future has room for what few requests do.
                return Box::pin(self.switch_in_time(request, route, &authority, asked)).await;
            }
        }
        let exchange = Exchange::new(&self.worker, &route.backend, &authority, asked);
        exchange
            .run(RequestBody::of(request, &self.activity), route.timeouts)
            .await
    }

    /// As [`Self::switch`], within the route's deadlines until the head of the response has come. What a connection is switched
    /// to may last.
    async fn switch_in_time(
        &self,
        request: Request<Incoming>,
        route: &Route,
        authority: &Authority,
        asked: &mut Option<Asked>,
    ) -> Result<Answer, Refusal> {
        let attempt = Cell::new(None);
        let switch = self.switch(request, &route.backend, authority, asked, &attempt);
        let Some(mut deadlines) = Deadlines::new(route.timeouts, None) else {
            return switch.await;
        };
        tokio::select! {
            answered = switch => answered,
            () = deadlines.passed() => {
                if let Some(attempt) = attempt.take() {
                    attempt.failed(FailureKind::Timeout);
                }
                Err(Refusal::Deadline)
            }
        }
    }

    /// Sends a request that may switch protocols over a connection of its own, in HTTP/1. `attempt` holds who has it until then;
    /// `asked` stays where it is when there is no response.
    async fn switch(
        &self,
        mut request: Request<Incoming>,
        backend: &Arc<Backend>,
        authority: &Authority,
        asked: &mut Option<Asked>,
        attempt: &Cell<Option<Attempt>>,
    ) -> Result<Answer, Refusal> {
        let client = hyper::upgrade::on(&mut request);
        let connect = request.method() == Method::CONNECT;
        let mut request = RequestBody::of(request, &self.activity);
        let mut tried = Tried::default();
        let (mut chosen, (mut sender, upstream)) = loop {
            let chosen = choose(&self.worker, backend, &tried).await?;
            match chosen.upstream.switchable().await {
                Ok(connected) => break (chosen, connected),
                Err(error) => chosen.unreachable(&mut tried, &error),
            }
        };
        let replaced = chosen.upstream.endpoint().authority_override.as_ref();
        // A target in absolute form outranks Host (RFC 9112, section 3.2.2).
        let absolute = request.uri().scheme().is_some();
        if replaced.is_some() || absolute || !request.headers().contains_key(HOST) {
            set_host(&mut request, replaced.unwrap_or(authority));
        }
        attempt.set(
            asked
                .as_ref()
                .map(|asked| asked.attempt(chosen.pick.take())),
        );
        let sent = sender.send_request(request).await;
        // It is there, set above; only the deadline takes it, which ends this.
        let Some(mut attempt) = attempt.take() else {
            return Err(Refusal::Broken);
        };
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(endpoint = %chosen.upstream.endpoint().addr, %error, "broke off");
                attempt.failed(FailureKind::Broken);
                return Err(Refusal::Broken);
            }
        };
        let Some(asked) = asked.take() else {
            return Err(Refusal::Broken);
        };
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS
            || (connect && response.status().is_success());
        let pick = if switched { attempt.take_pick() } else { None };
        let record = Record::new(
            asked,
            attempt,
            Held::Nothing,
            response.status(),
            response.headers(),
        );
        if !switched {
            return Ok(respond(response, record, None));
        }
        *self.switch.borrow_mut() = Some(Switch {
            client,
            upstream,
            pick,
        });
        Ok(response.map(|body| ResponseBody::Upstream {
            body: Observed::new(body, record),
            deadlines: None,
            failed: None,
        }))
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

    /// The route that `request` takes.
    fn route(&self, request: &Request<Incoming>) -> Result<Route, Refusal> {
        let policy = self.watched.load();
        let view = RequestView::from(request);
        match &policy.protocol {
            Protocol::Detect { http1, http2, .. } => {
                let routes = if request.version() == Version::HTTP_2 {
                    http2
                } else {
                    http1
                };
                Route::of(&policy, routes.find(&view))
            }
            Protocol::Http1(routes) | Protocol::Http2(routes) => {
                Route::of(&policy, routes.find(&view))
            }
            Protocol::Grpc(routes) => Route::of(&policy, routes.find(&view)),
            Protocol::Opaque(_) | Protocol::Tls(_) => Err(Refusal::NoRoute),
        }
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

/// What a request takes of a policy; it holds though the policy changes under way.
struct Route {
    parent: Arc<Meta>,
    meta: Arc<Meta>,
    backend: Arc<Backend>,
    timeouts: Timeouts,
}

impl Route {
    fn of<M>(
        policy: &outbound::OutboundPolicy<Arc<Backend>>,
        found: Option<Found<'_, M, RoutePolicy<Arc<Backend>>>>,
    ) -> Result<Self, Refusal> {
        let found = found.ok_or(Refusal::NoRoute)?;
        let backend = found
            .policy
            .backends
            .pick(fastrand::u64(..))
            .ok_or(Refusal::NoBackend)?;
        Ok(Self {
            parent: policy.meta.clone(),
            meta: found.route.meta.clone(),
            backend: backend.backend.clone(),
            timeouts: found.policy.timeouts,
        })
    }
}

impl Switch {
    /// Carries the bytes of both sides until they have ended.
    pub(crate) async fn carry(self, connection: &Connection) -> Result<(), Error> {
        let mut client = TokioIo::new(self.client.await?);
        let ended =
            |_| Error::Connect("the upstream ended before it switched protocols".to_owned());
        let mut upstream = self.upstream.await.map_err(ended)?;
        let carried = until_closed(connection, tcp::carry(&mut client, &mut upstream, &())).await;
        if let Some(pick) = self.pick {
            pick.finish(std::time::Instant::now(), Outcome::Success);
        }
        carried
    }
}
