//! Processes, clusters and the network as they really are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::scenario::{A, B, Budget, C, START, Scenario, anchor_of, digest, issuer, workload};
use crate::{
    Action, Event, Evidence, Generation, IssuerId, Loaded, Refusal, Rotation, Standing, UnixTime,
};

/// Everything there is. What the machine believes is in `record`; everything else is true.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) now: UnixTime,
    pub(super) record: Arc<Rotation>,
    pub(super) sites: Vec<Site>,
    pub(super) processes: Vec<Process>,
    /// Evidence that was ever sent, with who sent it.
    pub(super) sent: BTreeSet<(usize, Evidence)>,
    /// What the record was when a backup was made.
    pub(super) backup: Option<Arc<Rotation>>,
    /// The faults that are left.
    pub(super) left: Budget,
    /// The anchors whose keys are in other hands, as far as anybody who still knows has said.
    pub(super) stolen: u8,
    /// An invariant about a step that was broken by the last step.
    pub(super) broken: Option<&'static str>,
}

/// A cluster's controller, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub(super) served: Bundle,
    pub(super) canary: Option<Bundle>,
    pub(super) signing: IssuerId,
    /// The leases it knows it has, and how long leaves were to live when it got them: it signs on them without asking while it can.
    pub(super) leases: Vec<(IssuerId, UnixTime, Duration)>,
    /// Nothing gets through between it and the coordinator.
    pub(super) cut: bool,
    pub(super) heard: UnixTime,
}

/// A bundle as it is loaded: the generation it claims, and the anchors that are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Bundle {
    pub(super) generation: Generation,
    pub(super) anchors: u8,
    /// Whether the pinned bundle key signed it.
    pub(super) genuine: bool,
}

/// A process, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) online: bool,
    pub(super) incarnation: u64,
    /// How often what it would report has changed.
    pub(super) changes: u64,
    /// What each of its workers uses.
    pub(super) workers: Vec<Bundle>,
    pub(super) leaf: Option<Leaf>,
    /// Under which anchor its open connection and its session ticket were verified.
    pub(super) connection: Option<u8>,
    pub(super) ticket: Option<u8>,
    /// It was declared gone, and goes on without asking anybody.
    pub(super) gone: bool,
    /// Its cluster lists it.
    pub(super) declared: bool,
    /// When it last spoke to anybody who would tell the machine.
    pub(super) spoke: UnixTime,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaf {
    pub(super) issuer: IssuerId,
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
    /// The end of the cross-certificate that it is served with, and the anchor that signed that.
    pub(super) bridge: Option<(u8, UnixTime)>,
}

impl Bundle {
    pub(super) fn has(self, anchor: u8) -> bool {
        self.anchors & anchor != 0
    }

    pub(super) fn first() -> Self {
        Self {
            generation: Generation(1),
            anchors: A,
            genuine: true,
        }
    }

    pub(super) fn loaded(self) -> Loaded {
        Loaded {
            generation: self.generation,
            digest: digest(self.anchors),
        }
    }
}

impl Leaf {
    pub(super) fn anchor(&self) -> u8 {
        anchor_of(self.issuer)
    }
}

impl World {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mut rotation =
            Rotation::new(scenario.settings.clone(), scenario.mesh(), START).unwrap();
        rotation.without = scenario.without;
        let sites = (0..scenario.clusters).map(|at| Site {
            served: Bundle::first(),
            canary: None,
            signing: issuer(A, at, false),
            leases: Vec::new(),
            cut: false,
            heard: START,
        });
        let not_after = START.after(scenario.settings.leaf_life);
        let processes = scenario.specs.iter().map(|spec| Process {
            online: true,
            incarnation: 1,
            changes: 0,
            workers: vec![Bundle::first(); spec.workers],
            leaf: Some(Leaf {
                issuer: issuer(A, spec.cluster, false),
                not_before: START.before(scenario.settings.backdate),
                not_after,
                bridge: None,
            }),
            connection: None,
            ticket: None,
            gone: false,
            declared: !spec.undeclared,
            spoke: START,
        });
        let mut world = Self {
            now: START,
            sites: sites.collect(),
            processes: processes.collect(),
            record: Arc::new(rotation),
            sent: BTreeSet::new(),
            backup: None,
            left: scenario.budget,
            stolen: 0,
            broken: None,
        };
        for at in 0..scenario.clusters {
            world.lease(scenario, at);
        }
        for (at, spec) in scenario.specs.iter().enumerate() {
            if spec.known {
                let request = world.request(scenario, at);
                world.tell(Event::Certify(request)).unwrap();
            }
        }
        if scenario.standby {
            world
                .tell(Event::Standby(Box::new(scenario.proposal(C))))
                .unwrap();
            world.work_everywhere(scenario);
            for process in &mut world.processes {
                process.workers.fill(world.sites[0].served);
            }
        }
        for at in 0..scenario.specs.len() {
            if scenario.specs[at].undeclared {
                world.observe(scenario, at);
            }
        }
        let to = if scenario.issuers_only { A } else { B };
        if !scenario.idle {
            world
                .tell(Event::Start(Box::new(scenario.proposal(to))))
                .unwrap();
        }
        world.broken = None;
        world
    }

    /// Has the leading controller handle an event.
    pub(super) fn tell(&mut self, event: Event) -> Result<Vec<Action>, Refusal> {
        let now = self.now;
        Arc::make_mut(&mut self.record).handle(now, event)
    }

    pub(super) fn standing(&self, scenario: &Scenario, at: usize) -> Option<Standing> {
        let known = self
            .record
            .consumers()
            .get(&workload(scenario.specs[at].name));
        known.map(|known| known.standing)
    }

    /// Whether others may talk to it: it is not quarantined on record.
    pub(super) fn permitted(&self, scenario: &Scenario, at: usize) -> bool {
        !matches!(
            self.standing(scenario, at),
            Some(Standing::Quarantined { .. })
        )
    }

    pub(super) fn leaf_alive(&self, scenario: &Scenario, at: usize) -> Option<&Leaf> {
        let alive = |leaf: &&Leaf| leaf.not_after.after(scenario.settings.skew) >= self.now;
        self.processes[at].leaf.as_ref().filter(alive)
    }
}
