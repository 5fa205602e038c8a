use std::time::Duration;

/// What a refusal for its rate (429, gRPC `RESOURCE_EXHAUSTED`) means for an endpoint, which is healthy but full.
///
/// - **Learned limit**: an endpoint that admits some requests and refuses others is sent what it admits, and a little more
///   now and then. What does not fit goes to the others, and when none has room, a pick fails at once and says when there
///   will be some.
/// - **Hold**: an endpoint that admits nothing and says when to come back is left alone until then.
/// - **Penalty**: one that fails, or that admits nothing and does not say for how long, counts as slow: its latency is
///   taken for at least the penalty, which fades.
///
/// Defaults: all three; holds of at most 300 s; a penalty of 5 s that fades to a third in 10 s; what finds no room is shed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimits {
    learn: bool,
    hold: bool,
    longest_hold: Duration,
    penalty: Duration,
    penalty_decay: Duration,
    exact: bool,
    when_full: WhenFull,
}

/// What happens to a request when no endpoint has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// Its pick fails at once, with the time after which there will be room.
    #[default]
    Shed,
    /// It goes to the endpoint that will have room first.
    Soonest,
}

impl RateLimits {
    /// The published semantics of `PenaltyPeakEwma` and no more: refusals and failures count as a latency of at least
    /// `penalty`, or of what the endpoint asked for, up to `longest_hold`. Nothing is held back, learned or shed.
    pub fn exact(penalty: Duration, longest_hold: Duration) -> Self {
        Self {
            learn: false,
            hold: false,
            longest_hold,
            penalty,
            exact: true,
            ..Self::default()
        }
    }

    /// Whether limits are learned. Default: yes.
    #[must_use]
    pub fn learn(self, learn: bool) -> Self {
        Self { learn, ..self }
    }

    /// Whether an endpoint that says when to come back is left alone until then. Default: yes.
    #[must_use]
    pub fn hold(self, hold: bool) -> Self {
        Self { hold, ..self }
    }

    /// The longest time that an endpoint is left alone, whatever it asks for. Default: 300 s.
    #[must_use]
    pub fn longest(self, longest_hold: Duration) -> Self {
        Self {
            longest_hold,
            ..self
        }
    }

    /// The latency that a failure counts for, and a refusal that nothing else explains; zero is none. Default: 5 s.
    #[must_use]
    pub fn penalty(self, penalty: Duration) -> Self {
        Self { penalty, ..self }
    }

    /// How long until a penalty has faded to a third (1/e), at least 1 ms. Default: 10 s.
    #[must_use]
    pub fn penalty_decay(self, decay: Duration) -> Self {
        Self {
            penalty_decay: decay.max(Duration::from_millis(1)),
            ..self
        }
    }

    /// What happens when no endpoint has room. Default: [`WhenFull::Shed`].
    #[must_use]
    pub fn when_full(self, when_full: WhenFull) -> Self {
        Self { when_full, ..self }
    }

    pub(crate) fn learns(&self) -> bool {
        self.learn
    }

    pub(crate) fn holds(&self) -> bool {
        self.hold
    }

    pub(crate) fn longest_hold(&self) -> Duration {
        self.longest_hold
    }

    pub(crate) fn sheds(&self) -> bool {
        self.when_full == WhenFull::Shed
    }

    pub(crate) fn decay(&self) -> Duration {
        self.penalty_decay
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// The penalty of a failure or refusal that came with this hint.
    pub(crate) fn penalty_after(&self, hint: Option<Duration>) -> Option<Duration> {
        let hint = hint.unwrap_or_default().min(self.longest_hold);
        // A hint that is honoured as a hold needs no penalty of its length.
        let hint = if self.exact { hint } else { Duration::ZERO };
        (!self.penalty.is_zero()).then(|| self.penalty.max(hint))
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            learn: true,
            hold: true,
            longest_hold: Duration::from_secs(300),
            penalty: Duration::from_secs(5),
            penalty_decay: Duration::from_secs(10),
            exact: false,
            when_full: WhenFull::Shed,
        }
    }
}
