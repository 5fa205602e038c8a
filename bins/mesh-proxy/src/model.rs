//! What the control side hands to the data path: targets, endpoints and backends.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::uri::Authority;
use mesh_balance::core::{Pick, Picker};
use mesh_metrics::{BalancerHandle, EndpointCounts, Endpoints, ZoneCounts};
use mesh_policy::outbound::retry::RetryBudget;
use mesh_policy::outbound::{OutboundPolicy, Queue};
use mesh_policy::{EndpointSpec, Http2Params, Meta, TlsSpec};
use mesh_tls::Identity;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// An immutable snapshot of what outbound traffic to one target may do, and where it may go.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// What the controller says of it.
    pub policy: OutboundPolicy<Arc<Backend>>,
    /// What all its routes may retry together; it stays the same where only the policy changes.
    pub retries: Arc<RetryBudget>,
}

impl Deref for Outbound {
    type Target = OutboundPolicy<Arc<Backend>>;

    fn deref(&self) -> &Self::Target {
        &self.policy
    }
}

/// Where the application wants to go: the key of an outbound policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address: the original destination of a redirected connection.
    Addr(SocketAddr),
    /// A name, `host:port` in lower case.
    Authority(Arc<str>),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(address) => address.fmt(f),
            Self::Authority(authority) => authority.fmt(f),
        }
    }
}

/// How a peer likes to be spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProtocolHint {
    /// Nothing is known: speak what the application speaks.
    #[default]
    Unknown,
    /// A mesh peer that takes HTTP/2 with `l5d-orig-proto`.
    H2,
    /// Opaque TCP, without protocol detection.
    Opaque,
}

/// One address that traffic can be sent to, with all that is needed to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect to.
    pub addr: SocketAddr,
    /// Whom to expect there and the name to ask for (SNI); `None` means plaintext.
    pub identity: Option<Arc<(Identity, ServerName<'static>)>>,
    /// How to speak to it.
    pub hint: ProtocolHint,
    /// The peer proxy's inbound port for connections that begin with a transport header; `None` means that it takes none.
    pub opaque_transport: Option<u16>,
    /// Replaces the authority of HTTP requests.
    pub authority_override: Option<Authority>,
    /// How HTTP/2 connections to it are made, where something is said about it.
    pub http2: Option<Box<Http2Params>>,
    /// Its share of traffic relative to the others'; the controller's default is 10,000.
    pub weight: u32,
    /// The zone it is in.
    pub zone: Option<Arc<str>>,
    /// The controller's metric labels, sorted by name.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
}

impl Endpoint {
    /// An address of which nothing else is known: plaintext, nothing hinted.
    #[must_use]
    pub fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            identity: None,
            hint: ProtocolHint::Unknown,
            opaque_transport: None,
            authority_override: None,
            http2: None,
            weight: EndpointSpec::DEFAULT_WEIGHT,
            zone: None,
            labels: Vec::new(),
        }
    }

    /// Whether a connection made for one would do for the other: all but weight, zone and labels is the same.
    #[must_use]
    pub fn same_connection(&self, other: &Self) -> bool {
        let key = |endpoint: &Self| (endpoint.addr, endpoint.hint, endpoint.opaque_transport);
        key(self) == key(other)
            && self.identity == other.identity
            && self.authority_override == other.authority_override
            && self.http2 == other.http2
    }
}

impl From<&EndpointSpec> for Endpoint {
    fn from(spec: &EndpointSpec) -> Self {
        Self {
            addr: spec.addr,
            identity: spec
                .tls
                .as_ref()
                .map(|tls| Arc::new((tls.identity.clone(), server_name(tls, spec.addr)))),
            hint: match spec.hint {
                mesh_policy::ProtocolHint::Unknown => ProtocolHint::Unknown,
                mesh_policy::ProtocolHint::Http2 => ProtocolHint::H2,
                mesh_policy::ProtocolHint::Opaque => ProtocolHint::Opaque,
            },
            opaque_transport: spec.opaque_transport.map(NonZeroU16::get),
            authority_override: spec.authority_override.clone(),
            http2: spec.http2.map(Box::new),
            weight: spec.weight,
            zone: spec.zone.as_deref().map(Arc::from),
            labels: spec
                .labels
                .iter()
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect(),
        }
    }
}

/// The name to ask for. Only a hint to the server: whom to expect is decided by the identity, so any name is safe.
fn server_name(tls: &TlsSpec, addr: SocketAddr) -> ServerName<'static> {
    ServerName::try_from(tls.server_name.clone())
        .ok()
        .or_else(|| tls.identity.server_name())
        .unwrap_or_else(|| ServerName::IpAddress(addr.ip().into()))
}

/// Stands for no limit.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Where a route sends to. One per distinct backend per process, shared by all workers and all policies that name it.
#[derive(Debug)]
pub struct Backend {
    meta: Meta,
    kind: BackendKind,
    /// Only of a balancer.
    metrics: Option<BalancerHandle>,
    /// Whether endpoints of the own zone are preferred.
    zoned: bool,
    population: watch::Receiver<Population>,
    queue: Queue,
    /// How many wait for the first endpoints.
    waiting: AtomicU32,
    /// When the first of them came.
    waited_since: OnceLock<Instant>,
}

/// A place among those who wait for a backend's first endpoints; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a AtomicU32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The kinds of backend.
#[derive(Debug)]
pub enum BackendKind {
    /// Any of a set of endpoints, chosen for each request or connection.
    Balancer(Picker<Arc<Endpoint>>),
    /// Always the same endpoint.
    Forward(Arc<Endpoint>),
}

/// What is known of a backend's endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Population {
    /// Nothing yet: the controller has not answered.
    #[default]
    Unknown,
    /// There are none: answer 503 at once.
    Empty,
    /// There are some (whether they are in order is the picker's matter).
    Known,
}

impl Backend {
    /// A backend of one endpoint.
    pub(crate) fn forward(meta: Meta, endpoint: Endpoint) -> Self {
        let (_, population) = watch::channel(Population::Known);
        Self {
            meta,
            kind: BackendKind::Forward(Arc::new(endpoint)),
            metrics: None,
            zoned: false,
            population,
            // There is nothing to wait for.
            queue: Queue::default(),
            waiting: AtomicU32::new(0),
            waited_since: OnceLock::new(),
        }
    }

    /// A backend whose endpoints are kept up by the owner of the pool and of `population`'s sender.
    pub(crate) fn balancer(
        meta: Meta,
        picker: Picker<Arc<Endpoint>>,
        population: watch::Receiver<Population>,
        queue: Queue,
        metrics: BalancerHandle,
    ) -> Self {
        Self {
            meta,
            zoned: picker.snapshot().zones().is_some(),
            kind: BackendKind::Balancer(picker),
            metrics: Some(metrics),
            population,
            queue,
            waiting: AtomicU32::new(0),
            waited_since: OnceLock::new(),
        }
    }

    /// What it was made from, for metrics.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> &BackendKind {
        &self.kind
    }

    /// What counts the picks that failed, of a balancer.
    pub(crate) fn metrics(&self) -> Option<&BalancerHandle> {
        self.metrics.as_ref()
    }

    /// A request or connection goes where `pick` says.
    pub(crate) fn sent(&self, pick: &Pick<Arc<Endpoint>>) {
        if self.zoned
            && let Some(metrics) = &self.metrics
        {
            metrics.sent(pick.zone_rank() == 0);
        }
    }

    /// The generation of the endpoint that is in each place now; `None` where it is always the same one. Looks at every endpoint. Nobody
    /// is there any more when the owner of the pool is gone.
    pub(crate) fn generations(&self) -> Option<Vec<Option<u32>>> {
        let BackendKind::Balancer(picker) = &self.kind else {
            return None;
        };
        let mut generations = Vec::new();
        if self.population.has_changed().is_ok() {
            for (_, stats) in picker.snapshot().stats(std::time::Instant::now()) {
                let index = stats.slot.index as usize;
                if generations.len() <= index {
                    generations.resize(index + 1, None);
                }
                generations[index] = Some(stats.slot.generation);
            }
        }
        Some(generations)
    }

    /// What is known of the endpoints now. A short read lock: ask only after a pick has failed.
    #[must_use]
    pub fn population(&self) -> Population {
        *self.population.borrow()
    }

    /// A place among those who wait for the first endpoints, and until when they all do; `None` when there are too many.
    pub(crate) fn place(&self, now: Instant) -> Option<(Place<'_>, Instant)> {
        let waiting = self.waiting.fetch_add(1, Relaxed);
        let place = Place(&self.waiting);
        let since = *self.waited_since.get_or_init(|| now);
        // More than a century is no limit.
        let until = since.checked_add(self.queue.failfast_timeout);
        (waiting < self.queue.capacity).then(|| (place, until.unwrap_or(now + CENTURY)))
    }

    /// Waits until the first endpoints, or their absence, are known, at most until `deadline`; returns at once when they
    /// are. Cancel safe; runs on the caller's runtime.
    pub async fn ready(&self, deadline: Instant) -> Population {
        let mut population = self.population.clone();
        let known = population.wait_for(|population| *population != Population::Unknown);
        match timeout_at(deadline, known).await {
            Ok(Ok(known)) => *known,
            Ok(Err(_)) | Err(_) => self.population(),
        }
    }
}

/// Looks at every endpoint: for when metrics are read.
impl Endpoints for Backend {
    fn counts(&self) -> EndpointCounts {
        let BackendKind::Balancer(picker) = &self.kind else {
            return EndpointCounts::default();
        };
        let snapshot = picker.snapshot();
        let zones = snapshot.zones().map(|zones| ZoneCounts {
            local: zones.local as u64,
            remote: zones.remote as u64,
            load: zones.load,
            low: zones.low,
            high: zones.high,
        });
        let mut counts = EndpointCounts {
            zones,
            aperture: snapshot.aperture().map(|endpoints| endpoints as u64),
            ..EndpointCounts::default()
        };
        for (_, stats) in snapshot.stats(std::time::Instant::now()) {
            let state = if stats.ejected {
                &mut counts.ejected
            } else if !stats.held.is_zero() {
                &mut counts.held
            } else {
                &mut counts.ready
            };
            *state += 1;
            counts.limited += u64::from(stats.limit.is_some());
        }
        counts
    }
}
