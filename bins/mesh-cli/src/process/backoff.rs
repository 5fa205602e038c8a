//! How long to wait before starting again what has ended.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);
/// What ran this long starts over with the first wait.
const SOUND: Duration = Duration::from_secs(30);

/// Doubles from a quarter of a second to ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    waits: u32,
    started: Option<Instant>,
}

impl Backoff {
    /// It was started.
    pub(crate) fn started(&mut self, now: Instant) {
        self.started = Some(now);
    }

    /// It ended: how long to wait.
    pub(crate) fn ended(&mut self, now: Instant) -> Duration {
        if self
            .started
            .take()
            .is_some_and(|started| now.saturating_duration_since(started) >= SOUND)
        {
            self.waits = 0;
        }
        let wait = FIRST.saturating_mul(1 << self.waits.min(10)).min(LONGEST);
        self.waits = self.waits.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_a_bound_and_starts_over_after_a_sound_run() {
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..7 {
            backoff.started(now);
            now += Duration::from_secs(1);
            waits.push(backoff.ended(now).as_millis());
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000]);

        backoff.started(now);
        assert_eq!(backoff.ended(now + SOUND), FIRST);
    }
}
