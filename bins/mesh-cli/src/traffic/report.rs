//! What came of calls, and how that reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::histogram::{Histogram, Latencies};
use super::target::{Protocol, Target};
use crate::duration;
use crate::output::Table;

/// What came of one call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The right answer.
    Success,
    /// No answer, or not the right one.
    Failure(String),
    /// The connection broke before the answer was whole.
    Reset(String),
}

/// Counted by the callers of one target.
#[derive(Debug)]
pub(crate) struct Seen {
    service: String,
    protocol: Protocol,
    attempts: AtomicU64,
    failures: AtomicU64,
    resets: AtomicU64,
    latencies: Histogram,
    last_failure: Mutex<Option<String>>,
}

impl Seen {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            service: target.service.clone(),
            protocol: target.protocol(),
            attempts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            latencies: Histogram::default(),
            last_failure: Mutex::new(None),
        }
    }

    pub(super) fn count(&self, latency: Duration, outcome: Outcome) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let reason = match outcome {
            Outcome::Success => {
                self.latencies.record(latency);
                return;
            }
            Outcome::Failure(reason) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                reason
            }
            Outcome::Reset(reason) => {
                self.resets.fetch_add(1, Ordering::Relaxed);
                reason
            }
        };
        *self
            .last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    pub(super) fn counts(&self) -> Counts {
        // Failures first: an attempt is counted before its failure, so there are never more failures than attempts.
        let failures = self.failures.load(Ordering::Relaxed);
        let resets = self.resets.load(Ordering::Relaxed);
        Counts {
            service: self.service.clone(),
            protocol: self.protocol,
            attempts: self.attempts.load(Ordering::Relaxed),
            failures,
            resets,
            latencies: self.latencies.read(),
            last_failure: self
                .last_failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}

/// What came of the calls to one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The service.
    pub(crate) service: String,
    /// What was spoken.
    pub(crate) protocol: Protocol,
    /// Calls that ended.
    pub(crate) attempts: u64,
    /// Of these, without the right answer.
    pub(crate) failures: u64,
    /// Of these, with a connection that broke; not among `failures`.
    pub(crate) resets: u64,
    /// Of those that succeeded.
    pub(crate) latencies: Latencies,
    /// Why the last that did not succeed did not.
    pub(crate) last_failure: Option<String>,
}

impl Counts {
    fn since(&self, before: &Self) -> Self {
        Self {
            attempts: self.attempts.saturating_sub(before.attempts),
            failures: self.failures.saturating_sub(before.failures),
            resets: self.resets.saturating_sub(before.resets),
            latencies: self.latencies.since(&before.latencies),
            ..self.clone()
        }
    }

    fn successes(&self) -> u64 {
        self.attempts
            .saturating_sub(self.failures)
            .saturating_sub(self.resets)
    }

    /// In percent, never rounded up to all.
    fn success_rate(&self) -> String {
        if self.attempts == 0 {
            return "-".to_owned();
        }
        let hundredths = u128::from(self.successes()) * 10_000 / u128::from(self.attempts);
        format!("{}.{:02}%", hundredths / 100, hundredths % 100)
    }

    fn percentile(&self, percent: u64) -> String {
        self.latencies
            .percentile(percent)
            .map_or_else(|| "-".to_owned(), duration::show)
    }
}

/// What came of all calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    services: Vec<Counts>,
}

impl Report {
    pub(super) fn new(services: Vec<Counts>) -> Self {
        Self { services }
    }

    /// Whether calls were made and none of them went wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.services
            .iter()
            .all(|counts| counts.attempts > 0 && counts.failures == 0 && counts.resets == 0)
    }

    /// The live line: what came of the calls since `before`, `elapsed` ago, by protocol.
    pub(crate) fn line(&self, before: &Self, elapsed: Duration) -> String {
        let mut parts = Vec::new();
        for protocol in Protocol::ALL {
            let Some(window) = self.by_protocol(before, protocol) else {
                continue;
            };
            let rate = u128::from(window.attempts) * 1_000 / elapsed.as_millis().max(1);
            parts.push(format!(
                "{protocol} {} {rate}/s p50 {} p99 {}",
                window.success_rate(),
                window.percentile(50),
                window.percentile(99)
            ));
        }
        parts.join(" | ")
    }

    /// The summary of all calls.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new(&[
            "TRAFFIC", "PROTOCOL", "ATTEMPTS", "FAILURES", "RESETS", "SUCCESS", "P50", "P99",
        ]);
        for counts in &self.services {
            table.row([
                counts.service.clone(),
                counts.protocol.to_string(),
                counts.attempts.to_string(),
                counts.failures.to_string(),
                counts.resets.to_string(),
                counts.success_rate(),
                counts.percentile(50),
                counts.percentile(99),
            ]);
        }
        table
    }

    /// Why the last call to each service that failed did.
    pub(crate) fn last_failures(&self) -> Vec<String> {
        let reason = |counts: &Counts| {
            Some(format!(
                "{}: {}",
                counts.service,
                counts.last_failure.as_ref()?
            ))
        };
        self.services.iter().filter_map(reason).collect()
    }

    fn by_protocol(&self, before: &Self, protocol: Protocol) -> Option<Counts> {
        let mut sum: Option<Counts> = None;
        for (index, counts) in self
            .services
            .iter()
            .enumerate()
            .filter(|(_, counts)| counts.protocol == protocol)
        {
            let window = before
                .services
                .get(index)
                .map_or_else(|| counts.clone(), |before| counts.since(before));
            match &mut sum {
                None => sum = Some(window),
                Some(sum) => {
                    sum.attempts += window.attempts;
                    sum.failures += window.failures;
                    sum.resets += window.resets;
                    sum.latencies.add(&window.latencies);
                }
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::Call;
    use super::*;

    fn seen(service: &str, call: Call) -> Seen {
        Seen::new(&Target {
            service: service.into(),
            address: ([127, 77, 255, 254], 15_001).into(),
            authority: "web.default.svc.cluster.local".into(),
            call,
        })
    }

    #[test]
    fn one_failure_in_many_is_never_rounded_away() {
        let web = seen("web", Call::Http { path: "/".into() });
        for _ in 0..99_999 {
            web.count(Duration::from_micros(1_500), Outcome::Success);
        }
        assert!(Report::new(vec![web.counts()]).is_clean());
        web.count(
            Duration::from_secs(5),
            Outcome::Reset("connection reset".into()),
        );

        let report = Report::new(vec![web.counts()]);

        assert!(!report.is_clean());
        assert_eq!(
            report.table().lines()[1],
            "web       http       100000     0          1        99.99%    1.5 ms   1.5 ms"
        );
        assert_eq!(report.last_failures(), ["web: connection reset"]);
    }

    #[test]
    fn the_live_line_is_about_the_window_and_sums_services_of_a_protocol() {
        let (web, api) = (
            seen("web", Call::Http { path: "/".into() }),
            seen("api", Call::Http { path: "/".into() }),
        );
        let echo = seen("echo", Call::Echo);
        let report = || Report::new(vec![web.counts(), api.counts(), echo.counts()]);
        web.count(Duration::from_secs(5), Outcome::Failure("503".into()));
        let before = report();
        for _ in 0..100 {
            web.count(Duration::from_micros(900), Outcome::Success);
            api.count(Duration::from_micros(900), Outcome::Success);
        }
        let line = report().line(&before, Duration::from_secs(2));
        assert_eq!(
            line,
            "http 100.00% 100/s p50 927 µs p99 927 µs | tcp - 0/s p50 - p99 -"
        );
    }

    #[test]
    fn no_attempts_is_not_clean() {
        assert!(!Report::new(vec![seen("web", Call::Echo).counts()]).is_clean());
    }
}
