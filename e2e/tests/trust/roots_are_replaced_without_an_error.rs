use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use e2e::{Carriage, MESH, Network, Report, require};
use mesh_control_api::admin::change_trust_request::Word;
use mesh_control_api::admin::{RotateTrust, Trust};

use crate::fleet::{
    Fleet, PATIENCE, Traffic, anchor_in_use, has_conversations, is_of_old_connection, phase,
};

/// What a run is like. Leaves live shortly, as a rotation waits until those of the old anchor have ended.
struct Size {
    servers: usize,
    rotations: usize,
    leaf: Duration,
    /// Requests a second of each kind.
    rate: u32,
}

const SMALL: Size = Size {
    servers: 7,
    rotations: 3,
    leaf: Duration::from_secs(10),
    rate: 20,
};
const FULL: Size = Size {
    servers: 17,
    rotations: 5,
    leaf: Duration::from_secs(30),
    rate: 40,
};
/// Set to the path of a report, this runs the full size and writes it. See `scripts/rotate-under-load`.
const REPORT: &str = "MESH_ROTATION_REPORT";

/// What one rotation came to.
struct Rotation {
    took: Duration,
    phases: Vec<(String, Duration)>,
    /// Who was named because of conversations of before, until those were ended.
    named: BTreeSet<String>,
    /// How long conversations had been open when they were ended, at least.
    open_for: Duration,
    trust: Trust,
}

/// Several in a row, under everything that a mesh carries all the while: HTTP/1.1, HTTP/2 and gRPC in an open loop, new TCP
/// connections, and gRPC streams and TCP connections that are open from before a rotation to its last gate.
#[test]
fn several_times_in_a_row_under_everything_that_it_carries() {
    if !require(&MESH) {
        return;
    }
    let report = std::env::var_os(REPORT);
    let size = if report.is_some() { &FULL } else { &SMALL };
    let network = Network::new();
    let spec = format!("leafLifetime: {}s", size.leaf.as_secs());
    let mut fleet = Fleet::start(&network, size.servers, &spec);
    let processes = fleet.processes();
    let limit = PATIENCE * u32::try_from(size.rotations).unwrap_or(u32::MAX);
    let mut traffic = fleet.load(size.rate, limit);
    let mut rotations = Vec::new();
    let mut opened = Instant::now();
    let mut before = fleet.mesh.trust();
    for number in 1..=size.rotations {
        let rotation = rotate(&fleet, &mut traffic, &mut opened);
        let trust = &rotation.trust;
        assert_eq!(trust.last_outcome, "completed");
        assert_ne!(anchor_in_use(trust), anchor_in_use(&before));
        assert!(trust.generation > before.generation);
        assert_eq!(trust.quarantined, [""; 0]);
        assert_eq!(trust.start_only, [""; 0], "everybody says what it trusts");
        assert_eq!(trust.consumers as usize, fleet.size() + 1);
        before = rotation.trust.clone();
        traffic.wait_ok(20);
        let (ok, failed) = traffic.so_far();
        println!(
            "rotation {number}: {:.1?}, bundle generation {}, {} consumers, {failed} failures so far of {}",
            rotation.took,
            before.generation,
            before.consumers,
            ok + failed
        );
        rotations.push(rotation);
    }
    let (lasted, reports) = traffic.stop();
    let cut = fleet.counted("trust_connections_cut_total");
    let refused = fleet.counted("trust_bundles_refused_total");
    let text = told(size, &fleet, &rotations, lasted, &reports, cut);
    println!("{text}");
    for (carriage, report) in &reports {
        println!("{}", carriage.name());
        report.assert_no_failure(100);
        if matches!(carriage, Carriage::GrpcStream | Carriage::TcpStream) {
            // Each lane's was ended once a rotation, and at the end.
            assert_eq!(report.ended, report.connections, "{report:#?}");
            assert!(report.ended >= 4 * size.rotations as u64, "{report:#?}");
        }
    }
    assert_eq!((cut, refused), (0, 0), "nothing is cut, nothing is refused");
    assert_eq!(processes, fleet.processes(), "nothing was started again");
    if let Some(path) = report {
        std::fs::write(path, text).unwrap();
    }
}

fn rotate(fleet: &Fleet<'_>, traffic: &mut Traffic, opened: &mut Instant) -> Rotation {
    let began = Instant::now();
    let word = Word::Rotate(RotateTrust { issuer_only: false });
    let taken = fleet.mesh.change_trust(word);
    assert_eq!(taken, Ok(()));
    let mut phases: Vec<(String, Duration)> = Vec::new();
    let (mut entered, mut open_for) = (began, Duration::ZERO);
    let mut named = BTreeSet::new();
    let trust = fleet
        .mesh
        .wait_trust("the rotation ends", PATIENCE, |trust| {
            let now = phase(trust);
            if phases.last().is_none_or(|(last, _)| last != now) {
                if let Some((_, took)) = phases.last_mut() {
                    *took = entered.elapsed();
                }
                entered = Instant::now();
                phases.push((now.to_owned(), Duration::ZERO));
            }
            let of_conversation = |one| is_of_old_connection(one) && has_conversations(one);
            let waits_for_conversations =
                !trust.blockers.is_empty() && trust.blockers.iter().all(of_conversation);
            if open_for.is_zero() && waits_for_conversations {
                // Everything else is done: they were open all the while, and are still.
                named = trust.blockers.iter().map(|one| one.who.clone()).collect();
                traffic.wait_ok(5);
                open_for = opened.elapsed();
                assert!(open_for > began.elapsed(), "open from before the rotation");
                traffic.renew_conversations();
                *opened = Instant::now();
            }
            // The old key is destroyed a moment after nothing needs it any more.
            trust.change.is_none() && trust.anchors.len() == 1
        });
    phases.pop();
    assert!(
        named.iter().any(|who| who.contains("client-3")),
        "whoever has conversations open is named: {named:?}"
    );
    Rotation {
        took: began.elapsed(),
        phases,
        named,
        open_for,
        trust,
    }
}

/// The report.
fn told(
    size: &Size,
    fleet: &Fleet<'_>,
    rotations: &[Rotation],
    lasted: Duration,
    reports: &[(Carriage, Report)],
    cut: u64,
) -> String {
    let mut text = format!(
        "{} proxies and a controller on {} hosts, {} rotations in {:.0?}, leaves of {:?}; 0 processes started again, {cut} connections cut.\n\n",
        fleet.size(),
        fleet.size() + 1,
        rotations.len(),
        lasted,
        size.leaf
    );
    text.push_str("| traffic | attempts | failed | connections or streams | of these ended by the client | p50 | p99 | worst |\n|---|---|---|---|---|---|---|---|\n");
    let mut all = BTreeMap::from([("attempts", 0), ("failed", 0)]);
    for (carriage, report) in reports {
        let [half, most, worst] = report.latency_micros.map(Duration::from_micros);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {half:.1?} | {most:.1?} | {worst:.1?} |",
            carriage.name(),
            report.attempts,
            report.failed(),
            report.connections,
            report.ended,
        );
        *all.entry("attempts").or_default() += report.attempts;
        *all.entry("failed").or_default() += report.failed();
    }
    let _ = writeln!(
        text,
        "| all | {} | {} | | | | | |\n\n| rotation | took | bundle generation | conversations were open for | who was named for them | phases |\n|---|---|---|---|---|---|",
        all["attempts"], all["failed"]
    );
    for (number, rotation) in rotations.iter().enumerate() {
        let phases: Vec<String> = rotation
            .phases
            .iter()
            .map(|(phase, took)| format!("{phase} {took:.1?}"))
            .collect();
        let _ = writeln!(
            text,
            "| {} | {:.1?} | {} | {:.1?} | {} | {} |",
            number + 1,
            rotation.took,
            rotation.trust.generation,
            rotation.open_for,
            rotation.named.len(),
            phases.join(", ")
        );
    }
    text
}
