use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::rate_limit::RateLimit;
use super::{Authorization, DefaultPolicy, Peer};
use crate::Meta;
use crate::filter::{FilterHead, Filters, Intercept};
use crate::route::{self, GrpcMatch, HttpMatch, Match, RequestView, Route};

/// What a port expects and whom it lets in.
#[derive(Clone, Debug)]
pub struct ServerPolicy {
    /// What clients are expected to speak, with the routes of it.
    pub protocol: ServerProtocol,
    /// Who is let in, on every route. Nobody when empty.
    pub authorizations: Vec<Authorization>,
    /// How many requests are let in; without limit when absent. For HTTP requests that are otherwise let in.
    pub rate_limit: Option<RateLimit>,
    /// The addresses that clients may connect to; every one when empty. See [`serves`](Self::serves).
    pub server_ips: BTreeSet<IpAddr>,
    /// Labels for metrics, such as `group`, `kind` and `name` of the server's resource.
    pub labels: BTreeMap<String, String>,
}

/// What clients are expected to speak.
#[derive(Clone, Debug)]
pub enum ServerProtocol {
    /// Find out.
    Detect {
        /// How long the client has to say something recognizable; opaque after that.
        timeout: Duration,
        /// The routes when it speaks HTTP.
        http: Vec<InboundHttpRoute>,
    },
    /// HTTP/1.
    Http1(Vec<InboundHttpRoute>),
    /// HTTP/2.
    Http2(Vec<InboundHttpRoute>),
    /// gRPC.
    Grpc(Vec<InboundGrpcRoute>),
    /// Bytes that are not to be looked into.
    Opaque,
    /// TLS of the application's own.
    Tls,
}

/// A route for HTTP requests that come in.
pub type InboundHttpRoute = Route<HttpMatch, RouteAuthorizations>;

/// A route for gRPC calls that come in.
pub type InboundGrpcRoute = Route<GrpcMatch, RouteAuthorizations>;

/// Who is let in on one rule of a route, and what is done to requests there.
#[derive(Clone, Debug, Default)]
pub struct RouteAuthorizations {
    /// Whom the route lets in beyond those the server lets in. Shared by the rules of a route.
    pub extra: Arc<[Authorization]>,
    /// What is done to requests that are let in.
    pub filters: Filters,
}

/// What is done to a request that was let in on a rule of a route.
#[derive(Clone, Copy, Debug)]
pub struct RuleFilters<'a> {
    filters: &'a Filters,
    matched_prefix: Option<&'a str>,
}

/// The routes that apply to a request.
#[derive(Clone, Copy, Debug)]
pub enum Routes<'a> {
    /// HTTP routes.
    Http(&'a [InboundHttpRoute]),
    /// gRPC routes.
    Grpc(&'a [InboundGrpcRoute]),
}

/// Whether a client is let in.
#[derive(Clone, Debug)]
#[must_use]
pub enum Verdict<'a> {
    /// It is.
    Allowed {
        /// By this.
        authorization: &'a Authorization,
        /// The route taken, for a request on a server with routes.
        route: Option<&'a Arc<Meta>>,
        /// What is to be done to the request, when something is.
        filters: Option<RuleFilters<'a>>,
    },
    /// It is not.
    Denied {
        /// For this.
        reason: DenyReason,
        /// The route taken, for a request on a server with routes.
        route: Option<&'a Arc<Meta>>,
    },
}

/// Why a client is not let in. When several hold, the one the client came closest with.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
#[non_exhaustive]
pub enum DenyReason {
    /// The server has routes and none is for this request.
    #[error("no route for the request")]
    NoRoute,
    /// Nobody is let in.
    #[error("nobody is authorized")]
    NoAuthorization,
    /// The client's address is in no authorized network.
    #[error("the client's network is not authorized")]
    Network,
    /// From there, mesh TLS is demanded and the client speaks none.
    #[error("mesh TLS is required")]
    Plaintext,
    /// From there, a client certificate is demanded and there was none.
    #[error("a client identity is required")]
    Anonymous,
    /// From there, other identities are let in.
    #[error("the client's identity is not authorized")]
    Identity,
}

impl ServerPolicy {
    /// The policy of a port of which nothing is known but `default`. `cluster` lists the cluster's networks; `timeout`
    /// is for detection.
    pub fn from_default(default: DefaultPolicy, cluster: &[IpNet], timeout: Duration) -> Self {
        let labels = [
            ("group", ""),
            ("kind", "default"),
            ("name", default.as_str()),
        ];
        Self {
            protocol: ServerProtocol::Detect {
                timeout,
                http: Vec::new(),
            },
            authorizations: default.authorizations(cluster),
            rate_limit: None,
            server_ips: BTreeSet::new(),
            labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        }
    }

    /// Lets in `127.0.0.1` and `::1` as well, without proof, as Linkerd's proxy does. See [`Authorization::localhost`].
    pub fn with_localhost(mut self) -> Self {
        self.authorizations.push(Authorization::localhost());
        self
    }

    /// As it is, where what `previous` knows of the use of its rate limits stays known of those that are the same.
    pub fn continuing(mut self, previous: &Self) -> Self {
        if let (Some(limit), Some(previous)) = (&self.rate_limit, &previous.rate_limit) {
            self.rate_limit = Some(limit.continuing(previous));
        }
        self
    }

    /// True when connections to `server_ip`, an address of this machine, are taken. An IPv4 address in IPv6 form is taken as
    /// IPv4.
    pub fn serves(&self, server_ip: IpAddr) -> bool {
        self.server_ips.is_empty() || self.server_ips.contains(&server_ip.to_canonical())
    }

    /// Whether a connection from `client_ip` is let in, routes aside: for opaque connections.
    pub fn authorize<'a>(&'a self, client_ip: IpAddr, peer: impl Into<Peer<'a>>) -> Verdict<'a> {
        decide(&self.authorizations, &[], client_ip, peer.into(), None)
    }

    /// Whether `request` from `client_ip` is let in.
    ///
    /// Without routes, every path is open to whom the server authorizes. With routes, the request must match one, and
    /// whom that route authorizes is let in too.
    pub fn authorize_request<'a>(
        &'a self,
        request: &RequestView<'_>,
        client_ip: IpAddr,
        peer: impl Into<Peer<'a>>,
    ) -> Verdict<'a> {
        let peer = peer.into();
        match self.routes() {
            Some(Routes::Http(routes)) => self.on_route(routes, request, client_ip, peer),
            Some(Routes::Grpc(routes)) => self.on_route(routes, request, client_ip, peer),
            None => self.authorize(client_ip, peer),
        }
    }

    /// The routes, when there are any.
    pub fn routes(&self) -> Option<Routes<'_>> {
        match &self.protocol {
            ServerProtocol::Detect { http: routes, .. }
            | ServerProtocol::Http1(routes)
            | ServerProtocol::Http2(routes) => (!routes.is_empty()).then_some(Routes::Http(routes)),
            ServerProtocol::Grpc(routes) => (!routes.is_empty()).then_some(Routes::Grpc(routes)),
            ServerProtocol::Opaque | ServerProtocol::Tls => None,
        }
    }

    fn on_route<'a, M: Match>(
        &'a self,
        routes: &'a [Route<M, RouteAuthorizations>],
        request: &RequestView<'_>,
        client_ip: IpAddr,
        peer: Peer<'a>,
    ) -> Verdict<'a> {
        let Some(found) = route::find(routes, request) else {
            return Verdict::Denied {
                reason: DenyReason::NoRoute,
                route: None,
            };
        };
        let route = Some(&found.route.meta);
        let matched_prefix = found.matched_prefix();
        let verdict = decide(
            &self.authorizations,
            &found.policy.extra,
            client_ip,
            peer,
            route,
        );
        verdict.filtered(&found.policy.filters, matched_prefix)
    }
}

impl RuleFilters<'_> {
    /// Applies them to the request; see [`Filters::on_request`].
    ///
    /// # Errors
    ///
    /// What is to be answered in place of passing the request on.
    pub fn on_request(&self, head: &mut FilterHead<'_>, random: u64) -> Result<(), Intercept> {
        self.filters.on_request(head, self.matched_prefix, random)
    }
}

impl<'a> Verdict<'a> {
    fn filtered(mut self, of_rule: &'a Filters, matched_prefix: Option<&'a str>) -> Self {
        if let Self::Allowed { filters, .. } = &mut self
            && !of_rule.is_empty()
        {
            *filters = Some(RuleFilters {
                filters: of_rule,
                matched_prefix,
            });
        }
        self
    }

    /// True when the client is let in.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }

    /// Why it is not, when it is not.
    pub fn reason(&self) -> Option<DenyReason> {
        match self {
            Self::Allowed { .. } => None,
            Self::Denied { reason, .. } => Some(*reason),
        }
    }
}

impl DenyReason {
    /// A word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoAuthorization => "no_authorization",
            Self::Network => "network",
            Self::Plaintext => "plaintext",
            Self::Anonymous => "anonymous",
            Self::Identity => "identity",
        }
    }
}

/// The one place where clients are let in.
fn decide<'a>(
    server: &'a [Authorization],
    extra: &'a [Authorization],
    client_ip: IpAddr,
    peer: Peer<'_>,
    route: Option<&'a Arc<Meta>>,
) -> Verdict<'a> {
    let mut reason = DenyReason::NoAuthorization;
    // What the route adds is nearer to the request, so it is named first.
    for authorization in extra.iter().chain(server) {
        let missed = if !authorization.covers(client_ip) {
            DenyReason::Network
        } else if authorization.authentication.admits(peer) {
            return Verdict::Allowed {
                authorization,
                route,
                filters: None,
            };
        } else {
            match peer {
                Peer::Plaintext => DenyReason::Plaintext,
                Peer::Tls(None) => DenyReason::Anonymous,
                Peer::Tls(Some(_)) => DenyReason::Identity,
            }
        };
        reason = reason.max(missed);
    }
    Verdict::Denied { reason, route }
}
