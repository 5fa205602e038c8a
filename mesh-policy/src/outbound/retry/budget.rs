use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Error;

/// How many retries all requests to a target may have together, so that retries cannot multiply the load on one that is
/// failing: a share of the requests of the last while, and some more by time alone.
///
/// Shared by threads, without locks. Time is passed in; any two calls may be out of order by a little.
#[derive(Debug)]
pub struct RetryBudget {
    limits: BudgetLimits,
    /// When it was first used; slots count from there.
    origin: OnceLock<Instant>,
    slots: [Slot; SLOTS],
}

/// What a [`RetryBudget`] allows.
#[derive(Clone, Copy, Debug)]
pub struct BudgetLimits {
    ratio: f32,
    min_retries_per_second: u32,
    ttl: Duration,
}

impl RetryBudget {
    /// A budget that nothing was taken from.
    pub fn new(limits: BudgetLimits) -> Self {
        Self {
            limits,
            origin: OnceLock::new(),
            slots: std::array::from_fn(|_| Slot::default()),
        }
    }

    /// What it allows.
    pub fn limits(&self) -> BudgetLimits {
        self.limits
    }

    /// Counts a request, which adds to what may be taken. To be called once for each that is not itself a retry.
    pub fn deposit(&self, now: Instant) {
        let share = self.limits.share();
        if share == 0 {
            return;
        }
        let epoch = self.epoch(now);
        self.slot(epoch)
            .update(epoch, |balance| Some(balance.saturating_add(share)));
    }

    /// Takes a retry, if there is one to be had.
    pub fn withdraw(&self, now: Instant) -> bool {
        let epoch = self.epoch(now);
        let reserve = self.limits.reserve();
        let slot = self.slot(epoch);
        // The others are read anew whenever another thread got ahead, as it may have taken the last one.
        slot.update(epoch, |balance| {
            let others: i64 = self
                .slots
                .iter()
                .filter(|other| !std::ptr::eq(*other, slot))
                .map(|other| i64::from(other.balance(epoch)))
                .sum();
            let left = reserve + others + i64::from(balance);
            (left >= i64::from(RETRY)).then(|| balance.checked_sub(RETRY))?
        })
    }

    fn slot(&self, epoch: u32) -> &Slot {
        &self.slots[epoch as usize % SLOTS]
    }

    /// The number of the time slot that `now` is in.
    fn epoch(&self, now: Instant) -> u32 {
        let origin = *self.origin.get_or_init(|| now);
        let age = now.saturating_duration_since(origin).as_nanos();
        let length = (self.limits.ttl / SLOTS_U32).as_nanos().max(1);
        // A slot is at least 100 ms, so this holds for thirteen years, and begins anew then. The first is not zero, which
        // slots that were never used have.
        ((age / length) as u32).wrapping_add(1)
    }
}

impl BudgetLimits {
    /// Retries are up to `ratio` of the requests of the last `ttl`, and `min_retries_per_second` more in it.
    ///
    /// The ratio counts to three digits. No more than two million retries are granted in a tenth of `ttl`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `ratio` is not between 0 and 1000, or `ttl` not between 1 s and 60 s (the bounds of Linkerd's
    /// proxy).
    pub fn new(ratio: f32, min_retries_per_second: u32, ttl: Duration) -> Result<Self, Error> {
        if !(0.0..=1000.0).contains(&ratio) {
            return Err(Error::invalid(
                "destination.RetryBudget.retry_ratio",
                &ratio.to_string(),
                "a number from 0 to 1000",
            ));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&ttl) {
            return Err(Error::invalid(
                "destination.RetryBudget.ttl",
                &format!("{ttl:?}"),
                "a duration from 1 s to 60 s",
            ));
        }
        Ok(Self {
            // Adding zero makes a negative zero positive, so that equal ratios have equal bits.
            ratio: ratio + 0.0,
            min_retries_per_second,
            ttl,
        })
    }

    /// Retries per request.
    pub fn ratio(&self) -> f32 {
        self.ratio
    }

    /// Retries per second that are allowed however few requests there are.
    pub fn min_retries_per_second(&self) -> u32 {
        self.min_retries_per_second
    }

    /// How long a request counts.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// What one request adds, in thousandths of a retry.
    fn share(&self) -> i32 {
        // Between 0 and a million; a ratio that is not zero adds something.
        let share = (f64::from(self.ratio) * f64::from(RETRY)).ceil();
        share as i32
    }

    /// What may be taken in `ttl` without any request, in thousandths of a retry.
    fn reserve(&self) -> i64 {
        let retries = f64::from(self.min_retries_per_second) * self.ttl.as_secs_f64();
        // At most 2^32 × 60 × 1000, which fits.
        (retries * f64::from(RETRY)) as i64
    }
}

/// A fifth of the requests of the last 10 s and 10 per second more, as in Linkerd.
impl Default for BudgetLimits {
    fn default() -> Self {
        Self {
            ratio: 0.2,
            min_retries_per_second: 10,
            ttl: Duration::from_secs(10),
        }
    }
}

impl Eq for BudgetLimits {}

impl PartialEq for BudgetLimits {
    fn eq(&self, other: &Self) -> bool {
        self.ratio.to_bits() == other.ratio.to_bits()
            && self.min_retries_per_second == other.min_retries_per_second
            && self.ttl == other.ttl
    }
}

/// A tenth of the time that counts: its number in the upper half, its balance (an `i32`) in the lower.
#[derive(Debug, Default)]
struct Slot(AtomicU64);

impl Slot {
    /// What was added less what was taken in the time slot, if it counts at `epoch`.
    fn balance(&self, epoch: u32) -> i32 {
        let (number, balance) = unpack(self.0.load(Ordering::Acquire));
        // A thread whose clock was read a little earlier may ask about one that has just begun: it counts.
        let age = epoch.wrapping_sub(number) as i32;
        let counts = number != 0 && age < SLOTS_U32 as i32;
        if counts { balance } else { 0 }
    }

    /// Changes the balance at `epoch` unless `change` says not to; one of an older time slot starts at zero.
    fn update(&self, epoch: u32, change: impl Fn(i32) -> Option<i32>) -> bool {
        let mut held = self.0.load(Ordering::Acquire);
        loop {
            let (number, balance) = unpack(held);
            let balance = if number == epoch { balance } else { 0 };
            let Some(changed) = change(balance) else {
                return false;
            };
            let packed = u64::from(epoch) << 32 | u64::from(changed as u32);
            let swapped =
                self.0
                    .compare_exchange_weak(held, packed, Ordering::AcqRel, Ordering::Acquire);
            match swapped {
                Ok(_) => return true,
                Err(newer) => held = newer,
            }
        }
    }
}

fn unpack(packed: u64) -> (u32, i32) {
    ((packed >> 32) as u32, packed as u32 as i32)
}

/// One retry, in the unit of balances.
const RETRY: i32 = 1000;

const SLOTS: usize = 10;
const SLOTS_U32: u32 = 10;
