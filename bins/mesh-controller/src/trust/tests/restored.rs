//! A record that is older than the mesh, and files that somebody edited.

use super::*;

/// Everything that is in the store, as a backup has it.
async fn backup(world: &World) -> Vec<(String, Vec<u8>)> {
    let all = world.store.list("", None, 999).await.unwrap();
    all.into_iter()
        .map(|(key, found)| (key, found.value))
        .collect()
}

async fn restore(world: &mut World, backup: Vec<(String, Vec<u8>)>) {
    for (key, found) in world.store.list("", None, 999).await.unwrap() {
        world.store.delete(&key, found.version).await.unwrap();
    }
    for (key, value) in backup {
        world
            .store
            .put(&key, Expected::Absent, value)
            .await
            .unwrap();
    }
    world.restart().await;
}

#[tokio::test]
async fn a_store_from_the_middle_of_a_change_learns_that_it_ended_long_ago() {
    for phase in [Phase::Distribute, Phase::Drain] {
        let mut world = World::new(3).await;
        world.seconds(3).await;
        world.second(Some(ROTATE)).await;
        let at = |world: &World| {
            world
                .trust
                .record()
                .rotation()
                .change()
                .map(|change| change.phase)
        };
        while at(&world) < Some(phase) {
            world.second(None).await;
        }
        let old = backup(&world).await;
        let new = world.trust.record().rotation().change().unwrap().to.anchor;
        world.until_ended().await;
        world.seconds(3).await;
        let generation = world.trust.bundle().generation();
        restore(&mut world, old).await;
        assert!(world.trust.bundle().generation() < generation);
        let restored = Command::Event(Box::new(Event::Restored));
        world.second(Some(restored)).await;
        let gate = world.trust.record().rotation().gate(unix(world.now));
        assert!(!gate.blockers().is_empty());
        world.until_ended().await;
        world.seconds(5).await;
        let record = world.trust.record();
        assert_eq!(record.rotation().restoring_since(), None, "{phase:?}");
        assert_eq!(record.rotation().last_outcome(), Some(Outcome::Completed));
        assert_eq!(world.anchor(), new);
        assert!(world.trust.bundle().generation() > generation, "{phase:?}");
        for proxy in &world.proxies {
            assert_eq!(proxy.bundle.generation(), world.trust.bundle().generation());
            assert_eq!(proxy.bundle.anchors().len(), 1);
        }
    }
}

#[tokio::test]
async fn an_edited_file_of_anchors_is_put_right_and_is_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let data = crate::data_folder::DataFolder::open(folder.path()).unwrap();
    let mut world = World::new(1).await;
    world.driver.write_to(data.clone()).unwrap();
    world.seconds(3).await;
    let path = folder.path().join("anchors.pem");
    let right = std::fs::read_to_string(&path).unwrap();
    let other = mesh_tls::ca::Anchor::generate("other", LEAF * 99, world.now).unwrap();
    let generation = world.trust.bundle().generation();
    for wrong in [
        format!("{right}{}", other.certificate_pem()),
        String::new(),
        "x".to_owned(),
    ] {
        std::fs::write(&path, wrong).unwrap();
        world.seconds(3).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), right);
        let record = world.trust.record();
        let here = &record.rotation().clusters()[&record::cluster()];
        assert_eq!(here.drifted, None, "it was put right");
    }
    let record = world.trust.record();
    let served = record
        .audit()
        .recent()
        .filter(|entry| entry.event.contains("served"));
    assert!(served.count() >= 3);
    assert!(world.trust.bundle().generation() > generation);
    assert_eq!(world.proxies[0].bundle.anchors().len(), 1);
    assert_eq!(
        world.proxies[0].bundle.generation(),
        world.trust.bundle().generation()
    );
}
