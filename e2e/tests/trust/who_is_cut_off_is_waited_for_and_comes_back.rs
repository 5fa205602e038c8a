use std::fmt::Write as _;
use std::time::{Duration, Instant};

use e2e::{App, Carriage, Load, MESH, Network, Workload, require};
use mesh_control_api::admin::change_trust_request::Word;
use mesh_control_api::admin::{ResumeTrust, RotateTrust, Trust};

use crate::fleet::{Fleet, PATIENCE, Traffic, anchor_in_use, is_of_old_connection, phase};

/// Leaves of ten seconds, and a lease that is not much longer. A change stands still in each phase until it is told to go on.
const SPEC: &str = "leafLifetime: 10s
rotation:
  consumerLease: 12s
  trustHold: 1s
  pauseIn: [preflight, distribute, trustConverged, canarySigning, issue, leafConverged, drain, canaryRetirement, retirement]";
/// Set to a path, the table of what became of each is written there.
const REPORT: &str = "MESH_CUT_OFF_REPORT";
const PORTS: [(u16, &str); 1] = [(8080, "http")];
/// How many clients call at once, so that each worker of a proxy has connections.
const LANES: u32 = 8;
/// When a connection that died with its link is found out, with time to spare: 17.5 seconds after it was last heard of at the latest.
const FOUND_OUT: Duration = Duration::from_secs(20);

/// In each phase that a rotation has, somebody is cut off. Each is waited for by name, its lease ends, the rotation goes on without it,
/// and when its link is back it joins again by itself, the same process. From when it says that it is ready, calls to it and from it
/// succeed, also those that cannot be sent twice. The others notice nothing.
#[test]
fn in_each_phase_of_a_rotation() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mut fleet = Fleet::start(&network, 2, SPEC);
    let phases = fleet.mesh.trust_plan();
    let mut all: Vec<Away> = (1..=phases.len())
        .map(|number| Away::start(&fleet, number))
        .collect();
    for away in &mut all {
        away.wait_reached(&fleet);
        away.serves_and_calls(&fleet);
    }
    let mut processes = fleet.processes();
    processes.extend(all.iter().map(|away| away.workload.proxy.id()));
    let before = fleet.mesh.trust();
    let everybody = before.consumers;

    let mut course = Course {
        traffic: fleet.load(10, PATIENCE * 3),
        fleet: &fleet,
        renewed: Instant::now(),
    };
    course.begin();
    let mut away: Vec<&mut Away> = Vec::new();
    for (phase, next) in phases.iter().zip(&mut all) {
        course.wait(&format!("it stands still in {phase}"), &mut away, |trust| {
            is_paused_in(phase, trust)
        });
        next.cut_off(phase);
        away.push(next);
        if away.len() == phases.len() {
            // It may have said already that all is done there, and nothing comes after this for which to wait for it.
            course.wait_named(&mut away);
        }
        course.resume();
    }
    let trust = course.wait("it is over", &mut away, |trust| {
        trust.change.is_none() && trust.anchors.len() == 1
    });
    assert_eq!(trust.last_outcome, "completed");
    assert_ne!(anchor_in_use(&trust), anchor_in_use(&before));
    let gone = away.len() as u64;
    course.wait("all leases are over", &mut away, |trust| {
        trust.consumers == everybody - gone
    });
    for away in &mut away {
        away.assert_waited_for();
        // Sooner, a request that cannot be sent twice may come to a connection of which nobody knows yet that it died.
        std::thread::sleep(FOUND_OUT.saturating_sub(away.cut_at.elapsed()));
        away.reconnect();
    }
    course.wait("all are back", &mut [], |trust| {
        trust.quarantined.is_empty() && trust.consumers == everybody
    });
    for away in &mut away {
        away.wait_back();
        away.serves_and_calls(&fleet);
    }
    let table = table(&away);
    let (lasted, sent) = course.end();
    println!("{table}\n0 failures of {sent} attempts of the others in {lasted:.0?}");
    assert!(
        away.iter().any(|away| away.by == PINNED),
        "somebody could not verify the controller any more"
    );
    let mut same = fleet.processes();
    for away in &mut all {
        assert_eq!(away.workload.proxy.ended(), None);
        same.push(away.workload.proxy.id());
    }
    assert_eq!(processes, same, "nothing was started again");
    if let Some(path) = std::env::var_os(REPORT) {
        std::fs::write(path, table).unwrap();
    }
}

/// A workload that is cut off, and what becomes of it.
struct Away {
    workload: Workload,
    _app: App,
    url: String,
    /// The phase in which its link went.
    cut_in: String,
    cut_at: Instant,
    /// What waited for it last, and why.
    waited: Option<(String, String)>,
    /// From the cut to its being named, to the end of its lease, and from the link's return until it is ready.
    named: Option<Duration>,
    lapsed: Option<Duration>,
    back: Duration,
    returned_at: Instant,
    /// How it came by a bundle under which it verifies anybody.
    by: &'static str,
    caught_up: usize,
}

impl Away {
    fn start(fleet: &Fleet<'_>, number: usize) -> Self {
        let name = format!("away-{number}");
        let workload = fleet.mesh.workload(&name, &name, &PORTS);
        workload.publish();
        let app = App::start(&workload.host, &name, 8080);
        let service = fleet.mesh.service(&name, &PORTS);
        Self {
            workload,
            _app: app,
            url: format!("http://{service}:8080/echo"),
            cut_in: String::new(),
            cut_at: Instant::now(),
            waited: None,
            named: None,
            lapsed: None,
            back: Duration::ZERO,
            returned_at: Instant::now(),
            by: "",
            caught_up: 0,
        }
    }

    fn name(&self) -> String {
        let role = self.workload.host.role();
        format!("default/{role}@{}", self.workload.identity())
    }

    /// As blockers name it.
    fn blocks(&self) -> String {
        format!("workload `{}`", self.name())
    }

    /// Both ways: who calls, and what.
    fn ways<'a>(&'a self, fleet: &'a Fleet<'_>) -> [(&'a e2e::Host, String); 2] {
        let near = format!("http://{}:8080/echo", fleet.web);
        [
            (&fleet.clients[0].host, self.url.clone()),
            (&self.workload.host, near),
        ]
    }

    fn wait_reached(&self, fleet: &Fleet<'_>) {
        for (host, url) in self.ways(fleet) {
            host.wait_status(&url.replace("/echo", "/"), 200);
        }
    }

    /// From another to it and from it to another; what is sent has a body, so that nobody sends it twice.
    fn serves_and_calls(&self, fleet: &Fleet<'_>) {
        for (host, url) in self.ways(fleet) {
            let mut load =
                Load::start(host, Carriage::Http1, &url, LANES, Duration::from_millis(5));
            load.wait_ok(50);
            load.stop().assert_no_failure(50);
        }
    }

    fn cut_off(&mut self, phase: &str) {
        phase.clone_into(&mut self.cut_in);
        self.caught_up = self.workload.proxy.lines_with(CAUGHT_UP).len();
        self.workload.host.cut_off();
        self.cut_at = Instant::now();
    }

    /// Takes note of what is said about it.
    fn see(&mut self, trust: &Trust) {
        let (who, blocks) = (self.name(), self.blocks());
        if let Some(blocker) = trust.blockers.iter().find(|one| one.who == blocks) {
            assert_ne!(blocker.help, "", "{blocker:?}");
            assert!(blocker.since.is_some(), "{blocker:?}");
            self.named.get_or_insert_with(|| self.cut_at.elapsed());
            // That its lease has ended is what comes last, and says nothing of what it was waited for.
            if self.waited.is_none() || blocker.why != "has lapsed" {
                self.waited = Some((phase(trust).to_owned(), blocker.why.clone()));
            }
        }
        if trust.quarantined.contains(&who) {
            self.lapsed.get_or_insert_with(|| self.cut_at.elapsed());
        }
    }

    fn assert_waited_for(&self) {
        let cut_in = &self.cut_in;
        assert!(self.named.is_some(), "cut off in {cut_in}, never named");
        assert!(
            self.lapsed.is_some(),
            "cut off in {cut_in}, not left behind"
        );
    }

    fn reconnect(&mut self) {
        self.workload.host.reconnect();
        self.returned_at = Instant::now();
    }

    /// Nobody retries, so it has to say first that it is ready, as to an orchestrator.
    fn wait_back(&mut self) {
        self.workload.wait_ready();
        self.back = self.returned_at.elapsed();
        self.by = match self.workload.proxy.lines_with(CAUGHT_UP).len() - self.caught_up {
            0 => "its bundle of before",
            _ => PINNED,
        };
    }
}

/// A rotation that goes on a step at a time, under load.
struct Course<'a> {
    fleet: &'a Fleet<'a>,
    traffic: Traffic,
    /// When conversations were last ended.
    renewed: Instant,
}

impl Course<'_> {
    fn begin(&self) {
        let word = Word::Rotate(RotateTrust { issuer_only: false });
        assert_eq!(self.fleet.mesh.change_trust(word), Ok(()));
    }

    fn resume(&self) {
        let word = Word::Resume(ResumeTrust {});
        assert_eq!(self.fleet.mesh.change_trust(word), Ok(()));
    }

    /// Until who was cut off last is waited for by name.
    fn wait_named(&mut self, away: &mut [&mut Away]) {
        let who = away.last().map(|last| last.blocks()).unwrap_or_default();
        self.wait("the last one is named", away, |trust| {
            trust.blockers.iter().any(|blocker| blocker.who == who)
        });
    }

    fn wait(
        &mut self,
        what: &str,
        away: &mut [&mut Away],
        mut done: impl FnMut(&Trust) -> bool,
    ) -> Trust {
        let fleet = self.fleet;
        fleet.mesh.wait_trust(what, PATIENCE, |trust| {
            self.see(trust, away);
            done(trust)
        })
    }

    /// Takes note, and has conversations end that are in the way.
    fn see(&mut self, trust: &Trust, away: &mut [&mut Away]) {
        for away in away {
            away.see(trust);
        }
        let waits = trust.blockers.iter().any(is_of_old_connection);
        if waits && self.renewed.elapsed() > Duration::from_secs(1) {
            self.traffic.renew_conversations();
            self.renewed = Instant::now();
        }
    }

    /// How long it took, and how many attempts there were, none of which failed.
    #[allow(clippy::print_stdout, reason = "what a test has shown")]
    fn end(mut self) -> (Duration, u64) {
        self.traffic.renew_conversations();
        let (lasted, reports) = self.traffic.stop();
        let mut sent = 0;
        for (carriage, report) in &reports {
            println!("{}", carriage.name());
            report.assert_no_failure(50);
            sent += report.attempts;
        }
        (lasted, sent)
    }
}

/// Whether the change stands still there, on an operator's word.
fn is_paused_in(wanted: &str, trust: &Trust) -> bool {
    let paused = trust.change.as_ref().is_some_and(|change| change.paused);
    paused && phase(trust) == wanted
}

fn table(all: &[&mut Away]) -> String {
    let mut text = String::from(
        "| cut off in | waited for in | because it | named after | lease over after | back after | by |\n|---|---|---|---|---|---|---|\n",
    );
    for away in all {
        let (phase, why) = away.waited.clone().unwrap_or_default();
        let _ = writeln!(
            text,
            "| `{}` | `{phase}` | {why} | {:.1?} | {:.1?} | {:.1?} | {} |",
            away.cut_in,
            away.named.unwrap_or_default(),
            away.lapsed.unwrap_or_default(),
            away.back,
            away.by
        );
    }
    text
}

const CAUGHT_UP: &str = "could not be verified under the bundle of before";
const PINNED: &str = "the pinned key";
