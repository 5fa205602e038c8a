//! What a model is given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::guard::Guard;
use crate::lint::{Algorithm, Facts};
use crate::{
    Anchor, AnchorId, Class, ClusterId, Digest, Drain, Generation, Issuer, IssuerId, Mesh,
    Proposal, Settings, UnixTime, WorkloadId,
};

/// The old anchor, the new one, and the standby; as bits, so that a bundle is their sum.
pub(super) const A: u8 = 1;
pub(super) const B: u8 = 2;
pub(super) const C: u8 = 4;

/// When every model begins.
pub(super) const START: UnixTime = UnixTime(1000);
/// For what does not end within a model.
pub(super) const LONG: u64 = 1_000_000;

/// A process of the model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) class: Class,
    pub(super) cluster: usize,
    pub(super) workers: usize,
    pub(super) canary: bool,
    /// Whether the record knows it when the change begins.
    pub(super) known: bool,
    /// Whether it may go offline or be started again.
    pub(super) fails: bool,
    /// Whether it presents a certificate of the mesh and no cluster lists it.
    pub(super) undeclared: bool,
}

impl Spec {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            class: Class::Reloading,
            cluster: 0,
            workers: 1,
            canary: false,
            known: true,
            fails: false,
            undeclared: false,
        }
    }

    pub(super) fn class(self, class: Class) -> Self {
        Self { class, ..self }
    }

    pub(super) fn at(self, cluster: usize) -> Self {
        Self { cluster, ..self }
    }

    pub(super) fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    pub(super) fn canary(self) -> Self {
        Self {
            canary: true,
            ..self
        }
    }

    pub(super) fn hidden(self) -> Self {
        Self {
            known: false,
            ..self
        }
    }

    pub(super) fn undeclared(self) -> Self {
        Self {
            known: false,
            undeclared: true,
            ..self
        }
    }

    pub(super) fn fails(self) -> Self {
        Self {
            fails: true,
            ..self
        }
    }
}

/// How often each fault or act may happen. They are part of the state, so that runs end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    pub(super) offline: u8,
    pub(super) restart: u8,
    /// Restarts from a template of before the change.
    pub(super) stale: u8,
    /// A machine put back to an old snapshot of itself, by something outside the mesh.
    pub(super) snapshot: u8,
    pub(super) connect: u8,
    pub(super) configure: u8,
    pub(super) abort: u8,
    pub(super) pause: u8,
    pub(super) taint_from: u8,
    pub(super) taint_to: u8,
    pub(super) overrides: u8,
    pub(super) early_override: u8,
    pub(super) forge: u8,
    pub(super) annotate: u8,
    pub(super) drift: u8,
    pub(super) cut: u8,
    /// Leaves that a signer releases on its lease without asking the record.
    pub(super) detached: u8,
    pub(super) zombie: u8,
    pub(super) backup: u8,
    pub(super) carry: u8,
    pub(super) evil_document: u8,
    /// Documents far ahead, signed by somebody who once had the bundle key.
    pub(super) leap: u8,
    pub(super) second_start: u8,
    /// A third anchor, when the one to go to is in other hands.
    pub(super) third: u8,
    /// The new anchor proposed again after it was found in other hands and has gone.
    pub(super) again: u8,
    /// Consumers that are declared gone while they go on.
    pub(super) leave: u8,
    /// If any, who fails may be slow to renew.
    pub(super) lazy: u8,
}

/// What a process is trusted to do by itself, taken away in a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Reports the oldest bundle that any of its parts uses.
    AllParts,
    /// Takes only documents of the pinned key.
    PinnedKey,
    /// Never takes an older generation.
    Upwards,
    /// Never takes a generation too far ahead.
    BoundedStep,
    /// A signer stops when its lease ends.
    StopAtLease,
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) specs: Vec<Spec>,
    pub(super) clusters: usize,
    pub(super) settings: Settings,
    /// What an operator changes the settings to, and back.
    pub(super) other_settings: Option<Settings>,
    /// How many seconds it runs.
    pub(super) horizon: u64,
    pub(super) budget: Budget,
    /// Whether evidence of who fails travels in messages that may be lost, repeated and late.
    pub(super) network: bool,
    /// Whether acting and confirming are steps of their own, between which a controller may crash.
    pub(super) stepwise: bool,
    /// Whether a process says at once what it has loaded or been given; if not, that is a step of its own.
    pub(super) prompt: bool,
    /// Only issuers are replaced.
    pub(super) issuers_only: bool,
    pub(super) standby: bool,
    /// No change is begun.
    pub(super) idle: bool,
    /// Seconds after the start.
    pub(super) old_anchor_ends: u64,
    pub(super) old_issuer_ends: u64,
    pub(super) new_begins: u64,
    pub(super) new_ends: u64,
    pub(super) bridge_ends: u64,
    /// The new issuers' key is not what their anchor certified.
    pub(super) bad_issuer: bool,
    /// The guard taken away.
    pub(super) without: Option<Guard>,
    /// Whether the end of runs is looked at in a mutant too.
    pub(super) liveness: bool,
    /// The duty not done.
    pub(super) neglected: Option<Duty>,
}

pub(super) fn settings() -> Settings {
    let second = Duration::from_secs;
    Settings {
        leaf_life: second(2),
        backdate: second(0),
        skew: second(0),
        freshness: second(1),
        consumer_lease: second(2),
        signing_lease: second(1),
        trust_hold: second(0),
        soak: second(0),
        pause_in: BTreeSet::new(),
        phase_budget: second(0),
        unreported_connection_life: second(2),
        drain: Drain::Wait,
        bridges: false,
        reissue_batch: 8,
        reissue_jitter: second(0),
        restart_batch: 1,
        emergency_quorum: 50,
        emergency_deadline: second(1),
    }
}

impl Scenario {
    pub(super) fn new(name: &'static str, specs: Vec<Spec>) -> Self {
        Self {
            name,
            clusters: specs.iter().map(|spec| spec.cluster + 1).max().unwrap_or(1),
            specs,
            settings: settings(),
            other_settings: None,
            horizon: 4,
            budget: Budget::default(),
            network: false,
            stepwise: false,
            prompt: true,
            issuers_only: false,
            standby: false,
            idle: false,
            old_anchor_ends: LONG,
            old_issuer_ends: LONG,
            new_begins: 0,
            new_ends: LONG,
            bridge_ends: LONG,
            bad_issuer: false,
            without: None,
            liveness: true,
            neglected: None,
        }
    }

    pub(super) fn without(mut self, guard: Guard) -> Self {
        self.without = Some(guard);
        self.liveness &= guard == Guard::RestoreGeneration;
        self
    }

    pub(super) fn neglecting(mut self, duty: Duty) -> Self {
        self.neglected = Some(duty);
        self
    }

    pub(super) fn does(&self, duty: Duty) -> bool {
        self.neglected != Some(duty)
    }

    pub(super) fn end(&self) -> UnixTime {
        UnixTime(START.0 + self.horizon)
    }

    pub(super) fn mesh(&self) -> Mesh {
        let anchor = Anchor {
            id: anchor(A),
            subject: Digest::new([A; 32]),
            not_before: UnixTime(0),
            not_after: UnixTime(START.0 + self.old_anchor_ends),
            tainted: None,
        };
        let issuers = (0..self.clusters).map(|at| {
            let issuer = Issuer {
                id: issuer(A, at, false),
                anchor: anchor.id,
                not_before: UnixTime(0),
                not_after: UnixTime(START.0 + self.old_issuer_ends),
                verified: true,
            };
            (cluster(at), issuer)
        });
        Mesh {
            issuers: issuers.collect(),
            anchor,
            generation: Generation(1),
            digest: digest(A),
        }
    }

    /// A change to the anchor of this bit, or of the issuers only.
    pub(super) fn proposal(&self, to: u8) -> Proposal {
        let only = to == A;
        let begins = if to == C {
            0
        } else {
            START.0 + self.new_begins
        };
        let ends = if to == C {
            START.0 + LONG
        } else {
            START.0 + self.new_ends
        };
        let issuers = (0..self.clusters)
            .map(|at| {
                (
                    cluster(at),
                    facts(*issuer(to, at, only).as_bytes(), 100 + to, to, begins, ends),
                )
            })
            .collect::<BTreeMap<_, _>>();
        let canaries = self
            .specs
            .iter()
            .filter(|spec| spec.canary)
            .map(|spec| workload(spec.name));
        let canaries = if to == C {
            BTreeSet::new()
        } else {
            canaries.collect()
        };
        let anchor = (!only).then(|| facts(*anchor(to).as_bytes(), to, to, begins, ends));
        Proposal {
            anchor,
            issuers,
            canaries,
        }
    }
}

pub(super) fn anchor(bit: u8) -> AnchorId {
    AnchorId::new([bit; 32])
}

pub(super) fn bit(anchor: AnchorId) -> u8 {
    anchor.as_bytes()[0]
}

/// The first or second issuer of a cluster under an anchor.
pub(super) fn issuer(anchor: u8, cluster: usize, second: bool) -> IssuerId {
    IssuerId::new([100 + anchor * 10 + 2 * (cluster as u8) + u8::from(second); 32])
}

/// The anchor of an issuer.
pub(super) fn anchor_of(issuer: IssuerId) -> u8 {
    (issuer.as_bytes()[0] - 100) / 10
}

pub(super) fn digest(bits: u8) -> Digest {
    Digest::new([bits; 32])
}

pub(super) fn cluster(at: usize) -> ClusterId {
    ClusterId::new(["east", "west"][at]).unwrap()
}

pub(super) fn workload(name: &str) -> WorkloadId {
    WorkloadId::new(name).unwrap()
}

pub(super) fn facts(key: [u8; 32], subject: u8, issuer: u8, begins: u64, ends: u64) -> Facts {
    Facts {
        key: Digest::new(key),
        subject: Digest::new([subject; 32]),
        issuer: Digest::new([issuer; 32]),
        subject_key_id: Some(vec![key[0]]),
        authority_key_id: None,
        algorithm: Algorithm::P256,
        authority: true,
        path_length: None,
        signs_certificates: true,
        constrains_names: false,
        not_before: UnixTime(begins),
        not_after: UnixTime(ends),
        size_bytes: 500,
    }
}
