use std::time::{Duration, Instant};

use e2e::{App, Carriage, Clock, Load, MESH, Network, Requirement, require};
use mesh_control_api::admin::change_trust_request::Word;
use mesh_control_api::admin::{RotateTrust, Trust};

use crate::fleet::{Fleet, PATIENCE, anchor_in_use, phase};

const HOUR: i32 = 3600;

/// Its leaves live for ten seconds: with a clock that is an hour ahead or behind it can believe nobody who is certified anew. It is
/// what blocks, by name and with what to do, and the rotation goes on as soon as its clock is right.
#[test]
fn where_a_proxy_lives() {
    if !require(&[&MESH[..], &[Requirement::Faketime]].concat()) {
        return;
    }
    let network = Network::new();
    let mut fleet = Fleet::start(
        &network,
        2,
        "leafLifetime: 10s\nrotation: {consumerLease: 25s}",
    );
    let clock = Clock::right();
    let mut skewed = fleet.mesh.workload("skewed", "skewed", &[(8080, "http")]);
    skewed.restart_by(&clock);
    skewed.publish();
    let _app = App::start(&skewed.host, "skewed", 8080);
    let url = format!("http://{}:8080/echo", fleet.web);
    let mut traffic = Load::open(
        &fleet.clients[0].host,
        Carriage::Http1,
        &url,
        1,
        20,
        PATIENCE * 2,
    );
    traffic.wait_ok(20);
    let who = format!("workload `default/skewed@{}`", skewed.identity());
    for (ahead, said) in [(HOUR, "ahead of"), (-HOUR, "behind")] {
        let before = fleet.mesh.trust();
        // With a certificate that has most of its life to come, it has the time to say that its clock was set.
        let certified = skewed.proxy.lines_with("certified identity").len();
        skewed.proxy.wait_until("it is certified anew", |it| {
            it.lines_with("certified identity").len() > certified
        });
        clock.set(ahead);
        let sign = if ahead < 0 { "=-3" } else { "=3" };
        fleet
            .mesh
            .controller()
            .wait_line(&format!("seconds_ahead{sign}"));
        rotate(&fleet);
        let began = Instant::now();
        let trust = fleet
            .mesh
            .wait_trust("it is named, and only it", PATIENCE, |trust| {
                let only = trust.blockers.iter().all(|one| one.who == who);
                only && trust.blockers.iter().any(|one| one.help.contains(said))
            });
        let blocker = &trust.blockers[0];
        println!(
            "clock off by {ahead} s, named after {:.1?} in {}: {}; {}",
            began.elapsed(),
            phase(&trust),
            blocker.why,
            blocker.help
        );
        let line = skewed.proxy.wait_line("cannot get a certificate");
        println!("{line}");
        clock.set(0);
        let trust = fleet.mesh.wait_trust("it goes on", PATIENCE, |trust| {
            trust.change.is_none() && trust.anchors.len() == 1
        });
        println!("over {:.1?} after it began", began.elapsed());
        assert_eq!(trust.last_outcome, "completed");
        assert_ne!(anchor_in_use(&trust), anchor_in_use(&before));
        assert_eq!(trust.quarantined, [""; 0]);
        skewed.wait_ready();
    }
    let mut back = Load::start(
        &skewed.host,
        Carriage::Http1,
        &url,
        1,
        Duration::from_millis(5),
    );
    back.wait_ok(50);
    back.stop().assert_no_failure(50);
    let report = traffic.stop();
    report.assert_no_failure(200);
    println!("0 failures of {} attempts of the others", report.attempts);
}

/// It is the controller that all others are ahead of: nobody believes what it certifies. It names its own clock, leaves nobody
/// behind, and goes on as soon as its clock is right.
#[test]
fn where_the_controller_lives() {
    if !require(&[&MESH[..], &[Requirement::Faketime]].concat()) {
        return;
    }
    let network = Network::new();
    let mut fleet = Fleet::start(
        &network,
        2,
        "leafLifetime: 10s\nrotation: {consumerLease: 25s}",
    );
    let clock = Clock::right();
    fleet.mesh.restart_controller_by(&clock);
    let size = fleet.size() as u64;
    fleet
        .mesh
        .wait_trust("all are ready", PATIENCE, |trust| trust.ready >= size);
    let before = fleet.mesh.trust();
    clock.set(-HOUR);
    fleet.mesh.controller().wait_line("if most are off");
    rotate(&fleet);
    let began = Instant::now();
    let named = |trust: &Trust| {
        let mut blockers = trust.blockers.iter();
        let own = blockers.find(|one| one.who == "this controller")?;
        Some((own.why.clone(), own.help.clone()))
    };
    let trust = fleet
        .mesh
        .wait_trust("it is named", PATIENCE, |trust| named(trust).is_some());
    let (why, help) = named(&trust).unwrap();
    println!("named after {:.1?}: {why}; {help}", began.elapsed());
    assert!(why.contains(" s behind those of "), "{why}");
    assert_eq!(help, "set its clock");
    // Still, when nobody is on a stream any more, as all certificates have ended.
    let leaves_end = Instant::now() + Duration::from_secs(20);
    fleet.mesh.wait_trust("and stays so", PATIENCE, |trust| {
        assert!(named(trust).is_some(), "{trust:#?}");
        assert_eq!(trust.quarantined, [""; 0]);
        Instant::now() > leaves_end
    });
    clock.set(0);
    let trust = fleet.mesh.wait_trust("it goes on", PATIENCE, |trust| {
        trust.change.is_none() && trust.anchors.len() == 1
    });
    assert_eq!(trust.last_outcome, "completed");
    assert_ne!(anchor_in_use(&trust), anchor_in_use(&before));
    assert_eq!(
        (trust.quarantined.len(), trust.consumers),
        (0, before.consumers)
    );
    for proxy in fleet.proxies() {
        proxy.wait_ready();
    }
}

fn rotate(fleet: &Fleet<'_>) {
    let word = Word::Rotate(RotateTrust { issuer_only: false });
    assert_eq!(fleet.mesh.change_trust(word), Ok(()));
}
