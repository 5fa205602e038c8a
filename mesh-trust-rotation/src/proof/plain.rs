//! Guards that no model needs, as another guard or an assumption stands before them: each shown by itself, with and without.

use super::scenario::{A, B, Scenario, Spec, anchor, cluster, issuer, workload};
use super::steps::Step;
use super::world::World;
use crate::guard::Guard;
use crate::{Event, Phase, Reason, Refusal};

fn scenario(without: Option<Guard>) -> Scenario {
    let mut scenario = Scenario::new("plain", vec![Spec::new("web")]);
    scenario.without = without;
    scenario
}

fn reasons(world: &World) -> Vec<Reason> {
    world
        .record
        .gate(world.now)
        .blockers()
        .iter()
        .map(|blocker| blocker.why)
        .collect()
}

#[test]
fn who_is_in_no_inventory_blocks_by_name() {
    for guarded in [true, false] {
        let scenario = scenario((!guarded).then_some(Guard::Undeclared));
        let mut world = World::new(&scenario);
        let mut evidence = world.evidence(&scenario, 0).unwrap();
        evidence.workload = workload("stranger");
        let _ = world.tell(Event::Evidence {
            peer: workload("stranger"),
            evidence,
        });
        assert_eq!(reasons(&world).contains(&Reason::Undeclared), guarded);
    }
}

#[test]
fn what_comes_late_replaces_nothing() {
    for guarded in [true, false] {
        let scenario = scenario((!guarded).then_some(Guard::Newest));
        let mut world = World::new(&scenario);
        let early = world.evidence(&scenario, 0).unwrap();
        world.now.0 += 1;
        world.observe(&scenario, 0);
        let latest = world.record.clone();
        let _ = world.tell(Event::Evidence {
            peer: workload("web"),
            evidence: early,
        });
        assert_eq!(world.record == latest, guarded);
    }
}

#[test]
fn an_issuer_that_was_not_seen_to_verify_does_not_sign() {
    for guarded in [true, false] {
        let scenario = scenario((!guarded).then_some(Guard::IssuerVerified));
        let mut world = World::new(&scenario);
        world.greet(&scenario, 0);
        world.tell(Event::Tick).unwrap();
        let phase = world.record.change().unwrap().phase;
        assert_eq!(phase == Phase::Preflight, guarded);
    }
}

#[test]
fn nothing_is_signed_without_a_lease() {
    for guarded in [true, false] {
        let scenario = scenario((!guarded).then_some(Guard::SigningLease));
        let mut world = World::new(&scenario);
        world.now.0 += 5;
        let request = world.request(&scenario, 0);
        let refused = world.tell(Event::Certify(crate::Request {
            workload: workload("new"),
            ..request
        }));
        assert_eq!(
            matches!(refused, Err(Refusal::NoSigningLease { .. })),
            guarded
        );
    }
}

#[test]
fn a_bundle_that_nobody_published_freezes() {
    for guarded in [true, false] {
        let scenario = scenario((!guarded).then_some(Guard::Drift));
        let mut world = World::new(&scenario);
        world.work(&scenario, 0);
        scenario.take(&mut world, Step::Tick);
        world.work(&scenario, 0);
        scenario.take(&mut world, Step::Drift(0));
        world.greet(&scenario, 0);
        assert_eq!(reasons(&world).contains(&Reason::Drift), guarded);
        // It is put right under a generation above the wrong one.
        assert!(world.record.bundles().current() > world.sites[0].served.generation);
    }
}

#[test]
fn stragglers_are_left_behind_before_their_cross_certificate_ends() {
    for guarded in [true, false] {
        let mut scenario = scenario((!guarded).then_some(Guard::BridgeEnding));
        scenario.specs.push(Spec::new("vm").fails());
        scenario.settings.bridges = true;
        scenario.settings.consumer_lease = std::time::Duration::from_secs(50);
        scenario.bridge_ends = 5;
        let mut world = World::new(&scenario);
        world.work(&scenario, 0);
        scenario.take(&mut world, Step::Tick);
        world
            .tell(Event::CarryByBridge([workload("vm")].into()))
            .unwrap();
        world.now.0 += 4;
        scenario.take(&mut world, Step::Tick);
        assert_eq!(world.permitted(&scenario, 1), !guarded);
    }
}

#[test]
fn a_lease_is_for_whoever_is_to_sign() {
    let scenario = scenario(None);
    let mut world = World::new(&scenario);
    let refused = world.tell(Event::SigningLease {
        cluster: cluster(0),
        issuer: issuer(B, 0, false),
    });
    assert!(matches!(refused, Err(Refusal::NotTheSigner { .. })));
    assert_eq!(world.record.active().anchor, anchor(A));
}
