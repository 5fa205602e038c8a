//! The record: what is stored, as a whole or in pieces, and written by one compare-and-swap.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::audit::{Chain, Entry, Hash};
use crate::blocker::Gate;
use crate::bundle::Bundles;
use crate::change::Change;
use crate::cluster::Cluster;
use crate::consumer::Consumer;
use crate::error::{Error, Refusal};
use crate::event::Event;
use crate::id::{ClusterId, Digest, Epoch, IssuerId, WorkloadId};
use crate::restore::Restoring;
use crate::rotation::Rotation;
use crate::settings::Settings;
use crate::time::UnixTime;

/// The machine and its audit chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    rotation: Rotation,
    #[serde(default)]
    pub(crate) audit: Chain,
}

/// Why an event was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotRecorded {
    /// The machine does not take it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be entered in the audit chain.
    #[error(transparent)]
    Audit(#[from] Error),
}

impl Record {
    /// The version that this crate writes. It reads this one and all before it.
    pub const VERSION: u32 = 1;

    /// The most bytes a stored record may have.
    pub const MAX_BYTES: usize = 64 * 1024 * 1024;

    /// A record of a machine with nothing in its audit chain.
    #[must_use]
    pub fn new(rotation: Rotation) -> Self {
        Self {
            version: Self::VERSION,
            rotation,
            audit: Chain::default(),
        }
    }

    /// The same with another machine.
    pub(crate) fn with(&self, rotation: Rotation) -> Self {
        Self {
            version: self.version,
            rotation,
            audit: self.audit.clone(),
        }
    }

    pub(crate) fn put_consumers(&mut self, consumers: BTreeMap<WorkloadId, Consumer>) {
        self.rotation.consumers = consumers;
    }

    /// The machine.
    #[must_use]
    pub fn rotation(&self) -> &Rotation {
        &self.rotation
    }

    /// The audit chain.
    #[must_use]
    pub fn audit(&self) -> &Chain {
        &self.audit
    }

    /// Has the machine take an event, on behalf of who leads under this epoch, and enters what changed in the audit chain.
    /// What only repeats itself - evidence, renewals of leaves and of leases - has no entry: leaves have the ledger, and the
    /// rest is in the grounds of the change it leads to.
    ///
    /// # Errors
    /// [`NotRecorded`]; nothing has changed then.
    pub fn apply(
        &mut self,
        epoch: Epoch,
        now: UnixTime,
        actor: &str,
        event: Event,
        hash: &impl Hash,
    ) -> Result<Vec<Action>, NotRecorded> {
        if !matches!(event, Event::Lead(_)) {
            self.rotation.fence(epoch)?;
        }
        let entry = |rotation: &Rotation, word: &str, gate: Option<Gate>, inputs: Digest| {
            let by = (epoch, now, actor);
            entry(rotation, by, word, gate, inputs)
        };
        if let Some(about) = About::of(&event) {
            // Of one consumer or cluster: not everything is copied and compared for it.
            let before = about.known(&self.rotation)?;
            let undo = Undo::of(&about, &event, &self.rotation);
            let actions = self.rotation.handle(now, event)?;
            let entered = about.known(&self.rotation).and_then(|after| {
                if before == after {
                    return Ok(());
                }
                let entry = entry(&self.rotation, about.word, None, hash.digest(&after));
                self.audit.add(entry, hash)
            });
            if let Err(error) = entered {
                undo.put_back(&mut self.rotation);
                return Err(error.into());
            }
            return Ok(actions);
        }
        let word = word(&event, self.rotation.settings());
        let mut next = self.rotation.clone();
        let actions = next.handle(now, event)?;
        if next == self.rotation {
            return Ok(actions);
        }
        let inputs = hash.digest(&json(&self.rotation.consumers)?);
        let gate = Some(self.rotation.gate(now));
        self.audit.add(entry(&next, &word, gate, inputs), hash)?;
        self.rotation = next;
        Ok(actions)
    }

    /// Enters a deed that changes nothing of the machine, about what these bytes name: what an operator does with a key.
    ///
    /// # Errors
    /// [`NotRecorded`]; nothing has changed then.
    pub fn note(
        &mut self,
        epoch: Epoch,
        now: UnixTime,
        actor: &str,
        (deed, about): (&str, &[u8]),
        hash: &impl Hash,
    ) -> Result<(), NotRecorded> {
        self.rotation.fence(epoch)?;
        let (by, inputs) = ((epoch, now, actor), hash.digest(about));
        let entry = entry(&self.rotation, by, deed, None, inputs);
        Ok(self.audit.add(entry, hash)?)
    }

    /// The bytes to store.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        json(self)
    }

    /// Reads stored bytes, of this version or one before it.
    ///
    /// # Errors
    /// [`Error::RecordVersion`] or [`Error::Record`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let wrong = |reason: String| Error::Record { reason };
        if bytes.len() > Self::MAX_BYTES {
            return Err(wrong(format!(
                "{} bytes; at most {}",
                bytes.len(),
                Self::MAX_BYTES
            )));
        }
        let Versioned { version } =
            serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if version > Self::VERSION {
            return Err(Error::RecordVersion {
                found: version,
                supported: Self::VERSION,
            });
        }
        let mut record: Self =
            serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        record.rotation.settings.check()?;
        record.version = Self::VERSION;
        Ok(record)
    }
}

/// An entry to be added.
fn entry(
    rotation: &Rotation,
    (epoch, at, actor): (Epoch, UnixTime, &str),
    event: &str,
    gate: Option<Gate>,
    inputs: Digest,
) -> Entry {
    let blockers = gate.as_ref().map_or(0, |gate| gate.blockers().len());
    Entry {
        index: 0,
        at,
        epoch,
        actor: actor.to_owned(),
        event: event.to_owned(),
        phase: rotation.change().map(|change| change.phase),
        generation: rotation.bundles().current(),
        gate: gate.map(shortened),
        blockers,
        inputs,
        previous: Digest::new([0; 32]),
    }
}

const LEFT: &str = "left";
const SERVED: &str = "served";

/// What an event of a single consumer or cluster is about.
struct About {
    word: &'static str,
    workload: Option<WorkloadId>,
    cluster: Option<ClusterId>,
}

impl About {
    /// None for events that are about more.
    fn of(event: &Event) -> Option<Self> {
        let consumer = |word, workload: &WorkloadId| {
            let workload = Some(workload.clone());
            Some(Self {
                word,
                workload,
                cluster: None,
            })
        };
        let at = |word, cluster: &ClusterId| {
            let cluster = Some(cluster.clone());
            Some(Self {
                word,
                workload: None,
                cluster,
            })
        };
        match event {
            Event::Evidence { evidence, .. } => consumer("seen", &evidence.workload),
            Event::Certify(request) => consumer("certified", &request.workload),
            Event::Joined { workload, .. } => consumer("joined", workload),
            Event::Rejoined { workload, .. } => consumer("rejoined", workload),
            Event::Left(workload) => consumer(LEFT, workload),
            Event::Quarantine(workload) => consumer("quarantined", workload),
            Event::Served { cluster, .. } => at(SERVED, cluster),
            Event::SigningLease { cluster, .. } => at("signing lease", cluster),
            Event::LeaseReturned { cluster, .. } => at("lease returned", cluster),
            _ => None,
        }
    }

    /// What is known of it that does not merely repeat itself.
    fn known(&self, rotation: &Rotation) -> Result<Vec<u8>, Error> {
        let workload = self.workload.as_ref().map(|id| {
            let known = rotation.consumers.get(id);
            let known = known.map(|known| (known.class, known.incarnation, known.standing));
            (id, known, rotation.undeclared.get(id))
        });
        let cluster = self.cluster.as_ref().map(|id| {
            let known = rotation.clusters.get(id).map(|known| {
                let leases = known.ledger.iter();
                let leases = leases.filter(|(_, ledger)| ledger.lease_until.is_some());
                let leases: Vec<IssuerId> = leases.map(|(issuer, _)| *issuer).collect();
                (known.published, known.drifted, leases)
            });
            (id, known, rotation.bundles.highest())
        });
        json(&(workload, cluster))
    }
}

/// All that an event about a single consumer or cluster may change: what is put back if it could not be entered.
struct Undo {
    consumer: Option<(WorkloadId, Option<Consumer>, Option<UnixTime>)>,
    /// That of the consumer, and that of the event.
    clusters: Vec<(ClusterId, Cluster)>,
    change: Option<Option<Change>>,
    learned: Option<(Bundles, Option<Restoring>)>,
}

impl Undo {
    fn of(about: &About, event: &Event, rotation: &Rotation) -> Self {
        let home = about.workload.as_ref();
        let home = home.and_then(|id| rotation.consumers.get(id));
        let asked = match event {
            Event::Certify(request) => Some(&request.cluster),
            Event::Joined { cluster, .. } => Some(cluster),
            _ => about.cluster.as_ref(),
        };
        let touched = home.map(|known| &known.cluster).into_iter().chain(asked);
        let touched = touched.filter_map(|id| rotation.clusters.get_key_value(id));
        let consumer = about.workload.clone().map(|id| {
            let known = rotation.consumers.get(&id).cloned();
            let undeclared = rotation.undeclared.get(&id).copied();
            (id, known, undeclared)
        });
        Self {
            consumer,
            clusters: touched
                .map(|(id, known)| (id.clone(), known.clone()))
                .collect(),
            change: (about.word == LEFT).then(|| rotation.change.clone()),
            learned: (about.word == SERVED)
                .then(|| (rotation.bundles.clone(), rotation.restoring.clone())),
        }
    }

    fn put_back(self, rotation: &mut Rotation) {
        if let Some((id, known, undeclared)) = self.consumer {
            rotation.consumers.remove(&id);
            rotation.undeclared.remove(&id);
            rotation
                .undeclared
                .extend(undeclared.map(|since| (id.clone(), since)));
            rotation.consumers.extend(known.map(|known| (id, known)));
        }
        rotation.clusters.extend(self.clusters);
        if let Some(change) = self.change {
            rotation.change = change;
        }
        if let Some((bundles, restoring)) = self.learned {
            rotation.bundles = bundles;
            rotation.restoring = restoring;
        }
    }
}

/// What an entry calls an event about more than one consumer or cluster.
fn word(event: &Event, settings: &Settings) -> String {
    let word = match event {
        Event::Configure(to) => return format!("configure {}", settings.differing(to).join(", ")),
        Event::Tick => "tick",
        Event::Lead(_) => "lead",
        Event::Start(_) => "start",
        Event::Standby(_) => "standby",
        Event::Pause => "pause",
        Event::Resume => "resume",
        Event::Abort => "abort",
        Event::Taint(_) => "taint",
        Event::Override { .. } => "override",
        Event::CarryByBridge(_) => "carry by bridge",
        Event::Restored => "restored",
        Event::Inventory { .. } => "inventory",
        Event::BridgeMade(_) => "bridge made",
        Event::Confirmed(_) => "confirmed",
        _ => "changed",
    };
    word.to_owned()
}

fn shortened(gate: Gate) -> Gate {
    match gate {
        Gate::Blocked(mut blockers) => {
            blockers.truncate(Entry::BLOCKERS);
            Gate::Blocked(blockers)
        }
        Gate::Idle | Gate::Open => gate,
    }
}

pub(crate) fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Record {
        reason: error.to_string(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::authority::Bridge;
    use crate::consumer::Class;
    use crate::event::{Effect, Proposal, Request};
    use crate::evidence::{Connections, Loaded, Report};
    use crate::id::{AnchorId, Generation, Incarnation};
    use crate::phase::Phase;

    /// An entry says what happened, and of whom it is said.
    #[test]
    fn each_event_is_entered_under_a_word_of_its_own() {
        let anchor = AnchorId::new([1; 32]);
        let workload = || WorkloadId::new("web").unwrap();
        let cluster = || ClusterId::new("east").unwrap();
        let (incarnation, issuer) = (Incarnation(1), IssuerId::new([2; 32]));
        let loaded = Loaded {
            generation: Generation(1),
            digest: Digest::new([3; 32]),
        };
        let proposal = || {
            Box::new(Proposal {
                anchor: None,
                issuers: [].into(),
                canaries: BTreeSet::new(),
            })
        };
        let report = Report {
            sequence: 1,
            at: UnixTime(1),
            loaded: None,
            leaf: None,
            connections: Connections::None,
        };
        let entered = UnixTime(1);
        let about_many = [
            (Event::Tick, "tick"),
            (Event::Lead(Epoch(1)), "lead"),
            (Event::Start(proposal()), "start"),
            (Event::Standby(proposal()), "standby"),
            (Event::Pause, "pause"),
            (Event::Resume, "resume"),
            (Event::Abort, "abort"),
            (Event::Taint(anchor), "taint"),
            (
                Event::Override {
                    phase: Phase::Issue,
                    breaks: BTreeSet::new(),
                },
                "override",
            ),
            (Event::CarryByBridge(BTreeSet::new()), "carry by bridge"),
            (Event::Restored, "restored"),
            (
                Event::Inventory {
                    cluster: cluster(),
                    consumers: [].into(),
                },
                "inventory",
            ),
            (
                Event::BridgeMade(Bridge {
                    subject: anchor,
                    signer: anchor,
                    not_after: UnixTime(1),
                }),
                "bridge made",
            ),
            (
                Event::Confirmed(Effect::AnchorRetired { anchor }),
                "confirmed",
            ),
            (Event::Configure(Box::default()), "configure "),
        ];
        for (event, expected) in about_many {
            assert!(About::of(&event).is_none(), "{expected}");
            assert_eq!(word(&event, &Settings::default()), expected);
        }
        let request = Request {
            workload: workload(),
            cluster: cluster(),
            class: Class::Reloading,
            incarnation,
            loaded: None,
            accepted: None,
        };
        let joined = Event::Joined {
            workload: workload(),
            cluster: cluster(),
            class: Class::Reloading,
            incarnation,
        };
        let rejoined = Event::Rejoined {
            workload: workload(),
            incarnation,
            loaded,
        };
        let of_workloads = [
            (Event::said(&workload(), incarnation, report), "seen"),
            (Event::Certify(request), "certified"),
            (joined, "joined"),
            (rejoined, "rejoined"),
            (Event::Left(workload()), "left"),
            (Event::Quarantine(workload()), "quarantined"),
        ];
        for (event, expected) in of_workloads {
            let about = About::of(&event).unwrap();
            assert_eq!(about.word, expected);
            assert_eq!((about.workload, about.cluster), (Some(workload()), None));
        }
        let served = Event::Served {
            cluster: cluster(),
            loaded,
            highest: Generation(1),
        };
        let lease = Event::SigningLease {
            cluster: cluster(),
            issuer,
        };
        let returned = Event::LeaseReturned {
            cluster: cluster(),
            issuer,
            entered,
        };
        let of_clusters = [
            (served, "served"),
            (lease, "signing lease"),
            (returned, "lease returned"),
        ];
        for (event, expected) in of_clusters {
            let about = About::of(&event).unwrap();
            assert_eq!(about.word, expected);
            assert_eq!((about.workload, about.cluster), (None, Some(cluster())));
        }
    }
}
