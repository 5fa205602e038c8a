//! A cluster in one process with its CA: what it tells the machine, and what it takes from it.

use std::collections::{BTreeMap, BTreeSet};

use crate::action::Action;
use crate::bundle::Scope;
use crate::consumer::Class;
use crate::event::{Event, Request};
use crate::evidence::{Connections, Loaded, Report};
use crate::id::{AnchorId, ClusterId, Digest, Incarnation, IssuerId, WorkloadId};
use crate::rotation::{Mesh, Rotation};
use crate::time::UnixTime;

/// A cluster whose consumers live in the same process as the signer that serves them, so that a bundle is loaded as soon as it is
/// given out, and a leaf is served as soon as it is signed. For a [`World`](crate::driver::World) of one program, and for trying out.
#[derive(Clone, Debug)]
pub struct Site {
    cluster: ClusterId,
    consumers: BTreeMap<WorkloadId, Member>,
    canaries: BTreeSet<WorkloadId>,
    loaded: Loaded,
}

#[derive(Clone, Debug)]
struct Member {
    loaded: Loaded,
    leaf: Option<(IssuerId, UnixTime)>,
}

impl Site {
    /// A cluster of this mesh, with nobody in it yet.
    #[must_use]
    pub fn new(cluster: ClusterId, mesh: &Mesh) -> Self {
        let (generation, digest) = (mesh.generation, mesh.digest);
        Self {
            cluster,
            consumers: BTreeMap::new(),
            canaries: BTreeSet::new(),
            loaded: Loaded { generation, digest },
        }
    }

    /// Adds consumers, which load bundles while they run.
    #[must_use]
    pub fn with(mut self, consumers: impl IntoIterator<Item = WorkloadId>) -> Self {
        let loaded = self.loaded;
        let member = |workload| (workload, Member { loaded, leaf: None });
        self.consumers.extend(consumers.into_iter().map(member));
        self
    }

    /// What the cluster and its consumers say each turn: who there is, which issuers it would go on signing with, what everybody
    /// uses; and a request for a leaf of everybody whose leaf is half over or not of the issuer in use, and of canaries.
    pub fn says(&mut self, now: UnixTime, rotation: &Rotation) -> Vec<Event> {
        self.canaries = rotation
            .change()
            .map_or_else(BTreeSet::new, |change| change.canaries.clone());
        let (cluster, class) = (&self.cluster, Class::Reloading);
        let names = self.consumers.keys();
        let mut events = vec![Event::Inventory {
            cluster: cluster.clone(),
            consumers: names.map(|workload| (workload.clone(), class)).collect(),
        }];
        let leases = rotation.authorised(cluster).into_iter();
        events.extend(leases.map(|issuer| Event::SigningLease {
            cluster: cluster.clone(),
            issuer,
        }));
        let signer = rotation.clusters().get(cluster).map(|at| at.signer);
        let half = rotation.settings().leaf_life / 2;
        for (workload, member) in &self.consumers {
            let report = Report {
                sequence: now.0,
                at: now,
                loaded: Some(member.loaded),
                leaf: member.leaf,
                connections: Connections::None,
            };
            events.push(Event::said(workload, Incarnation(1), report));
            let canary = self.canaries.contains(workload);
            let fresh = member.leaf.is_some_and(|(issuer, ends)| {
                signer == Some(issuer) && ends.since(now) > half && !canary
            });
            if !fresh {
                events.push(Event::Certify(Request {
                    workload: workload.clone(),
                    cluster: cluster.clone(),
                    class,
                    incarnation: Incarnation(1),
                    loaded: Some(member.loaded),
                    accepted: None,
                }));
            }
        }
        events
    }

    /// Takes what an action has for it: a bundle, a leaf. Others change nothing here.
    pub fn takes(&mut self, action: &Action, digest_of: impl Fn(&BTreeSet<AnchorId>) -> Digest) {
        match action {
            Action::Publish {
                cluster,
                scope,
                generation,
                anchors,
            } if *cluster == self.cluster => {
                let loaded = Loaded {
                    generation: *generation,
                    digest: digest_of(anchors),
                };
                for (workload, member) in &mut self.consumers {
                    if *scope == Scope::All || self.canaries.contains(workload) {
                        member.loaded = loaded;
                    }
                }
            }
            Action::Sign {
                workload,
                issuer,
                not_after,
                ..
            } => {
                if let Some(member) = self.consumers.get_mut(workload) {
                    member.leaf = Some((*issuer, *not_after));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Anchor, Generation, Issuer, Settings};

    const LIFE: u64 = 24 * 3600;

    fn site() -> (Site, Rotation) {
        let cluster = ClusterId::new("east").unwrap();
        let id = AnchorId::new([1; 32]);
        let (not_before, not_after) = (UnixTime(0), UnixTime(u64::MAX));
        let anchor = Anchor {
            id,
            subject: Digest::new([1; 32]),
            not_before,
            not_after,
            tainted: None,
        };
        let issuer = Issuer {
            id: IssuerId::new([2; 32]),
            anchor: id,
            not_before,
            not_after,
            verified: true,
        };
        let mesh = Mesh {
            anchor,
            issuers: [(cluster.clone(), issuer)].into(),
            generation: Generation(1),
            digest: Digest::new([1; 32]),
        };
        let site = Site::new(cluster, &mesh).with([WorkloadId::new("web").unwrap()]);
        let rotation = Rotation::new(Settings::default(), mesh, UnixTime(0)).unwrap();
        (site, rotation)
    }

    fn asks(site: &mut Site, rotation: &Rotation, now: u64) -> bool {
        let says = site.says(UnixTime(now), rotation);
        says.iter().any(|event| matches!(event, Event::Certify(_)))
    }

    fn signed(issuer: u8, until: u64) -> Action {
        Action::Sign {
            workload: WorkloadId::new("web").unwrap(),
            issuer: IssuerId::new([issuer; 32]),
            not_before: UnixTime(0),
            not_after: UnixTime(until),
            bridge: None,
        }
    }

    #[test]
    fn a_leaf_is_asked_for_when_half_of_its_life_is_over_or_another_signs() {
        let (mut site, rotation) = site();
        assert!(asks(&mut site, &rotation, 5));
        site.takes(&signed(2, LIFE), |_| Digest::new([9; 32]));
        assert!(!asks(&mut site, &rotation, 5));
        assert!(!asks(&mut site, &rotation, LIFE / 2 - 1));
        assert!(asks(&mut site, &rotation, LIFE / 2));
        site.takes(&signed(3, LIFE), |_| Digest::new([9; 32]));
        assert!(asks(&mut site, &rotation, 5));
    }

    #[test]
    fn what_another_cluster_gives_out_is_not_taken() {
        let (mut site, rotation) = site();
        let publish = |cluster: &str| Action::Publish {
            cluster: ClusterId::new(cluster).unwrap(),
            scope: Scope::All,
            generation: Generation(7),
            anchors: BTreeSet::new(),
        };
        let loaded = |site: &mut Site| {
            let says = site.says(UnixTime(5), &rotation);
            says.into_iter().find_map(|event| match event {
                Event::Evidence { evidence, .. } => evidence.report.loaded,
                _ => None,
            })
        };
        site.takes(&publish("west"), |_| Digest::new([9; 32]));
        assert_eq!(loaded(&mut site).unwrap().generation, Generation(1));
        site.takes(&publish("east"), |_| Digest::new([9; 32]));
        assert_eq!(loaded(&mut site).unwrap().generation, Generation(7));
    }
}
