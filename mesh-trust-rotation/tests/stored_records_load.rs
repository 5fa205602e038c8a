//! Records of this version and of those before it are read; later ones are refused by name.

#![allow(clippy::unwrap_used)] // tests

use mesh_trust_rotation::crypto::Sha256;
use mesh_trust_rotation::{
    Anchor, AnchorId, ClusterId, Digest, Epoch, Error, Event, Generation, Issuer, IssuerId, Mesh,
    NotRecorded, Record, Refusal, Rotation, Settings, UnixTime,
};

const V1: &str = include_str!("records/v1.json");

fn record() -> Record {
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
    let mesh = Mesh {
        anchor,
        issuers,
        generation: Generation(1),
        digest: Digest::new([3; 32]),
    };
    Record::new(Rotation::new(Settings::default(), mesh, UnixTime(1_800_000_000)).unwrap())
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

/// Prints the record for `tests/records`, when a version is added.
#[test]
#[ignore = "writes the file that another test reads"]
fn print_a_record() {
    println!(
        "RECORD {}",
        String::from_utf8(record().to_bytes().unwrap()).unwrap()
    );
}
