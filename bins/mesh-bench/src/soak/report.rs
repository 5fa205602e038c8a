//! What came of it.

use std::fmt::Write as _;
use std::time::Duration;

use super::churn::{Churn, LEAF_LIFETIME_SECONDS};
use super::watch::{Growth, Verdict, Watch};
use crate::backend::CHUNK;
use crate::load::{Outcome, Plan, size_name};
use crate::report::About;

/// How much of what is due has to be carried in time, in percent.
const CARRIED_PERCENT: u64 = 90;

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
        about: &About,
        carried: &[Carried],
        churn: &Churn,
        watch: &Watch<'_>,
    ) -> Self {
        let mut report = Self {
            text: format!(
                "{}\n`mesh-bench soak` for {} s: a controller, a client's proxy, {} servers' proxies; an endpoint came or went {} \
                 times; leaves live {LEAF_LIFETIME_SECONDS} s. Clients never retry.\n",
                about.markdown("soak"),
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
            // What is in flight at the end, and a chunk of bulk that is taken in parts, is not carried yet. A machine that falls behind
            // by more has shown nothing.
            let wanted = u64::from(plan.rate.unwrap_or_default()) * plan.time.as_secs();
            let carried = outcome.done.max(outcome.bytes / CHUNK as u64);
            if carried * 100 < wanted * CARRIED_PERCENT {
                self.faults.push(format!(
                    "{name}: {carried} of {wanted} were carried in time"
                ));
            }
        }
    }

    fn proxies(&mut self, time: Duration, watch: &Watch<'_>) {
        let _ = writeln!(
            self.text,
            "\nMemory; runs of less than {} s say nothing of it. Flat: {}.\n\n| | leaves | KiB at first | most | at last | second half | |\n\
             |---|---|---|---|---|---|---|",
            Verdict::SHORTEST.as_secs(),
            Growth::criterion(time)
        );
        for proxy in &watch.proxies {
            let rss = &proxy.rss_kib;
            let growth = Growth::of(rss);
            let verdict = Verdict::of(growth, time);
            let described = growth.map_or_else(|| "-".into(), |growth| growth.describe(time));
            let kib = |kib: Option<&u64>| kib.copied().unwrap_or_default();
            let _ = writeln!(
                self.text,
                "| {} | {} | {} | {} | {} | {described} | {} |",
                proxy.name,
                proxy.expiries.len(),
                kib(rss.first()),
                kib(rss.iter().max()),
                kib(rss.last()),
                verdict.name(),
            );
            if verdict.is_fault() {
                let fault = format!("memory of {} {}: {described}", proxy.name, verdict.name());
                self.faults.push(fault);
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
