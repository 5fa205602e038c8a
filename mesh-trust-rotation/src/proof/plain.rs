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

/// Twice there and back within a second, and the last answer is lost: a report of before would pass for one of after it.
#[test]
fn who_was_given_leaves_of_two_issuers_waits_for_the_next_second() {
    for guarded in [true, false] {
        let scenario = scenario((!guarded).then_some(Guard::OneTurnASecond));
        let mut world = World::new(&scenario);
        world.now.0 += 1;
        world.work(&scenario, 0);
        let given = |world: &World| world.record.consumers()[&workload("web")].given;
        let sign_with = |world: &mut World, by: u8| {
            let record = std::sync::Arc::make_mut(&mut world.record);
            let signer = issuer(by, 0, false);
            record.bundles.publish([anchor(A), anchor(B)].into());
            record
                .bundles
                .confirm(crate::Generation(2), super::scenario::digest(A | B));
            let at = record.clusters.get_mut(&cluster(0)).unwrap();
            at.signer = signer;
            world.lease(&scenario, 0);
            let mut request = world.request(&scenario, 0);
            request.loaded = Some(crate::Loaded {
                generation: crate::Generation(2),
                digest: super::scenario::digest(A | B),
            });
            world.tell(Event::Certify(request)).map(|_| ())
        };
        assert_eq!(sign_with(&mut world, B), Ok(()));
        let there = given(&world);
        assert_eq!(sign_with(&mut world, A).is_ok(), !guarded);
        let again = sign_with(&mut world, B);
        // Of the same issuer it may have as many as it likes.
        assert_eq!(again, Ok(()));
        assert_eq!(given(&world), there);
        world.now.0 += 1;
        assert_eq!(sign_with(&mut world, A), Ok(()));
        assert_ne!(given(&world), there);
    }
}

/// Who is slow is told apart from who is silent: what helps is not the same.
#[test]
fn the_slow_and_the_silent_are_named_differently() {
    let mut scenario = scenario(None);
    scenario.specs.push(Spec::new("vm"));
    scenario.settings.freshness = std::time::Duration::from_secs(5);
    scenario.settings.consumer_lease = std::time::Duration::from_secs(50);
    let mut world = World::new(&scenario);
    world.observe(&scenario, 1);
    world.now.0 += 6;
    world.work(&scenario, 0);
    scenario.take(&mut world, Step::Tick);
    world.work(&scenario, 0);
    world.observe(&scenario, 0);
    let said = |world: &World| -> Vec<(String, Reason)> {
        let gate = world.record.gate(world.now);
        let said = gate.blockers().iter();
        said.map(|blocker| (blocker.who.to_string(), blocker.why))
            .collect()
    };
    let web = "workload `web`".to_owned();
    let vm = "workload `vm`".to_owned();
    assert_eq!(
        said(&world),
        [
            (vm.clone(), Reason::Silent),
            (web.clone(), Reason::OldBundle)
        ]
    );
    assert_ne!(Reason::Silent.help(), Reason::OldBundle.help());

    // In a drain, who spoke just before it began is not silent either: it has not said yet what it has.
    let record = std::sync::Arc::make_mut(&mut world.record);
    let mut change = record.change.clone().unwrap();
    change.phase = Phase::Drain;
    change.draining_since = Some(world.now);
    // The last old leaf, on the lease of the moment, has ended.
    world.now.0 += 5;
    let blockers = record.retirement_blockers(world.now, &change);
    let why = |name: &str| -> Vec<Reason> {
        let of = crate::Subject::Workload(workload(name));
        let of = blockers.iter().filter(|blocker| blocker.who == of);
        of.map(|blocker| blocker.why).collect()
    };
    assert!(why("web").contains(&Reason::NotSaidSince));
    assert!(!why("web").contains(&Reason::Silent));
    assert!(why("vm").contains(&Reason::Silent) && !why("vm").contains(&Reason::NotSaidSince));
}

/// Everything that is said of one consumer or cluster: if it cannot be entered in the audit chain, it has not happened.
#[test]
fn what_cannot_be_entered_has_not_happened() {
    let mut scenario = scenario(None);
    scenario.specs.push(Spec::new("vm").canary());
    scenario.settings.signing_lease = std::time::Duration::from_secs(5);
    let mut world = World::new(&scenario);
    world.work(&scenario, 0);
    let mut record = crate::Record::new((*world.record).clone());
    // A second later everything that is said changes something: who was heard, until when leaves live.
    world.now.0 += 1;
    let now = world.now;
    let (web, vm, new) = (workload("web"), workload("vm"), workload("new"));
    let (east, restarted) = (cluster(0), crate::Incarnation(7));
    let mut stranger = world.evidence(&scenario, 0).unwrap();
    stranger.workload = new.clone();
    let mut later = world.evidence(&scenario, 0).unwrap();
    later.incarnation = restarted;
    let mut request = world.request(&scenario, 0);
    request.workload = new.clone();
    let joined = Event::Joined {
        workload: new.clone(),
        cluster: east.clone(),
        class: crate::Class::Reloading,
        incarnation: restarted,
    };
    let loaded = world.says(&scenario, 0);
    let mut foreign = loaded;
    foreign.digest = super::scenario::digest(8);
    let highest = crate::Generation(9);
    let rejoined = Event::Rejoined {
        workload: web.clone(),
        incarnation: restarted,
        loaded,
    };
    let apply = |record: &mut crate::Record, event: &Event| {
        record.apply(
            crate::Epoch(0),
            now,
            "test",
            event.clone(),
            &crate::crypto::Sha256,
        )
    };
    let mut all = vec![
        Event::Certify(request),
        joined,
        rejoined,
        Event::Left(vm),
        Event::Quarantine(web.clone()),
        Event::Served {
            cluster: east.clone(),
            loaded: foreign,
            highest,
        },
    ];
    for (peer, evidence) in [(new, stranger), (web, later)] {
        all.push(Event::Evidence { peer, evidence });
    }
    for event in &all {
        record.audit.closed = true;
        let before = record.clone();
        let refused = apply(&mut record, event);
        assert!(
            matches!(refused, Err(crate::NotRecorded::Audit(_))),
            "{event:?}"
        );
        assert_eq!(record, before, "{event:?}");
        record.audit.closed = false;
        let mut after = record.clone();
        apply(&mut after, event).unwrap();
        assert_eq!(
            after.audit().length(),
            record.audit().length() + 1,
            "{event:?}"
        );
        assert_ne!(after.rotation(), record.rotation(), "{event:?}");
    }
    // The same of what is about more.
    record.audit.closed = true;
    let before = record.clone();
    assert!(apply(&mut record, &Event::Pause).is_err());
    assert_eq!(record, before);
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
