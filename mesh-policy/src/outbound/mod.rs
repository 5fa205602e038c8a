//! What a request or connection to some target may do: its routes, backends, filters, timeouts and retries.

mod backend;
pub mod l5d;
pub mod retry;

pub use self::backend::{
    BackendKind, BackendSpec, Backoff, FailureAccrual, JitterRatio, Load, Penalty, Queue,
    SuccessRate, Trip,
};

use std::sync::Arc;
use std::time::Duration;

use self::retry::RetryPolicy;
use crate::filter::Filters;
use crate::route::{self, Found, GrpcMatch, HostMatch, HttpMatch, RequestView, Route};
use crate::{Distribution, Meta, StatusSet};

/// The policy for one target. `B` is a handle on a backend: a [`BackendSpec`] as it comes from a controller, and
/// whatever the embedder makes of it after [`map_backends`](Self::map_backends).
#[derive(Clone, Debug)]
pub struct OutboundPolicy<B> {
    /// The target's resource.
    pub meta: Arc<Meta>,
    /// How its connections are to be treated.
    pub protocol: Protocol<B>,
}

/// How connections to a target are to be treated.
#[derive(Clone, Debug)]
pub enum Protocol<B> {
    /// Find out what the client speaks.
    Detect {
        /// How long the client has to say something recognizable; opaque after that.
        timeout: Duration,
        /// When it speaks neither.
        opaque: OpaquePolicy<B>,
        /// When it speaks HTTP/1.
        http1: HttpPolicy<B>,
        /// When it speaks HTTP/2, gRPC included.
        http2: HttpPolicy<B>,
    },
    /// Bytes that are not to be looked into.
    Opaque(OpaquePolicy<B>),
    /// HTTP/1 is known to be spoken.
    Http1(HttpPolicy<B>),
    /// HTTP/2 is known to be spoken.
    Http2(HttpPolicy<B>),
    /// gRPC is known to be spoken.
    Grpc(GrpcPolicy<B>),
    /// TLS of the application's own, routed by server name.
    Tls(TlsPolicy<B>),
}

/// Routes for HTTP requests.
#[derive(Clone, Debug)]
pub struct HttpPolicy<B> {
    /// The routes, in order.
    pub routes: Vec<HttpRoute<B>>,
}

/// Routes for gRPC calls.
#[derive(Clone, Debug)]
pub struct GrpcPolicy<B> {
    /// The routes, in order.
    pub routes: Vec<GrpcRoute<B>>,
}

/// Where opaque connections go.
#[derive(Clone, Debug)]
pub struct OpaquePolicy<B> {
    /// The one route, if any; connections without one are refused.
    pub route: Option<OpaqueRoute<B>>,
}

/// Routes for connections with TLS of the application's own.
#[derive(Clone, Debug)]
pub struct TlsPolicy<B> {
    /// The routes, in order.
    pub routes: Vec<TlsRoute<B>>,
}

/// A route for HTTP requests.
pub type HttpRoute<B> = Route<HttpMatch, RoutePolicy<B>>;

/// A route for gRPC calls.
pub type GrpcRoute<B> = Route<GrpcMatch, RoutePolicy<B>>;

/// What a request on some route gets.
#[derive(Clone, Debug)]
pub struct RoutePolicy<B> {
    /// What is done to it and to its response, wherever it goes.
    pub filters: Filters,
    /// Where it may go.
    pub backends: Distribution<RouteBackend<B>>,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// How it is sent again when it fails; not at all when absent.
    pub retry: Option<RetryPolicy>,
    /// True when its headers may change timeouts and retries; see [`l5d::Overrides`].
    pub allow_l5d_request_headers: bool,
    /// Which HTTP statuses are failures, where the route says so; server errors otherwise.
    pub failures: Option<StatusSet>,
}

/// A backend of a route.
#[derive(Clone, Debug)]
pub struct RouteBackend<B> {
    /// The backend.
    pub backend: B,
    /// What is done to requests that go there and to their responses, after what the route does.
    pub filters: Filters,
}

/// A backend of connections.
#[derive(Clone, Debug)]
pub struct ConnectionBackend<B> {
    /// The backend.
    pub backend: B,
    /// True when a connection that would go there is to be refused.
    pub refused: bool,
}

/// How long a request may take; no limit where absent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Timeouts {
    /// From the start of the request until its response has ended.
    pub request: Option<Duration>,
    /// From the end of the request's body until its response has ended.
    pub response: Option<Duration>,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
}

/// A route for opaque connections.
#[derive(Clone, Debug)]
pub struct OpaqueRoute<B> {
    /// Where the route comes from.
    pub meta: Arc<Meta>,
    /// Where connections may go.
    pub backends: Distribution<ConnectionBackend<B>>,
}

/// A route for connections by TLS server name.
#[derive(Clone, Debug)]
pub struct TlsRoute<B> {
    /// Where the route comes from.
    pub meta: Arc<Meta>,
    /// The server names it is for; any when empty.
    pub snis: Vec<HostMatch>,
    /// Where connections may go.
    pub backends: Distribution<ConnectionBackend<B>>,
}

impl<B> OutboundPolicy<B> {
    /// The same policy over other backend handles. `map` is called once for every mention of a backend.
    pub fn map_backends<C>(&self, mut map: impl FnMut(&B) -> C) -> OutboundPolicy<C> {
        OutboundPolicy {
            meta: Arc::clone(&self.meta),
            protocol: self.protocol.map_backends(&mut map),
        }
    }
}

impl<B> Protocol<B> {
    fn map_backends<C>(&self, map: &mut impl FnMut(&B) -> C) -> Protocol<C> {
        match self {
            Self::Detect {
                timeout,
                opaque,
                http1,
                http2,
            } => Protocol::Detect {
                timeout: *timeout,
                opaque: opaque.map_backends(map),
                http1: http1.map_backends(map),
                http2: http2.map_backends(map),
            },
            Self::Opaque(policy) => Protocol::Opaque(policy.map_backends(map)),
            Self::Http1(policy) => Protocol::Http1(policy.map_backends(map)),
            Self::Http2(policy) => Protocol::Http2(policy.map_backends(map)),
            Self::Grpc(policy) => Protocol::Grpc(policy.map_backends(map)),
            Self::Tls(policy) => Protocol::Tls(policy.map_backends(map)),
        }
    }
}

impl<B> HttpPolicy<B> {
    /// The best rule for `request`.
    pub fn find(&self, request: &RequestView<'_>) -> Option<Found<'_, HttpMatch, RoutePolicy<B>>> {
        route::find(&self.routes, request)
    }

    fn map_backends<C>(&self, map: &mut impl FnMut(&B) -> C) -> HttpPolicy<C> {
        let map_route = |route: &HttpRoute<B>| route.map_policies(|policy| policy.map(&mut *map));
        HttpPolicy {
            routes: self.routes.iter().map(map_route).collect(),
        }
    }
}

impl<B> GrpcPolicy<B> {
    /// The best rule for the call `request`.
    pub fn find(&self, request: &RequestView<'_>) -> Option<Found<'_, GrpcMatch, RoutePolicy<B>>> {
        route::find(&self.routes, request)
    }

    fn map_backends<C>(&self, map: &mut impl FnMut(&B) -> C) -> GrpcPolicy<C> {
        let map_route = |route: &GrpcRoute<B>| route.map_policies(|policy| policy.map(&mut *map));
        GrpcPolicy {
            routes: self.routes.iter().map(map_route).collect(),
        }
    }
}

impl<B> OpaquePolicy<B> {
    /// The backend for a connection, unless it is to be refused. `random` is a uniformly random word.
    pub fn pick(&self, random: u64) -> Option<&B> {
        allowed(&self.route.as_ref()?.backends, random)
    }

    fn map_backends<C>(&self, map: &mut impl FnMut(&B) -> C) -> OpaquePolicy<C> {
        OpaquePolicy {
            route: self.route.as_ref().map(|route| OpaqueRoute {
                meta: Arc::clone(&route.meta),
                backends: route.backends.map(|backend| backend.map(&mut *map)),
            }),
        }
    }
}

impl<B> TlsPolicy<B> {
    /// The backend for a connection that asks for `sni`, unless it is to be refused. `random` is a uniformly random word.
    pub fn pick(&self, sni: Option<&str>, random: u64) -> Option<&B> {
        allowed(&self.find(sni)?.backends, random)
    }

    /// The best route for a connection that asks for `sni`: the most specific name, then the order of the routes.
    pub fn find(&self, sni: Option<&str>) -> Option<&TlsRoute<B>> {
        let mut best = None;
        for route in &self.routes {
            let rank = if route.snis.is_empty() {
                None
            } else {
                let Some(rank) = sni.and_then(|sni| route::best_host(&route.snis, sni)) else {
                    continue;
                };
                Some(rank)
            };
            if best.as_ref().is_none_or(|(held, _)| rank > *held) {
                best = Some((rank, route));
            }
        }
        best.map(|(_, route)| route)
    }

    fn map_backends<C>(&self, map: &mut impl FnMut(&B) -> C) -> TlsPolicy<C> {
        let map_route = |route: &TlsRoute<B>| TlsRoute {
            meta: Arc::clone(&route.meta),
            snis: route.snis.clone(),
            backends: route.backends.map(|backend| backend.map(&mut *map)),
        };
        TlsPolicy {
            routes: self.routes.iter().map(map_route).collect(),
        }
    }
}

/// The share of a backend that refuses is refused; it does not go to the others.
fn allowed<B>(backends: &Distribution<ConnectionBackend<B>>, random: u64) -> Option<&B> {
    let picked = backends.pick(random)?;
    (!picked.refused).then_some(&picked.backend)
}

impl<B> RoutePolicy<B> {
    /// Requests go to `backends` as they are, without limits and once.
    pub fn new(backends: Distribution<RouteBackend<B>>) -> Self {
        Self {
            filters: Filters::default(),
            backends,
            timeouts: Timeouts::default(),
            retry: None,
            allow_l5d_request_headers: false,
            failures: None,
        }
    }

    fn map<C>(&self, mut map: impl FnMut(&B) -> C) -> RoutePolicy<C> {
        RoutePolicy {
            filters: self.filters.clone(),
            backends: self.backends.map(|backend| RouteBackend {
                backend: map(&backend.backend),
                filters: backend.filters.clone(),
            }),
            timeouts: self.timeouts,
            retry: self.retry,
            allow_l5d_request_headers: self.allow_l5d_request_headers,
            failures: self.failures,
        }
    }
}

impl<B> From<B> for RouteBackend<B> {
    fn from(backend: B) -> Self {
        Self {
            backend,
            filters: Filters::default(),
        }
    }
}

impl<B> ConnectionBackend<B> {
    fn map<C>(&self, mut map: impl FnMut(&B) -> C) -> ConnectionBackend<C> {
        ConnectionBackend {
            backend: map(&self.backend),
            refused: self.refused,
        }
    }
}

impl<B> From<B> for ConnectionBackend<B> {
    fn from(backend: B) -> Self {
        Self {
            backend,
            refused: false,
        }
    }
}
