//! Records of this version and of those before it are read; later ones are refused by name.

#![allow(clippy::unwrap_used)] // tests

use std::collections::BTreeSet;
use std::time::Duration;

use mesh_trust_rotation::crypto::Sha256;
use mesh_trust_rotation::driver::{Driver, Memory, Site, Turn, World};
use mesh_trust_rotation::lint::{Algorithm, Facts};
use mesh_trust_rotation::{
    Action, Anchor, AnchorId, ClusterId, Digest, Epoch, Error, Event, Generation, Issuer, IssuerId,
    Mesh, NotRecorded, Outcome, Phase, Proposal, Record, Refusal, Rotation, Settings, UnixTime,
    WorkloadId,
};

const V1: &str = include_str!("records/v1.json");
const V1_UNDERWAY: &str = include_str!("records/v1-underway.json");

fn record() -> Record {
    Record::new(Rotation::new(Settings::default(), mesh(), UnixTime(1_800_000_000)).unwrap())
}

fn mesh() -> Mesh {
    let (id, begins, ends) = (AnchorId::new([1; 32]), UnixTime(1), UnixTime(4_000_000_000));
    let anchor = Anchor {
        id,
        subject: Digest::new([1; 32]),
        not_before: begins,
        not_after: ends,
        tainted: None,
    };
    let issuer = Issuer {
        id: IssuerId::new([2; 32]),
        anchor: id,
        not_before: begins,
        not_after: ends,
        verified: true,
    };
    let issuers = [(ClusterId::new("east").unwrap(), issuer)].into();
    Mesh {
        anchor,
        issuers,
        generation: Generation(1),
        digest: Digest::new([3; 32]),
    }
}

/// A cluster with a canary and two others, of which one reports and takes nothing any more.
struct Here {
    now: UnixTime,
    site: Site,
    away: Option<&'static str>,
}

fn digest(anchors: &BTreeSet<AnchorId>) -> Digest {
    Digest::new(
        [2 + anchors
            .iter()
            .map(|anchor| anchor.as_bytes()[0])
            .sum::<u8>(); 32],
    )
}

impl Here {
    fn new() -> Self {
        let names = ["canary", "web", "vm"].map(|name| WorkloadId::new(name).unwrap());
        Self {
            now: UnixTime(1_800_000_000),
            site: Site::new(ClusterId::new("east").unwrap(), &mesh()).with(names),
            away: None,
        }
    }

    /// Turns of ten minutes, until that holds of the record.
    fn until(&mut self, store: &mut Memory, epoch: u64, holds: impl Fn(&Rotation) -> bool) {
        let driver = Driver::new(Epoch(epoch), "controller");
        for _ in 0..1000 {
            let turn = driver.turn(self.now, store, self, &Sha256).unwrap();
            assert!(matches!(turn, Turn::Done(_)));
            if holds(store.record().rotation()) {
                return;
            }
            self.now = self.now.after(Duration::from_secs(600));
        }
        panic!("{:?}", store.record().rotation().gate(self.now));
    }
}

impl World for Here {
    fn gather(&mut self, rotation: &Rotation) -> Vec<Event> {
        let mut events = self.site.says(self.now, rotation);
        let of = |event: &Event| match event {
            Event::Evidence { peer, .. } => Some(peer.clone()),
            Event::Certify(request) => Some(request.workload.clone()),
            _ => None,
        };
        events.retain(|event| {
            of(event).is_none_or(|of| self.away.is_none_or(|away| away != of.as_str()))
        });
        events
    }

    fn act(&mut self, action: &Action) -> Option<Event> {
        self.site.takes(action, digest);
        action.done(digest)
    }
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
        not_before: UnixTime(1),
        not_after: UnixTime(4_000_000_000),
        size_bytes: 400,
    }
}

/// In the middle of a change: leaves are of both sides, and one consumer is away.
fn record_underway() -> Record {
    let mut store = Memory::new(record());
    let mut here = Here::new();
    here.until(&mut store, 1, |rotation| rotation.consumers().len() == 3);
    let east = ClusterId::new("east").unwrap();
    let mut change = Proposal::to(facts(8, 8, 8), [(east, facts(9, 90, 8))]);
    change.canaries.insert(WorkloadId::new("canary").unwrap());
    let mut record = store.record().clone();
    let event = Event::Start(Box::new(change));
    record
        .apply(Epoch(1), here.now, "operator", event, &Sha256)
        .unwrap();
    store = Memory::new(record);
    let at = |phase| {
        move |rotation: &Rotation| {
            rotation
                .change()
                .is_some_and(|change| change.phase == phase)
        }
    };
    here.until(&mut store, 1, at(Phase::Issue));
    here.away = Some("vm");
    here.until(&mut store, 1, at(Phase::LeafConverged));
    store.record().clone()
}

#[test]
fn a_record_reads_back() {
    let mut record = record();
    record
        .apply(
            Epoch(0),
            UnixTime(1_800_000_001),
            "ops",
            Event::Taint(AnchorId::new([1; 32])),
            &Sha256,
        )
        .unwrap();
    let again = Record::from_bytes(&record.to_bytes().unwrap()).unwrap();
    assert_eq!(again, record);
    assert_eq!(again.audit().length(), 1);
    again.audit().verify(&Sha256).unwrap();
}

#[test]
fn version_1_loads() {
    assert_eq!(Record::from_bytes(V1.as_bytes()).unwrap(), record());
}

#[test]
fn version_1_in_the_middle_of_a_change_loads_and_goes_on() {
    let record = Record::from_bytes(V1_UNDERWAY.as_bytes()).unwrap();
    record.audit().verify(&Sha256).unwrap();
    let rotation = record.rotation();
    let change = rotation.change().unwrap();
    assert_eq!(change.phase, Phase::LeafConverged);
    assert_eq!(rotation.epoch(), Epoch(1));
    // Evidence, leases and the ledger are there, and both sides in use.
    assert_eq!(rotation.consumers().len(), 3);
    assert!(
        rotation
            .consumers()
            .values()
            .all(|known| known.report.is_some())
    );
    let east = rotation.clusters().values().next().unwrap();
    assert_eq!(east.ledger.len(), 2);
    assert!(
        east.ledger
            .values()
            .all(|ledger| ledger.entered > change.started)
    );
    assert!(east.ledger[&east.signer].lease_until.is_some());
    let blocked: Vec<String> = rotation
        .gate(change.since)
        .blockers()
        .iter()
        .map(|blocker| blocker.who.to_string())
        .collect();
    assert!(blocked.contains(&"workload `vm`".to_owned()), "{blocked:?}");

    // Another controller takes it up, and everybody who was there is there with what it had.
    let (since, length) = (change.since, record.audit().length());
    let mut store = Memory::new(record.clone());
    let mut here = Here::new();
    for action in replayed(&record) {
        here.site.takes(&action, digest);
    }
    here.now = since.after(Duration::from_secs(600));
    here.until(&mut store, 2, |rotation| rotation.change().is_none());
    let rotation = store.record().rotation();
    assert_eq!(rotation.last_outcome(), Some(Outcome::Completed));
    assert_eq!(rotation.active().anchor, AnchorId::new([8; 32]));
    assert!(store.record().audit().length() > length);
    store.record().audit().verify(&Sha256).unwrap();
}

/// As it was written before these were known.
#[test]
fn a_record_without_what_came_later_loads() {
    let mut older: serde_json::Value = serde_json::from_str(V1_UNDERWAY).unwrap();
    let consumers = older["rotation"]["consumers"].as_object_mut().unwrap();
    assert_eq!(consumers.len(), 3);
    for known in consumers.values_mut() {
        for name in ["given", "turned"] {
            known.as_object_mut().unwrap().remove(name);
        }
    }
    let record = Record::from_bytes(older.to_string().as_bytes()).unwrap();
    let mut known = record.rotation().consumers().values();
    assert!(known.all(|known| known.given.is_none() && known.turned.is_none()));
}

/// What the consumers of a record have: the bundle and the leaves that they were given.
fn replayed(record: &Record) -> Vec<Action> {
    let rotation = record.rotation();
    let bundles = rotation.bundles();
    let mut actions = vec![Action::Publish {
        cluster: ClusterId::new("east").unwrap(),
        scope: mesh_trust_rotation::Scope::All,
        generation: bundles.current(),
        anchors: bundles.known(bundles.current()).unwrap().anchors.clone(),
    }];
    for (workload, known) in rotation.consumers() {
        let (issuer, not_after) = known.report.unwrap().leaf.unwrap();
        actions.push(Action::Sign {
            workload: workload.clone(),
            issuer,
            not_before: UnixTime(1),
            not_after,
            bridge: None,
        });
    }
    actions
}

#[test]
fn a_later_version_is_refused_by_name() {
    let later = V1.replacen("\"version\":1", "\"version\":2", 1);
    assert_eq!(
        Record::from_bytes(later.as_bytes()),
        Err(Error::RecordVersion {
            found: 2,
            supported: 1
        })
    );
}

#[test]
fn a_record_is_as_large_as_may_be_and_no_larger() {
    let mut bytes = record().to_bytes().unwrap();
    bytes.resize(Record::MAX_BYTES, b' ');
    assert_eq!(Record::from_bytes(&bytes), Ok(record()));
    bytes.push(b' ');
    assert!(matches!(
        Record::from_bytes(&bytes),
        Err(Error::Record { .. })
    ));
    assert_eq!(Record::MAX_BYTES, 64 * 1024 * 1024);
}

#[test]
fn an_entry_changed_in_the_middle_is_found() {
    let mut record = record();
    for epoch in 1..4 {
        record
            .apply(
                Epoch(epoch),
                UnixTime(epoch),
                "controller",
                Event::Lead(Epoch(epoch)),
                &Sha256,
            )
            .unwrap();
    }
    let mut text = String::from_utf8(record.to_bytes().unwrap()).unwrap();
    text = text.replacen("\"actor\":\"controller\"", "\"actor\":\"somebody\"", 1);
    let changed = Record::from_bytes(text.as_bytes()).unwrap();
    assert!(matches!(
        changed.audit().verify(&Sha256),
        Err(Error::AuditBroken { .. })
    ));
}

#[test]
fn only_the_leading_epoch_writes() {
    let mut record = record();
    record
        .apply(
            Epoch(2),
            UnixTime(5),
            "second",
            Event::Lead(Epoch(2)),
            &Sha256,
        )
        .unwrap();
    let before = record.clone();
    let late = record.apply(
        Epoch(1),
        UnixTime(6),
        "first",
        Event::Taint(AnchorId::new([1; 32])),
        &Sha256,
    );
    assert_eq!(
        late,
        Err(NotRecorded::Refused(Refusal::Fenced {
            found: Epoch(1),
            current: Epoch(2)
        }))
    );
    assert_eq!(record, before);
}

/// Prints the records for `tests/records`, when a version is added.
#[test]
#[ignore = "prints the files that other tests read"]
fn print_records() {
    for record in [record(), record_underway()] {
        let bytes = record.to_bytes().unwrap();
        println!("RECORD {}", String::from_utf8(bytes).unwrap());
    }
}
