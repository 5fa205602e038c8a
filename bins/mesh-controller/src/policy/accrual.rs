//! Circuit breaking, as the `balancer.linkerd.io` annotations ask for it.

use std::{collections::BTreeMap, time::Duration};

use linkerd2_proxy_api::outbound::{ExponentialBackoff, FailureAccrual, failure_accrual};

/// The breaker that annotations ask for; `None` if they ask for none.
///
/// # Errors
/// The annotation that is wrong, and what would be right. Then there is no breaker, which is the default.
pub(super) fn failure_accrual(
    annotations: &BTreeMap<String, String>,
) -> Result<Option<FailureAccrual>, (&'static str, String)> {
    match annotations.get(MODE).map(String::as_str) {
        None => return Ok(None),
        Some("consecutive") => {}
        Some(_) => return Err((MODE, "only `consecutive` is known".to_owned())),
    }
    fn setting<T>(
        annotations: &BTreeMap<String, String>,
        key: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, (&'static str, String)> {
        annotations
            .get(key)
            .map_or(Ok(default), |text| parse(text.trim()))
            .map_err(|reason| (key, reason))
    }
    // Linkerd's defaults: 7 failures, 1 s to 60 s, half of it jitter.
    let max_failures = setting(annotations, MAX_FAILURES, 7, |text| {
        let failures = text.parse().ok().filter(|failures| *failures > 0);
        failures.ok_or_else(|| "it must be a whole number from 1 on".to_owned())
    })?;
    let min = setting(annotations, MIN_PENALTY, Duration::from_secs(1), duration)?;
    let max = setting(annotations, MAX_PENALTY, Duration::from_mins(1), duration)?;
    if min > max {
        return Err((
            MAX_PENALTY,
            format!("it must not be less than {MIN_PENALTY} ({min:?})"),
        ));
    }
    let jitter_ratio = setting(annotations, JITTER_RATIO, 0.5, |text| {
        let ratio = text.parse().ok();
        ratio
            .filter(|ratio: &f32| ratio.is_finite() && (0.0..=100.0).contains(ratio))
            .ok_or_else(|| "it must be a number from 0 to 100".to_owned())
    })?;
    Ok(Some(FailureAccrual {
        kind: Some(failure_accrual::Kind::ConsecutiveFailures(
            failure_accrual::ConsecutiveFailures {
                max_failures,
                backoff: Some(ExponentialBackoff {
                    min_backoff: min.try_into().ok(),
                    max_backoff: max.try_into().ok(),
                    jitter_ratio,
                    respect_retry_after_hint: false,
                }),
            },
        )),
        ejection: None,
    }))
}

/// Reads a whole number with its unit: `ms`, `s`, `m`, `h` or `d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "it must be a whole number with a unit, such as 500ms, 1s or 2m".to_owned();
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let duration = Duration::from_millis(u64::from(number) * millis);
    if duration.is_zero() || duration > MAX_DURATION {
        return Err("it must be more than 0 and at most 1d".to_owned());
    }
    Ok(duration)
}

const MODE: &str = "balancer.linkerd.io/failure-accrual";
const MAX_FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
const MIN_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
const MAX_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-penalty";
const JITTER_RATIO: &str = "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio";
const MAX_DURATION: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use super::*;

    fn accrual(
        annotations: &[(&str, &str)],
    ) -> Result<Option<FailureAccrual>, (&'static str, String)> {
        let annotations = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        failure_accrual(&annotations)
    }

    fn consecutive(annotations: &[(&str, &str)]) -> (u32, Duration, Duration, f32) {
        let Some(failure_accrual::Kind::ConsecutiveFailures(found)) =
            accrual(annotations).unwrap().unwrap().kind
        else {
            panic!("another kind");
        };
        let backoff = found.backoff.unwrap();
        (
            found.max_failures,
            backoff.min_backoff.unwrap().try_into().unwrap(),
            backoff.max_backoff.unwrap().try_into().unwrap(),
            backoff.jitter_ratio,
        )
    }

    #[test]
    fn nothing_asked_nothing_given() {
        assert_eq!(accrual(&[]).unwrap(), None);
        assert_eq!(accrual(&[(MAX_FAILURES, "3")]).unwrap(), None);
    }

    #[test]
    fn defaults_are_linkerds() {
        assert_eq!(
            consecutive(&[(MODE, "consecutive")]),
            (7, Duration::from_secs(1), Duration::from_mins(1), 0.5)
        );
        assert_eq!(
            consecutive(&[
                (MODE, "consecutive"),
                (MAX_FAILURES, "3"),
                (MIN_PENALTY, "250ms"),
                (MAX_PENALTY, "2m"),
                (JITTER_RATIO, "0")
            ]),
            (3, Duration::from_millis(250), Duration::from_mins(2), 0.0)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (key, value) in [
            (MODE, "unified"),
            (MAX_FAILURES, "0"),
            (MAX_FAILURES, "many"),
            (MIN_PENALTY, "1"),
            (MIN_PENALTY, "1 s"),
            (MIN_PENALTY, "0s"),
            (MAX_PENALTY, "500ms"),
            (MAX_PENALTY, "9999999999d"),
            (JITTER_RATIO, "-1"),
            (JITTER_RATIO, "NaN"),
        ] {
            let mut annotations = vec![(MODE, "consecutive")];
            annotations.retain(|(mode, _)| *mode != key);
            annotations.push((key, value));
            assert_eq!(accrual(&annotations).unwrap_err().0, key, "{value}");
        }
    }
}
