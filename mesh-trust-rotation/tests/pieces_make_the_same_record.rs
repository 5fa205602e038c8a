//! A record that is written in pieces, only those that differ, is put together from them as it was.

#![allow(clippy::unwrap_used)] // tests

use std::collections::BTreeMap;

use mesh_trust_rotation::crypto::Sha256;
use mesh_trust_rotation::{
    Anchor, AnchorId, Class, ClusterId, Digest, Epoch, Error, Event, Generation, Incarnation,
    Issuer, IssuerId, Mesh, Record, Rotation, Settings, UnixTime, WorkloadId,
};
use proptest::prelude::*;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn record() -> Record {
    let (id, ends) = (AnchorId::new([1; 32]), UnixTime(4_000_000_000));
    let anchor = Anchor {
        id,
        subject: Digest::new([1; 32]),
        not_before: UnixTime(1),
        not_after: ends,
        tainted: None,
    };
    let issuer = Issuer {
        id: IssuerId::new([2; 32]),
        anchor: id,
        not_before: UnixTime(1),
        not_after: ends,
        verified: true,
    };
    let mesh = Mesh {
        anchor,
        issuers: [(cluster(), issuer)].into(),
        generation: Generation(1),
        digest: Digest::new([3; 32]),
    };
    Record::new(Rotation::new(Settings::default(), mesh, NOW).unwrap())
}

fn cluster() -> ClusterId {
    ClusterId::new("east").unwrap()
}

fn named(number: u16) -> WorkloadId {
    WorkloadId::new(&format!("shop/web-{number}@web-{number}.shop")).unwrap()
}

fn apply(record: &mut Record, joins: bool, number: u16, incarnation: u64) {
    let event = match joins {
        true => Event::Joined {
            workload: named(number),
            cluster: cluster(),
            class: Class::Reloading,
            incarnation: Incarnation(incarnation),
        },
        false => Event::Left(named(number)),
    };
    let epoch = record.rotation().epoch();
    // What is refused changes nothing.
    let _ = record.apply(epoch, NOW, "test", event, &Sha256);
}

proptest! {
    #[test]
    fn whatever_changes(steps in proptest::collection::vec(
        proptest::collection::vec((any::<bool>(), 0..40u16, 1..4u64), 0..12), 1..8)
    ) {
        let mut record = record();
        let mut stored: BTreeMap<u16, Option<Vec<u8>>> = record.shards_to_bytes(None).unwrap();
        let mut follower = record.clone();
        for step in steps {
            let before = record.clone();
            for (joins, number, incarnation) in step {
                apply(&mut record, joins, number, incarnation);
            }
            let differing = record.shards_to_bytes(Some(&before)).unwrap();
            let head = record.head_to_bytes().unwrap();
            follower = Record::from_pieces(&head, &differing, Some(&follower)).unwrap();
            prop_assert_eq!(&follower, &record);
            stored.extend(differing);
            prop_assert_eq!(&Record::from_pieces(&head, &stored, None).unwrap(), &record);
        }
        prop_assert_eq!(record.shards_to_bytes(Some(&follower)).unwrap().len(), 0);
    }
}

#[test]
fn consumers_spread_over_the_shards_and_stay_where_they_are() {
    let mut sizes = BTreeMap::<u16, usize>::new();
    for number in 0..20_000 {
        *sizes.entry(Record::shard_of(&named(number))).or_default() += 1;
    }
    assert_eq!(sizes.len(), usize::from(Record::SHARDS));
    let (least, most) = (sizes.values().min(), sizes.values().max());
    println!("of 20,000 consumers between {least:?} and {most:?} in a shard");
    assert!(*most.unwrap() < 100, "{most:?}");
    // What other versions have stored relies on it.
    assert_eq!(Record::shard_of(&WorkloadId::new("web").unwrap()), WEB);
}

#[test]
fn a_consumer_in_the_shard_of_another_is_refused() {
    let mut record = record();
    apply(&mut record, true, 1, 1);
    let (shard, bytes) = record.shards_to_bytes(None).unwrap().pop_first().unwrap();
    let head = record.head_to_bytes().unwrap();
    let wrong = [((shard + 1) % Record::SHARDS, bytes)].into();
    let refused = Record::from_pieces(&head, &wrong, None).unwrap_err();
    assert!(matches!(refused, Error::Record { .. }), "{refused}");
    assert_eq!(record.rotation().epoch(), Epoch(0));
}

const WEB: u16 = 488;
