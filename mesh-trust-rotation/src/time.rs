//! Time as it is in the record: whole seconds of Unix time. Instants never leave a process.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Seconds since the Unix epoch.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// This much later; saturates. Parts of a second count as a whole one.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(seconds(duration)))
    }

    /// This much earlier; saturates at the epoch. Parts of a second count as a whole one.
    #[must_use]
    pub const fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(seconds(duration)))
    }

    /// The next second.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const fn seconds(duration: Duration) -> u64 {
    if duration.subsec_nanos() == 0 {
        return duration.as_secs();
    }
    duration.as_secs().saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_second_lengthen_a_wait() {
        assert_eq!(UnixTime(10).after(Duration::from_millis(1)), UnixTime(11));
        assert_eq!(UnixTime(10).before(Duration::from_millis(1)), UnixTime(9));
        assert_eq!(
            UnixTime(u64::MAX).after(Duration::from_secs(1)),
            UnixTime(u64::MAX)
        );
        assert_eq!(UnixTime(3).since(UnixTime(5)), Duration::ZERO);
        assert_eq!(UnixTime(5).since(UnixTime(3)), Duration::from_secs(2));
        assert_eq!(UnixTime(5).next(), UnixTime(6));
        assert_eq!(format!("{} {:?}", UnixTime(5), UnixTime(6)), "5s 6s");
    }
}
