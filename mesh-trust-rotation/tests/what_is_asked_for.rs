//! Nobody is overwhelmed, and what needs a key is made while it is at hand.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use mesh_trust_rotation::crypto::Sha256;
use mesh_trust_rotation::lint::{Algorithm, Facts};
use mesh_trust_rotation::{
    Action, Anchor, AnchorId, Bridge, Class, ClusterId, Connections, Digest, Epoch, Event,
    Evidence, Gate, Generation, Incarnation, Issuer, IssuerId, Loaded, Mesh, Phase, Proposal,
    Reason, Record, Report, Request, Rotation, Settings, Source, UnixTime, WorkloadId,
};

const START: UnixTime = UnixTime(1_800_000_000);
const NEVER: UnixTime = UnixTime(4_000_000_000);

fn anchor(number: u8) -> AnchorId {
    AnchorId::new([number; 32])
}

fn issuer(number: u8) -> IssuerId {
    IssuerId::new([100 + number; 32])
}

fn east() -> ClusterId {
    ClusterId::new("east").unwrap()
}

fn workload(number: usize) -> WorkloadId {
    WorkloadId::new(&format!(
        "web-{number:05}.default.serviceaccount.identity.linkerd.cluster.local"
    ))
    .unwrap()
}

fn digest(anchors: &BTreeSet<AnchorId>) -> Digest {
    Digest::new([anchors.iter().map(|anchor| anchor.as_bytes()[0]).sum(); 32])
}

fn facts(key: u8, subject: u8, above: u8) -> Facts {
    Facts {
        key: Digest::new([key; 32]),
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
        not_after: NEVER,
        size_bytes: 400,
    }
}

/// A mesh of one cluster.
struct Here {
    now: UnixTime,
    rotation: Rotation,
    classes: BTreeMap<WorkloadId, Class>,
    /// Who says nothing.
    silent: BTreeSet<WorkloadId>,
    incarnations: BTreeMap<WorkloadId, u64>,
    leaves: BTreeMap<WorkloadId, (IssuerId, UnixTime)>,
}

impl Here {
    fn new(settings: Settings, size: usize, class: Class) -> Self {
        let below = Issuer {
            id: issuer(1),
            anchor: anchor(1),
            not_before: UnixTime(0),
            not_after: NEVER,
            verified: true,
        };
        let mesh = Mesh {
            anchor: Anchor {
                id: anchor(1),
                subject: Digest::new([1; 32]),
                not_before: UnixTime(0),
                not_after: NEVER,
                tainted: None,
            },
            issuers: BTreeMap::from([(east(), below)]),
            generation: Generation(1),
            digest: digest(&[anchor(1)].into()),
        };
        let classes = (0..size).map(|number| (workload(number), class));
        let mut here = Self {
            now: START,
            rotation: Rotation::new(settings, mesh, START).unwrap(),
            classes: classes.collect(),
            silent: BTreeSet::new(),
            incarnations: BTreeMap::new(),
            leaves: BTreeMap::new(),
        };
        here.list();
        for name in here.classes.clone().into_keys() {
            here.renew(&name);
        }
        here.report();
        here
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.rotation.handle(self.now, event).unwrap()
    }

    fn start(&mut self) {
        let proposal = Proposal {
            anchor: Some(facts(2, 2, 2)),
            issuers: BTreeMap::from([(east(), facts(102, 202, 2))]),
            canaries: BTreeSet::new(),
        };
        self.tell(Event::Start(Box::new(proposal)));
    }

    fn list(&mut self) {
        let (cluster, consumers) = (east(), self.classes.clone());
        self.tell(Event::Inventory { cluster, consumers });
        for issuer in self.rotation.authorised(&east()) {
            let cluster = east();
            self.tell(Event::SigningLease { cluster, issuer });
        }
    }

    fn work(&mut self) {
        for _ in 0..2 {
            for action in self.rotation.pending(self.now) {
                if let Some(event) = action.done(digest) {
                    self.tell(event);
                }
            }
        }
        self.list();
    }

    fn loaded(&self) -> Loaded {
        let generation = self.rotation.bundles().current();
        let bundle = self.rotation.bundles().known(generation).unwrap();
        let digest = digest(&bundle.anchors);
        Loaded { generation, digest }
    }

    fn incarnation(&self, name: &WorkloadId) -> Incarnation {
        Incarnation(self.incarnations.get(name).copied().unwrap_or(1))
    }

    fn renew(&mut self, name: &WorkloadId) {
        let request = Request {
            workload: name.clone(),
            cluster: east(),
            class: self.classes[name],
            incarnation: self.incarnation(name),
            loaded: Some(self.loaded()),
            accepted: Some(anchor(1)),
        };
        let signed = self.tell(Event::Certify(request));
        if let [
            Action::Sign {
                issuer, not_after, ..
            },
        ] = signed[..]
        {
            self.leaves.insert(name.clone(), (issuer, not_after));
        }
    }

    fn evidence(&self, name: &WorkloadId, source: Source) -> Event {
        let report = Report {
            sequence: self.now.0,
            at: self.now,
            loaded: Some(self.loaded()),
            leaf: self.leaves.get(name).copied(),
            connections: Connections::None,
        };
        let evidence = Evidence {
            workload: name.clone(),
            incarnation: self.incarnation(name),
            source,
            report,
        };
        let peer = name.clone();
        Event::Evidence { peer, evidence }
    }

    fn report(&mut self) {
        for (name, class) in self.classes.clone() {
            let source = if class.needs_probe() {
                Source::Probe(anchor(1))
            } else {
                Source::Acknowledgement
            };
            if !self.silent.contains(&name) {
                let event = self.evidence(&name, source);
                self.tell(event);
            }
        }
    }

    fn phase(&self) -> Option<Phase> {
        self.rotation.change().map(|change| change.phase)
    }

    fn reasons(&self) -> Vec<Reason> {
        let gate = self.rotation.gate(self.now);
        gate.blockers().iter().map(|blocker| blocker.why).collect()
    }
}

#[test]
fn at_most_a_batch_is_asked_for_new_leaves_and_the_silent_are_not() {
    let mut settings = Settings::default();
    settings.reissue_batch = 3;
    settings.reissue_jitter = Duration::from_secs(77);
    let mut here = Here::new(settings, 10, Class::Reloading);
    here.start();
    while here.phase() != Some(Phase::LeafConverged) {
        here.work();
        here.report();
        here.now.0 += 1;
        here.tell(Event::Tick);
        assert!(here.now.0 < START.0 + 100, "{:?}", here.reasons());
    }
    // The first two fall silent: they are not among those who are asked, and keep nobody from being asked.
    here.silent = [workload(0), workload(1)].into();
    here.now.0 += 1000;
    here.work();
    here.report();
    let mut asked = BTreeSet::new();
    for _ in 0..3 {
        let due = here.rotation.pending(here.now);
        let batches: Vec<_> = due
            .iter()
            .filter_map(|action| match action {
                Action::Reissue { workloads, within } => {
                    assert_eq!(*within, Duration::from_secs(77));
                    Some(workloads.clone())
                }
                _ => None,
            })
            .collect();
        let [batch] = &batches[..] else {
            panic!("{due:?}")
        };
        assert!(!batch.is_empty() && batch.len() <= 3, "{batch:?}");
        for name in batch {
            assert!(!here.silent.contains(name) && asked.insert(name.clone()));
            here.renew(name);
        }
        here.now.0 += 1;
        here.report();
    }
    assert_eq!(asked.len(), 8);
}

#[test]
fn no_more_are_started_again_than_may_be_down() {
    let mut settings = Settings::default();
    settings.restart_batch = 2;
    let mut here = Here::new(settings, 5, Class::StartOnly);
    here.silent = [workload(0)].into();
    here.now.0 += 1000;
    here.start();
    here.work();
    here.report();
    here.tell(Event::Tick);
    assert_eq!(here.phase(), Some(Phase::Distribute));
    here.work();
    let asked = |here: &Here| {
        let due = here.rotation.pending(here.now);
        due.into_iter().find_map(|action| match action {
            Action::Restart { workloads, .. } => Some(workloads),
            _ => None,
        })
    };
    // Who is silent would not come back either, and holds up nobody.
    assert_eq!(asked(&here), Some(vec![workload(1), workload(2)]));
    // One is down: one more may be.
    here.now.0 += 1;
    here.incarnations.insert(workload(1), 2);
    here.tell(Event::Joined {
        workload: workload(1),
        cluster: east(),
        class: Class::StartOnly,
        incarnation: Incarnation(2),
    });
    assert_eq!(asked(&here), Some(vec![workload(2)]));
    // It is back, and accepts the new anchor.
    let probed = here.evidence(&workload(1), Source::Probe(anchor(2)));
    here.tell(probed);
    assert_eq!(asked(&here), Some(vec![workload(2), workload(3)]));
}

#[test]
fn cross_certificates_are_made_before_the_old_key_leaves() {
    let mut settings = Settings::default();
    settings.bridges = true;
    let mut here = Here::new(settings, 1, Class::Reloading);
    here.start();
    for (subject, signer) in [(2, 1), (1, 2)] {
        assert!(here.reasons().contains(&Reason::BridgeMissing));
        here.tell(Event::Tick);
        assert_eq!(here.phase(), Some(Phase::Preflight));
        here.tell(Event::BridgeMade(Bridge {
            subject: anchor(subject),
            signer: anchor(signer),
            not_after: NEVER,
        }));
    }
    assert!(!here.reasons().contains(&Reason::BridgeMissing));
    here.work();
    here.tell(Event::Tick);
    assert_eq!(here.phase(), Some(Phase::Distribute));
    here.tell(Event::CarryByBridge([workload(0)].into()));
}

/// `cargo test -p mesh-trust-rotation --test what_is_asked_for --release -- --ignored --nocapture`
#[test]
#[ignore = "prints how long things take"]
fn ten_thousand_consumers() {
    let timed = |what: &str, began: Instant, times: u32| {
        println!("{what}: {:.1?}", began.elapsed() / times.max(1));
    };
    let began = Instant::now();
    let mut here = Here::new(Settings::default(), 10_000, Class::Reloading);
    timed("10,000 join, get a leaf and report", began, 1);
    here.start();
    here.work();
    here.tell(Event::Tick);
    here.work();
    here.now.0 += 1;
    let began = Instant::now();
    here.report();
    timed("one report", began, 10_000);
    let began = Instant::now();
    assert!(matches!(here.rotation.gate(here.now), Gate::Open));
    timed("the gate, open", began, 1);
    let later = UnixTime(here.now.0 + 3600);
    let began = Instant::now();
    assert_eq!(here.rotation.gate(later).blockers().len(), 10_001);
    timed("the gate, all silent", began, 1);
    let began = Instant::now();
    here.tell(Event::Tick);
    timed("a tick", began, 1);
    let began = Instant::now();
    for number in 0..100 {
        here.renew(&workload(number));
    }
    timed("one request for a leaf", began, 100);

    let mut record = Record::new(here.rotation.clone());
    let began = Instant::now();
    let mut at = here.now;
    for _ in 0..100 {
        at = at.after(Duration::from_secs(3600));
        let _ = record.apply(Epoch(0), at, "test", Event::Pause, &Sha256);
        let _ = record.apply(Epoch(0), at, "test", Event::Resume, &Sha256);
    }
    timed("a recorded event about all", began, 200);
    let all: Vec<Event> = (0..10_000)
        .map(|number| {
            let mut event = here.evidence(&workload(number), Source::Acknowledgement);
            if let Event::Evidence { evidence, .. } = &mut event {
                evidence.report.sequence += 1;
            }
            event
        })
        .collect();
    let began = Instant::now();
    for event in all {
        record.apply(Epoch(0), at, "test", event, &Sha256).unwrap();
    }
    timed("one recorded report", began, 10_000);
    let began = Instant::now();
    let bytes = record.to_bytes().unwrap();
    timed("the record, written", began, 1);
    println!("the record: {} bytes", bytes.len());
    let began = Instant::now();
    Record::from_bytes(&bytes).unwrap();
    timed("the record, read", began, 1);
}
