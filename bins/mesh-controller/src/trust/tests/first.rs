//! Who goes first, and who is carried as it comes late.

use super::*;

impl World {
    fn phase(&self) -> Option<Phase> {
        let record = self.trust.record();
        record.rotation().change().map(|change| change.phase)
    }

    async fn until_phase(&mut self, phase: Phase) {
        for _ in 0..120 {
            if self.phase() == Some(phase) {
                return;
            }
            self.second(None).await;
        }
        let gate = self.trust.record().rotation().gate(unix(self.now));
        panic!("{:?}: {gate:#?}", self.phase());
    }

    /// Who presents a leaf of the side that comes.
    fn renewed(&self) -> Vec<bool> {
        let record = self.trust.record();
        let change = record.rotation().change().unwrap();
        let all = self.proxies.iter();
        all.map(|proxy| change.to.signs_with(issuer(proxy.leaf.as_ref().unwrap())))
            .collect()
    }
}

#[tokio::test]
async fn canaries_have_new_leaves_first_and_lose_the_old_anchor_first() {
    let mut settings = settings();
    settings.rotation.canaries = vec!["shop/web-1".to_owned(), "shop/not-there".to_owned()];
    settings.rotation.soak = Some(Duration::from_secs(8));
    let mut world = World::on(Dying::in_memory(), settings, 3).await;
    world.seconds(3).await;
    let (_, canaries) = world.driver.planned(false, world.now).unwrap();
    assert_eq!(canaries.len(), 1);
    world.second(Some(ROTATE)).await;
    world.until_phase(Phase::CanarySigning).await;
    world.seconds(6).await;
    assert_eq!(world.phase(), Some(Phase::CanarySigning));
    assert_eq!(world.renewed(), [false, true, false]);
    // A pause holds it there, by name.
    let pause = Command::Event(Box::new(Event::Pause));
    world.second(Some(pause)).await;
    world.seconds(20).await;
    assert_eq!(world.renewed(), [false, true, false]);
    let gate = world.trust.record().rotation().gate(unix(world.now));
    assert!(gate.blockers()[0].to_string().contains("paused"));
    let resume = Command::Event(Box::new(Event::Resume));
    world.second(Some(resume)).await;
    world.until_phase(Phase::CanaryRetirement).await;
    world.seconds(3).await;
    assert_eq!(world.phase(), Some(Phase::CanaryRetirement));
    let anchors: Vec<usize> = world
        .proxies
        .iter()
        .map(|proxy| proxy.bundle.anchors().len())
        .collect();
    assert_eq!(anchors, [2, 1, 2]);
    world.until_ended().await;
    assert_eq!(world.refusals, [""; 0]);
}

#[tokio::test]
async fn a_share_goes_first_and_is_another_with_the_next_anchor() {
    let mut settings = settings();
    settings.rotation.canary_percent = 10;
    let mut world = World::on(Dying::in_memory(), settings, 25).await;
    world.seconds(3).await;
    let (_, first) = world.driver.planned(false, world.now).unwrap();
    assert_eq!(first.len(), 3, "a tenth, and parts of one count");
    world.second(Some(ROTATE)).await;
    world.until_ended().await;
    world.seconds(2).await;
    let (_, second) = world.driver.planned(false, world.now).unwrap();
    assert_eq!(second.len(), 3);
    assert_ne!(first, second);
}

#[tokio::test]
async fn who_does_not_trust_the_new_anchor_is_carried_by_a_cross_certificate() {
    let mut settings = settings();
    settings.rotation.bridges = true;
    let mut world = World::on(Dying::in_memory(), settings, 3).await;
    world.seconds(3).await;
    world.proxies[2].deaf = true;
    world.second(Some(ROTATE)).await;
    world.seconds(20).await;
    assert_eq!(world.phase(), Some(Phase::Distribute));
    let record = world.trust.record();
    let late = world.proxies[2]
        .process
        .id(&world.proxies[2].identity, record.rotation());
    let carry = Event::CarryByBridge([late.clone()].into());
    world.second(Some(Command::Event(Box::new(carry)))).await;
    world.until_phase(Phase::LeafConverged).await;
    // A controller that comes now finds the cross-certificates.
    world.restart().await;
    world.proxies[2].deaf = true;
    world.seconds(70).await;
    // Everybody has a new leaf, and the one that is late still verifies them all (`World::check`).
    assert_eq!(world.renewed(), [true; 3]);
    assert_eq!(world.proxies[2].bundle.anchors().len(), 1);
    assert_eq!(world.proxies[0].leaf.as_ref().unwrap().chain().len(), 3);
    assert_eq!(world.phase(), Some(Phase::LeafConverged));
    let gate = world.trust.record().rotation().gate(unix(world.now));
    let text: Vec<String> = gate.blockers().iter().map(ToString::to_string).collect();
    assert!(text[0].contains("shop/web-2@"), "{text:?}");
    // The key is needed for the next one.
    let anchor = world.anchor();
    world.proxies[2].deaf = false;
    world.until_ended().await;
    assert_ne!(world.anchor(), anchor);
    assert_eq!(
        world
            .store
            .list("trust/bridge/", None, 9)
            .await
            .unwrap()
            .len(),
        0
    );
    assert_eq!(world.refusals, [""; 0]);
}

#[tokio::test]
async fn who_does_not_accept_what_it_says_it_trusts_is_in_the_way_by_name() {
    let mut world = World::new(3).await;
    world.seconds(3).await;
    world.proxies[1].refuses = true;
    world.second(Some(ROTATE)).await;
    world.seconds(30).await;
    assert!(
        world.phase() <= Some(Phase::CanarySigning),
        "{:?}",
        world.phase()
    );
    let record = world.trust.record();
    let gate = record.rotation().gate(unix(world.now));
    let text: Vec<String> = gate.blockers().iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 1, "{text:?}");
    assert!(text[0].contains("shop/web-1@"), "{text:?}");
    let why = world.trust.disbelieved().into_values().next().unwrap();
    assert_eq!(why, "its clock is of last year");
    // What others accepted is on record.
    let to = record.rotation().change().unwrap().to.anchor;
    let probed = |known: &mesh_trust_rotation::Consumer| known.probed.contains_key(&to);
    let all = record.rotation().consumers().values();
    assert_eq!(all.filter(|known| probed(known)).count(), 2);
    world.proxies[1].refuses = false;
    world.until_ended().await;
    assert_eq!(world.refusals, [""; 0]);
}
