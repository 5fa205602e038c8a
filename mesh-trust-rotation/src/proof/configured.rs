//! What may be configured when, and what is refused by name.

use std::time::Duration;

use super::scenario::{A, B, Scenario, Spec, anchor, cluster, issuer};
use super::steps::Step;
use super::world::World;
use crate::crypto::Sha256;
use crate::{
    Action, Connections, Drain, Epoch, Event, Mode, NotRecorded, Phase, Record, Refusal, Settings,
    UnixTime,
};

const SECOND: Duration = Duration::from_secs(1);

fn world() -> (Scenario, World) {
    let scenario = Scenario::new("configured", vec![Spec::new("web")]);
    let world = World::new(&scenario);
    (scenario, world)
}

/// Has settings changed, and says which setting was refused.
fn configure(world: &mut World, change: impl FnOnce(&mut Settings)) -> Option<&'static str> {
    let mut settings = world.record.settings().clone();
    change(&mut settings);
    let before = world.record.clone();
    match world.tell(Event::Configure(Box::new(settings.clone()))) {
        Ok(_) => {
            assert_eq!(*world.record.settings(), settings);
            None
        }
        Err(Refusal::SettingInUse { name, .. } | Refusal::UnfitSetting { name, .. }) => {
            assert_eq!(world.record, before);
            Some(name)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn settings_that_contradict_themselves_are_refused_by_name() {
    let (_, mut world) = world();
    let lease = configure(&mut world, |settings| settings.consumer_lease = SECOND);
    assert_eq!(lease, Some("consumer_lease"));
    let backdate = configure(&mut world, |settings| settings.skew = SECOND);
    assert_eq!(backdate, Some("backdate"));
    let batch = configure(&mut world, |settings| settings.reissue_batch = 0);
    assert_eq!(batch, Some("reissue_batch"));
}

#[test]
fn the_skew_stays_while_gates_rely_on_it() {
    let skew = |settings: &mut Settings| (settings.skew, settings.backdate) = (SECOND, SECOND);
    let (_, mut world) = world();
    assert_eq!(configure(&mut world, skew), Some("skew"));
    world.tell(Event::Abort).unwrap();
    assert_eq!(configure(&mut world, skew), None);
    world.tell(Event::Restored).unwrap();
    let back = |settings: &mut Settings| settings.skew = Duration::ZERO;
    assert_eq!(configure(&mut world, back), Some("skew"));
}

#[test]
fn an_emergency_does_not_choose_how_many_it_leaves_behind() {
    let quorum = |settings: &mut Settings| settings.emergency_quorum += 1;
    let deadline = |settings: &mut Settings| settings.emergency_deadline += SECOND;
    let (_, mut world) = world();
    assert_eq!(configure(&mut world, quorum), None);
    assert_eq!(configure(&mut world, deadline), None);
    world.tell(Event::Taint(anchor(A))).unwrap();
    assert_eq!(world.record.change().unwrap().mode, Mode::Emergency);
    assert_eq!(configure(&mut world, quorum), Some("emergency_quorum"));
    assert_eq!(configure(&mut world, deadline), Some("emergency_deadline"));
}

#[test]
fn cross_certificates_can_be_turned_off_unless_somebody_is_carried() {
    let on = |settings: &mut Settings| settings.bridges = true;
    let off = |settings: &mut Settings| settings.bridges = false;
    for carried in [true, false] {
        let (scenario, mut world) = world();
        assert_eq!(configure(&mut world, on), None);
        // They are made before the change goes on.
        let due = world.record.pending(world.now);
        let makes = |action: &Action| matches!(action, Action::MakeBridge { .. });
        assert_eq!(due.iter().filter(|action| makes(action)).count(), 2);
        if carried {
            world.work(&scenario, 0);
            scenario.take(&mut world, Step::Tick);
            let web = super::scenario::workload("web");
            world.tell(Event::CarryByBridge([web].into())).unwrap();
            assert_eq!(configure(&mut world, off), Some("bridges"));
        } else {
            assert_eq!(configure(&mut world, off), None);
            let due = world.record.pending(world.now);
            assert!(!due.iter().any(makes));
        }
    }
}

#[test]
fn a_lease_does_not_become_shorter_than_the_leaves_that_are_out() {
    let shorter = |settings: &mut Settings| {
        (settings.leaf_life, settings.consumer_lease) = (SECOND, SECOND);
    };
    let life = |settings: &mut Settings| settings.leaf_life = SECOND;
    let lease = |settings: &mut Settings| settings.consumer_lease = SECOND;
    let (_, mut world) = world();
    // A leaf lives two, and a signer may sign for another one.
    assert_eq!(configure(&mut world, shorter), Some("consumer_lease"));
    assert_eq!(configure(&mut world, life), None);
    assert_eq!(configure(&mut world, lease), Some("consumer_lease"));
    world.now.0 += 1;
    assert_eq!(configure(&mut world, lease), Some("consumer_lease"));
    world.now.0 += 1;
    assert_eq!(configure(&mut world, lease), None);
}

#[test]
fn after_a_restore_leaves_are_assumed_to_live_as_long_as_is_said_then() {
    let (_, mut world) = world();
    world.tell(Event::Restored).unwrap();
    let ends = |world: &World| {
        let at = &world.record.clusters()[&cluster(0)];
        at.ledger[&issuer(A, 0, false)].entered
    };
    assert_eq!(ends(&world), UnixTime(world.now.0 + 3));
    let longer = |settings: &mut Settings| {
        (settings.leaf_life, settings.consumer_lease) = (9 * SECOND, 9 * SECOND);
    };
    assert_eq!(configure(&mut world, longer), None);
    assert_eq!(ends(&world), UnixTime(world.now.0 + 10));
}

/// Hazard 49: the same connection is awaited, or closed as soon as the settings say so, in the middle of a drain.
#[test]
fn connections_are_awaited_or_cut_by_the_setting_of_the_moment() {
    let (scenario, mut world) = world();
    for _ in 0..20 {
        world.work(&scenario, 0);
        let offered = world.offered(&scenario, 0);
        world.load(&scenario, 0, 0, offered);
        if world.wants_leaf(&scenario, 0) {
            world.certify(&scenario, 0);
        }
        if world
            .record
            .change()
            .is_none_or(|change| !change.is_draining())
        {
            world.processes[0].connection = Some(A);
        }
        world.observe(&scenario, 0);
        if world
            .record
            .change()
            .is_some_and(|change| change.phase == Phase::Drain)
        {
            break;
        }
        scenario.take(&mut world, Step::Tick);
    }
    assert_eq!(
        world.record.change().map(|change| change.phase),
        Some(Phase::Drain)
    );
    let cuts = |world: &World| {
        let due = world.record.pending(world.now);
        due.into_iter().find_map(|action| match action {
            Action::DrainConnections {
                anchor: of, cut, ..
            } if of == anchor(A) => Some(cut),
            _ => None,
        })
    };
    assert_eq!(cuts(&world), Some(false));
    // However long it takes, it is awaited, and blocks by name.
    for _ in 0..10 {
        world.now.0 += 1;
        world.work(&scenario, 0);
        world.certify(&scenario, 0);
        world.observe(&scenario, 0);
        scenario.take(&mut world, Step::Tick);
        assert_eq!(world.processes[0].connection, Some(A));
    }
    let gate = world.record.gate(world.now);
    let why: Vec<_> = gate.blockers().iter().map(|blocker| blocker.why).collect();
    assert_eq!(why, [crate::Reason::OldConnection]);

    assert_eq!(
        configure(&mut world, |settings| settings.drain = Drain::Cut),
        None
    );
    assert_eq!(cuts(&world), Some(true));
    world.work(&scenario, 0);
    assert_eq!(world.processes[0].connection, None);
    world.observe(&scenario, 0);
    let known = &world.record.consumers()[&super::scenario::workload("web")];
    assert_eq!(known.report.unwrap().connections, Connections::None);
    assert_eq!(cuts(&world), None);
    assert!(world.record.gate(world.now).is_open());
    assert!(world.record.change().unwrap().is_leaving(anchor(A)));
    assert_eq!(world.record.change().unwrap().to.anchor, anchor(B));
}

#[test]
fn what_was_configured_is_audited_by_name_and_only_if_it_changes_something() {
    let (_, world) = world();
    let mut record = Record::new((*world.record).clone());
    let mut settings = record.rotation().settings().clone();
    let mut apply = |settings: &Settings, length: u64| {
        let event = Event::Configure(Box::new(settings.clone()));
        let result = record.apply(Epoch(0), world.now, "ops", event, &Sha256);
        assert_eq!(record.audit().length(), length);
        let last = record.audit().recent().last();
        (result, last.map(|entry| entry.event.clone()))
    };
    assert!(matches!(apply(&settings, 0), (Ok(_), None)));
    settings.drain = Drain::Cut;
    settings.soak = SECOND;
    let (_, word) = apply(&settings, 1);
    assert_eq!(word.as_deref(), Some("configure soak, drain"));
    let _ = apply(&settings, 1);
    settings.restart_batch = 0;
    let (refused, _) = apply(&settings, 1);
    assert!(matches!(
        refused,
        Err(NotRecorded::Refused(Refusal::UnfitSetting {
            name: "restart_batch",
            ..
        }))
    ));
}

#[test]
fn a_deed_is_entered_by_who_leads_and_changes_nothing_else() {
    let (_, world) = world();
    let mut record = Record::new((*world.record).clone());
    let before = record.rotation().clone();
    let about = ("root key exported", &b"A"[..]);
    record
        .note(before.epoch(), world.now, "ops", about, &Sha256)
        .unwrap();
    let entry = record.audit().recent().last().cloned().unwrap();
    assert_eq!((&*entry.event, &*entry.actor), ("root key exported", "ops"));
    assert_eq!(*record.rotation(), before);
    record.audit().verify(&Sha256).unwrap();

    let next = Epoch(before.epoch().0 + 1);
    record
        .apply(next, world.now, "ops", Event::Lead(next), &Sha256)
        .unwrap();
    let length = record.audit().length();
    let late = record.note(before.epoch(), world.now, "ops", about, &Sha256);
    assert!(matches!(late, Err(NotRecorded::Refused(_))));
    assert_eq!(record.audit().length(), length);
}
