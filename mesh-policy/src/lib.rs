//! What a request or a connection may do, as values: routes, filters, weights, timeouts and retries on the way out,
//! authorization and rate limits on the way in.
//!
//! Nothing here does I/O, reads a clock or draws a random number; callers pass the time, and a random word where a choice is
//! made. Matching a request borrows it and allocates nothing.
//!
//! ```
//! use mesh_policy::outbound::{HttpPolicy, HttpRoute, RoutePolicy};
//! use mesh_policy::route::{HttpMatch, PathMatch, RequestView, Rule};
//! use mesh_policy::{Distribution, Meta, Weighted};
//!
//! let split = Distribution::RandomAvailable(Weighted::new([("v1".into(), 90), ("v2".into(), 10)])?);
//! let matches = vec![HttpMatch { path: Some(PathMatch::Prefix("/api".into())), ..HttpMatch::default() }];
//! let rule = Rule { matches, policy: RoutePolicy::new(split) };
//! let route = HttpRoute { meta: Meta::default_named("api").into(), hosts: vec![], rules: vec![rule] };
//! let policy = HttpPolicy { routes: vec![route] };
//!
//! let request = http::Request::get("/api/things").body(()).unwrap();
//! let found = policy.find(&RequestView::from(&request)).unwrap();
//! assert_eq!(found.policy.backends.pick(0).unwrap().backend, "v1");
//! # Ok::<(), mesh_policy::Error>(())
//! ```
//!
//! - [`route`]: which route a request takes
//! - [`outbound`]: what a request to some target may do; [`Distribution`]: which backend it goes to;
//!   [`outbound::retry`]: how often it is sent; [`outbound::l5d`]: what its client may say about that
//! - [`filter`]: what is done to requests and responses on the way
//! - [`profile`]: what a target's service profile says
//! - [`inbound`]: who may talk to a port; [`inbound::rate_limit`]: and how much
//! - [`EndpointSpec`]: an endpoint and how to talk to it
#![cfg_attr(
    feature = "proxy-api",
    doc = "- [`proxy_api`]: all of these from messages of the Linkerd proxy API"
)]

mod codes;
mod distribution;
mod endpoint;
mod error;
pub mod filter;
pub mod inbound;
mod meta;
pub mod outbound;
pub mod profile;
#[cfg(feature = "proxy-api")]
pub mod proxy_api;
pub mod route;

pub use codes::{GrpcCodes, StatusSet};
pub use distribution::{Distribution, Weighted};
pub use endpoint::{EndpointSpec, FlowControl, Http2Params, KeepAlive, ProtocolHint, TlsSpec};
pub use error::Error;
pub use meta::{Meta, Resource};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
