use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::series::{Lines, SeriesMap};

/// How trust stands in a mesh, as its controller knows: asked at each scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrustState {
    /// Whether this controller has changes advance.
    pub leads: bool,
    /// The phase of the change underway, `idle` without one.
    pub phase: String,
    /// Since when, in seconds since 1970; none without a change.
    pub phase_since: Option<u64>,
    /// How many the gate of the phase counts, and how many of them do not stand in its way.
    pub consumers: u64,
    /// See `consumers`.
    pub ready: u64,
    /// How many stand in the way, by reason.
    pub blockers: Vec<(String, u64)>,
    /// How many were left behind and have to join again.
    pub quarantined: u64,
    /// Anchors, with their state and end in seconds since 1970.
    pub anchors: Vec<Expiry>,
    /// Issuers, likewise.
    pub issuers: Vec<Expiry>,
    /// When that consumer said something last which has been silent for longest, in seconds since 1970.
    pub oldest_evidence: Option<u64>,
    /// How many consumers of a class use a generation of the bundle, newest first.
    pub generations: Vec<(String, u64, u64)>,
    /// The generation that is given out.
    pub generation: u64,
    /// How many processes say that it is another time than the controller's clock does.
    pub clocks_off: u64,
    /// When the next change begins by itself, in seconds since 1970; none while one is underway.
    pub next_change: Option<u64>,
    /// When somebody else has to have brought another issuer, in seconds since 1970; none where the controller makes them.
    pub issuer_needed: Option<u64>,
    /// Whether what an outside authority wrote last is refused; none without one.
    pub outside_refused: Option<bool>,
}

/// When an anchor or issuer ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Its name.
    pub name: String,
    /// What it is good for now.
    pub state: String,
    /// In seconds since 1970.
    pub not_after: u64,
}

type Source = Box<dyn Fn() -> TrustState + Send + Sync>;

#[derive(Default)]
pub(crate) struct Authority {
    source: OnceLock<Source>,
}

impl Authority {
    pub(crate) fn register(registry: &mut Registry) -> Arc<Self> {
        let map = SeriesMap::<(), Self>::new(usize::MAX);
        let mut gauge = |name: &str, help: &str, show| {
            map.show(registry, name, help, MetricType::Gauge, show);
        };
        gauge(
            "controller_trust_leads",
            "Whether this controller has changes of trust advance",
            |this, lines| lines.gauge(u64::from(this.state().leads)),
        );
        gauge(
            "controller_trust_phase",
            "1 for the phase of the change underway; idle without one",
            |this, lines| lines.gauge_with(&[("phase", &this.state().phase)], 1),
        );
        gauge(
            "controller_trust_phase_since_timestamp_seconds",
            "When the phase began; nothing without a change",
            |this, lines| some(lines, this.state().phase_since),
        );
        gauge(
            "controller_trust_consumers",
            "How many the gate counts, and whether they stand in its way",
            |this, lines| {
                let state = this.state();
                let waits = state.consumers.saturating_sub(state.ready);
                lines.gauge_with(&[("ready", "true")], state.ready)?;
                lines.gauge_with(&[("ready", "false")], waits)
            },
        );
        gauge(
            "controller_trust_blockers",
            "What stands in the way of the next phase",
            |this, lines| {
                this.state()
                    .blockers
                    .iter()
                    .take(MAX_LINES)
                    .try_for_each(|(reason, count)| lines.gauge_with(&[("reason", reason)], *count))
            },
        );
        gauge(
            "controller_trust_quarantined",
            "Consumers that were left behind and have to join again",
            |this, lines| lines.gauge(this.state().quarantined),
        );
        gauge(
            "controller_trust_anchor_expiry_timestamp_seconds",
            "When a trust anchor ends",
            |this, lines| ends(lines, "anchor", &this.state().anchors),
        );
        gauge(
            "controller_trust_issuer_expiry_timestamp_seconds",
            "When an issuer ends",
            |this, lines| ends(lines, "issuer", &this.state().issuers),
        );
        gauge(
            "controller_trust_oldest_evidence_timestamp_seconds",
            "When the consumer that has been silent for longest was heard",
            |this, lines| some(lines, this.state().oldest_evidence),
        );
        gauge(
            "controller_trust_clocks_off",
            "Processes whose clock differs from this controller's by more than certificates allow for",
            |this, lines| lines.gauge(this.state().clocks_off),
        );
        gauge(
            "controller_trust_generation",
            "The generation of the bundle that is given out",
            |this, lines| lines.gauge(this.state().generation),
        );
        gauge(
            "controller_trust_consumers_by_generation",
            "Consumers by class and the generation of the bundle that all of them uses",
            |this, lines| {
                let state = this.state();
                let all = state.generations.iter().take(MAX_LINES);
                all.into_iter().try_for_each(|(class, generation, count)| {
                    let labels = [("class", &**class), ("generation", &generation.to_string())];
                    lines.gauge_with(&labels, *count)
                })
            },
        );
        gauge(
            "controller_trust_next_change_timestamp_seconds",
            "When the next change begins by itself; nothing while one is underway",
            |this, lines| some(lines, this.state().next_change),
        );
        gauge(
            "controller_trust_issuer_needed_timestamp_seconds",
            "When another issuer has to be brought at the latest; nothing where the controller makes them",
            |this, lines| some(lines, this.state().issuer_needed),
        );
        gauge(
            "controller_trust_outside_refused",
            "Whether what the outside authority wrote last is refused; nothing without one",
            |this, lines| some(lines, this.state().outside_refused.map(u64::from)),
        );
        map.resolve(&())
    }

    /// The first one counts.
    pub(crate) fn watch(&self, source: impl Fn() -> TrustState + Send + Sync + 'static) {
        let _ = self.source.set(Box::new(source));
    }

    fn state(&self) -> TrustState {
        self.source.get().map(|ask| ask()).unwrap_or_default()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn some(lines: &mut Lines<'_, '_>, value: Option<u64>) -> fmt::Result {
    value.map_or(Ok(()), |value| lines.gauge(value))
}

fn ends(lines: &mut Lines<'_, '_>, of: &str, all: &[Expiry]) -> fmt::Result {
    all.iter().take(MAX_LINES).try_for_each(|one| {
        let labels = [(of, &*one.name), ("state", &*one.state)];
        lines.gauge_with(&labels, one.not_after)
    })
}

/// Of one family at most.
const MAX_LINES: usize = 64;
