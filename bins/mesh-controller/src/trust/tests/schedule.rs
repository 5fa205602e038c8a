//! Changes that begin by themselves.

use mesh_discovery::manifests::{MeshConfig, Resource, parse};
use mesh_trust_rotation::Kind;

use super::*;

const DAY: Duration = Duration::from_hours(24);
/// Anchors of ten minutes, which are replaced when they have been in use for four.
const QUICK: &str = "anchorLifetime: 10m, anchorMargin: 6m, issuerLifetime: 10m, issuerMargin: 6m, phaseBudget: 30s";

/// As a manifest says it.
pub(super) fn scheduled(rotation: &str) -> Settings {
    let manifest = format!(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh}}\nspec: {{leafLifetime: 1m, rotation: {{{rotation}}}}}\n"
    );
    let (resources, errors) = parse("mesh.yaml", &manifest);
    assert_eq!(errors, []);
    let config: MeshConfig = match resources.into_iter().next() {
        Some(Resource::MeshConfig(config)) => config,
        other => panic!("{other:?}"),
    };
    Settings::of(&config).unwrap()
}

async fn world(rotation: &str) -> World {
    World::on(Dying::in_memory(), scheduled(rotation), 2).await
}

impl World {
    /// The seconds until another anchor or issuer signs, if that is within `most`.
    async fn until_another(&mut self, most: usize) -> Option<usize> {
        let side = |world: &Self| world.trust.record().rotation().active().clone();
        let before = side(self);
        for second in 0..most {
            if side(self) != before && self.rotation_ended() {
                return Some(second);
            }
            self.second(None).await;
        }
        None
    }

    fn follow(&mut self, settings: Settings) {
        self.settings = settings.clone();
        self.driver.follow_settings(Arc::new(settings));
    }
}

#[tokio::test]
async fn anchors_are_replaced_by_themselves_for_ever() {
    let mut world = world(QUICK).await;
    let mut took = Vec::new();
    for _ in 0..10 {
        let before = world.anchor();
        took.push(world.until_another(600).await.unwrap());
        assert_ne!(world.anchor(), before);
        assert_eq!(world.authorities().await.len(), 2);
    }
    println!("ten changes by the schedule, each after so many seconds: {took:?}");
    assert!(
        took.iter().all(|took| (240..400).contains(took)),
        "{took:?}"
    );
    assert_eq!(world.refusals, [""; 0]);
    let record = world.trust.record();
    assert!(
        record
            .audit()
            .recent()
            .any(|entry| entry.actor == "schedule")
    );
}

#[tokio::test]
async fn an_issuer_is_renewed_below_its_anchor_long_before_it_ends() {
    let mut world = world(
        "anchorLifetime: 2h, anchorMargin: 30m, issuerLifetime: 10m, issuerMargin: 6m, phaseBudget: 30s",
    )
    .await;
    let anchor = world.anchor();
    for _ in 0..8 {
        let ends = world.trust.issuer_not_after();
        world.until_another(600).await.unwrap();
        assert!(world.trust.issuer_not_after() > ends);
        let left = ends.duration_since(world.now).unwrap();
        assert!(left > Duration::from_mins(3), "{left:?} before its end");
    }
    assert_eq!(world.anchor(), anchor);
    assert_eq!(world.refusals, [""; 0]);
}

#[tokio::test]
async fn by_default_the_anchor_stays_and_the_issuer_is_renewed_in_time() {
    let mut world = World::new(0).await;
    let (anchor, ends) = (world.anchor(), world.trust.issuer_not_after());
    world.now += DAY * 240;
    world.seconds(200).await;
    assert_eq!(world.trust.issuer_not_after(), ends);
    world.now += DAY * 10;
    world.seconds(200).await;
    assert!(world.trust.issuer_not_after() > ends);
    assert_eq!(world.anchor(), anchor);
    assert!(world.rotation_ended());
}

#[tokio::test]
async fn a_freeze_holds_a_change_back_until_it_is_over_or_waiting_would_be_too_late() {
    // The world begins at 08:00 UTC.
    for (freeze, begins) in [
        ("from: '08:02', to: '08:06'", 360),
        ("from: '08:00', to: '20:00'", 570),
    ] {
        let schedule = QUICK.replace("10m", "15m").replace("6m", "11m");
        let mut world = world(&format!("{schedule}, freeze: [{{{freeze}}}]")).await;
        let (next, frozen) = world.trust.next_change(world.now).unwrap();
        assert_eq!(next.kind, Kind::Anchor);
        assert_eq!(frozen, freeze.contains("08:00"));
        let mut waited = 0;
        while world.rotation_ended() {
            world.second(None).await;
            waited += 1;
            assert!(waited < 900, "never: {freeze}");
        }
        assert!(
            (begins - 2..begins + 2).contains(&waited),
            "{freeze}: {waited}"
        );
    }
}

#[tokio::test]
async fn a_change_that_an_operator_undid_does_not_begin_again_at_once() {
    let mut world = world(
        "anchorLifetime: 2h, anchorMargin: 110m, issuerLifetime: 2h, issuerMargin: 110m, phaseBudget: 30s",
    )
    .await;
    world.seconds(605).await;
    assert!(!world.rotation_ended());
    let abort = Command::Event(Box::new(Event::Abort));
    world.second(Some(abort)).await;
    world.until_ended().await;
    world.seconds(590).await;
    assert!(world.rotation_ended());
    world.seconds(30).await;
    assert!(!world.rotation_ended());
    // Nor by another process.
    let abort = Command::Event(Box::new(Event::Abort));
    world.second(Some(abort)).await;
    world.until_ended().await;
    world.restart().await;
    world.seconds(590).await;
    assert!(world.rotation_ended());
}

#[tokio::test]
async fn a_shorter_schedule_holds_for_what_there_is_already() {
    let mut world = World::new(2).await;
    world.seconds(300).await;
    assert!(world.rotation_ended());
    world.follow(scheduled(QUICK));
    world.seconds(2).await;
    assert!(
        !world.rotation_ended(),
        "it has been in use for longer than four minutes"
    );
    world.until_ended().await;
    assert_eq!(world.refusals, [""; 0]);
}

#[tokio::test]
async fn what_the_manifests_say_counts_at_once_but_for_what_a_change_relies_on() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    world.second(Some(ROTATE)).await;
    let skew = world.trust.record().rotation().settings().skew;
    let mut settings = scheduled("drain: cut");
    settings.leaf_lifetime = Duration::from_mins(10);
    world.follow(settings);
    world.second(None).await;
    let record = world.trust.record();
    let machine = record.rotation().settings();
    assert!(record.rotation().change().is_some());
    assert_eq!(machine.drain, mesh_trust_rotation::Drain::Cut);
    assert_eq!(machine.skew, skew, "gates were passed by it");
}

#[tokio::test]
async fn an_anchor_that_ended_while_nobody_ran_is_named_and_keeps_no_controller_from_starting() {
    let mut world = world(
        "anchorLifetime: 1h, anchorMargin: 30m, issuerLifetime: 40m, issuerMargin: 30m, phaseBudget: 5s",
    )
    .await;
    let ended = world.anchor();
    world.proxies.clear();
    world.now += Duration::from_hours(2);
    assert!(world.trust.issuer_not_after() < world.now);
    world.restart().await;
    world.seconds(2).await;
    assert_eq!(world.trust.failure(), None);
    // Who trusts nothing but what has ended believes no bundle's issuer: that is named, and for an operator to decide.
    let record = world.trust.record();
    let change = record.rotation().change().unwrap();
    assert_eq!(
        (change.kind, change.phase),
        (Kind::Anchor, Phase::Preflight)
    );
    let gate = record.rotation().gate(unix(world.now));
    let text: Vec<String> = gate.blockers().iter().map(ToString::to_string).collect();
    assert!(text[0].contains(&ended.to_string()[..8]), "{text:?}");
}
