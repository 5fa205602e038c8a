//! What a request or connection to some target may do: its routes, backends and timeouts.

mod backend;

pub use self::backend::{
    BackendKind, BackendSpec, Backoff, FailureAccrual, JitterRatio, Load, Queue,
};

use std::sync::Arc;
use std::time::Duration;

use crate::route::{self, Found, GrpcMatch, HostMatch, HttpMatch, RequestView, Route};
use crate::{Distribution, Meta};

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
    /// Where it may go.
    pub backends: Distribution<B>,
    /// How long it may take.
    pub timeouts: Timeouts,
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
    pub backends: Distribution<B>,
}

/// A route for connections by TLS server name.
#[derive(Clone, Debug)]
pub struct TlsRoute<B> {
    /// Where the route comes from.
    pub meta: Arc<Meta>,
    /// The server names it is for; any when empty.
    pub snis: Vec<HostMatch>,
    /// Where connections may go.
    pub backends: Distribution<B>,
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
    fn map_backends<C>(&self, map: &mut impl FnMut(&B) -> C) -> OpaquePolicy<C> {
        OpaquePolicy {
            route: self.route.as_ref().map(|route| OpaqueRoute {
                meta: Arc::clone(&route.meta),
                backends: route.backends.map(map),
            }),
        }
    }
}

impl<B> TlsPolicy<B> {
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
            backends: route.backends.map(&mut *map),
        };
        TlsPolicy {
            routes: self.routes.iter().map(map_route).collect(),
        }
    }
}

impl<B> RoutePolicy<B> {
    fn map<C>(&self, map: impl FnMut(&B) -> C) -> RoutePolicy<C> {
        RoutePolicy {
            backends: self.backends.map(map),
            timeouts: self.timeouts,
        }
    }
}
