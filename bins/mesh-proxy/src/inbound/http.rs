//! One HTTP request to the application: authorized, handed over, its response given back.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONNECTION, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::service::Service;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_http::Incoming;
use mesh_http::body::{End, Observe, Observed};
use mesh_http::connections::{Activity, Connection, InFlight};
use mesh_http::headers::OrigProto;
use mesh_http::{Error, Prefixed, headers, tcp};
use mesh_metrics::{ActiveRequest, Completion};
use mesh_policy::inbound::ServerPolicy;

use super::admission::{Admission, Turned};
use super::{Client, Failure, Peer};
use crate::control::Watched;
use crate::outbound::until_closed;
use crate::worker::Worker;
use crate::worker::answer::{Form, Refusal, answer_version, completion, completion_at_end};
use crate::worker::body::{RequestBody, ResponseBody};
use crate::worker::expect;
use crate::worker::stream::Stream;
use crate::worker::tunnel;
use crate::worker::upstream::{Again, Held, Upstream, interim};

/// How often a request is sent anew after the application's connection turned out to be closed.
const MAX_RESENDS: usize = 3;
/// How often after the application turned it away unread.
const MAX_REFUSED: usize = 2;

type Answer = Response<ResponseBody<Record>>;

/// What all requests of one connection share.
pub(super) struct Http {
    worker: Rc<Worker>,
    application: Rc<Upstream>,
    admission: Admission,
    activity: Activity,
    /// What the application is told of who calls.
    client_id: Option<HeaderValue>,
    /// The last authority, written as `Host`: clients rarely change it. A copy, which keeps no buffer of hyper.
    host: RefCell<Option<HeaderValue>>,
    switch: RefCell<Option<Switch>>,
}

/// A connection that switches protocols.
pub(super) struct Switch {
    client: OnUpgrade,
    upstream: Prefixed<Stream>,
    /// The request that asked for it: what it may do is asked again at each change of the policy.
    request: Box<Request<()>>,
}

/// The head of a request that may switch protocols, as it came.
struct Switching(Box<Request<()>>);

/// A request from its head to the end of its response.
#[derive(Debug)]
struct Asked {
    started: Instant,
    active: ActiveRequest,
    _in_flight: InFlight,
}

/// Held by a response's body until it ends; then the connection is given back and the request recorded.
#[derive(Debug)]
pub(super) struct Record {
    asked: Asked,
    held: Held,
    completion: Option<Completion>,
}

/// hyper's service of one connection.
pub(super) fn service(
    http: Rc<Http>,
) -> impl Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: 'static> {
    hyper::service::service_fn(move |request| {
        let http = http.clone();
        async move { Ok(http.answer(request).await) }
    })
}

impl Http {
    pub(super) fn new(
        worker: Rc<Worker>,
        application: SocketAddr,
        watched: Arc<Watched<ServerPolicy>>,
        activity: Activity,
        client: Client,
    ) -> Rc<Self> {
        let client_id = match &client.peer {
            Peer::Tls(Some(identity)) => HeaderValue::from_str(identity.as_str()).ok(),
            Peer::Tls(None) | Peer::Plaintext => None,
        };
        Rc::new(Self {
            application: worker.application(application),
            admission: Admission::new(worker.clone(), watched, client, application),
            worker,
            activity,
            client_id,
            host: RefCell::default(),
            switch: RefCell::default(),
        })
    }

    /// What an answer of 101 or a CONNECT has left to be carried.
    pub(super) fn take_switch(&self) -> Option<Switch> {
        self.switch.take()
    }

    async fn answer(self: &Rc<Self>, mut request: Request<Incoming>) -> Answer {
        let in_flight = self.activity.request();
        let (version, form) = (request.version(), Form::of(&request));
        let tapped = self
            .worker
            .shared
            .taps
            .begin(&request, || self.admission.subject(&request));
        let switching = Switching::of(&request);
        let started = Instant::now();
        let (counter, admitted) = self.admission.admit(&mut request, started);
        let asked = Asked {
            started,
            active: counter.start(),
            _in_flight: in_flight,
        };
        let mut response = match admitted {
            Ok(()) => match self.forward(request, switching).await {
                Ok((response, held)) => respond(response, asked, held),
                Err(refusal) => {
                    asked.ended(Completion::Failed(refusal.failure()));
                    refusal.answer(form)
                }
            },
            Err(turned) => {
                let (mut answer, completion) = turned.answer(form);
                asked.ended(completion);
                if matches!(turned, Turned::Unauthorized) && version != Version::HTTP_2 {
                    // Who may do nothing here has no use for a place.
                    answer
                        .headers_mut()
                        .insert(CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
        };
        *response.version_mut() = answer_version(version);
        match tapped {
            Some(tapped) => tapped.answer(response),
            None => response,
        }
    }

    async fn forward(
        self: &Rc<Self>,
        mut request: Request<Incoming>,
        switching: Option<Switching>,
    ) -> Result<(Response<Incoming>, Held), Refusal> {
        if !headers::names_its_host(request.version(), request.uri(), request.headers()) {
            return Err(Refusal::BadAuthority);
        }
        self.name_client(&mut request);
        if request.version() == Version::HTTP_2 {
            if tunnel::is_asked_for(&request)?
                && let Some(switching) = switching
            {
                return Box::pin(self.tunnel(request, switching)).await;
            }
            name_authority(&mut request)?;
            if let Some(orig) = OrigProto::take(request.headers_mut()) {
                self.downgrade(&mut request, orig);
            }
        } else {
            request.headers_mut().remove(headers::ORIG_PROTO);
            self.name_host(&mut request);
            if headers::is_upgrade(request.version(), request.headers()) {
                headers::keep_only_upgrade(request.headers_mut());
            } else {
                headers::remove_hop_by_hop(request.headers_mut());
            }
            if let Some(switching) = switching {
                return Box::pin(self.switch(request, switching)).await;
            }
        }
        self.exchange(RequestBody::of(request, &self.activity))
            .await
    }

    /// Hands `request` to the application, over a fresh connection where the one at hand had closed.
    async fn exchange(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Held), Refusal> {
        let carriage = self.application.carriage(request.version(), request.body());
        let (mut resends, mut refused) = (0, 0);
        loop {
            let fresh = resends + refused > 0;
            let lease = match self.application.lease(carriage, fresh).await {
                Ok(lease) => lease,
                Err(error) => {
                    tracing::debug!(application = %self.application.endpoint().addr, %error, "cannot connect");
                    return Err(Refusal::Connect);
                }
            };
            tunnel::permitted(&request, &lease).await?;
            let unanswered = match self.application.send(lease, &mut request).await {
                Ok(answered) => return Ok(answered),
                Err(unanswered) => unanswered,
            };
            let sends_again = match unanswered.again {
                Again::No => false,
                Again::Unnoticed => resends < MAX_RESENDS,
                Again::Refused | Again::Unheard => refused < MAX_REFUSED,
            };
            if !sends_again {
                let error = unanswered.error;
                tracing::debug!(application = %self.application.endpoint().addr, %error, "broke off");
                if error.is_unprocessed() {
                    return Err(Refusal::Unprocessed);
                }
                return Err(Refusal::Broken);
            }
            match unanswered.again {
                Again::Refused | Again::Unheard => refused += 1,
                Again::No | Again::Unnoticed => resends += 1,
            }
        }
    }

    /// Hands over a request that may switch protocols, over a connection of its own.
    async fn switch(
        &self,
        mut request: Request<Incoming>,
        Switching(asked): Switching,
    ) -> Result<(Response<Incoming>, Held), Refusal> {
        let client = hyper::upgrade::on(&mut request);
        let connect = request.method() == Method::CONNECT;
        let mut sender = self
            .application
            .switchable()
            .await
            .map_err(|_| Refusal::Connect)?;
        let mut request = RequestBody::of(request, &self.activity);
        let gate = interim(request.body().gate());
        let response = sender
            .send(&mut request, gate)
            .await
            .map_err(|_| Refusal::Broken)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            || (connect && response.status().is_success())
        {
            *self.switch.borrow_mut() = Some(Switch {
                client,
                upstream: sender.switched().ok_or(Refusal::Broken)?,
                request: asked,
            });
        }
        Ok((response, Held::Nothing))
    }

    /// Hands over an extended CONNECT. What its stream is for is carried until it has ended, or the policy no longer lets the
    /// client in.
    async fn tunnel(
        self: &Rc<Self>,
        mut request: Request<Incoming>,
        Switching(asked): Switching,
    ) -> Result<(Response<Incoming>, Held), Refusal> {
        name_authority(&mut request)?;
        request.headers_mut().remove(headers::ORIG_PROTO);
        let client = request.body_mut().take_offer();
        let request = RequestBody::of(request, &self.activity);
        let (mut response, held) = self.exchange(request).await?;
        let Some(upstream) = response.body_mut().take_tunnel() else {
            return Ok((response, held));
        };
        let (http, in_flight) = (self.clone(), self.activity.request());
        tokio::task::spawn_local(async move {
            tokio::select! {
                carried = tunnel::carry(client, upstream) => if let Err(error) = carried {
                    tracing::debug!(%error, "a stream that carries another protocol failed");
                },
                reason = http.admission.denied(&asked) => {
                    tracing::debug!(%reason, "a stream that carries another protocol was ended");
                }
            }
            drop((held, in_flight));
        });
        Ok((response, Held::Nothing))
    }

    /// Makes `Host` say what a target in absolute form does, which outranks it (RFC 9112, section 3.2.2).
    fn name_host(&self, request: &mut Request<Incoming>) {
        let Some(authority) = request.uri().authority() else {
            return;
        };
        let mut known = self.host.borrow_mut();
        let authority = authority.as_str();
        if known.as_ref().is_none_or(|known| known != authority) {
            *known = HeaderValue::from_str(authority).ok();
        }
        if let Some(host) = known.clone() {
            request.headers_mut().insert(HOST, host);
        }
    }

    /// Says who the client is, if it has proven that; what it says itself is removed.
    fn name_client(&self, request: &mut Request<Incoming>) {
        headers::remove_client_id(request.headers_mut());
        if let Some(client_id) = &self.client_id {
            let client_id = client_id.clone();
            request.headers_mut().insert(headers::CLIENT_ID, client_id);
        }
    }

    /// Turns a request that was carried over HTTP/2 back into what the client sent.
    fn downgrade(&self, request: &mut Request<Incoming>, orig: OrigProto) {
        self.name_host(request);
        if !orig.absolute_form {
            headers::to_origin(request.uri_mut());
        }
        *request.version_mut() = orig.version;
    }
}

impl Asked {
    /// The proxy answered itself.
    fn ended(self, completion: Completion) {
        let after = self.started.elapsed();
        self.active.finish(completion, after);
    }
}

impl Switching {
    /// That of `request`, if it is one.
    fn of(request: &Request<Incoming>) -> Option<Self> {
        let switches = request.method() == Method::CONNECT
            || headers::is_upgrade(request.version(), request.headers());
        switches.then(|| Self(Box::new(without_body(request))))
    }
}

impl Switch {
    /// Carries the bytes of both sides until they have ended, or the policy no longer lets the client in.
    pub(super) async fn carry(self, http: &Http, connection: &Connection) -> Result<(), Failure> {
        tokio::select! {
            carried = Self::bytes(self.client, self.upstream, connection) => Ok(carried?),
            reason = http.admission.denied(&self.request) => Err(Failure::Denied(reason)),
        }
    }

    async fn bytes(
        client: OnUpgrade,
        mut upstream: Prefixed<Stream>,
        connection: &Connection,
    ) -> Result<(), Error> {
        let mut client = TokioIo::new(client.await?);
        until_closed(connection, tcp::carry(&mut client, &mut upstream, &())).await
    }
}

impl Observe for Record {
    fn ended(self, end: End<'_>) {
        let completion = match end {
            End::Complete(trailers) => {
                self.held.complete();
                completion_at_end(self.completion, trailers)
            }
            End::Failed => Completion::Failed(mesh_metrics::Failure::Reset),
            End::Late => Completion::Failed(mesh_metrics::Failure::Timeout),
            End::Dropped => Completion::Failed(mesh_metrics::Failure::Canceled),
        };
        let Asked {
            started, active, ..
        } = self.asked;
        active.finish(completion, started.elapsed());
    }
}

/// Leaves an HTTP/2 request the one authority by which it was authorized, and that as `:authority` (RFC 9113, section 8.3.1).
fn name_authority(request: &mut Request<Incoming>) -> Result<(), Refusal> {
    if request.uri().authority().is_none() {
        let named = headers::authority(request.uri(), request.headers());
        headers::to_absolute(request.uri_mut(), named.ok_or(Refusal::BadAuthority)?);
    }
    request.headers_mut().remove(HOST);
    Ok(())
}

/// What a policy is asked about `request`.
fn without_body<B>(request: &Request<B>) -> Request<()> {
    let mut asked = Request::new(());
    asked.method_mut().clone_from(request.method());
    asked.uri_mut().clone_from(request.uri());
    asked.headers_mut().clone_from(request.headers());
    asked
}

fn respond(response: Response<Incoming>, asked: Asked, held: Held) -> Answer {
    let record = Record {
        asked,
        held,
        completion: completion(response.status(), response.headers()),
    };
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let mut response = response.map(|body| ResponseBody::Upstream {
        body: Observed::new(body.into(), record),
        deadlines: None,
        failed: None,
    });
    if response.version() != Version::HTTP_2 && !switched {
        headers::remove_hop_by_hop(response.headers_mut());
    }
    expect::end_after(&mut response);
    response
}
