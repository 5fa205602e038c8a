//! What has been counted so far.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Failure, Outcome};
use crate::stats::percentile;

/// The counts of all connections of a load.
#[derive(Default)]
pub(crate) struct Tally {
    warm: Cell<u32>,
    counting: Cell<Option<Instant>>,
    over: Cell<bool>,
    ended: Cell<u32>,
    done: Cell<u64>,
    bytes: Cell<u64>,
    failures: Cell<u64>,
    first_failure: RefCell<String>,
    latencies: RefCell<Vec<u32>>,
    late: RefCell<Vec<u32>>,
    changed: Notify,
}

impl Tally {
    /// One more connection has been answered once.
    pub(crate) fn is_warm(&self) {
        self.warm.set(self.warm.get() + 1);
        self.changed.notify_one();
    }

    pub(crate) fn done(&self, since: Instant, late: Option<Duration>) {
        if self.counting.get().is_none() {
            return;
        }
        self.done.set(self.done.get() + 1);
        self.latencies.borrow_mut().push(micros(since.elapsed()));
        if let Some(late) = late {
            self.late.borrow_mut().push(micros(late));
        }
    }

    pub(crate) fn moved(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    pub(crate) fn fail(&self, failure: &Failure) {
        self.failures.set(self.failures.get() + 1);
        if self.first_failure.borrow().is_empty() {
            let mut text = failure.to_string();
            let mut source = failure.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            *self.first_failure.borrow_mut() = text;
        }
        self.changed.notify_one();
    }

    /// One more connection has done its work to the end.
    pub(crate) fn ended_well(&self) {
        self.ended.set(self.ended.get() + 1);
        self.changed.notify_one();
    }

    pub(crate) fn count_from_now(&self) {
        self.counting.set(Some(Instant::now()));
        self.bytes.set(0);
    }

    pub(crate) fn stop(&self) {
        self.over.set(true);
    }

    pub(crate) fn warm(&self) -> u32 {
        self.warm.get()
    }

    pub(crate) fn ended(&self) -> u32 {
        self.ended.get()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.get()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Waits until a connection is warm or has failed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What was counted until now.
    pub(crate) fn outcome(&self) -> Outcome {
        let seconds = self
            .counting
            .get()
            .map_or(0.0, |since| since.elapsed().as_secs_f64());
        let mut latencies = self.latencies.take();
        let mut late = self.late.take();
        latencies.sort_unstable();
        late.sort_unstable();
        Outcome {
            seconds,
            done: self.done.get(),
            bytes: self.bytes.get(),
            failures: self.failures.get(),
            first_failure: self.first_failure.borrow().clone(),
            latency_micros: [0.5, 0.99, 0.999]
                .map(|part| percentile(&latencies, part).unwrap_or_default()),
            late_micros: percentile(&late, 0.99).unwrap_or_default(),
        }
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_before_it_counts_does_not_count() {
        let tally = Tally::default();
        tally.done(Instant::now(), None);
        tally.moved(10);
        tally.count_from_now();
        tally.done(Instant::now(), None);
        tally.moved(5);
        let outcome = tally.outcome();
        assert_eq!((outcome.done, outcome.bytes), (1, 5));
    }

    #[test]
    fn the_first_failure_is_told_with_its_causes() {
        let tally = Tally::default();
        tally.fail(&"refused".into());
        tally.fail(&"later".into());
        let outcome = tally.outcome();
        assert_eq!(
            (outcome.failures, outcome.first_failure.as_str()),
            (2, "refused")
        );
    }
}
