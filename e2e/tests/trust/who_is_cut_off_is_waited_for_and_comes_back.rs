use std::fmt::Write as _;
use std::time::{Duration, Instant};

use e2e::{App, Carriage, Load, MESH, Network, Report, Workload, require};
use mesh_control_api::admin::change_trust_request::Word;
use mesh_control_api::admin::{PauseTrust, ResumeTrust, RotateTrust, Trust};

use crate::fleet::{Fleet, PATIENCE, Traffic, anchor_in_use, phase};

/// Leaves of ten seconds, and a lease that is not much longer.
const SPEC: &str = "leafLifetime: 10s\nrotation: {consumerLease: 12s, trustHold: 1s}";
/// Set to a path, every phase is gone through and the table is written there.
const REPORT: &str = "MESH_CUT_OFF_REPORT";
/// In which phases somebody is cut off where there is no time for all of them: a run takes most of a minute.
const FEW: [&str; 1] = ["leaf converged"];

/// What became of a rotation in which somebody was cut off.
struct Course {
    /// The phase in which the link went.
    cut_in: String,
    /// The phase that waited for it.
    waited_in: String,
    why: String,
    /// From the cut to its being named, to its quarantine, and to the end of the rotation.
    named: Duration,
    quarantined: Duration,
    ended: Duration,
    /// From the link's return until it is certified, serves and calls.
    back: Duration,
    /// How it came by a bundle under which it verifies anybody.
    by: &'static str,
}

/// In each phase that a rotation has: it is waited for by name, its lease ends, the rotation goes on without it, and when the link
/// is back it joins again by itself, the same process, and serves and calls. The others notice nothing.
#[test]
fn in_each_phase() {
    if !require(&MESH) {
        return;
    }
    let report = std::env::var_os(REPORT);
    let network = Network::new();
    let mut fleet = Fleet::start(&network, 2, SPEC);
    let ports = [(8080, "http")];
    let mut away = fleet.mesh.workload("away", "away", &ports);
    away.publish();
    let _app = App::start(&away.host, "away", 8080);
    let service = fleet.mesh.service("away", &ports);
    let far = format!("http://{service}:8080/echo");
    let mut processes = fleet.processes();
    processes.push(away.proxy.id());
    let mut traffic = fleet.load(10, PATIENCE * 8);

    serves_and_calls(&fleet, &away, &far);
    let all = fleet.mesh.trust_plan();
    assert!(all.len() > 3, "{all:?}");
    println!("the phases of a rotation: {all:?}");
    let mut wanted = all.clone();
    if report.is_none() {
        wanted.retain(|phase| FEW.contains(&phase.as_str()));
    }
    let mut courses = Vec::new();
    let mut passed = Vec::new();
    for phase in &wanted {
        rotate(&fleet);
        if step_to(phase, &all, &fleet, &mut traffic) {
            courses.push(cut_off_in(phase, &fleet, &mut away, &far, &mut traffic));
        } else {
            // Nothing is to be done in it, so it was left in the turn in which it began.
            passed.push(phase.clone());
            resume(&fleet);
            wait_renewing(&fleet, &mut traffic, "it ends", |trust| {
                trust.change.is_none()
            });
        }
    }
    assert!(
        passed.iter().all(|phase| phase.starts_with("canary")),
        "nobody is a canary here; {passed:?}"
    );
    assert!(
        courses.iter().any(|course| course.by == PINNED),
        "somebody was away for so long that the controller could not be verified"
    );
    traffic.renew_conversations();
    let (lasted, reports) = traffic.stop();
    let mut text = table(&courses);
    let mut sent = 0;
    for (carriage, report) in &reports {
        println!("{}", carriage.name());
        report.assert_no_failure(50);
        sent += report.attempts;
    }
    let _ = writeln!(
        text,
        "\n{} rotations in {lasted:.0?}: 0 failures of {sent} attempts of the others; 0 processes started again. Left at once: {passed:?}",
        wanted.len()
    );
    println!("{text}");
    let mut same = fleet.processes();
    assert_eq!(away.proxy.ended(), None);
    same.push(away.proxy.id());
    assert_eq!(processes, same, "nothing was started again");
    if let Some(path) = report {
        std::fs::write(path, text).unwrap();
    }
}

#[allow(clippy::print_stdout, reason = "what a test has shown")]
fn cut_off_in(
    wanted: &str,
    fleet: &Fleet<'_>,
    away: &mut Workload,
    far: &str,
    traffic: &mut Traffic,
) -> Course {
    let before = fleet.mesh.trust();
    let caught_up = away.proxy.lines_with(CAUGHT_UP).len();
    away.host.cut_off();
    let began = Instant::now();
    resume(fleet);

    let who = format!("workload `default/away@{}`", away.identity());
    let (mut named, mut waited) = (None, None);
    let trust = wait_renewing(fleet, traffic, "it is quarantined", |trust| {
        let found = trust.blockers.iter().find(|one| one.who == who);
        if let Some(blocker) = found {
            assert_ne!(blocker.help, "", "{blocker:?}");
            assert!(blocker.since.is_some(), "{blocker:?}");
            named.get_or_insert_with(|| began.elapsed());
            // What it waits for in the end: it may be passed over in a phase that does not need it. That its lease has ended is
            // what comes last.
            if waited.is_none() || blocker.why != "has lapsed" {
                waited = Some((phase(trust).to_owned(), blocker.clone()));
            }
        }
        !trust.quarantined.is_empty()
    });
    let quarantined = began.elapsed();
    let (waited_in, why) = match waited {
        Some((phase, blocker)) => {
            let help = &blocker.help;
            println!(
                "cut off in {wanted}: in {phase} it blocks: {}; {help}",
                blocker.why
            );
            (phase, blocker.why)
        }
        // In the last phase it may have done all that it is needed for before it went.
        None => {
            assert_eq!(wanted, "retirement", "never named: {trust:#?}");
            ("-".to_owned(), "was ready already".to_owned())
        }
    };
    let trust = wait_renewing(fleet, traffic, "the others go on", |trust| {
        trust.change.is_none() && trust.anchors.len() == 1
    });
    let ended = began.elapsed();
    assert_eq!(trust.last_outcome, "completed");
    assert_ne!(anchor_in_use(&trust), anchor_in_use(&before));
    // Or nothing is left of it, another lease later.
    assert!(trust.quarantined.len() <= 1, "{:?}", trust.quarantined);
    assert_eq!(trust.consumers + 1, before.consumers);

    let back = Instant::now();
    away.host.reconnect();
    fleet.mesh.wait_trust("it is back", PATIENCE, |trust| {
        trust.quarantined.is_empty() && trust.consumers == before.consumers
    });
    // Nobody retries, so it has to be ready first, as an orchestrator would see it.
    away.wait_ready();
    serves_and_calls(fleet, away, far);
    let by = match away.proxy.lines_with(CAUGHT_UP).len() - caught_up {
        0 => "its connection of before",
        _ => PINNED,
    };
    Course {
        cut_in: wanted.to_owned(),
        waited_in,
        why,
        named: named.unwrap_or_default(),
        quarantined,
        ended,
        back: back.elapsed(),
        by,
    }
}

/// From others to it and from it to others, once it is reached at all.
fn serves_and_calls(fleet: &Fleet<'_>, away: &Workload, far: &str) {
    let near = format!("http://{}:8080/echo", fleet.web);
    for (host, url) in [(&fleet.clients[0].host, far), (&away.host, near.as_str())] {
        host.wait_status(&url.replace("/echo", "/"), 200);
        let mut load = Load::start(host, Carriage::Http1, url, 1, Duration::from_millis(5));
        load.wait_ok(50);
        let report: Report = load.stop();
        report.assert_no_failure(50);
    }
}

fn rotate(fleet: &Fleet<'_>) {
    let word = Word::Rotate(RotateTrust { issuer_only: false });
    assert_eq!(fleet.mesh.change_trust(word), Ok(()));
}

fn resume(fleet: &Fleet<'_>) {
    let word = Word::Resume(ResumeTrust {});
    assert_eq!(fleet.mesh.change_trust(word), Ok(()));
}

/// Has the rotation stand still in that phase: it goes on a step at a time. False if it left the phase as soon as it came to it.
fn step_to(wanted: &str, all: &[String], fleet: &Fleet<'_>, traffic: &mut Traffic) -> bool {
    let place = |name: &str| all.iter().position(|phase| phase == name);
    let pause = || fleet.mesh.change_trust(Word::Pause(PauseTrust {}));
    let deadline = Instant::now() + PATIENCE;
    while pause().is_ok() {
        let trust = fleet.mesh.trust();
        if place(phase(&trust)) >= place(wanted) {
            return phase(&trust) == wanted;
        }
        assert!(Instant::now() < deadline, "not in {wanted}: {trust:#?}");
        let mut blockers = trust.blockers.iter();
        if blockers.any(crate::fleet::is_of_old_connection) {
            traffic.renew_conversations();
        }
        resume(fleet);
    }
    panic!("over before {wanted}");
}

/// Waits, and has conversations end that are in the way.
fn wait_renewing(
    fleet: &Fleet<'_>,
    traffic: &mut Traffic,
    what: &str,
    mut done: impl FnMut(&Trust) -> bool,
) -> Trust {
    let mut renewed = Instant::now();
    fleet.mesh.wait_trust(what, PATIENCE, |trust| {
        let waits = trust
            .blockers
            .iter()
            .any(crate::fleet::is_of_old_connection);
        if waits && renewed.elapsed() > Duration::from_secs(1) {
            traffic.renew_conversations();
            renewed = Instant::now();
        }
        done(trust)
    })
}

fn table(courses: &[Course]) -> String {
    let mut text = String::from(
        "| cut off in | waited for in | because it | named after | quarantined after | rotation over after | back after | by |\n|---|---|---|---|---|---|---|---|\n",
    );
    for one in courses {
        let _ = writeln!(
            text,
            "| `{}` | `{}` | {} | {:.1?} | {:.1?} | {:.1?} | {:.1?} | {} |",
            one.cut_in,
            one.waited_in,
            one.why,
            one.named,
            one.quarantined,
            one.ended,
            one.back,
            one.by
        );
    }
    text
}

const CAUGHT_UP: &str = "could not be verified under the bundle of before";
const PINNED: &str = "the pinned key";
