//! How trust stands, for metrics.

use std::{collections::BTreeMap, time::SystemTime};

use mesh_metrics::{Expiry, TrustState};
use mesh_trust_rotation::{Class, Reason, Standing, Subject, WorkloadId};
use serde::Serialize;

use super::{OwnClock, Trust, unix};

impl Trust {
    /// By how many seconds a consumer's clock is ahead of this controller's, if that is too much; negative if it is behind.
    pub(crate) fn clock_ahead(&self, id: &WorkloadId) -> Option<i64> {
        self.shared.clocks.ahead(id)
    }

    /// This controller's clock, where it is that which is off.
    pub(crate) fn own_clock(&self) -> Option<OwnClock> {
        self.shared.clocks.own(self.shared.live.load().rotation())
    }

    /// How trust stands at `now`. Costs as much as a gate: it looks at everybody.
    pub(crate) fn state(&self, now: SystemTime) -> TrustState {
        let live = self.shared.live.load();
        let (rotation, at) = (live.rotation(), unix(now));
        let gate = rotation.gate(at);
        let mut blockers = BTreeMap::<Reason, u64>::new();
        for blocker in gate.blockers() {
            *blockers.entry(blocker.why).or_default() += 1;
        }
        let blocking: std::collections::BTreeSet<&WorkloadId> = gate
            .blockers()
            .iter()
            .filter_map(|blocker| match &blocker.who {
                Subject::Workload(who) => Some(who),
                _ => None,
            })
            .collect();
        let all = rotation.consumers();
        let required = || all.iter().filter(|(_, consumer)| consumer.is_required());
        let mut generations = BTreeMap::<(std::cmp::Reverse<u64>, Class), u64>::new();
        for (_, consumer) in required() {
            if let Some(loaded) = consumer.report.and_then(|report| report.loaded) {
                let key = (std::cmp::Reverse(loaded.generation.0), consumer.class);
                *generations.entry(key).or_default() += 1;
            }
        }
        let quarantined = |standing: &Standing| matches!(standing, Standing::Quarantined { .. });
        let signs = |id| rotation.clusters().values().any(|here| here.signer == id);
        let change = rotation.change();
        let mut state = TrustState::default();
        state.leads = live.leads;
        state.phase = change.map_or_else(|| "idle".to_owned(), |change| word(&change.phase));
        state.phase_since = change.map(|change| change.since.0);
        state.consumers = required().count() as u64;
        state.ready = required().filter(|(id, _)| !blocking.contains(id)).count() as u64;
        state.blockers = blockers
            .into_iter()
            .map(|(reason, count)| (word(&reason), count))
            .collect();
        state.quarantined = all
            .values()
            .filter(|known| quarantined(&known.standing))
            .count() as u64;
        state.anchors = rotation
            .anchors()
            .values()
            .map(|anchor| Expiry {
                name: short(&anchor.id),
                state: if anchor.tainted.is_some() {
                    "tainted"
                } else if rotation.active().anchor == anchor.id {
                    "in_use"
                } else {
                    "other"
                }
                .to_owned(),
                not_after: anchor.not_after.0,
            })
            .collect();
        state.issuers = rotation
            .issuers()
            .values()
            .map(|issuer| Expiry {
                name: short(&issuer.id),
                state: if signs(issuer.id) { "signs" } else { "other" }.to_owned(),
                not_after: issuer.not_after.0,
            })
            .collect();
        let heard = required().filter(|(_, consumer)| !consumer.class.needs_probe());
        state.oldest_evidence = heard
            .map(|(_, consumer)| {
                consumer
                    .report
                    .map_or(consumer.started, |report| report.at)
                    .0
            })
            .min();
        state.generations = generations
            .into_iter()
            .map(|((generation, class), count)| (word(&class), generation.0, count))
            .collect();
        state.clocks_off = self.shared.clocks.count(rotation) as u64;
        state.generation = live.bundle.generation();
        let next = self.next_change(now).filter(|_| change.is_none());
        state.next_change = next.map(|(next, _)| next.at.0);
        state.issuer_needed = self.root_needed_by().map(|at| at.0);
        let (_, offered) = self.root();
        let standing = offered.and_then(|offered| offered.standing);
        state.outside_refused = standing.map(|standing| standing.word == "refused");
        state
    }
}

/// As the record writes it.
fn word(value: &impl Serialize) -> String {
    let text = serde_json::to_value(value).ok();
    let text = text.as_ref().and_then(serde_json::Value::as_str);
    text.unwrap_or("other").to_owned()
}

/// Enough to tell them apart.
fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(16).collect()
}
