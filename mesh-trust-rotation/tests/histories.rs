//! Whatever happens, in whatever order: what is refused changes nothing, what is said twice counts once, generations do not go
//! down, signers are trusted by what is given out, phases are left only through their gates, and the record survives the
//! store.

#![allow(clippy::unwrap_used)] // tests

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh_trust_rotation::crypto::Sha256;
use mesh_trust_rotation::lint::{Algorithm, Facts};
use mesh_trust_rotation::{
    Action, Anchor, AnchorId, Bridge, Class, ClusterId, Connections, Digest, Drain, Effect, Epoch,
    Event, Evidence, Generation, Incarnation, Issuer, IssuerId, Loaded, Mesh, Phase, Proposal,
    Record, Report, Request, Rotation, Scope, Settings, Source, UnixTime, WorkloadId,
};
use proptest::prelude::*;

const START: u64 = 1000;

fn anchor(number: u8) -> AnchorId {
    AnchorId::new([number; 32])
}

fn issuer(number: u8, cluster: u8) -> IssuerId {
    IssuerId::new([100 + 10 * number + cluster; 32])
}

fn cluster(number: u8) -> ClusterId {
    ClusterId::new(["east", "west"][usize::from(number % 2)]).unwrap()
}

fn workload(number: u8) -> WorkloadId {
    WorkloadId::new(["web", "db", "vm"][usize::from(number % 3)]).unwrap()
}

/// The digest that the test composes for a set of anchors.
fn digest(anchors: &BTreeSet<AnchorId>) -> Digest {
    Digest::new([anchors.iter().map(|anchor| anchor.as_bytes()[0]).sum(); 32])
}

fn facts(key: [u8; 32], subject: u8, above: u8) -> Facts {
    Facts {
        key: Digest::new(key),
        subject: Digest::new([subject; 32]),
        issuer: Digest::new([above; 32]),
        subject_key_id: Some(vec![subject]),
        authority_key_id: None,
        algorithm: Algorithm::P256,
        authority: true,
        path_length: None,
        signs_certificates: true,
        constrains_names: false,
        not_before: UnixTime(0),
        not_after: UnixTime(1_000_000),
        size_bytes: 400,
    }
}

fn proposal(number: u8, canaries: bool) -> Proposal {
    let issuers = (0..2).map(|at| {
        (
            cluster(at),
            facts(*issuer(number, at).as_bytes(), 200 + number, number),
        )
    });
    let canaries = if canaries {
        BTreeSet::from([workload(0)])
    } else {
        BTreeSet::new()
    };
    Proposal {
        anchor: Some(facts([number; 32], number, number)),
        issuers: issuers.collect(),
        canaries,
    }
}

fn rotation() -> Rotation {
    let (begins, ends) = (UnixTime(0), UnixTime(1_000_000));
    let of = |at| Issuer {
        id: issuer(1, at),
        anchor: anchor(1),
        not_before: begins,
        not_after: ends,
        verified: true,
    };
    let mesh = Mesh {
        anchor: Anchor {
            id: anchor(1),
            subject: Digest::new([1; 32]),
            not_before: begins,
            not_after: ends,
            tainted: None,
        },
        issuers: BTreeMap::from([(cluster(0), of(0)), (cluster(1), of(1))]),
        generation: Generation(1),
        digest: digest(&BTreeSet::from([anchor(1)])),
    };
    let mut settings = Settings::default();
    settings.leaf_life = Duration::from_secs(4);
    settings.skew = Duration::from_secs(1);
    settings.backdate = Duration::from_secs(1);
    settings.freshness = Duration::from_secs(3);
    settings.consumer_lease = Duration::from_secs(8);
    settings.signing_lease = Duration::from_secs(2);
    settings.soak = Duration::from_secs(1);
    settings.phase_budget = Duration::ZERO;
    settings.bridges = true;
    Rotation::new(settings, mesh, UnixTime(START)).unwrap()
}

/// What happens: random events, and in between an attentive world that does what it is told.
#[derive(Clone, Debug)]
enum Happening {
    Event(Box<Event>),
    /// Everybody loads what is given out, renews, reports; everything due is done and confirmed.
    Attend,
    /// A consumer is started anew, joins again if it has to, with the bundle of the day.
    Return(u8),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let small = 0u8..4;
    prop_oneof![
        (1u8..4, any::<bool>())
            .prop_map(|(to, canaries)| Event::Start(Box::new(proposal(to, canaries)))),
        Just(Event::Standby(Box::new(proposal(4, false)))),
        Just(Event::Pause),
        Just(Event::Resume),
        Just(Event::Abort),
        Just(Event::Restored),
        settings().prop_map(|settings| Event::Configure(Box::new(settings))),
        (0u8..5).prop_map(|number| Event::Taint(anchor(number))),
        small
            .clone()
            .prop_map(|number| Event::Left(workload(number))),
        small
            .clone()
            .prop_map(|number| Event::Quarantine(workload(number))),
        (small.clone(), 0u64..4).prop_map(|(number, generation)| Event::Rejoined {
            workload: workload(number),
            incarnation: Incarnation(generation),
            loaded: loaded(generation, number),
        }),
        (small.clone(), 0u64..4).prop_map(|(number, incarnation)| Event::Joined {
            workload: workload(number),
            cluster: cluster(number),
            class: class(number),
            incarnation: Incarnation(incarnation),
        }),
        (small.clone(), small.clone(), 0u64..4, 0u64..2000).prop_map(
            |(peer, about, generation, at)| {
                let report = Report {
                    sequence: at,
                    at: UnixTime(at),
                    loaded: Some(loaded(generation, about)),
                    leaf: Some((issuer(about, 0), UnixTime(at))),
                    connections: Connections::Unknown,
                };
                let evidence = Evidence {
                    workload: workload(about),
                    incarnation: Incarnation(generation),
                    source: Source::Probe(anchor(about)),
                    report,
                };
                Event::Evidence {
                    peer: workload(peer),
                    evidence,
                }
            }
        ),
        (small.clone(), small.clone()).prop_map(|(at, number)| Event::SigningLease {
            cluster: cluster(at),
            issuer: issuer(number, at % 2),
        }),
        (small.clone(), small.clone(), 0u64..12).prop_map(|(at, number, ends)| {
            Event::LeaseReturned {
                cluster: cluster(at),
                issuer: issuer(number, at % 2),
                entered: UnixTime(START + ends),
            }
        }),
        (small.clone(), small.clone()).prop_map(|(at, number)| Event::Inventory {
            cluster: cluster(at),
            consumers: BTreeMap::from([(workload(number), class(number))]),
        }),
        (small.clone(), 0u64..8, small.clone()).prop_map(|(at, generation, number)| {
            Event::Confirmed(Effect::Published {
                cluster: cluster(at),
                scope: Scope::All,
                generation: Generation(generation),
                digest: digest(&BTreeSet::from([anchor(number)])),
            })
        }),
        (small.clone(), 0u64..40).prop_map(|(number, generation)| Event::Served {
            cluster: cluster(number),
            loaded: loaded(generation, number),
            highest: Generation(generation),
        }),
        (small.clone(), small.clone(), 1u64..30).prop_map(|(subject, signer, lasts)| {
            Event::BridgeMade(Bridge {
                subject: anchor(subject),
                signer: anchor(signer),
                not_after: UnixTime(START + lasts),
            })
        }),
        (1u8..5, any::<bool>()).prop_map(|(to, only)| {
            let mut issuers = proposal(to, false);
            issuers.anchor = issuers.anchor.filter(|_| !only);
            Event::Start(Box::new(issuers))
        }),
        (small.clone(), 0u64..8).prop_map(|(number, generation)| Event::Confirmed(
            Effect::TicketsRotated {
                cluster: cluster(number),
                generation: Generation(generation),
            }
        )),
        small.prop_map(|number| Event::CarryByBridge(BTreeSet::from([workload(number)]))),
        Just(Event::Override {
            phase: Phase::Distribute,
            breaks: BTreeSet::new()
        }),
    ]
}

/// What an operator may come to think of, some of it wrong.
fn settings() -> impl Strategy<Value = Settings> {
    let lives = (0u64..6, 0u64..10, 1u64..4);
    let clocks = (0u64..3, 0u64..3, 1u64..5);
    let others = (any::<bool>(), any::<bool>(), 0u64..3, 50u8..102);
    let pauses = prop::collection::btree_set(phase(), 0..3);
    (lives, clocks, others, pauses).prop_map(
        |(
            (leaf, lease, signing),
            (skew, backdate, fresh),
            (cut, bridges, wait, quorum),
            pauses,
        )| {
            let second = Duration::from_secs;
            let mut settings = Settings::default();
            settings.leaf_life = second(leaf);
            settings.consumer_lease = second(lease);
            settings.signing_lease = second(signing);
            settings.skew = second(skew);
            settings.backdate = second(backdate);
            settings.freshness = second(fresh);
            settings.soak = second(wait);
            settings.trust_hold = second(wait);
            settings.phase_budget = second(wait);
            settings.pause_in = pauses;
            settings.bridges = bridges;
            settings.emergency_quorum = quorum;
            settings.drain = if cut { Drain::Cut } else { Drain::Wait };
            settings
        },
    )
}

fn phase() -> impl Strategy<Value = Phase> {
    prop::sample::select(vec![
        Phase::Preflight,
        Phase::Distribute,
        Phase::Issue,
        Phase::Drain,
        Phase::Retirement,
    ])
}

fn class(number: u8) -> Class {
    [Class::Reloading, Class::ControlPlane, Class::StartOnly][usize::from(number % 3)]
}

fn loaded(generation: u64, number: u8) -> Loaded {
    Loaded {
        generation: Generation(generation),
        digest: digest(&BTreeSet::from([anchor(number)])),
    }
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        2 => event().prop_map(|event| Happening::Event(Box::new(event))),
        5 => Just(Happening::Attend),
        1 => (0u8..3).prop_map(Happening::Return),
        2 => (1u64..3).prop_map(Happening::Pass),
    ];
    prop::collection::vec(one, 1..80)
}

struct Checked {
    now: UnixTime,
    rotation: Rotation,
    leaves: BTreeMap<u8, (IssuerId, UnixTime)>,
    /// Every leaf ever signed, of whoever has it: its issuer, its anchor and its end.
    signed: BTreeMap<ClusterId, Vec<(IssuerId, AnchorId, UnixTime)>>,
    /// The anchors that were tainted, whatever the record says.
    stolen: BTreeSet<AnchorId>,
}

impl Checked {
    fn new() -> Self {
        Self {
            now: UnixTime(START),
            rotation: rotation(),
            leaves: BTreeMap::new(),
            signed: BTreeMap::new(),
            stolen: BTreeSet::new(),
        }
    }

    #[allow(clippy::needless_pass_by_value)] // as the machine takes it
    /// Has an event handled, and checks by itself what must hold.
    fn handle(&mut self, event: Event) -> Vec<Action> {
        let before = self.rotation.clone();
        let gate = before.gate(self.now);
        let tick = event == Event::Tick;
        let repeatable = !matches!(
            event,
            Event::Tick | Event::Certify(_) | Event::Restored | Event::Abort
        );
        let result = self.rotation.handle(self.now, event.clone());
        let Ok(actions) = result else {
            assert_eq!(
                self.rotation, before,
                "refused, and yet something changed: {event:?}"
            );
            return Vec::new();
        };
        if let Event::Taint(anchor) = event {
            self.stolen.insert(anchor);
        }
        if repeatable {
            let once = self.rotation.clone();
            let _ = self.rotation.handle(self.now, event.clone());
            assert_eq!(self.rotation, once, "said twice, counted twice: {event:?}");
        }
        assert!(self.rotation.bundles().highest() >= before.bundles().highest());
        let phase = |rotation: &Rotation| rotation.change().map(|change| change.phase);
        if tick && before.restoring_since().is_none() && phase(&before) != phase(&self.rotation) {
            // A tick quarantines first; what had lapsed no longer blocks then.
            let mut lapsed = before.clone();
            let names: Vec<WorkloadId> = before.consumers().keys().cloned().collect();
            for name in names {
                if !self.rotation.consumers()[&name].is_required() {
                    let _ = lapsed.handle(self.now, Event::Quarantine(name));
                }
            }
            assert!(lapsed.gate(self.now).is_open(), "{gate:?}");
        }
        let bundle = self
            .rotation
            .bundles()
            .known(self.rotation.bundles().current())
            .unwrap();
        assert!(!bundle.anchors.is_empty());
        for at in self.rotation.clusters().values() {
            let anchor = self.rotation.issuers()[&at.signer].anchor;
            let tainted = self.rotation.anchors()[&anchor].tainted.is_some();
            assert!(
                tainted || bundle.anchors.contains(&anchor),
                "who signs is not in the bundle"
            );
        }
        self.nothing_is_broken();
        let bytes = serde_json::to_vec(&self.rotation).unwrap();
        assert_eq!(
            serde_json::from_slice::<Rotation>(&bytes).unwrap(),
            self.rotation
        );
        actions
    }

    /// By the test's own list of leaves: none that is alive is of an anchor that is in no bundle, or not in the ledger.
    fn nothing_is_broken(&self) {
        let bundle = self.rotation.bundles().current();
        let given = &self.rotation.bundles().known(bundle).unwrap().anchors;
        for (cluster, leaves) in &self.signed {
            for (issuer, anchor, ends) in leaves.iter().filter(|(.., ends)| *ends >= self.now) {
                let known = self.rotation.anchors().get(anchor);
                if self.stolen.contains(anchor) {
                    continue;
                }
                assert!(
                    known.is_some() && given.contains(anchor),
                    "removed with leaves alive"
                );
                let ledger = self.rotation.clusters()[cluster].ledger.get(issuer);
                let life = self.rotation.settings().leaf_life;
                assert!(
                    ledger.is_some_and(|ledger| ledger.outstanding(life) >= *ends),
                    "a leaf that is in no ledger"
                );
            }
        }
    }

    fn returns(&mut self, number: u8) {
        let bundles = self.rotation.bundles();
        let generation = bundles.current();
        let digest = bundles.known(generation).and_then(|bundle| bundle.digest);
        let known = self.rotation.consumers().get(&workload(number));
        let (Some(digest), Some(known)) = (digest, known) else {
            return;
        };
        let incarnation = Incarnation(known.incarnation.0 + 1);
        self.leaves.remove(&number);
        let (workload, cluster) = (workload(number), known.cluster.clone());
        let event = if known.is_required() {
            Event::Joined {
                workload,
                cluster,
                class: class(number),
                incarnation,
            }
        } else {
            Event::Rejoined {
                workload,
                incarnation,
                loaded: Loaded { generation, digest },
            }
        };
        self.handle(event);
    }

    fn attend(&mut self) {
        for at in 0..2 {
            let consumers = (0..3)
                .filter(|number| number % 2 == at)
                .map(|number| (workload(number), class(number)));
            self.handle(Event::Inventory {
                cluster: cluster(at),
                consumers: consumers.collect(),
            });
            for issuer in self.rotation.authorised(&cluster(at)) {
                self.handle(Event::SigningLease {
                    cluster: cluster(at),
                    issuer,
                });
            }
        }
        for _ in 0..2 {
            for action in self.rotation.pending(self.now) {
                self.confirm(action);
            }
        }
        for number in 0..3 {
            self.process(number);
        }
        self.handle(Event::Tick);
    }

    fn confirm(&mut self, action: Action) {
        let effect = match action {
            Action::Compose {
                generation,
                anchors,
            } => Effect::Composed {
                generation,
                digest: digest(&anchors),
            },
            Action::Publish {
                cluster,
                scope,
                generation,
                anchors,
            } => {
                let digest = digest(&anchors);
                Effect::Published {
                    cluster,
                    scope,
                    generation,
                    digest,
                }
            }
            Action::VerifyIssuer { issuer } => Effect::IssuerVerified { issuer },
            Action::SwitchIssuer { cluster, issuer } => Effect::IssuerSwitched { cluster, issuer },
            Action::RotateTickets {
                cluster,
                generation,
            } => Effect::TicketsRotated {
                cluster,
                generation,
            },
            Action::RetireAnchor { anchor } => Effect::AnchorRetired { anchor },
            Action::MakeBridge { subject, signer } => {
                self.handle(Event::BridgeMade(Bridge {
                    subject,
                    signer,
                    not_after: UnixTime(5000),
                }));
                return;
            }
            _ => return,
        };
        self.handle(Event::Confirmed(effect));
    }

    fn process(&mut self, number: u8) {
        let generation = self
            .rotation
            .bundles()
            .canary()
            .unwrap_or(self.rotation.bundles().current());
        let known = self.rotation.bundles().known(generation).unwrap();
        let loaded = known.digest.map(|digest| Loaded { generation, digest });
        let incarnation = self
            .rotation
            .consumers()
            .get(&workload(number))
            .map_or(Incarnation(0), |it| it.incarnation);
        let to = self
            .rotation
            .change()
            .map_or(self.rotation.active().anchor, |change| change.to.anchor);
        let cluster = self
            .rotation
            .consumers()
            .get(&workload(number))
            .map_or(cluster(number), |it| it.cluster.clone());
        let (workload, class) = (workload(number), class(number));
        let (before, accepted, at) = (self.rotation.clone(), Some(to), cluster.clone());
        let request = Request {
            workload: workload.clone(),
            cluster,
            class,
            incarnation,
            loaded,
            accepted,
        };
        for action in self.handle(Event::Certify(request)) {
            if let Action::Sign {
                issuer, not_after, ..
            } = action
            {
                let of = &before.issuers()[&issuer];
                assert!(
                    before.anchors()[&of.anchor].tainted.is_none(),
                    "a tainted anchor signed"
                );
                assert!(not_after <= of.not_after && not_after > self.now);
                self.leaves.insert(number, (issuer, not_after));
                let signed = self.signed.entry(at.clone()).or_default();
                signed.push((issuer, of.anchor, not_after));
            }
        }
        let source = if class.needs_probe() {
            Source::Probe(to)
        } else {
            Source::Acknowledgement
        };
        let report = Report {
            sequence: self.now.0 + 10_000,
            at: self.now,
            loaded: loaded.filter(|_| !class.needs_probe()),
            leaf: self.leaves.get(&number).copied(),
            connections: Connections::None,
        };
        let evidence = Evidence {
            workload: workload.clone(),
            incarnation,
            source,
            report,
        };
        self.handle(Event::Evidence {
            peer: workload,
            evidence,
        });
    }
}

/// `HISTORIES=40000 cargo test -p mesh-trust-rotation --test histories` looks at a hundred times as many.
fn cases() -> u32 {
    let asked = std::env::var("HISTORIES").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn any_history_keeps_the_promises(happenings in happenings()) {
        let mut checked = Checked::new();
        for happening in happenings {
            match happening {
                Happening::Event(event) => {
                    checked.handle(*event);
                }
                Happening::Attend => checked.attend(),
                Happening::Return(number) => checked.returns(number),
                Happening::Pass(seconds) => checked.now = UnixTime(checked.now.0 + seconds),
            }
            for blocker in checked.rotation.gate(checked.now).blockers() {
                assert!(!blocker.to_string().is_empty());
            }
            let _ = checked.rotation.plan(checked.now);
        }
    }

    #[test]
    fn no_bytes_panic_the_reader_of_records(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::from_bytes(&bytes);
    }

    #[test]
    fn a_changed_record_is_read_or_refused(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = Record::new(rotation()).to_bytes().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(mut record) = Record::from_bytes(&bytes) {
            let _ = record.rotation().gate(UnixTime(START));
            let _ = record.apply(Epoch(0), UnixTime(START), "test", Event::Tick, &Sha256);
        }
    }
}

#[test]
fn the_attentive_world_completes_a_change() {
    let mut checked = Checked::new();
    checked.attend();
    checked.handle(Event::Start(Box::new(proposal(2, true))));
    for _ in 0..40 {
        checked.attend();
        checked.now = UnixTime(checked.now.0 + 1);
    }
    assert!(
        checked.rotation.last_outcome().is_some(),
        "{:?}",
        checked.rotation.gate(checked.now)
    );
    assert_eq!(checked.rotation.active().anchor, anchor(2));
}

/// Everybody depends on it, and there is nothing else to go to yet.
#[test]
fn a_restored_store_gives_out_a_tainted_anchor_that_nothing_replaces() {
    let mut checked = Checked::new();
    checked.attend();
    checked.handle(Event::Taint(anchor(1)));
    checked.handle(Event::Restored);
    for at in 0..2 {
        checked.handle(Event::Served {
            cluster: cluster(at),
            loaded: loaded(1, 1),
            highest: Generation(1),
        });
    }
    checked.attend();
    let bundles = checked.rotation.bundles();
    assert!(bundles.current() > Generation(1));
    let given = &bundles.known(bundles.current()).unwrap().anchors;
    assert_eq!(*given, BTreeSet::from([anchor(1)]));
}
