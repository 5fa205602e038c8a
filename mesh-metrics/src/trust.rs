use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::series::SeriesMap;

/// The most anchors that have lines of their own; the others are counted under `other`.
const MAX_ANCHORS: usize = 16;

/// The families of what a proxy trusts.
#[derive(Clone, Debug)]
pub struct TrustMetrics {
    counts: Arc<SeriesMap<(), TrustCounts>>,
}

/// Counts what becomes of trust bundles, and shows the connections of each anchor. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct TrustHandle(Arc<TrustCounts>);

/// Why a trust bundle was refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum BundleRefusal {
    /// The pinned key did not sign it.
    Signature,
    /// Its generation was in use already, or is past.
    Stale,
    /// Its generation is too far above the one in use.
    Leap,
    /// It is for another trust domain.
    TrustDomain,
    /// It is none.
    Malformed,
}

/// The live connections of one anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorConnections {
    /// The anchor's name.
    pub anchor: String,
    /// How many there are.
    pub open: u64,
    /// How many of them were told to end.
    pub draining: u64,
}

type Source = Box<dyn Fn() -> Vec<AnchorConnections> + Send + Sync>;

#[derive(Default)]
struct TrustCounts {
    generation: AtomicU64,
    refused: [AtomicU64; BundleRefusal::ALL.len()],
    connections: OnceLock<Source>,
    cut: AtomicU64,
}

impl TrustMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let counts = SeriesMap::<(), TrustCounts>::new(usize::MAX);
        counts.show(
            registry,
            "trust_bundle_generation",
            "The generation of the trust bundle that all of the proxy uses; zero for the anchors it was started with",
            MetricType::Gauge,
            |counts, lines| lines.gauge(counts.generation.load(Relaxed)),
        );
        counts.show(
            registry,
            "trust_bundles_refused",
            "Trust bundles that were refused",
            MetricType::Counter,
            |counts, lines| {
                BundleRefusal::ALL
                    .iter()
                    .zip(&counts.refused)
                    .try_for_each(|(reason, refused)| {
                        let labels = [("reason", reason.as_str())];
                        lines.counter_with(&labels, refused.load(Relaxed))
                    })
            },
        );
        counts.show(
            registry,
            "trust_connections",
            "Live TLS connections by the anchor that verified the peer, and whether they were told to end",
            MetricType::Gauge,
            |counts, lines| {
                counts.connections().iter().try_for_each(|one| {
                    let states = [
                        ("open", one.open.saturating_sub(one.draining)),
                        ("draining", one.draining),
                    ];
                    states.iter().try_for_each(|(state, count)| {
                        lines.gauge_with(&[("anchor", &one.anchor), ("state", state)], *count)
                    })
                })
            },
        );
        counts.show(
            registry,
            "trust_connections_cut",
            "Connections closed because their anchor retired and their time was up",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.cut.load(Relaxed)),
        );
        Self { counts }
    }

    /// The handle.
    pub fn handle(&self) -> TrustHandle {
        TrustHandle(self.counts.resolve(&()))
    }
}

impl TrustHandle {
    /// All of the proxy uses the bundle of this generation.
    pub fn loaded(&self, generation: u64) {
        self.0.generation.store(generation, Relaxed);
    }

    /// A bundle was refused.
    pub fn refused(&self, reason: BundleRefusal) {
        let place = BundleRefusal::ALL.iter().position(|one| *one == reason);
        if let Some(refused) = place.and_then(|place| self.0.refused.get(place)) {
            refused.fetch_add(1, Relaxed);
        }
    }

    /// So many connections were cut.
    pub fn cut(&self, connections: u64) {
        self.0.cut.fetch_add(connections, Relaxed);
    }

    /// Where the connections are known, the oldest anchor first; asked at each scrape. The first one counts.
    pub fn watch(&self, connections: impl Fn() -> Vec<AnchorConnections> + Send + Sync + 'static) {
        let _ = self.0.connections.set(Box::new(connections));
    }
}

impl TrustCounts {
    fn connections(&self) -> Vec<AnchorConnections> {
        let mut all = self.connections.get().map(|ask| ask()).unwrap_or_default();
        if all.len() > MAX_ANCHORS {
            let rest = all.split_off(MAX_ANCHORS);
            all.push(AnchorConnections {
                anchor: "other".to_owned(),
                open: rest.iter().map(|one| one.open).sum(),
                draining: rest.iter().map(|one| one.draining).sum(),
            });
        }
        all
    }
}

impl fmt::Debug for TrustCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustCounts")
            .field("generation", &self.generation)
            .field("refused", &self.refused)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

impl BundleRefusal {
    const ALL: [Self; 5] = [
        Self::Signature,
        Self::Stale,
        Self::Leap,
        Self::TrustDomain,
        Self::Malformed,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Stale => "stale",
            Self::Leap => "leap",
            Self::TrustDomain => "trust_domain",
            Self::Malformed => "malformed",
        }
    }
}
