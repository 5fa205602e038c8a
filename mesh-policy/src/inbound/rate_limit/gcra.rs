use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The generic cell rate algorithm (ITU-T I.371, virtual scheduling) on one word: so many requests per second, and as many
/// at once.
///
/// In any time `t`, it lets through no more than `limit * t + limit`; and always one when none was let through for
/// `1 / limit`.
#[derive(Debug)]
pub(super) struct Gcra {
    limit: NonZeroU32,
    origin: OnceLock<Instant>,
    /// When the last request would have come if all had come evenly, and one interval later; nanoseconds from the origin.
    arrival: AtomicU64,
}

/// It is one too many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    /// Until one would be let through; above zero.
    pub(super) wait: Duration,
}

impl Gcra {
    pub(super) fn new(limit: NonZeroU32) -> Self {
        Self {
            limit,
            origin: OnceLock::new(),
            arrival: AtomicU64::new(0),
        }
    }

    /// Lets one through, or says when.
    pub(super) fn take(&self, now: Instant) -> Result<(), Refused> {
        let now = self.nanos(now);
        let (interval, tolerance) = (self.interval(), self.tolerance());
        let mut arrival = self.arrival.load(Ordering::Acquire);
        loop {
            let early = arrival.saturating_sub(now);
            if early > tolerance {
                let wait = Duration::from_nanos(early - tolerance);
                return Err(Refused { wait });
            }
            let next = arrival.max(now).saturating_add(interval);
            let swapped = self.arrival.compare_exchange_weak(
                arrival,
                next,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match swapped {
                Ok(_) => return Ok(()),
                Err(newer) => arrival = newer,
            }
        }
    }

    /// Undoes a [`take`](Self::take) that let one through.
    pub(super) fn put_back(&self) {
        // It was added before, and every other thread takes back only what it added.
        self.arrival.fetch_sub(self.interval(), Ordering::AcqRel);
    }

    /// True when it is as if nothing had ever been let through.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.arrival.load(Ordering::Acquire) <= self.nanos(now)
    }

    /// Rounded up, so that no more than the limit gets through.
    fn interval(&self) -> u64 {
        NANOS_PER_SECOND.div_ceil(u64::from(self.limit.get()))
    }

    /// How much too early the last of a burst is.
    fn tolerance(&self) -> u64 {
        // Below 2^32 intervals of a nanosecond, or a second and what rounding adds.
        (u64::from(self.limit.get()) - 1) * self.interval()
    }

    /// 584 years of them fit.
    fn nanos(&self, now: Instant) -> u64 {
        let origin = *self.origin.get_or_init(|| now);
        let age = now.saturating_duration_since(origin).as_nanos();
        u64::try_from(age).unwrap_or(u64::MAX)
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;
