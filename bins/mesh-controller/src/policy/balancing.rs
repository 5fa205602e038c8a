//! How endpoints are balanced over and taken out, in the words of the proxy API.

use std::time::Duration;

use linkerd2_proxy_api::outbound::{
    ExponentialBackoff, FailureAccrual,
    backend::balance_p2c::{Load, PeakEwma, PenaltyPeakEwma},
    failure_accrual::{ConsecutiveFailures, Kind, Unified},
};
use mesh_discovery::{Balancing, Breaker, Penalty};

/// When endpoints are taken out; never where there is none.
pub(super) fn failure_accrual(balancing: &Balancing) -> Option<FailureAccrual> {
    let Breaker {
        max_failures,
        success_rate,
        min_penalty,
        max_penalty,
        jitter_ratio,
        honor_retry_after,
    } = balancing.breaker?;
    let backoff = Some(ExponentialBackoff {
        min_backoff: min_penalty.try_into().ok(),
        max_backoff: max_penalty.try_into().ok(),
        jitter_ratio,
        respect_retry_after_hint: honor_retry_after,
    });
    let kind = match success_rate {
        None => Kind::ConsecutiveFailures(ConsecutiveFailures {
            max_failures,
            backoff,
        }),
        Some(rate) => Kind::Unified(Unified {
            success_rate_threshold: rate.threshold,
            decay: rate.window.try_into().ok(),
            min_requests: rate.min_requests,
            max_consecutive_failures: max_failures,
            backoff,
        }),
    };
    Some(FailureAccrual {
        kind: Some(kind),
        ejection: None,
    })
}

/// What makes one endpoint a better choice than another.
pub(super) fn load(balancing: &Balancing) -> Load {
    let (default_rtt, decay) = (DEFAULT_RTT.try_into().ok(), DECAY.try_into().ok());
    match balancing.penalty {
        None => Load::PeakEwma(PeakEwma { default_rtt, decay }),
        Some(Penalty {
            latency,
            max_retry_after,
        }) => Load::PenaltyPeakEwma(PenaltyPeakEwma {
            default_rtt,
            decay,
            penalty: latency.try_into().ok(),
            max_retry_after: max_retry_after.try_into().ok(),
            penalty_decay: decay,
        }),
    }
}

// Linkerd's defaults.
const DEFAULT_RTT: Duration = Duration::from_millis(30);
const DECAY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_discovery::SuccessRate;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker(success_rate: Option<SuccessRate>) -> Balancing {
        Balancing {
            breaker: Some(Breaker {
                max_failures: 3,
                success_rate,
                min_penalty: 2 * SECOND,
                max_penalty: 9 * SECOND,
                jitter_ratio: 0.25,
                honor_retry_after: true,
            }),
            penalty: None,
        }
    }

    #[test]
    fn every_setting_of_a_breaker_is_sent() {
        let backoff = Some(ExponentialBackoff {
            min_backoff: (2 * SECOND).try_into().ok(),
            max_backoff: (9 * SECOND).try_into().ok(),
            jitter_ratio: 0.25,
            respect_retry_after_hint: true,
        });
        let kind = |balancing| failure_accrual(&balancing).and_then(|accrual| accrual.kind);
        let consecutive = Kind::ConsecutiveFailures(ConsecutiveFailures {
            max_failures: 3,
            backoff,
        });
        assert_eq!(kind(breaker(None)), Some(consecutive));
        let unified = Kind::Unified(Unified {
            success_rate_threshold: 0.9,
            decay: (30 * SECOND).try_into().ok(),
            min_requests: 8,
            max_consecutive_failures: 3,
            backoff,
        });
        let rate = SuccessRate {
            threshold: 0.9,
            window: 30 * SECOND,
            min_requests: 8,
        };
        assert_eq!(kind(breaker(Some(rate))), Some(unified));
        assert_eq!(kind(Balancing::default()), None);
    }

    #[test]
    fn every_setting_of_a_penalty_is_sent() {
        assert!(matches!(load(&Balancing::default()), Load::PeakEwma(_)));
        let balancing = Balancing {
            penalty: Some(Penalty {
                latency: 3 * SECOND,
                max_retry_after: 60 * SECOND,
            }),
            ..Balancing::default()
        };
        let expected = PenaltyPeakEwma {
            default_rtt: Duration::from_millis(30).try_into().ok(),
            decay: (10 * SECOND).try_into().ok(),
            penalty: (3 * SECOND).try_into().ok(),
            max_retry_after: (60 * SECOND).try_into().ok(),
            penalty_decay: (10 * SECOND).try_into().ok(),
        };
        assert_eq!(load(&balancing), Load::PenaltyPeakEwma(expected));
    }
}
