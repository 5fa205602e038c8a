//! The machine: its state, and which event goes where.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::authority::{Anchor, Bridge, Issuer};
use crate::bundle::Bundles;
use crate::change::{Change, Outcome, Side};
use crate::cluster::Cluster;
use crate::consumer::Consumer;
use crate::error::{Error, Refusal};
use crate::event::Event;
#[cfg(test)]
use crate::guard::Guard;
use crate::id::{AnchorId, ClusterId, Digest, Epoch, Generation, IssuerId, WorkloadId};
use crate::restore::Restoring;
use crate::settings::Settings;
use crate::time::UnixTime;

/// The trust of a mesh and the change that it is going through: a plain value.
///
/// It is told what happened by [`handle`](Self::handle) and says what to do; [`gate`](Self::gate) says what stands in
/// the way of the next phase, [`plan`](Self::plan) what is to come.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rotation {
    pub(crate) settings: Settings,
    pub(crate) epoch: Epoch,
    pub(crate) anchors: BTreeMap<AnchorId, Anchor>,
    pub(crate) issuers: BTreeMap<IssuerId, Issuer>,
    pub(crate) bridges: BTreeSet<Bridge>,
    pub(crate) clusters: BTreeMap<ClusterId, Cluster>,
    pub(crate) consumers: BTreeMap<WorkloadId, Consumer>,
    /// Who presented a certificate of the mesh and is in no inventory, and since when.
    pub(crate) undeclared: BTreeMap<WorkloadId, UnixTime>,
    /// What signs while nothing changes.
    pub(crate) active: Side,
    pub(crate) standby: Option<Side>,
    pub(crate) bundles: Bundles,
    pub(crate) change: Option<Change>,
    pub(crate) last: Option<Outcome>,
    /// Anchors that are in no bundle any more and whose keys are to go.
    pub(crate) retiring: BTreeSet<AnchorId>,
    /// The number of the last rotation of session ticket keys that was asked for.
    pub(crate) ticket_round: Generation,
    pub(crate) restoring: Option<Restoring>,
    /// The guard that the proof took away.
    #[cfg(test)]
    #[serde(skip)]
    pub(crate) without: Option<Guard>,
}

/// A mesh as it is before its first change.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// The anchor in use.
    pub anchor: Anchor,
    /// The issuer of each cluster.
    pub issuers: BTreeMap<ClusterId, Issuer>,
    /// The generation of the bundle in use.
    pub generation: Generation,
    /// The digest of the bundle in use.
    pub digest: Digest,
}

impl Rotation {
    /// All of it but who trusts.
    pub(crate) fn without_consumers(&self) -> Self {
        Self {
            consumers: BTreeMap::new(),
            settings: self.settings.clone(),
            epoch: self.epoch,
            anchors: self.anchors.clone(),
            issuers: self.issuers.clone(),
            bridges: self.bridges.clone(),
            clusters: self.clusters.clone(),
            undeclared: self.undeclared.clone(),
            active: self.active.clone(),
            standby: self.standby.clone(),
            bundles: self.bundles.clone(),
            change: self.change.clone(),
            last: self.last,
            retiring: self.retiring.clone(),
            ticket_round: self.ticket_round,
            restoring: self.restoring.clone(),
            #[cfg(test)]
            without: self.without,
        }
    }

    /// The most consumers without a declaration that are remembered; more of them change nothing.
    pub const MAX_UNDECLARED: usize = 1024;

    /// Takes over a mesh as it is.
    ///
    /// # Errors
    /// [`Error::Setting`]; [`Error::Mesh`] if there is no cluster or an issuer is not the anchor's.
    pub fn new(settings: Settings, mesh: Mesh, now: UnixTime) -> Result<Self, Error> {
        settings.check()?;
        if mesh.issuers.is_empty() {
            return Err(Error::Mesh {
                reason: "it has no cluster",
            });
        }
        if mesh
            .issuers
            .values()
            .any(|issuer| issuer.anchor != mesh.anchor.id)
        {
            return Err(Error::Mesh {
                reason: "an issuer is of another anchor",
            });
        }
        let anchor = mesh.anchor.id;
        let clusters = mesh
            .issuers
            .iter()
            .map(|(id, issuer)| (id.clone(), Cluster::new(mesh.generation, issuer.id, now)));
        let side = Side {
            anchor,
            issuers: mesh
                .issuers
                .iter()
                .map(|(id, issuer)| (id.clone(), issuer.id))
                .collect(),
        };
        Ok(Self {
            epoch: Epoch(0),
            clusters: clusters.collect(),
            anchors: BTreeMap::from([(anchor, mesh.anchor)]),
            issuers: mesh
                .issuers
                .into_values()
                .map(|issuer| (issuer.id, issuer))
                .collect(),
            bridges: BTreeSet::new(),
            consumers: BTreeMap::new(),
            undeclared: BTreeMap::new(),
            active: side,
            standby: None,
            bundles: Bundles::new(mesh.generation, mesh.digest, BTreeSet::from([anchor])),
            change: None,
            last: None,
            retiring: BTreeSet::new(),
            ticket_round: Generation(0),
            restoring: None,
            settings,
            #[cfg(test)]
            without: None,
        })
    }

    /// Takes an event, and says what is due now. What has to be confirmed is said again with every tick until it is. An event
    /// about one consumer says only what is due for it: thousands of them come at a time.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing has changed then.
    pub fn handle(&mut self, now: UnixTime, event: Event) -> Result<Vec<Action>, Refusal> {
        match event {
            Event::Certify(request) => return self.certify(now, request).map(|sign| vec![sign]),
            Event::Evidence { peer, evidence } => {
                self.observe(now, &peer, evidence)?;
                return Ok(Vec::new());
            }
            Event::Tick => self.tick(now),
            Event::Lead(epoch) => self.lead(epoch)?,

            Event::Start(proposal) => self.start(now, &proposal)?,
            Event::Standby(proposal) => self.stand_by(now, &proposal)?,
            Event::Pause => self.pause(now)?,
            Event::Resume => self.resume()?,
            Event::Abort => self.abort(now)?,
            Event::Taint(anchor) => self.taint(now, anchor)?,
            Event::Override { phase, breaks } => self.leave_behind(now, phase, &breaks)?,
            Event::CarryByBridge(stragglers) => self.carry(now, stragglers)?,
            Event::Configure(settings) => self.configure(now, &settings)?,
            Event::Restored => self.restored(now),

            Event::Inventory { cluster, consumers } => self.inventory(now, &cluster, consumers)?,
            Event::Joined {
                workload,
                cluster,
                class,
                incarnation,
            } => {
                self.joined(now, &workload, &cluster, class, incarnation)?;
                return Ok(Vec::new());
            }
            Event::Rejoined {
                workload,
                incarnation,
                loaded,
            } => {
                self.rejoined(now, &workload, incarnation, loaded)?;
                return Ok(Vec::new());
            }
            Event::Left(workload) => {
                self.left(&workload);
                return Ok(Vec::new());
            }
            Event::Quarantine(workload) => {
                self.quarantine(now, &workload)?;
                return Ok(Vec::new());
            }

            Event::Served {
                cluster,
                loaded,
                highest,
            } => self.served(now, &cluster, loaded, highest)?,
            Event::SigningLease { cluster, issuer } => self.lease(now, &cluster, issuer)?,
            Event::LeaseReturned {
                cluster,
                issuer,
                entered,
            } => {
                self.lease_returned(now, &cluster, issuer, entered)?;
            }
            Event::BridgeMade(bridge) => self.bridge_made(now, bridge)?,
            Event::Confirmed(effect) => self.confirmed(now, &effect)?,
        }
        Ok(self.pending(now))
    }

    /// Checks that an epoch leads. To be asked by whoever is about to write, with the epoch it leads under.
    ///
    /// # Errors
    /// [`Refusal::Fenced`].
    pub fn fence(&self, epoch: Epoch) -> Result<(), Refusal> {
        if self.guards(crate::guard::Guard::Epoch) && epoch != self.epoch {
            return Err(Refusal::Fenced {
                found: epoch,
                current: self.epoch,
            });
        }
        Ok(())
    }

    /// The epoch that leads.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The change underway.
    #[must_use]
    pub fn change(&self) -> Option<&Change> {
        self.change.as_ref()
    }

    /// How the last change ended.
    #[must_use]
    pub fn last_outcome(&self) -> Option<Outcome> {
        self.last
    }

    /// The anchor and issuers in use while nothing changes; the old ones while something does.
    #[must_use]
    pub fn active(&self) -> &Side {
        &self.active
    }

    /// The anchor and issuers kept for an emergency.
    #[must_use]
    pub fn standby(&self) -> Option<&Side> {
        self.standby.as_ref()
    }

    /// The bundles given out of late.
    #[must_use]
    pub fn bundles(&self) -> &Bundles {
        &self.bundles
    }

    /// All known anchors.
    #[must_use]
    pub fn anchors(&self) -> &BTreeMap<AnchorId, Anchor> {
        &self.anchors
    }

    /// All known issuers.
    #[must_use]
    pub fn issuers(&self) -> &BTreeMap<IssuerId, Issuer> {
        &self.issuers
    }

    /// All known clusters.
    #[must_use]
    pub fn clusters(&self) -> &BTreeMap<ClusterId, Cluster> {
        &self.clusters
    }

    /// All known consumers.
    #[must_use]
    pub fn consumers(&self) -> &BTreeMap<WorkloadId, Consumer> {
        &self.consumers
    }

    /// Since when it is learning anew after a restore from a backup.
    #[must_use]
    pub fn restoring_since(&self) -> Option<UnixTime> {
        self.restoring.as_ref().map(|restoring| restoring.since)
    }

    fn lead(&mut self, epoch: Epoch) -> Result<(), Refusal> {
        if epoch < self.epoch {
            return Err(Refusal::Fenced {
                found: epoch,
                current: self.epoch,
            });
        }
        self.epoch = epoch;
        Ok(())
    }

    /// Consumers that gates wait for.
    pub(crate) fn required(&self) -> impl Iterator<Item = (&WorkloadId, &Consumer)> {
        self.consumers
            .iter()
            .filter(|(_, consumer)| consumer.is_required())
    }

    pub(crate) fn cluster(&mut self, id: &ClusterId) -> Result<&mut Cluster, Refusal> {
        self.clusters
            .get_mut(id)
            .ok_or_else(|| Refusal::UnknownCluster {
                cluster: id.clone(),
            })
    }

    pub(crate) fn is_tainted(&self, anchor: AnchorId) -> bool {
        self.anchors
            .get(&anchor)
            .is_some_and(|anchor| anchor.tainted.is_some())
    }
}
