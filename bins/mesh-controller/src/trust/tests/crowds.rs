//! Very many at once: all of them are served, and every entry of the audit chain is in the file.

use mesh_trust_rotation::{
    Standing,
    audit::{self, Entry},
};

use super::*;
use crate::data_folder::DataFolder;

fn ask(number: usize, incarnation: u64, trust: &Trust) -> Ask {
    let name = format!("web-{number}");
    let identity = Identity::linkerd(&name, "shop", "linkerd", &trust.trust_domain()).unwrap();
    Ask {
        csr: LeafKey::generate().unwrap().csr(&identity).unwrap(),
        process: Some(Process {
            process: format!("p{number}"),
            incarnation: Incarnation(incarnation),
            workload: format!("shop:{name}"),
            loaded: Some(Loaded {
                generation: Generation(0),
                digest: digest(&trust.bundle()),
            }),
        }),
        identity,
        accepted: Shown::Local,
        joins: false,
    }
}

fn read(path: &std::path::Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// At any moment, so that a crash loses none either.
fn check(record: &Record, path: &std::path::Path) {
    let entries = read(path);
    assert_eq!(entries.len() as u64, record.audit().length());
    audit::verify(&entries, record.audit().head(), &Sha256).unwrap();
}

/// Probes find that hundreds have started anew, and an operator says something of each of them, in one turn.
#[tokio::test]
async fn when_hundreds_are_probed_and_told_of_in_one_turn_no_entry_is_lost() {
    const MANY: usize = 200;
    let mut world = World::new(0).await;
    let folder = tempfile::tempdir().unwrap();
    let data = DataFolder::open(folder.path()).unwrap();
    let path = data.audit();
    world.driver.write_to(data).unwrap();
    let (mut batch, mut ids) = (Vec::new(), Vec::new());
    for number in 0..MANY {
        let ask = Ask {
            process: None,
            ..ask(number, 1, &world.trust)
        };
        ids.push(consumers::start_only(&ask.identity));
        batch.push(Request::Certify(ask, oneshot::channel().0));
    }
    world.driver.turn(world.now, batch).await.unwrap();
    for _ in 0..10 {
        world.second(None).await;
    }
    let record = world.trust.record();
    assert_eq!(record.rotation().consumers().len(), MANY + 1);
    let active = record.rotation().active();
    let issuer = *record.rotation().issuers().keys().next().unwrap();
    for accepted in [None, Some(issuer)] {
        for id in &ids {
            let probed = &world.trust.shared.probed;
            probed.saw(id.clone(), active.anchor, world.now, accepted);
        }
        for _ in 0..5 {
            world.second(None).await;
            check(&world.trust.record(), &path);
        }
    }
    let (mut batch, mut answers) = (Vec::new(), Vec::new());
    for id in &ids {
        let (answer, answered) = oneshot::channel();
        let quarantine = Command::Event(Box::new(Event::Quarantine(id.clone())));
        batch.push(Request::Command(quarantine, answer));
        answers.push(answered);
    }
    world.driver.turn(world.now, batch).await.unwrap();
    check(&world.trust.record(), &path);
    let mut turns = 1;
    while !answers.is_empty() {
        turns += 1;
        assert!(turns < MANY, "{} never got an answer", answers.len());
        world.driver.turn(world.now, Vec::new()).await.unwrap();
        check(&world.trust.record(), &path);
        answers.retain_mut(|answered| match answered.try_recv() {
            Ok(done) => done.map(|()| false).unwrap(),
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(closed) => panic!("{closed}"),
        });
    }
    let record = world.trust.record();
    for id in &ids {
        let known = &record.rotation().consumers()[id];
        assert_eq!(known.incarnation, Incarnation(2), "{id}");
        assert!(matches!(known.standing, Standing::Quarantined { .. }));
    }
}

#[tokio::test]
async fn when_hundreds_start_in_one_turn_no_entry_is_lost() {
    const MANY: usize = 300;
    let mut world = World::new(0).await;
    let folder = tempfile::tempdir().unwrap();
    let data = DataFolder::open(folder.path()).unwrap();
    let path = data.audit();
    world.driver.write_to(data).unwrap();
    let mut turns = 0;
    for incarnation in [1, 2] {
        let (mut batch, mut answers) = (Vec::new(), Vec::new());
        for number in 0..MANY {
            let ask = ask(number, incarnation, &world.trust);
            let id = ask
                .process
                .as_ref()
                .unwrap()
                .id(&ask.identity, world.trust.record().rotation());
            let process = ask.process.clone().unwrap();
            world.trust.shared.report(
                id,
                Reported {
                    process,
                    report: api::Report::default(),
                    at: world.now,
                },
            );
            let (answer, answered) = oneshot::channel();
            batch.push(Request::Certify(ask, answer));
            answers.push(answered);
        }
        while !answers.is_empty() {
            turns += 1;
            assert!(turns < 2 * MANY, "{} never got an answer", answers.len());
            world
                .driver
                .turn(world.now, std::mem::take(&mut batch))
                .await
                .unwrap();
            answers.retain_mut(|answered| match answered.try_recv() {
                Ok(leaf) => leaf.map(|_| false).unwrap(),
                Err(oneshot::error::TryRecvError::Empty) => true,
                Err(closed) => panic!("{closed}"),
            });
            check(&world.trust.record(), &path);
        }
    }
    assert_eq!(world.trust.record().rotation().consumers().len(), MANY + 1);
    let entries = read(&path).len();
    println!("{entries} entries in {turns} turns");
    assert!(entries > 2 * MANY);
}
