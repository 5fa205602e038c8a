use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::{EndpointSpec, Error, Meta};

/// A backend as a controller describes it. Equal specifications may share one balancer.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct BackendSpec {
    /// The backend's resource.
    pub meta: Arc<Meta>,
    /// Where its endpoints come from.
    pub kind: BackendKind,
    /// How much may wait while it is not ready.
    pub queue: Queue,
    /// When its endpoints are taken out; never when absent.
    pub failure_accrual: Option<FailureAccrual>,
}

/// Where a backend's endpoints come from.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum BackendKind {
    /// They are discovered and balanced over.
    Balancer {
        /// What to ask discovery for: an authority, `name.namespace.svc.cluster.local:8080`.
        path: String,
        /// How their load is estimated.
        load: Load,
    },
    /// There is this one.
    Forward(Box<EndpointSpec>),
}

/// How an endpoint's load is estimated: peak EWMA of its latency.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Load {
    /// The latency an endpoint is taken to have before any was seen.
    pub default_rtt: Duration,
    /// The time constant of forgetting.
    pub decay: Duration,
    /// What a failure or a refusal for its rate adds; latency alone counts when absent.
    pub penalty: Option<Penalty>,
}

/// What a failure or a refusal for its rate means for an endpoint's load.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Penalty {
    /// The latency that it counts for; none when zero.
    pub latency: Duration,
    /// The longest time that an endpoint's own word on when to come back counts for.
    pub max_retry_after: Duration,
    /// The time constant with which the penalty fades.
    pub decay: Duration,
}

/// How much may wait for a backend that is not ready.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Queue {
    /// How many requests.
    pub capacity: u32,
    /// For how long, before all of them fail.
    pub failfast_timeout: Duration,
}

/// When a backend's endpoints are taken out, and for how long.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FailureAccrual {
    /// When.
    pub trip: Trip,
    /// How long before it is tried again.
    pub backoff: Backoff,
    /// Whether an endpoint's own word on when to come back lengthens a wait, within those of the backoff.
    pub respect_retry_after: bool,
    /// How many endpoints must stay in; no floor when zero.
    pub min_ready_endpoints: u32,
}

/// When an endpoint is taken out.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Trip {
    /// After so many failures in a row.
    Consecutive(NonZeroU32),
    /// When its success rate is too low.
    SuccessRate(SuccessRate),
    /// For either reason.
    Either(NonZeroU32, SuccessRate),
}

/// How much of what an endpoint was asked of late it has to answer well.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SuccessRate {
    threshold: Threshold,
    window: Duration,
    min_requests: u32,
}

/// A share above 0 and at most 1.
#[derive(Clone, Copy, Debug)]
struct Threshold(f64);

/// Waits that double from `min` to `max`, each with up to `jitter` of itself added.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    jitter: JitterRatio,
}

/// How much of a wait may be added to it at random: from 0 to 100 times itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct JitterRatio(f32);

impl BackendKind {
    /// What to ask discovery for, when endpoints are discovered.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Balancer { path, .. } => Some(path),
            Self::Forward(_) => None,
        }
    }
}

/// 30 ms and 10 s, as in Linkerd, and no penalty.
impl Default for Load {
    fn default() -> Self {
        Self {
            default_rtt: Duration::from_millis(30),
            decay: Duration::from_secs(10),
            penalty: None,
        }
    }
}

/// 5 s, believing hints of up to 300 s, and fading in 10 s, as in Linkerd.
impl Default for Penalty {
    fn default() -> Self {
        Self {
            latency: Duration::from_secs(5),
            max_retry_after: Duration::from_secs(300),
            decay: Duration::from_secs(10),
        }
    }
}

impl SuccessRate {
    /// The window of a success rate whose controller names none.
    pub const DEFAULT_WINDOW: Duration = Duration::from_secs(10);
    /// The shortest window.
    pub const MIN_WINDOW: Duration = Duration::from_millis(10);

    /// At least `threshold` of the requests of the latest `window`, once there are `min_requests`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `threshold` is not above 0 and at most 1, or `window` is shorter than
    /// [`MIN_WINDOW`](Self::MIN_WINDOW).
    pub fn new(threshold: f64, window: Duration, min_requests: u32) -> Result<Self, Error> {
        if !(threshold > 0.0 && threshold <= 1.0) {
            let field = "success_rate.threshold";
            let expected = "a number above 0, at most 1";
            return Err(Error::invalid(field, &threshold.to_string(), expected));
        }
        if window < Self::MIN_WINDOW {
            let given = format!("{window:?}");
            return Err(Error::invalid(
                "success_rate.window",
                &given,
                "at least 10 ms",
            ));
        }
        Ok(Self {
            threshold: Threshold(threshold),
            window,
            min_requests,
        })
    }

    /// The share below which an endpoint is taken out.
    pub fn threshold(&self) -> f64 {
        self.threshold.0
    }

    /// Of which time.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// How many requests of the window it takes until their share counts.
    pub fn min_requests(&self) -> u32 {
        self.min_requests
    }
}

// It is above zero, so that equal numbers have equal bits.
impl Eq for Threshold {}

impl PartialEq for Threshold {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Hash for Threshold {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// 10,000 requests for 3 s, as in Linkerd.
impl Default for Queue {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            failfast_timeout: Duration::from_secs(3),
        }
    }
}

impl Backoff {
    /// Waits from `min` to `max`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `min` is zero or greater than `max`.
    pub fn new(min: Duration, max: Duration, jitter: JitterRatio) -> Result<Self, Error> {
        if min.is_zero() {
            let expected = "a minimum above zero";
            return Err(Error::invalid("backoff.min_backoff", "0s", expected));
        }
        if min > max {
            let expected = "a maximum that is at least the minimum";
            return Err(Error::invalid(
                "backoff.max_backoff",
                &format!("{max:?}"),
                expected,
            ));
        }
        Ok(Self { min, max, jitter })
    }

    /// The first wait; above zero.
    pub fn min(&self) -> Duration {
        self.min
    }

    /// The longest wait before jitter; at least [`min`](Self::min).
    pub fn max(&self) -> Duration {
        self.max
    }

    /// How much of a wait may be added to it at random.
    pub fn jitter(&self) -> JitterRatio {
        self.jitter
    }

    /// The wait before the retry that `attempt` others went before; jitter included, it is between [`min`](Self::min) and
    /// [`max`](Self::max). `random` is a uniformly random word.
    pub fn wait(&self, attempt: u32, random: u64) -> Duration {
        let doubled = self.min.checked_mul(2_u32.saturating_pow(attempt));
        let base = doubled.map_or(self.max, |wait| wait.min(self.max));
        let share = random as f64 / u64::MAX as f64 * f64::from(self.jitter.0);
        // A hundred times a wait may be more than a duration holds.
        let jitter = Duration::try_from_secs_f64(base.as_secs_f64() * share);
        let jitter = jitter.unwrap_or(Duration::MAX);
        base + jitter.min(self.max - base)
    }
}

impl JitterRatio {
    /// A share of a wait.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `ratio` is not between 0 and 100.
    pub fn new(ratio: f32) -> Result<Self, Error> {
        if (0.0..=100.0).contains(&ratio) {
            // Adding zero makes a negative zero positive, so that equal ratios have equal bits.
            return Ok(Self(ratio + 0.0));
        }
        let expected = "a number from 0 to 100";
        Err(Error::invalid(
            "backoff.jitter_ratio",
            &ratio.to_string(),
            expected,
        ))
    }

    /// The share as a number.
    pub fn get(self) -> f32 {
        self.0
    }
}

impl Eq for JitterRatio {}

impl PartialEq for JitterRatio {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Hash for JitterRatio {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}
