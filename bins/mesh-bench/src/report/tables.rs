//! A table for each part: a row for each kind of work, a column for each peer.

use std::fmt::Write as _;

use crate::compare::{Figure, Metric, Section};
use crate::peers::Kind;
use crate::stats::Summary;

/// Writes all tables.
pub(super) fn write(text: &mut String, figures: &[Figure]) {
    // Writing to a string cannot fail.
    for section in Section::ALL {
        let figures: Vec<&Figure> = figures.iter().filter(|f| f.section == section).collect();
        if figures.is_empty() {
            continue;
        }
        let (caption, rounds, stolen) = (caption(section), rounds(&figures), stolen(&figures));
        let _ = writeln!(text, "\n{caption} {rounds}{stolen}\n");
        let peers: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| figures.iter().any(|figure| figure.peer == *kind))
            .collect();
        let names: Vec<&str> = peers.iter().map(|peer| peer.name()).collect();
        let _ = writeln!(text, "| | {} |", names.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(peers.len()));
        let mut tight = false;
        for row in rows(section, &figures) {
            let cells: Vec<String> = peers
                .iter()
                .map(|peer| {
                    let cell = Cell {
                        figures: &figures,
                        row: &row,
                        peer: *peer,
                    };
                    tight |= cell.load_is_tight();
                    cell.text().unwrap_or_else(|| "-".into())
                })
                .collect();
            let _ = writeln!(text, "| {} | {} |", row.title, cells.join(" | "));
        }
        if tight {
            text.push_str("\n\\* The load and the application had no time left, so the proxies could have carried more.\n");
        }
    }
}

/// What is shown of the rounds of a part. Without a proxy there may be fewer.
fn rounds(figures: &[&Figure]) -> String {
    let figures = figures.iter().filter(|figure| figure.peer != Kind::None);
    let rounds: Vec<usize> = figures.map(|figure| figure.rounds.len()).collect();
    let least = rounds.iter().copied().min().unwrap_or(1);
    match rounds.into_iter().max().unwrap_or(1) {
        1 => "One round.".to_owned(),
        most if most == least => format!("Medians of {most} rounds, ± half of the range."),
        most => format!("Medians of {least} to {most} rounds, ± half of the range."),
    }
}

/// How much others on the same hardware had, where that was looked at.
fn stolen(figures: &[&Figure]) -> String {
    let figures = figures.iter().filter(|one| one.peer != Kind::None);
    let stolen = figures.filter(|one| one.metric == Metric::Stolen);
    let most = stolen.flat_map(|one| one.rounds.iter().copied());
    most.max_by(f64::total_cmp)
        .map_or_else(String::new, |most| {
            format!(
                " The hypervisor had at most {:.0}% of the working time for others.",
                most * 100.0
            )
        })
}

fn caption(section: Section) -> &'static str {
    match section {
        Section::Http1 | Section::Http2 | Section::Unary => {
            "CPU microseconds per request, both proxies (requests per second)."
        }
        Section::Streaming => {
            "CPU microseconds per message there and back, both proxies (messages per second)."
        }
        Section::Latency => {
            "Milliseconds from when a request should have begun to its end: p50 / p99 / p99.9."
        }
        Section::Connections => {
            "New mTLS connections per CPU second, both proxies (per second on the clock)."
        }
        Section::Tcp => "Opaque TCP: CPU seconds per GB, both proxies (Gbit/s).",
        Section::Memory => "Memory of one proxy.",
        Section::Growth => {
            "Growth, at 1,000 HTTP/1 requests per second: CPU microseconds per request, both proxies (MiB of the one beside the client). Of endpoints that are known \
             and not used: MiB."
        }
    }
}

/// A row: some work, or some quantities.
struct Row {
    title: String,
    work: String,
    metrics: &'static [Metric],
}

fn rows(section: Section, figures: &[&Figure]) -> Vec<Row> {
    if section == Section::Memory {
        let row = |title: &str, metrics| Row {
            title: title.into(),
            work: "memory".into(),
            metrics,
        };
        let all = [
            row("MiB at rest, beside the client", &[Metric::ClientRssMib]),
            row("MiB at rest, beside the server", &[Metric::ServerRssMib]),
            row(
                "KiB per idle client connection, of 1,000",
                &[Metric::KibPerConnection1000],
            ),
            row(
                "KiB per idle client connection, of 10,000",
                &[Metric::KibPerConnection10000],
            ),
        ];
        let measured = |row: &Row| {
            figures
                .iter()
                .any(|figure| row.metrics.contains(&figure.metric))
        };
        return all.into_iter().filter(measured).collect();
    }
    let metrics: &[Metric] = match section {
        Section::Latency => &[Metric::P50Micros, Metric::P99Micros, Metric::P999Micros],
        Section::Connections => &[
            Metric::ConnectionsPerCpuSecond,
            Metric::ConnectionsPerSecond,
        ],
        Section::Tcp => &[Metric::CpuSecondsPerGb, Metric::GbitPerSecond],
        Section::Growth => &[Metric::CpuMicrosPerRequest, Metric::ClientRssMib],
        _ => &[Metric::CpuMicrosPerRequest, Metric::RequestsPerSecond],
    };
    let mut rows: Vec<Row> = Vec::new();
    for figure in figures {
        if rows.iter().all(|row| row.work != figure.work) {
            let carried = figures.iter().any(|other| {
                other.work == figure.work && other.metric == Metric::CpuMicrosPerRequest
            });
            rows.push(Row {
                title: figure.work.clone(),
                work: figure.work.clone(),
                metrics: match section {
                    Section::Growth if !carried => &[Metric::ClientRssMib],
                    _ => metrics,
                },
            });
        }
    }
    rows
}

struct Cell<'a> {
    figures: &'a [&'a Figure],
    row: &'a Row,
    peer: Kind,
}

impl Cell<'_> {
    fn text(&self) -> Option<String> {
        let [first, rest @ ..] = self.row.metrics else {
            return None;
        };
        if *first == Metric::P50Micros {
            let parts: Option<Vec<String>> = self
                .row
                .metrics
                .iter()
                .map(|metric| {
                    let Summary { median, spread } = self.summary(*metric)?;
                    Some(format!(
                        "{:.2}{}",
                        median / 1e3,
                        plus_minus(spread.map(|us| us / 1e3), 2)
                    ))
                })
                .collect();
            return Some(parts?.join(" / "));
        }
        let more = rest.first().and_then(|metric| self.summary(*metric));
        let more = more.map(|summary| {
            let decimals = if rest.contains(&Metric::GbitPerSecond) {
                1
            } else {
                0
            };
            let mark = if self.load_is_tight() { "\\*" } else { "" };
            format!("({:.decimals$}{mark})", summary.median)
        });
        // Without a proxy there is nothing to pay, only what can be had.
        if self.peer == Kind::None {
            return more;
        }
        let main = self.summary(*first)?;
        let decimals = match main.median {
            0.0..10.0 => 2,
            10.0..1000.0 => 1,
            _ => 0,
        };
        let spread = plus_minus(main.spread, decimals);
        let mut text = format!("{:.decimals$}{spread}", main.median);
        if let Some(more) = more {
            text = format!("{text} {more}");
        }
        Some(text)
    }

    /// Whether those who are not measured held up those who are.
    fn load_is_tight(&self) -> bool {
        let median = |metric| self.summary(metric).map(|summary| summary.median);
        let (load, proxies) = (median(Metric::LoadBusy), median(Metric::ProxiesBusy));
        let throughput = !self.row.metrics.contains(&Metric::P50Micros) && self.peer != Kind::None;
        throughput && load.is_some_and(|busy| busy > 0.95) && proxies.is_some_and(|busy| busy < 0.9)
    }

    fn summary(&self, metric: Metric) -> Option<Summary> {
        let same = |figure: &&&Figure| {
            figure.work == self.row.work && figure.peer == self.peer && figure.metric == metric
        };
        self.figures.iter().find(same)?.summary()
    }
}

/// What rounds differ by, where there are several.
fn plus_minus(spread: Option<f64>, decimals: usize) -> String {
    spread.map_or_else(String::new, |spread| format!(" ±{spread:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(section: Section, peer: Kind, metric: Metric, rounds: &[f64]) -> Figure {
        Figure {
            section,
            work: "some work".into(),
            peer,
            metric,
            rounds: rounds.to_vec(),
        }
    }

    #[test]
    fn a_row_has_a_cell_for_each_peer() {
        let figures = [
            figure(
                Section::Http1,
                Kind::Mesh,
                Metric::CpuMicrosPerRequest,
                &[21.0, 23.0],
            ),
            figure(
                Section::Http1,
                Kind::Mesh,
                Metric::RequestsPerSecond,
                &[40_000.0],
            ),
            figure(Section::Http1, Kind::Mesh, Metric::LoadBusy, &[0.99]),
            figure(Section::Http1, Kind::Mesh, Metric::ProxiesBusy, &[0.7]),
            figure(
                Section::Http1,
                Kind::None,
                Metric::CpuMicrosPerRequest,
                &[0.0],
            ),
            figure(
                Section::Http1,
                Kind::None,
                Metric::RequestsPerSecond,
                &[90_000.0],
            ),
        ];
        let mut text = String::new();
        write(&mut text, &figures);
        assert!(text.contains("| | no proxy | mesh-proxy |"), "{text}");
        let row = "| some work | (90000) | 22.0 ±1.0 (40000\\*) |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("had no time left"), "{text}");
    }

    #[test]
    fn what_the_hypervisor_took_is_told_of_rounds_that_count() {
        let of = |metric, rounds: &[f64]| figure(Section::Http1, Kind::Mesh, metric, rounds);
        let mut figures = vec![of(Metric::CpuMicrosPerRequest, &[30.0, 31.0])];
        let told = |figures: &[Figure]| {
            let mut text = String::new();
            write(&mut text, figures);
            text.contains("at most 4% of the working time for others.")
        };
        assert!(!told(&figures));
        figures.push(of(Metric::Stolen, &[0.01, 0.04]));
        assert!(told(&figures));
    }

    #[test]
    fn latency_is_told_in_milliseconds() {
        let figures = [
            figure(Section::Latency, Kind::None, Metric::P50Micros, &[150.0]),
            figure(
                Section::Latency,
                Kind::None,
                Metric::P99Micros,
                &[2_000.0, 3_000.0],
            ),
            figure(Section::Latency, Kind::None, Metric::P999Micros, &[9_000.0]),
        ];
        let mut text = String::new();
        write(&mut text, &figures);
        let row = "| some work | 0.15 / 2.50 ±0.50 / 9.00 |";
        assert!(text.contains(row), "{text}");
    }
}
