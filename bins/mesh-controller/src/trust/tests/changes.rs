//! What a change of the roots comes to.

use super::*;

#[tokio::test]
async fn three_rotations_in_a_row_and_everybody_trusts_everybody_all_the_time() {
    let mut world = World::new(3).await;
    world.seconds(3).await;
    for _ in 0..3 {
        let before = world.anchor();
        world.second(Some(ROTATE)).await;
        let took = world.until_ended().await;
        assert!(took < 100, "{took} s with leaves of a minute");
        let record = world.trust.record();
        assert_eq!(record.rotation().last_outcome(), Some(Outcome::Completed));
        assert_ne!(world.anchor(), before);
        record.audit().verify(&Sha256).unwrap();
        world.seconds(2).await;
        for proxy in &world.proxies {
            assert_eq!(proxy.bundle.anchors().len(), 1);
        }
        let keys = world.authorities().await;
        assert_eq!(keys.len(), 2, "the old keys are destroyed: {keys:?}");
    }
    assert_eq!(world.refusals, [""; 0]);
}

#[tokio::test]
async fn who_is_away_is_named_and_is_let_in_again_when_it_comes_back() {
    let mut world = World::new(3).await;
    world.seconds(3).await;
    let away = world.proxies.pop().unwrap();
    world.second(Some(ROTATE)).await;
    world.seconds(5).await;
    let record = world.trust.record();
    let gate = record.rotation().gate(unix(world.now));
    let text: Vec<String> = gate.blockers().iter().map(ToString::to_string).collect();
    assert_eq!(
        record.rotation().change().unwrap().phase,
        Phase::Distribute,
        "{text:?}"
    );
    assert!(text[0].contains("shop/web-2@"), "{text:?}");
    // Its lease of ten minutes ends; then the others go on.
    for _ in 0..640 {
        world.second(None).await;
    }
    world.until_ended().await;
    // It comes back with what it had: the bundle of before does not do.
    let mut back = away;
    back.connect(&world.trust);
    back.leaf = None;
    back.orders = None;
    world.proxies.push(back);
    world.seconds(3).await;
    assert!(world.proxies[2].leaf.is_some(), "{:?}", world.refusals);
}

#[tokio::test]
async fn an_abort_leads_back_and_destroys_the_new_keys() {
    for seconds in [0, 1, 4, 30] {
        let mut world = World::new(2).await;
        world.seconds(3).await;
        let old = world.anchor();
        world.second(Some(ROTATE)).await;
        world.seconds(seconds).await;
        world
            .second(Some(Command::Event(Box::new(Event::Abort))))
            .await;
        world.until_ended().await;
        world.seconds(5).await;
        assert_eq!(world.anchor(), old);
        let outcome = world.trust.record().rotation().last_outcome();
        assert_eq!(outcome, Some(Outcome::SafelyAborted), "after {seconds} s");
        let keys = world.authorities().await;
        assert_eq!(keys.len(), 2, "after {seconds} s: {keys:?}");
    }
}

#[tokio::test]
async fn an_emergency_refuses_the_tainted_anchor_everywhere() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    let old = world.anchor();
    world
        .second(Some(Command::Event(Box::new(Event::Taint(old)))))
        .await;
    world.second(Some(ROTATE)).await;
    let took = world.until_ended().await;
    assert!(took < 30, "{took} s");
    world.seconds(2).await;
    assert_ne!(world.anchor(), old);
    for proxy in &world.proxies {
        assert_eq!(proxy.bundle.anchors().len(), 1);
    }
}

#[tokio::test]
async fn keys_are_not_printed() {
    let world = World::new(1).await;
    let printed = format!("{:?} {:?}", world.trust, world.driver);
    assert!(!printed.contains("PRIVATE"), "{printed}");
}

#[tokio::test]
async fn who_makes_names_up_fills_nothing_and_what_is_left_of_it_goes() {
    let mut world = World::new(1).await;
    world.seconds(3).await;
    let identity = world.proxies[0].identity.clone();
    let named = |number: usize| Process {
        process: format!("p{number}"),
        workload: format!("shop:made-up-{number}"),
        ..world.proxies[0].process.clone()
    };
    let rotation = world.trust.record();
    for number in 0..3000 {
        let process = named(number);
        let id = process.id(&identity, rotation.rotation());
        let report = api::Report {
            sequence: 1,
            ..api::Report::default()
        };
        let at = world.now;
        world.trust.shared.report(
            id,
            Reported {
                process,
                report,
                at,
            },
        );
    }
    // A turn takes only so many that are new.
    while !world.trust.shared.reports.lock().unwrap().is_empty() {
        let left = world.trust.shared.reports.lock().unwrap().len();
        world.second(None).await;
        assert!(world.trust.shared.reports.lock().unwrap().len() < left);
    }
    let count = |world: &World| world.trust.record().rotation().consumers().len();
    // And the controller.
    assert_eq!(count(&world), names::MAX_NAMES + 1);
    // Who has a name already goes on; another of that identity is told why it does not.
    world.proxies[0].wanted = true;
    world.second(None).await;
    assert!(!world.proxies[0].wanted);
    world.proxies[0].process.workload = "shop:another".to_owned();
    world.proxies[0].wanted = true;
    world.second(None).await;
    assert!(
        world.refusals[0].contains("control.workload"),
        "{:?}",
        world.refusals
    );
    world.proxies[0].process.workload = "shop:web-0".to_owned();
    // Two leases later nothing of it is left.
    for _ in 0..1300 {
        world.second(None).await;
    }
    assert_eq!(count(&world), 2);
    world.proxies[0].process.workload = "shop:another".to_owned();
    world.proxies[0].wanted = true;
    world.second(None).await;
    assert!(!world.proxies[0].wanted);
}
