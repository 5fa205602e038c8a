//! Very many at once: all of them are served, and every entry of the audit chain is in the file.

use mesh_trust_rotation::audit::{self, Entry};

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

#[tokio::test]
async fn when_hundreds_start_in_one_turn_no_entry_is_lost() {
    const MANY: usize = 300;
    let mut world = World::new(0).await;
    let folder = tempfile::tempdir().unwrap();
    let data = DataFolder::open(folder.path()).unwrap();
    let path = data.audit();
    world.driver.write_to(data).unwrap();
    let read = || -> Vec<Entry> {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
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
            // At any moment, so that a crash loses none either.
            let (record, entries) = (world.trust.record(), read());
            assert_eq!(entries.len() as u64, record.audit().length());
            audit::verify(&entries, record.audit().head(), &Sha256).unwrap();
        }
    }
    assert_eq!(world.trust.record().rotation().consumers().len(), MANY + 1);
    let entries = read().len();
    println!("{entries} entries in {turns} turns");
    assert!(entries > 2 * MANY);
}
