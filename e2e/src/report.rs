//! What a load client saw. The program `e2e-load` prints it as JSON, [`Load`](crate::Load) reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most error texts a report carries.
pub const SAMPLES: usize = 20;

/// Counts of a load client that tries everything exactly once.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Requests, or rounds on a TCP connection, that were begun.
    pub attempts: u64,
    /// Those that came back whole and right.
    pub ok: u64,
    /// Those that did not, by what went wrong: `connect`, `reset`, `closed`, `timeout`, `status`, `content`, `refused`, `other`.
    pub failures: BTreeMap<String, u64>,
    /// Attempts that were not sent because the connection had said that it was closing; sent once, on a new one.
    pub unsent: u64,
    /// Connections opened; of conversations, those that were begun.
    pub connections: u64,
    /// Conversations that this client ended, and the other side then as it should.
    #[serde(default)]
    pub ended: u64,
    /// Answers by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Right answers by who gave them (the `x-served-by` header, or the greeting of a TCP server).
    pub served_by: BTreeMap<String, u64>,
    /// The first few errors in words, with the seconds since the start.
    pub samples: Vec<String>,
    /// Latency of right answers in microseconds: median, 99th percentile, worst.
    pub latency_micros: [u64; 3],
    /// Whether this is the last report of the run.
    pub last: bool,
}

impl Report {
    /// How many attempts failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// How many right answers `server` gave.
    #[must_use]
    pub fn served(&self, server: &str) -> u64 {
        self.served_by.get(server).copied().unwrap_or_default()
    }

    /// # Panics
    /// If an attempt failed, or fewer than `at_least` were made: a load of nothing proves nothing.
    pub fn assert_no_failure(&self, at_least: u64) {
        assert!(
            self.failed() == 0,
            "{} of {} attempts failed: {self:#?}",
            self.failed(),
            self.attempts
        );
        assert!(
            self.attempts == self.ok,
            "attempts unaccounted for: {self:#?}"
        );
        assert!(
            self.ok >= at_least,
            "only {} attempts, expected {at_least} or more: {self:#?}",
            self.ok
        );
    }
}
