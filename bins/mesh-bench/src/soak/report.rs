//! What came of it.

use std::fmt::Write as _;
use std::time::Duration;

use super::churn::{Churn, LEAF_LIFETIME_SECONDS};
use super::watch::{Flatness, Watch};
use crate::backend::CHUNK;
use crate::load::{Outcome, Plan, size_name};

/// What one load carried.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) plan: Plan,
    pub(super) outcome: Outcome,
    /// What was wrong in the end.
    pub(super) ended: Option<String>,
}

/// What came of it, and what should not have.
#[derive(Debug)]
pub(super) struct Report {
    text: String,
    faults: Vec<String>,
}

impl Report {
    pub(super) fn new(
        time: Duration,
        carried: &[Carried],
        churn: &Churn,
        watch: &Watch<'_>,
    ) -> Self {
        let mut report = Self {
            text: format!(
                "`mesh-bench soak` for {} s: a controller, a client's proxy, {} servers' proxies; an endpoint came or went {} \
                 times; leaves live {LEAF_LIFETIME_SECONDS} s. Clients never retry.\n",
                time.as_secs(),
                super::churn::ENDPOINTS,
                churn.steps
            ),
            faults: Vec::new(),
        };
        report.loads(carried);
        report.proxies(time, watch);
        report
    }

    /// Whether nothing was wrong.
    pub(super) fn passed(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = self.text.clone();
        // Writing to a string cannot fail.
        if self.passed() {
            text.push_str("\nPassed.\n");
        } else {
            text.push_str("\nFailed:\n");
            for fault in &self.faults {
                let _ = writeln!(text, "- {fault}");
            }
        }
        text
    }

    fn loads(&mut self, carried: &[Carried]) {
        self.text.push_str(
            "\n| load | connections | done | failed | p50 ms | p99 ms | p99.9 ms |\n|---|---|---|---|---|---|---|\n",
        );
        for Carried {
            plan,
            outcome,
            ended,
        } in carried
        {
            let name = match plan.size {
                0 | 1 => plan.work.name().to_owned(),
                size => format!("{}, {}", plan.work.name(), size_name(size)),
            };
            let [p50, p99, p999] = outcome.latency_micros.map(|micros| f64::from(micros) / 1e3);
            let done = if outcome.bytes > 0 {
                format!("{} MB", outcome.bytes / 1_000_000)
            } else {
                outcome.done.to_string()
            };
            let _ = writeln!(
                self.text,
                "| {name} | {} | {done} | {} | {p50:.2} | {p99:.2} | {p999:.2} |",
                plan.connections, outcome.failures
            );
            if outcome.failures > 0 {
                self.faults.push(format!(
                    "{name}: {} connections failed, the first with: {}",
                    outcome.failures, outcome.first_failure
                ));
            }
            if let Some(ended) = ended {
                self.faults.push(format!("{name}: {ended}"));
            }
            // A slow machine is no fault; what hangs is. A chunk of bulk may be taken in parts.
            let wanted = u64::from(plan.rate.unwrap_or_default()) * plan.time.as_secs();
            let carried = outcome.done.max(outcome.bytes / CHUNK as u64);
            if carried * 5 < wanted {
                self.faults.push(format!(
                    "{name}: {carried} of {wanted} were carried in time"
                ));
            }
        }
    }

    fn proxies(&mut self, time: Duration, watch: &Watch<'_>) {
        let _ = writeln!(
            self.text,
            "\nMemory in KiB; flat: {}.\n\n| | leaves | at first | most | third quarter | last quarter | |\n\
             |---|---|---|---|---|---|---|",
            Flatness::CRITERION
        );
        for proxy in &watch.proxies {
            let (first, most) = (proxy.rss_kib.first(), proxy.rss_kib.iter().max());
            let flatness = Flatness::of(&proxy.rss_kib);
            let verdict = match flatness {
                Some(flatness) if flatness.is_flat() => "flat",
                Some(_) => "grows",
                None => "too short to tell",
            };
            let quarter = |of: fn(Flatness) -> u64| flatness.map(of).unwrap_or_default();
            let (third, last) = (quarter(|f| f.third_kib), quarter(|f| f.last_kib));
            let _ = writeln!(
                self.text,
                "| {} | {} | {} | {} | {third} | {last} | {verdict} |",
                proxy.name,
                proxy.expiries.len(),
                first.copied().unwrap_or_default(),
                most.copied().unwrap_or_default(),
            );
            if verdict != "flat" {
                self.faults.push(format!(
                    "memory of {}: {verdict}, {third} KiB in the third quarter and {last} KiB in the last",
                    proxy.name
                ));
            }
            // One at least for each lifetime, whatever part of it has passed at the ends.
            let wanted = usize::try_from(time.as_secs() / LEAF_LIFETIME_SECONDS).unwrap_or(0);
            if proxy.expiries.len() < wanted.max(1) {
                self.faults.push(format!(
                    "{} had {} leaves, fewer than {wanted}",
                    proxy.name,
                    proxy.expiries.len()
                ));
            }
        }
    }
}
