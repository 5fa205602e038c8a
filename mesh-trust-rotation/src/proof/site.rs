//! What clusters' controllers do and say.

use super::scenario::{B, LONG, START, Scenario, anchor_of, bit, cluster, digest, workload};
use super::world::{Bundle, World};
use crate::{Action, Bridge, Effect, Event, Generation, Scope, UnixTime};

impl World {
    /// What a cluster's controller does when it gets to work: hears what is due, does it, confirms it.
    pub(super) fn work(&mut self, scenario: &Scenario, at: usize) {
        if self.sites[at].cut {
            return;
        }
        self.greet(scenario, at);
        // Once for what has to be composed, once for what can be published then.
        for _ in 0..2 {
            for action in self.record.pending(self.now) {
                self.carry_out(scenario, at, &action);
                self.confirm(scenario, at, &action);
            }
        }
        self.lease(scenario, at);
    }

    pub(super) fn work_everywhere(&mut self, scenario: &Scenario) {
        for at in 0..self.sites.len() {
            self.work(scenario, at);
        }
    }

    /// A cluster says what it serves and whom it has, if that was not said of late.
    pub(super) fn greet(&mut self, scenario: &Scenario, at: usize) {
        let id = cluster(at);
        let known = &self.record.clusters()[&id];
        let started = self.record.change().map(|change| change.started);
        let restoring = self.record.restoring_since().is_some() && known.inventoried.is_none();
        if restoring
            || started.is_some_and(|started| known.inventoried.is_none_or(|at| at < started))
        {
            self.list(scenario, at);
        }
        let known = &self.record.clusters()[&id];
        let served = self.sites[at].served;
        let canary = self.sites[at]
            .canary
            .map_or(Generation(0), |canary| canary.generation);
        let highest = canary.max(served.generation);
        let drifted = self
            .record
            .bundles()
            .known(served.generation)
            .and_then(|bundle| bundle.digest);
        let drifted = drifted.is_some_and(|digest| digest != served.loaded().digest);
        if restoring || known.heard < self.now || drifted != known.drifted.is_some() {
            self.tell(Event::Served {
                cluster: id,
                loaded: served.loaded(),
                highest,
            })
            .unwrap();
        }
        self.sites[at].heard = self.now;
    }

    /// A cluster lists its consumers.
    pub(super) fn list(&mut self, scenario: &Scenario, at: usize) {
        let all = scenario.specs.iter().zip(&self.processes);
        let here =
            all.filter(|(spec, process)| spec.cluster == at && process.declared && !process.gone);
        let consumers = here
            .map(|(spec, _)| (workload(spec.name), spec.class))
            .collect();
        let cluster = cluster(at);
        self.tell(Event::Inventory { cluster, consumers }).unwrap();
    }

    /// Carries an action out, as far as it is this cluster's.
    pub(super) fn carry_out(&mut self, scenario: &Scenario, at: usize, action: &Action) {
        let here = |id: &crate::ClusterId| *id == cluster(at);
        match action {
            Action::Publish {
                cluster,
                scope,
                generation,
                anchors,
            } if here(cluster) => {
                let anchors = anchors.iter().map(|anchor| bit(*anchor)).sum();
                let bundle = Bundle {
                    generation: *generation,
                    anchors,
                    genuine: true,
                };
                let site = &mut self.sites[at];
                if *generation < site.served.generation {
                    self.broken = Some("S10: nobody is asked to go down to an older generation");
                }
                match scope {
                    Scope::All => {
                        if site.served.generation <= *generation {
                            site.served = bundle;
                        }
                        site.canary = site.canary.filter(|canary| canary.generation > *generation);
                    }
                    Scope::Canaries => {
                        let newer = site.served.generation < *generation;
                        site.canary = newer.then_some(bundle);
                    }
                }
            }
            Action::SwitchIssuer { cluster, issuer } if here(cluster) => {
                self.sites[at].signing = *issuer;
            }
            Action::RotateTickets { cluster, .. } if here(cluster) => {
                for (process, spec) in self.processes.iter_mut().zip(&scenario.specs) {
                    if spec.cluster == at {
                        process.ticket = None;
                    }
                }
            }
            Action::DrainConnections {
                workload: name,
                anchor,
                cut: true,
            } => {
                for (process, spec) in self.processes.iter_mut().zip(&scenario.specs) {
                    let meant = spec.cluster == at && workload(spec.name) == *name;
                    if meant && process.online && process.connection == Some(bit(*anchor)) {
                        process.connection = None;
                        process.changes += 1;
                    }
                }
            }
            _ => {}
        }
    }

    /// Confirms an action, if its effect is to be seen.
    pub(super) fn confirm(&mut self, scenario: &Scenario, at: usize, action: &Action) {
        let id = cluster(at);
        let site = &self.sites[at];
        let event = match action {
            Action::Publish {
                cluster,
                scope,
                generation,
                ..
            } if *cluster == id => {
                let seen = match scope {
                    Scope::All => Some(site.served),
                    Scope::Canaries => site.canary,
                };
                let Some(seen) = seen.filter(|seen| seen.generation == *generation) else {
                    return;
                };
                Event::Confirmed(Effect::Published {
                    cluster: id,
                    scope: *scope,
                    generation: *generation,
                    digest: seen.loaded().digest,
                })
            }
            Action::SwitchIssuer { cluster, issuer }
                if *cluster == id && site.signing == *issuer =>
            {
                Event::Confirmed(Effect::IssuerSwitched {
                    cluster: id,
                    issuer: *issuer,
                })
            }
            Action::RotateTickets {
                cluster,
                generation,
            } if *cluster == id => {
                let old = scenario.specs.iter().zip(&self.processes);
                if old
                    .into_iter()
                    .any(|(spec, process)| spec.cluster == at && process.ticket.is_some())
                {
                    return;
                }
                Event::Confirmed(Effect::TicketsRotated {
                    cluster: id,
                    generation: *generation,
                })
            }
            Action::Compose {
                generation,
                anchors,
            } => Event::Confirmed(Effect::Composed {
                generation: *generation,
                digest: digest(anchors.iter().map(|anchor| bit(*anchor)).sum()),
            }),
            Action::VerifyIssuer { issuer } if scenario.bad_issuer && anchor_of(*issuer) == B => {
                return;
            }
            Action::VerifyIssuer { issuer } => {
                Event::Confirmed(Effect::IssuerVerified { issuer: *issuer })
            }
            Action::RetireAnchor { anchor } => {
                Event::Confirmed(Effect::AnchorRetired { anchor: *anchor })
            }
            Action::MakeBridge { subject, signer } => Event::BridgeMade(Bridge {
                subject: *subject,
                signer: *signer,
                not_after: UnixTime(START.0 + scenario.bridge_ends.min(LONG)),
            }),
            _ => return,
        };
        // What the machine refuses here it has not asked for: a confirmation of long ago.
        let _ = self.tell(event);
    }

    /// Renews signing leases that have ended; gives back those that are not to be used any more.
    pub(super) fn lease(&mut self, scenario: &Scenario, at: usize) {
        let id = cluster(at);
        for issuer in self.record.authorised(&id) {
            let ledger = self.record.clusters()[&id]
                .ledger
                .get(&issuer)
                .copied()
                .unwrap_or_default();
            if ledger.lease_until.is_none_or(|until| until <= self.now) {
                let asked = self.tell(Event::SigningLease {
                    cluster: id.clone(),
                    issuer,
                });
                if asked.is_ok() && scenario.budget.detached > 0 {
                    let told = self.record.settings();
                    let (until, life) = (self.now.after(told.signing_lease), told.leaf_life);
                    let leases = &mut self.sites[at].leases;
                    leases.retain(|(other, ..)| *other != issuer);
                    leases.push((issuer, until, life));
                }
            }
        }
        // With detached signers the lease is never given back: the hardest case.
        if scenario.budget.detached == 0 {
            let authorised = self.record.authorised(&id);
            let ledger = self.record.clusters()[&id].ledger.clone();
            for (issuer, ledger) in ledger {
                if ledger.lease_until.is_some() && !authorised.contains(&issuer) {
                    let entered = ledger.entered;
                    let _ = self.tell(Event::LeaseReturned {
                        cluster: id.clone(),
                        issuer,
                        entered,
                    });
                }
            }
        }
    }

    /// What a process would load next: canaries are given their own.
    pub(super) fn offered(&self, scenario: &Scenario, at: usize) -> Bundle {
        let spec = &scenario.specs[at];
        let site = &self.sites[spec.cluster];
        match site.canary.filter(|_| spec.canary) {
            Some(canary) if canary.generation > site.served.generation => canary,
            _ => site.served,
        }
    }
}
