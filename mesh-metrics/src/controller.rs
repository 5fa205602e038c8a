use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::authority::{Authority, TrustState};
use crate::labels::Api;
use crate::series::SeriesMap;

/// The families of a controller.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    counts: Arc<ControllerCounts>,
    subscribers: Arc<SeriesMap<Api, SubscriberCounts>>,
    trust: Arc<Authority>,
}

/// Counts the subscribers of one API. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct SubscriberHandle(Arc<SubscriberCounts>);

/// How much a registry holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RegistrySizes {
    /// Services.
    pub services: u64,
    /// Workloads.
    pub workloads: u64,
    /// Endpoints: ports of workloads that some service selects.
    pub endpoints: u64,
}

/// Why a certificate was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// The one asking has not proven who it is.
    Unauthenticated,
    /// It asked for an identity that is not its own.
    Identity,
    /// The signing request is malformed or asks for what is not given.
    Request,
    /// The authority could not sign.
    Authority,
}

/// What became of a join token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TokenEvent {
    /// It was made.
    Issued,
    /// Someone joined with it.
    Used,
    /// It was taken back.
    Revoked,
    /// It was shown and refused: unknown, expired, revoked or bound to another identity.
    Refused,
}

#[derive(Debug, Default)]
struct ControllerCounts {
    services: AtomicI64,
    workloads: AtomicI64,
    endpoints: AtomicI64,
    manifest_errors: AtomicI64,
    manifest_reloads: AtomicU64,
    issued: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    tokens: [AtomicU64; TokenEvent::ALL.len()],
}

#[derive(Debug, Default)]
struct SubscriberCounts {
    subscribers: AtomicI64,
    updates: AtomicU64,
}

impl ControllerMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // The label sets are one, and those of an enum.
        let one = SeriesMap::<(), ControllerCounts>::new(usize::MAX);
        let subscribers = SeriesMap::<Api, SubscriberCounts>::new(usize::MAX);
        one.show(
            registry,
            "controller_registry_objects",
            "Objects in the registry, by kind",
            MetricType::Gauge,
            |counts, lines| {
                for (kind, count) in [
                    ("service", &counts.services),
                    ("workload", &counts.workloads),
                    ("endpoint", &counts.endpoints),
                ] {
                    lines.gauge_with(&[("kind", kind)], count.load(Relaxed))?;
                }
                Ok(())
            },
        );
        one.show(
            registry,
            "controller_manifest_errors",
            "Errors in the manifests as they are now",
            MetricType::Gauge,
            |counts, lines| lines.gauge(counts.manifest_errors.load(Relaxed)),
        );
        one.show(
            registry,
            "controller_manifest_reloads",
            "Times the manifests were read",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.manifest_reloads.load(Relaxed)),
        );
        one.show(
            registry,
            "controller_certificates_issued",
            "Certificates issued",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.issued.load(Relaxed)),
        );
        one.show(
            registry,
            "controller_certificates_refused",
            "Certificates refused, by reason",
            MetricType::Counter,
            |counts, lines| {
                for (refusal, count) in Refusal::ALL.iter().zip(&counts.refused) {
                    lines.counter_with(&[("reason", refusal.as_str())], count.load(Relaxed))?;
                }
                Ok(())
            },
        );
        one.show(
            registry,
            "controller_token_events",
            "What became of join tokens",
            MetricType::Counter,
            |counts, lines| {
                for (event, count) in TokenEvent::ALL.iter().zip(&counts.tokens) {
                    lines.counter_with(&[("event", event.as_str())], count.load(Relaxed))?;
                }
                Ok(())
            },
        );
        subscribers.show(
            registry,
            "controller_subscribers",
            "Streams to proxies that are up",
            MetricType::Gauge,
            |counts, lines| lines.gauge(counts.subscribers.load(Relaxed)),
        );
        subscribers.show(
            registry,
            "controller_updates",
            "Messages sent to proxies",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.updates.load(Relaxed)),
        );
        Self {
            counts: one.resolve(&()),
            subscribers,
            trust: Authority::register(registry),
        }
    }

    /// Where it is known how trust stands; asked at each scrape. The first one counts.
    pub fn watch_trust(&self, source: impl Fn() -> TrustState + Send + Sync + 'static) {
        self.trust.watch(source);
    }

    /// The registry now holds so much.
    pub fn set_registry(&self, sizes: RegistrySizes) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.counts.services.store(gauge(sizes.services), Relaxed);
        self.counts.workloads.store(gauge(sizes.workloads), Relaxed);
        self.counts.endpoints.store(gauge(sizes.endpoints), Relaxed);
    }

    /// The manifests were read, and there are so many errors in them.
    pub fn manifests_read(&self, errors: u64) {
        self.counts.manifest_reloads.fetch_add(1, Relaxed);
        let errors = i64::try_from(errors).unwrap_or(i64::MAX);
        self.counts.manifest_errors.store(errors, Relaxed);
    }

    /// A certificate was issued.
    pub fn certificate_issued(&self) {
        self.counts.issued.fetch_add(1, Relaxed);
    }

    /// A certificate was refused.
    pub fn certificate_refused(&self, refusal: Refusal) {
        // The variants are numbered in the order of `ALL`.
        self.counts.refused[refusal as usize].fetch_add(1, Relaxed);
    }

    /// Something became of a join token.
    pub fn token(&self, event: TokenEvent) {
        // The variants are numbered in the order of `ALL`.
        self.counts.tokens[event as usize].fetch_add(1, Relaxed);
    }

    /// The handle for the subscribers of `api`.
    pub fn subscribers(&self, api: Api) -> SubscriberHandle {
        SubscriberHandle(self.subscribers.resolve(&api))
    }
}

impl SubscriberHandle {
    /// A subscriber came; end it with [`unsubscribed`](Self::unsubscribed), once.
    pub fn subscribed(&self) {
        self.0.subscribers.fetch_add(1, Relaxed);
    }

    /// A subscriber that had [`subscribed`](Self::subscribed) left.
    pub fn unsubscribed(&self) {
        self.0.subscribers.fetch_sub(1, Relaxed);
    }

    /// Messages were sent.
    pub fn sent(&self, messages: u64) {
        self.0.updates.fetch_add(messages, Relaxed);
    }
}

impl Refusal {
    const ALL: [Self; 4] = [
        Self::Unauthenticated,
        Self::Identity,
        Self::Request,
        Self::Authority,
    ];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Identity => "identity",
            Self::Request => "request",
            Self::Authority => "authority",
        }
    }
}

impl TokenEvent {
    const ALL: [Self; 4] = [Self::Issued, Self::Used, Self::Revoked, Self::Refused];

    /// The value of the label `event`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Used => "used",
            Self::Revoked => "revoked",
            Self::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_order() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
        for (index, event) in TokenEvent::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, index);
        }
    }
}
