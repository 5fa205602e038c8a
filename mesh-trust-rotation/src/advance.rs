//! Going on: ticks, phases entered, the operator's words, effects confirmed.

use std::collections::BTreeSet;

use crate::authority::{Anchor, Issuer};
use crate::bundle::Scope;
use crate::change::{Change, Outcome, Side};
use crate::document::MAX_STEP;
use crate::error::Refusal;
use crate::event::{Effect, Proposal};
use crate::evidence::Loaded;
use crate::guard::Guard;
use crate::id::{AnchorId, ClusterId, Generation};
use crate::phase::{Kind, Mode, Phase};
use crate::rotation::Rotation;
use crate::time::UnixTime;

impl Rotation {
    /// Quarantines who has lapsed; then, if nothing stands in the way, one step.
    pub(crate) fn tick(&mut self, now: UnixTime) {
        self.quarantine_lapsed(now);
        self.quarantine_uncarried(now);
        if self.restoring.is_some() {
            self.relearn(now);
            return;
        }
        self.switch_next_signer(now);
        if self.gate(now).is_open() {
            self.enter_next(now);
        }
    }

    pub(crate) fn start(&mut self, now: UnixTime, proposal: &Proposal) -> Result<(), Refusal> {
        // Where the anchor to go to is in other hands, another one is the only way on.
        if let Some(change) = &self.change
            && !self.is_tainted(change.to.anchor)
            && self.guards(Guard::OneChange)
        {
            return Err(Refusal::Underway {
                phase: change.phase,
            });
        }
        if proposal.anchor.is_none() && self.is_tainted(self.active.anchor) {
            let anchor = self.active.anchor;
            return Err(Refusal::Tainted { anchor });
        }
        self.refuse_while_restoring()?;
        let to = self.take_in(now, proposal)?;
        if self.change.is_some() && proposal.anchor.is_some() && self.guards(Guard::OneChange) {
            self.go_elsewhere(now, to);
            return Ok(());
        }
        let mode = if self.is_tainted(self.active.anchor) {
            Mode::Emergency
        } else {
            Mode::Normal
        };
        let kind = if proposal.anchor.is_some() {
            Kind::Anchor
        } else {
            Kind::Issuer
        };
        self.begin(now, kind, mode, to, proposal.canaries.clone());
        Ok(())
    }

    /// Takes an anchor and its issuers in for an emergency: everybody is given it, nobody signs with it.
    pub(crate) fn stand_by(&mut self, now: UnixTime, proposal: &Proposal) -> Result<(), Refusal> {
        if let Some(change) = &self.change {
            return Err(Refusal::Underway {
                phase: change.phase,
            });
        }
        self.refuse_while_restoring()?;
        if proposal.anchor.is_none() {
            return Err(Refusal::Unfit(Vec::new()));
        }
        let side = self.take_in(now, proposal)?;
        if let Some(last) = self.standby.replace(side) {
            self.retiring.insert(last.anchor);
        }
        self.publish_for_phase(now);
        Ok(())
    }

    pub(crate) fn begin(
        &mut self,
        now: UnixTime,
        kind: Kind,
        mode: Mode,
        to: Side,
        canaries: BTreeSet<crate::id::WorkloadId>,
    ) {
        let phase = Phase::Preflight;
        let pauses = mode == Mode::Normal && self.settings.pause_in.contains(&phase);
        self.change = Some(Change {
            kind,
            mode,
            from: self.active.clone(),
            to,
            incumbent: self.active.anchor,
            phase,
            since: now,
            started: now,
            emergency_since: (mode == Mode::Emergency).then_some(now),
            draining_since: None,
            paused: pauses.then_some(now),
            canaries,
            bridged: BTreeSet::new(),
            abandoned: BTreeSet::new(),
        });
    }

    pub(crate) fn pause(&mut self, now: UnixTime) -> Result<(), Refusal> {
        let change = self.change.as_mut().ok_or(Refusal::NothingUnderway)?;
        change.paused.get_or_insert(now);
        Ok(())
    }

    pub(crate) fn resume(&mut self) -> Result<(), Refusal> {
        let change = self.change.as_mut().ok_or(Refusal::NothingUnderway)?;
        change.paused = None;
        Ok(())
    }

    /// Goes back by the same gates, with the sides exchanged: what was signed meanwhile is waited for as anything is.
    pub(crate) fn abort(&mut self, now: UnixTime) -> Result<(), Refusal> {
        let change = self.change.as_ref().ok_or(Refusal::NothingUnderway)?;
        if change.mode == Mode::Reverting {
            return Ok(());
        }
        if self.is_tainted(change.from.anchor) {
            return Err(Refusal::Tainted {
                anchor: change.from.anchor,
            });
        }
        if change.phase >= Phase::Retirement {
            return Err(Refusal::TooLate {
                phase: change.phase,
            });
        }
        if self.is_without_effect(change) {
            self.forget_change();
            return Ok(());
        }
        self.turn_back(now, Mode::Reverting);
        if !self.guards(Guard::RevertKeepsBoth)
            && let Some(change) = &mut self.change
        {
            change.phase = Phase::Retirement;
            self.publish_for_phase(now);
        }
        Ok(())
    }

    /// Exchanges the sides and distributes both again.
    pub(crate) fn turn_back(&mut self, now: UnixTime, mode: Mode) {
        if let Some(change) = &mut self.change {
            std::mem::swap(&mut change.from, &mut change.to);
            change.mode = mode;
            change.phase = match change.kind {
                Kind::Anchor => Phase::Distribute,
                Kind::Issuer => Phase::TrustConverged,
            };
            change.since = now;
            change.draining_since = None;
            change.paused = None;
            change.bridged.clear();
            change.canaries.clear();
        }
        self.publish_for_phase(now);
    }

    /// Whether nobody was given anything of a change. Once a store was restored from a backup, that is not known.
    pub(crate) fn is_without_effect(&self, change: &Change) -> bool {
        let given = change.kind == Kind::Anchor
            && self.bundles.current_anchors().contains(&change.to.anchor);
        let mut ledgers = self.clusters.values().map(|cluster| &cluster.ledger);
        let signed =
            ledgers.any(|ledger| ledger.keys().any(|issuer| change.to.signs_with(*issuer)));
        let unseen = self.restoring.is_none() && !given && !signed;
        change.phase == Phase::Preflight && (unseen || !self.guards(Guard::UndoneByGates))
    }

    /// Ends a change of which nothing has had an effect yet.
    pub(crate) fn forget_change(&mut self) {
        let Some(change) = self.change.take() else {
            return;
        };
        for issuer in change.to.issuers.values() {
            self.issuers.remove(issuer);
        }
        if change.kind == Kind::Anchor {
            self.forget_anchor(change.to.anchor);
            self.drop_bridges(change.to.anchor);
        }
        self.last = Some(Outcome::SafelyAborted);
    }

    pub(crate) fn confirmed(&mut self, now: UnixTime, effect: &Effect) -> Result<(), Refusal> {
        match effect {
            Effect::Published {
                cluster,
                scope,
                generation,
                digest,
            } => self.published(now, cluster, *scope, *generation, *digest),
            Effect::Composed { generation, digest } => {
                if self.bundles.known(*generation).is_none() {
                    return Err(Refusal::UnknownGeneration {
                        generation: *generation,
                    });
                }
                self.bundles.confirm(*generation, *digest);
                Ok(())
            }
            Effect::IssuerVerified { issuer } => {
                let unknown = Refusal::UnknownIssuer { issuer: *issuer };
                self.issuers.get_mut(issuer).ok_or(unknown)?.verified = true;
                Ok(())
            }
            Effect::IssuerSwitched { cluster, issuer } => {
                let cluster = self.cluster(cluster)?;
                cluster.heard = now;
                // A latecomer about an issuer that is not to sign any more says nothing.
                if cluster.signer == *issuer {
                    cluster.signing = Some(*issuer);
                }
                Ok(())
            }
            Effect::TicketsRotated {
                cluster,
                generation,
            } => {
                let cluster = self.cluster(cluster)?;
                cluster.heard = now;
                cluster.tickets = cluster.tickets.max(*generation);
                Ok(())
            }
            Effect::AnchorRetired { anchor } => {
                if self.retiring.remove(anchor) {
                    self.forget_anchor(*anchor);
                }
                Ok(())
            }
        }
    }

    /// A cluster says what it is really serving.
    pub(crate) fn served(
        &mut self,
        now: UnixTime,
        cluster: &ClusterId,
        loaded: Loaded,
        highest: Generation,
    ) -> Result<(), Refusal> {
        let known = self
            .bundles
            .known(loaded.generation)
            .and_then(|bundle| bundle.digest);
        let current = self.bundles.current();
        self.cluster(cluster)?.heard = now;
        let plausible = self.bundles.highest().0.saturating_add(MAX_STEP);
        if highest.0 <= plausible && self.guards(Guard::RestoreGeneration) {
            self.bundles.learn(highest);
        }
        if let Some(restoring) = &mut self.restoring {
            restoring.served.insert(cluster.clone());
        }
        let at = self.cluster(cluster)?;
        if known == Some(loaded.digest) {
            // It may be an older one: then it is to be given the current one again.
            at.drifted = None;
            at.published = loaded.generation;
            return Ok(());
        }
        at.published = Generation(0);
        if at.drifted.is_some() {
            return Ok(());
        }
        at.drifted = Some(now);
        let learns = self.restoring.is_none() || self.guards(Guard::RestoreGeneration);
        if loaded.generation >= current && loaded.generation.0 <= plausible && learns {
            // Who has taken it takes only something newer.
            self.bundles.learn(loaded.generation);
            if self.restoring.is_none() {
                self.bundles
                    .republish(self.bundles.current_anchors().clone());
            }
        }
        Ok(())
    }

    /// Gives out what the phase asks for.
    pub(crate) fn publish_for_phase(&mut self, now: UnixTime) {
        if self.restoring.is_some() {
            self.publish_all_again(now);
            return;
        }
        let mut anchors = BTreeSet::from([self.active.anchor]);
        if let Some(change) = &self.change {
            anchors.insert(change.to.anchor);
            anchors.insert(change.from.anchor);
            anchors.extend(&change.abandoned);
            if change.phase >= Phase::CanaryRetirement {
                anchors.retain(|anchor| !change.is_leaving(*anchor));
            }
        }
        anchors.extend(self.standby.as_ref().map(|side| side.anchor));
        let phase = self.change.as_ref().map(|change| change.phase);
        if phase == Some(Phase::CanaryRetirement) {
            self.bundles.publish_to_canaries(anchors);
        } else {
            self.bundles.publish(anchors);
        }
    }

    pub(crate) fn drop_bridges(&mut self, anchor: AnchorId) {
        self.bridges
            .retain(|bridge| bridge.subject != anchor && bridge.signer != anchor);
    }

    /// Forgets an anchor, unless its key is in other hands: that key is never to be taken for a new one.
    pub(crate) fn forget_anchor(&mut self, anchor: AnchorId) {
        if !self.is_tainted(anchor) || !self.guards(Guard::TaintRemembered) {
            self.anchors.remove(&anchor);
        }
    }

    fn refuse_while_restoring(&self) -> Result<(), Refusal> {
        match &self.restoring {
            Some(restoring) => Err(Refusal::Restoring {
                since: restoring.since,
            }),
            None => Ok(()),
        }
    }

    fn take_in(&mut self, now: UnixTime, proposal: &Proposal) -> Result<Side, Refusal> {
        let findings = self.lint(now, proposal);
        if !findings.is_empty() {
            return Err(Refusal::Unfit(findings));
        }
        let mut anchor = self.active.anchor;
        if let Some(facts) = &proposal.anchor {
            anchor = facts.anchor_id();
            let taken = Anchor {
                id: anchor,
                subject: facts.subject,
                not_before: facts.not_before,
                not_after: facts.not_after,
                tainted: None,
            };
            self.anchors.insert(anchor, taken);
        }
        let mut side = Side {
            anchor,
            issuers: [].into(),
        };
        for (cluster, facts) in &proposal.issuers {
            let issuer = Issuer {
                id: facts.issuer_id(),
                anchor,
                not_before: facts.not_before,
                not_after: facts.not_after,
                verified: false,
            };
            side.issuers.insert(cluster.clone(), issuer.id);
            self.issuers.insert(issuer.id, issuer);
        }
        Ok(side)
    }

    /// In the phase of issue, has the next cluster sign on the new side: one after the other, all at once in an emergency.
    fn switch_next_signer(&mut self, now: UnixTime) {
        let Some(change) = self
            .change
            .clone()
            .filter(|change| change.phase == Phase::Issue)
        else {
            return;
        };
        if !self.standing_blockers(now, &change).is_empty()
            || !self.trust_blockers(now, &change).is_empty()
        {
            return;
        }
        for (id, cluster) in &mut self.clusters {
            let Some(to) = change.to.issuers.get(id) else {
                continue;
            };
            cluster.signer = *to;
            if cluster.signing != Some(*to) && !change.is_emergency() {
                return;
            }
        }
    }

    fn enter_next(&mut self, now: UnixTime) {
        let Some(change) = &mut self.change else {
            return;
        };
        let Some(next) = change.phase.next(change.kind, change.mode) else {
            self.finish();
            return;
        };
        change.phase = next;
        change.since = now;
        if change.mode == Mode::Normal && self.settings.pause_in.contains(&next) {
            change.paused = Some(now);
        }
        match next {
            Phase::Drain => {
                change.draining_since = Some(now);
                self.ticket_round = self.ticket_round.next();
            }
            Phase::Distribute | Phase::CanaryRetirement | Phase::Retirement => {
                self.publish_for_phase(now);
            }
            Phase::Preflight
            | Phase::TrustConverged
            | Phase::CanarySigning
            | Phase::Issue
            | Phase::LeafConverged => {}
        }
    }

    pub(crate) fn finish(&mut self) {
        let Some(change) = self.change.take() else {
            return;
        };
        self.issuers
            .retain(|id, issuer| !change.from.signs_with(*id) && !change.is_leaving(issuer.anchor));
        for cluster in self.clusters.values_mut() {
            cluster
                .ledger
                .retain(|issuer, _| self.issuers.contains_key(issuer));
        }
        if change.kind == Kind::Anchor {
            for anchor in change.abandoned.iter().chain([&change.from.anchor]) {
                self.retiring.insert(*anchor);
                self.drop_bridges(*anchor);
            }
        }
        let undone = change.mode == Mode::Reverting
            || (change.kind == Kind::Anchor && change.to.anchor == change.incumbent);
        self.last = Some(if undone {
            Outcome::SafelyAborted
        } else {
            Outcome::Completed
        });
        self.active = change.to;
    }

    fn published(
        &mut self,
        now: UnixTime,
        cluster: &ClusterId,
        scope: Scope,
        generation: Generation,
        digest: crate::id::Digest,
    ) -> Result<(), Refusal> {
        if self.bundles.known(generation).is_none() {
            return Err(Refusal::UnknownGeneration { generation });
        }
        let same = self.bundles.confirm(generation, digest);
        let clears = generation == self.bundles.current()
            && self.change.as_ref().is_some_and(|change| {
                change.phase == Phase::Retirement && self.is_tainted(change.from.anchor)
            });
        let at = self.cluster(cluster)?;
        at.heard = now;
        if !same {
            at.drifted.get_or_insert(now);
            return Ok(());
        }
        match scope {
            Scope::All => {
                if clears && at.published < generation {
                    at.cleared = Some(now);
                }
                at.published = at.published.max(generation);
            }
            Scope::Canaries => {
                at.published_to_canaries = at.published_to_canaries.max(Some(generation));
            }
        }
        Ok(())
    }
}
