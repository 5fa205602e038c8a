//! Whether the host's clock was set: what a process reports then is news, as certificates are judged by it.

use std::time::{Duration, Instant, SystemTime};

/// By how much a clock that is set differs at least; what is less is put right little by little.
const SET: Duration = Duration::from_secs(5);

/// The host's clock beside the one that nobody sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall: SystemTime,
    steady: Instant,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            steady: Instant::now(),
        }
    }

    /// Whether it was set between `before` and this.
    pub(super) fn was_set_since(&self, before: &Self) -> bool {
        let passed = self.steady.saturating_duration_since(before.steady);
        let Some(expected) = before.wall.checked_add(passed) else {
            return true;
        };
        let off = self.wall.duration_since(expected);
        off.unwrap_or_else(|behind| behind.duration()) >= SET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leap_is_a_clock_that_was_set() {
        let before = Clock::now();
        let after = |wall: i64, steady: u64| {
            let by = Duration::from_secs(wall.unsigned_abs());
            let wall = if wall < 0 {
                before.wall - by
            } else {
                before.wall + by
            };
            let steady = before.steady + Duration::from_secs(steady);
            Clock { wall, steady }.was_set_since(&before)
        };
        assert!(!after(0, 0));
        assert!(!after(3600, 3600));
        assert!(!after(3604, 3600));
        assert!(!after(3596, 3600));
        assert!(after(3600, 1));
        assert!(after(-3600, 1));
        assert!(after(0, 10));
    }
}
