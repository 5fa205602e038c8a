//! Whether a request is let in: authorized by the policy of its port, changed as its route says, and within the rate limits.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::Request;
use mesh_http::Incoming;
use mesh_http::body::Observe;
use mesh_http::headers;
use mesh_metrics::{Completion, HttpHandle, ResourceLabels, RouteLabels};
use mesh_policy::Meta;
use mesh_policy::filter::{FilterHead, Intercept};
use mesh_policy::inbound::rate_limit::{ClientLimit, Limited};
use mesh_policy::inbound::{DenyReason, RuleFilters, ServerPolicy, Verdict};
use mesh_policy::route::RequestView;

use super::{Client, Peer, server_labels};
use crate::control::Watched;
use crate::labels::resource;
use crate::tap::Subject;
use crate::worker::Worker;
use crate::worker::answer::{Form, Refusal, come_again, intercepted};
use crate::worker::body::ResponseBody;

/// What lets the requests of one connection in.
pub(super) struct Admission {
    worker: Rc<Worker>,
    watched: Arc<Watched<ServerPolicy>>,
    client: Client,
    application: SocketAddr,
    /// What holds for every request, where no route tells them apart.
    always: RefCell<Option<Always>>,
    /// The client's limits, resolved when they are first needed and again when they have changed.
    limit: RefCell<Option<ClientLimit>>,
}

/// What a version of the policy says of every request of the client.
struct Always {
    version: u64,
    counter: HttpHandle,
    limit: Option<ClientLimit>,
    audited: bool,
}

/// Why a request is not let in.
#[derive(Debug)]
pub(super) enum Turned {
    /// It may not be.
    Unauthorized,
    /// It cannot be told whom it is for, which a filter might depend on.
    BadAuthority,
    /// A filter of its route answers it.
    Intercepted(Intercept),
    /// It is one too many.
    Limited(Limited),
}

impl Admission {
    pub(super) fn new(
        worker: Rc<Worker>,
        watched: Arc<Watched<ServerPolicy>>,
        client: Client,
        application: SocketAddr,
    ) -> Self {
        Self {
            worker,
            watched,
            client,
            application,
            always: RefCell::default(),
            limit: RefCell::default(),
        }
    }

    /// Whether `request`, which came `now`, is let in, and the counter for it. Where no route tells requests apart, the
    /// policy is asked once for each of its versions. Where one does, the filters of its rule are applied.
    pub(super) fn admit(
        &self,
        request: &mut Request<Incoming>,
        now: Instant,
    ) -> (HttpHandle, Result<(), Turned>) {
        let version = self.watched.version();
        if let Some(always) = &*self.always.borrow()
            && always.version == version
        {
            if always.audited {
                self.audited(None);
            }
            return (always.counter.clone(), within(always.limit.as_ref(), now));
        }
        let policy = self.watched.load();
        let verdict = self.verdict(&policy, request);
        let (Verdict::Allowed { route, .. } | Verdict::Denied { route, .. }) = verdict;
        let port = self.application.port();
        let counter = (self.worker.counters).of(port, &policy, route, || {
            let labels = RouteLabels {
                parent: server_labels(&policy.labels, port),
                route: route.map_or_else(
                    || ResourceLabels::default_named("default"),
                    |meta| resource(meta),
                ),
            };
            let families = &self.worker.shared.metrics.families;
            families.inbound_http.route(&labels)
        });
        let Verdict::Allowed {
            authorization,
            filters,
            ..
        } = verdict
        else {
            return (counter, Err(Turned::Unauthorized));
        };
        let audited = authorization.is_audit();
        if audited {
            self.audited(route.map(|route| &**route));
        }
        if let Some(filters) = filters
            && let Err(turned) = filtered(filters, request)
        {
            return (counter, Err(turned));
        }
        let limit = self.limit_of(&policy, now);
        let within = within(limit.as_ref(), now);
        if policy.routes().is_none() {
            *self.always.borrow_mut() = Some(Always {
                version,
                counter: counter.clone(),
                limit,
                audited,
            });
        }
        (counter, within)
    }

    /// Resolves when the policy, as it changes, no longer lets the client make `request`.
    pub(super) async fn denied(&self, request: &Request<()>) -> DenyReason {
        let mut version = self.watched.version();
        loop {
            if let Some(reason) = self.verdict(&self.watched.load(), request).reason() {
                return reason;
            }
            version = self.watched.changed(version).await;
        }
    }

    /// Between whom `request` goes, for those who observe it.
    pub(super) fn subject(&self, request: &Request<Incoming>) -> Subject<'static> {
        let policy = self.watched.load();
        let (Verdict::Allowed { route, .. } | Verdict::Denied { route, .. }) =
            self.verdict(&policy, request);
        let route = route.map(|route| &**route);
        Subject::inbound(&self.client, self.application, &policy.labels, route)
    }

    fn verdict<'a, B>(&'a self, policy: &'a ServerPolicy, request: &Request<B>) -> Verdict<'a> {
        let (address, peer) = (self.client.address.ip(), self.client.peer.for_policy());
        policy.authorize_request(&RequestView::from(request), address, peer)
    }

    fn limit_of(&self, policy: &ServerPolicy, now: Instant) -> Option<ClientLimit> {
        let limit = policy.rate_limit.as_ref()?;
        let mut known = self.limit.borrow_mut();
        match &*known {
            Some(known) if known.is_of(limit) => {}
            _ => {
                let identity = match &self.client.peer {
                    Peer::Tls(identity) => identity.as_ref(),
                    Peer::Plaintext => None,
                };
                *known = Some(limit.client(identity, now));
            }
        }
        known.clone()
    }

    /// The request passes only because the policy is to be tried out.
    fn audited(&self, route: Option<&Meta>) {
        let client = match &self.client.peer {
            Peer::Tls(Some(identity)) => identity.as_str(),
            Peer::Tls(None) | Peer::Plaintext => "",
        };
        tracing::info!(
            client,
            address = %self.client.address,
            port = self.application.port(),
            route = route.map_or("", Meta::name),
            "let in by the audit policy alone"
        );
    }
}

/// Changes `request` as the rule that takes it says.
fn filtered(filters: RuleFilters<'_>, request: &mut Request<Incoming>) -> Result<(), Turned> {
    if !headers::names_its_host(request.version(), request.uri(), request.headers()) {
        return Err(Turned::BadAuthority);
    }
    let authority = headers::authority(request.uri(), request.headers());
    let uri = request.uri().clone();
    let mut head = FilterHead {
        uri: &uri,
        authority: authority.as_ref(),
        headers: request.headers_mut(),
    };
    filters
        .on_request(&mut head, fastrand::u64(..))
        .map_err(Turned::Intercepted)
}

fn within(limit: Option<&ClientLimit>, now: Instant) -> Result<(), Turned> {
    limit.map_or(Ok(()), |limit| limit.check(now).map_err(Turned::Limited))
}

impl Turned {
    /// The answer, and what it is counted as.
    pub(super) fn answer<O: Observe>(
        &self,
        form: Form,
    ) -> (http::Response<ResponseBody<O>>, Completion) {
        let refusal = match self {
            Self::Unauthorized => Refusal::Unauthorized,
            Self::BadAuthority => Refusal::BadAuthority,
            Self::Intercepted(intercept) => return intercepted(intercept, form),
            Self::Limited(_) => Refusal::RateLimited,
        };
        let mut answer = refusal.answer(form);
        if let Self::Limited(limited) = self {
            let (name, value) = come_again(form, limited.retry_after);
            answer.headers_mut().insert(name, value);
        }
        (answer, Completion::Failed(refusal.failure()))
    }
}
