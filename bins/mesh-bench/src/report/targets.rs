//! How mesh-proxy stands against what it is meant to reach.

use std::fmt::Write as _;

use crate::compare::{Figure, Metric, Section, connections, endpoints};
use crate::peers::Kind;

/// Writes the table of those that can be judged by what was measured.
pub(super) fn write(text: &mut String, figures: &[Figure]) {
    let targets = targets(&Measured(figures));
    if targets.is_empty() {
        return;
    }
    // Writing to a string cannot fail.
    text.push_str(
        "\nmesh-proxy against its targets, as ratios within this run where a peer is named.\n\n",
    );
    text.push_str("| | measured | stop at | | reach for | |\n|---|---|---|---|---|---|\n");
    for target in targets {
        let word = |bound| {
            if target.meets(bound) {
                "met"
            } else {
                "not met"
            }
        };
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {} | {:.2} | {} |",
            target.name,
            target.value,
            target.stop_at,
            word(target.stop_at),
            target.reach_for,
            word(target.reach_for)
        );
    }
}

/// Writes what ten thousand of something cost, of what one costs: it is to stay as it is.
pub(super) fn write_growth(text: &mut String, figures: &[Figure]) {
    let measured = Measured(figures);
    for (name, many) in [
        (connections as fn(u32) -> String, 10_000),
        (connections, 1_000),
        (endpoints, 10_000),
        (endpoints, 1_000),
    ] {
        let value =
            |count, metric| measured.value(Section::Growth, &name(count), metric, Kind::Mesh);
        let from_to = |metric| Some((value(1, metric)?, value(many, metric)?));
        let (Some((one, all)), Some((before, after))) = (
            from_to(Metric::CpuMicrosPerRequest),
            from_to(Metric::ClientRssMib),
        ) else {
            continue;
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\nmesh-proxy with {}, of that with one: CPU per request {:.2}, memory beside the client {:.2} ({:.1} KiB for each).",
            name(many),
            all / one,
            after / before,
            (after - before) * 1024.0 / f64::from(many - 1)
        );
    }
}

/// A figure that is to be no more, or no less, than a bound.
#[derive(Debug, Clone, PartialEq)]
struct Target {
    name: String,
    value: f64,
    stop_at: f64,
    reach_for: f64,
    more_is_better: bool,
}

impl Target {
    fn meets(&self, bound: f64) -> bool {
        if self.more_is_better {
            self.value >= bound
        } else {
            self.value <= bound
        }
    }
}

fn targets(measured: &Measured<'_>) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut less = |name: String, value: Option<f64>, stop_at, reach_for| {
        targets.extend(value.map(|value| Target {
            name,
            value,
            stop_at,
            reach_for,
            more_is_better: false,
        }));
    };
    for (section, what, stop_at, reach_for) in [
        (Section::Http1, "HTTP/1 request", 1.2, 1.0),
        (Section::Http2, "HTTP/2 request", 1.25, 1.05),
        (Section::Unary, "gRPC unary request", 1.25, 1.05),
    ] {
        let works = measured.works(section, ", 128 B, 32 ");
        let ratio = works.first().and_then(|work| {
            let metric = Metric::CpuMicrosPerRequest;
            measured.ratio(section, work, metric, Kind::Haproxy)
        });
        less(
            format!("CPU per {what}, of HAProxy's"),
            ratio,
            stop_at,
            reach_for,
        );
    }
    for work in measured.works(Section::Latency, "") {
        // What HAProxy adds is the same unit, so that both bounds are ratios to Envoy.
        let added = |kind| measured.added_p99(&work, kind);
        let envoy = added(Kind::Envoy).filter(|added| *added > 0.0);
        let ratio = |kind| Some(added(kind)? / envoy?);
        let reach_for = ratio(Kind::Haproxy).unwrap_or(0.6);
        less(
            format!("added p99 of Envoy's: {work}"),
            ratio(Kind::Mesh),
            0.6,
            reach_for,
        );
    }
    let memory = |metric| measured.value(Section::Memory, "memory", metric, Kind::Mesh);
    let rest = [Metric::ClientRssMib, Metric::ServerRssMib].map(memory);
    let rest = rest.into_iter().flatten().reduce(f64::max);
    less("MiB at rest, one proxy".into(), rest, 16.0, 11.0);
    for (count, metric) in [
        ("1,000", Metric::KibPerConnection1000),
        ("10,000", Metric::KibPerConnection10000),
    ] {
        let name = format!("KiB per idle client connection, of {count}");
        less(name, memory(metric), 20.0, 10.0);
    }
    for work in measured.works(Section::Tcp, "") {
        let ratio = measured.ratio(Section::Tcp, &work, Metric::CpuSecondsPerGb, Kind::Envoy);
        less(format!("CPU per GB, of Envoy's: {work}"), ratio, 1.0, 0.7);
    }
    for work in measured.works(Section::Connections, "") {
        let metric = Metric::ConnectionsPerCpuSecond;
        let ratio = measured.ratio(Section::Connections, &work, metric, Kind::Envoy);
        targets.extend(ratio.map(|value| Target {
            name: "new mTLS connections per CPU second, of Envoy's".into(),
            value,
            stop_at: 1.0,
            reach_for: 1.2,
            more_is_better: true,
        }));
    }
    targets
}

struct Measured<'a>(&'a [Figure]);

impl Measured<'_> {
    /// The kinds of work of a part that have this in their names.
    fn works(&self, section: Section, part: &str) -> Vec<String> {
        let mut works: Vec<String> = Vec::new();
        for figure in self.0 {
            let wanted = figure.section == section && figure.work.contains(part);
            if wanted && !works.contains(&figure.work) {
                works.push(figure.work.clone());
            }
        }
        works
    }

    fn value(&self, section: Section, work: &str, metric: Metric, peer: Kind) -> Option<f64> {
        let same = |figure: &&Figure| {
            figure.section == section
                && figure.work == work
                && figure.metric == metric
                && figure.peer == peer
        };
        Some(self.0.iter().find(same)?.summary()?.median)
    }

    /// mesh-proxy's value over another's.
    fn ratio(&self, section: Section, work: &str, metric: Metric, peer: Kind) -> Option<f64> {
        let other = self.value(section, work, metric, peer)?;
        let ours = self.value(section, work, metric, Kind::Mesh)?;
        (other > 0.0).then(|| ours / other)
    }

    /// What a peer adds to the p99 without a proxy, in microseconds.
    fn added_p99(&self, work: &str, peer: Kind) -> Option<f64> {
        let p99 = |peer| self.value(Section::Latency, work, Metric::P99Micros, peer);
        Some(p99(peer)? - p99(Kind::None)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(section: Section, work: &str, peer: Kind, metric: Metric, value: f64) -> Figure {
        Figure {
            section,
            work: work.into(),
            peer,
            metric,
            rounds: vec![value],
        }
    }

    #[test]
    fn cost_is_judged_against_haproxy_in_the_same_run() {
        let work = "HTTP/1, 128 B, 32 connections";
        let cpu = Metric::CpuMicrosPerRequest;
        let figures = [
            figure(Section::Http1, work, Kind::Mesh, cpu, 22.0),
            figure(Section::Http1, work, Kind::Haproxy, cpu, 20.0),
        ];
        let targets = targets(&Measured(&figures));
        assert_eq!(targets.len(), 1);
        assert!((targets[0].value - 1.1).abs() < 1e-9);
        assert!(targets[0].meets(targets[0].stop_at));
        assert!(!targets[0].meets(targets[0].reach_for));
    }

    #[test]
    fn growth_from_one_is_told_for_each() {
        let mut figures = Vec::new();
        for (count, cpu, rss) in [(1, 100.0, 12.0), (10_000, 150.0, 112.0)] {
            for (metric, value) in [
                (Metric::CpuMicrosPerRequest, cpu),
                (Metric::ClientRssMib, rss),
            ] {
                let work = connections(count);
                figures.push(figure(Section::Growth, &work, Kind::Mesh, metric, value));
            }
        }
        let mut text = String::new();
        write_growth(&mut text, &figures);
        assert!(
            text.contains("10,000 connections, of that with one: CPU per request 1.50"),
            "{text}"
        );
        assert!(text.contains("(10.2 KiB for each)"), "{text}");
    }

    #[test]
    fn latency_counts_what_is_added() {
        let p99 = |peer, value| figure(Section::Latency, "w", peer, Metric::P99Micros, value);
        let figures = [
            p99(Kind::None, 1_000.0),
            p99(Kind::Mesh, 1_500.0),
            p99(Kind::Envoy, 2_000.0),
            p99(Kind::Haproxy, 1_300.0),
        ];
        let targets = targets(&Measured(&figures));
        assert!((targets[0].value - 0.5).abs() < 1e-9);
        assert!((targets[0].reach_for - 0.3).abs() < 1e-9);
    }

    #[test]
    fn more_connections_are_better() {
        let metric = Metric::ConnectionsPerCpuSecond;
        let figures = [
            figure(Section::Connections, "w", Kind::Mesh, metric, 1_300.0),
            figure(Section::Connections, "w", Kind::Envoy, metric, 1_000.0),
        ];
        let target = &targets(&Measured(&figures))[0];
        assert!(target.meets(1.2) && !target.meets(1.4));
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert!(targets(&Measured(&[])).is_empty());
    }
}
