//! How a service's endpoints are balanced over, by Linkerd's annotations of Services.

use std::{collections::BTreeMap, time::Duration};

/// What the `balancer.linkerd.io` and `balancer.alpha.linkerd.io` annotations of a service ask for.
///
/// Nothing is asked for by default: latency alone counts, and no endpoint is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Balancing {
    /// When endpoints that fail are taken out; never when absent.
    pub breaker: Option<Breaker>,
    /// What failures and refusals for their rate add to an endpoint's load; nothing when absent.
    pub penalty: Option<Penalty>,
}

/// When endpoints are taken out, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// After so many failures in a row; zero is for none. Default: 7.
    pub max_failures: u32,
    /// When the success rate is too low; only of unified breakers.
    pub success_rate: Option<SuccessRate>,
    /// The first wait; above zero. Default: 1 s.
    pub min_penalty: Duration,
    /// The longest wait before jitter; at least the first. Default: 60 s.
    pub max_penalty: Duration,
    /// How much of a wait is added to it at random at most, from 0 to 100 times itself. Default: 0.5.
    pub jitter_ratio: f32,
    /// Whether an endpoint's own word on when to come back lengthens a wait. Default: no.
    pub honor_retry_after: bool,
}

/// How much of what an endpoint was asked of late it has to answer well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuccessRate {
    /// The share, above 0 and at most 1. Default: 0.8.
    pub threshold: f64,
    /// Of so long; at least 10 ms. Default: 10 s.
    pub window: Duration,
    /// How many requests of the window it takes until their share counts; at least 1. Default: 5.
    pub min_requests: u32,
}

/// What a failure or a refusal for its rate counts for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalty {
    /// This latency; above zero. Default: 5 s.
    pub latency: Duration,
    /// The longest time that an endpoint's own word on when to come back counts for; above zero. Default: 300 s.
    pub max_retry_after: Duration,
}

/// An annotation whose value is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?}: {expected}")]
#[non_exhaustive]
pub struct AnnotationError {
    /// Its key.
    pub annotation: String,
    /// Its value.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

impl Balancing {
    /// Reads the annotations of a service. Those for something else are left alone.
    ///
    /// # Errors
    /// Each annotation that is wrong, whether or not another turns on what it is about.
    pub fn of(annotations: &BTreeMap<String, String>) -> Result<Self, Vec<AnnotationError>> {
        let mut reader = Reader {
            annotations,
            errors: Vec::new(),
        };
        let balancing = reader.balancing();
        reader.refuse_unknown();
        if reader.errors.is_empty() {
            Ok(balancing)
        } else {
            Err(reader.errors)
        }
    }
}

struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    errors: Vec<AnnotationError>,
}

impl Reader<'_> {
    fn balancing(&mut self) -> Balancing {
        let mode = self.read(MODE, Mode::Off, Mode::parse);
        let least = u32::from(mode != Mode::Unified);
        let max_failures = self.read(MAX_FAILURES, 7, |text| {
            whole(text, least..=u32::MAX, &format!("from {least} on"))
        });
        let min_penalty = self.read(MIN_PENALTY, Duration::from_secs(1), duration);
        let max_penalty = self.read(MAX_PENALTY, Duration::from_mins(1), duration);
        if min_penalty > max_penalty {
            if self.annotations.contains_key(MAX_PENALTY) {
                let expected =
                    format!("must not be less than {MIN_PENALTY}, which is {min_penalty:?}");
                self.wrong(MAX_PENALTY, expected);
            } else {
                let expected = format!(
                    "must not be more than {MAX_PENALTY}, which is {max_penalty:?} unless it is set"
                );
                self.wrong(MIN_PENALTY, expected);
            }
        }
        let jitter_ratio = self.read(JITTER_RATIO, 0.5, |text| {
            let ratio = text.parse().ok();
            ratio
                .filter(|ratio: &f32| (0.0..=100.0).contains(ratio))
                .ok_or_else(|| "must be a number from 0 to 100".to_owned())
        });
        let threshold = self.read(THRESHOLD, 0.8, |text| {
            let share = text.parse().ok();
            share
                .filter(|share: &f64| (0.0..=1.0).contains(share))
                .ok_or_else(|| "must be a number from 0 to 1".to_owned())
        });
        let window = self.read(WINDOW, Duration::from_secs(10), |text| {
            let window = duration(text)?;
            if window < MIN_WINDOW {
                return Err("must be at least 10ms".to_owned());
            }
            Ok(window)
        });
        let min_requests = self.read(MIN_REQUESTS, 5, |text| {
            whole(text, 1..=MAX_MIN_REQUESTS, "from 1 to 1000000")
        });
        let honor_retry_after = self.read(HONOR_RETRY_AFTER, false, truth);
        let penalize = self.read(PENALIZE, false, truth);
        let latency = self.read(PENALTY, Duration::from_secs(5), duration);
        let max_retry_after = self.read(MAX_RETRY_AFTER, Duration::from_mins(5), duration);

        let success_rate = (mode == Mode::Unified && threshold > 0.0).then_some(SuccessRate {
            threshold,
            window,
            min_requests,
        });
        if mode == Mode::Unified && success_rate.is_none() && max_failures == 0 {
            let expected = "must not be 0 where the success rate's threshold is 0 too";
            self.wrong(MAX_FAILURES, expected.to_owned());
        }
        Balancing {
            breaker: (mode != Mode::Off).then_some(Breaker {
                max_failures,
                success_rate,
                min_penalty,
                max_penalty,
                jitter_ratio,
                honor_retry_after,
            }),
            penalty: penalize.then_some(Penalty {
                latency,
                max_retry_after,
            }),
        }
    }

    /// The value of an annotation, else its default.
    fn read<T>(
        &mut self,
        key: &str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let Some(text) = self.annotations.get(key) else {
            return default;
        };
        match parse(text.trim()) {
            Ok(value) => value,
            Err(expected) => {
                self.wrong(key, expected);
                default
            }
        }
    }

    fn wrong(&mut self, key: &str, expected: String) {
        let value = self.annotations.get(key);
        self.errors.push(AnnotationError {
            annotation: key.to_owned(),
            value: value.cloned().unwrap_or_default(),
            expected,
        });
    }

    /// A setting that would silently not count is an error.
    fn refuse_unknown(&mut self) {
        for key in self.annotations.keys() {
            let ours = PREFIXES.iter().any(|prefix| key.starts_with(prefix));
            if ours && !KNOWN.contains(&key.as_str()) {
                self.wrong(
                    key,
                    "no annotation of this name is known: remove it".to_owned(),
                );
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Off,
    Consecutive,
    Unified,
}

impl Mode {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "consecutive" => Ok(Self::Consecutive),
            "unified" => Ok(Self::Unified),
            _ => Err("must be consecutive or unified".to_owned()),
        }
    }
}

fn truth(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| "must be \"true\" or \"false\"".to_owned())
}

fn whole(text: &str, range: std::ops::RangeInclusive<u32>, shown: &str) -> Result<u32, String> {
    let number = text.parse().ok();
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("must be a whole number {shown}"))
}

/// Reads a whole number with its unit: `ms`, `s`, `m`, `h` or `d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a whole number with a unit, as in 500ms, 1s or 2m".to_owned();
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
        return Err("must be more than 0 and at most 1d".to_owned());
    }
    Ok(duration)
}

const PREFIXES: [&str; 2] = ["balancer.linkerd.io/", "balancer.alpha.linkerd.io/"];
const KNOWN: [&str; 12] = [
    MODE,
    MAX_FAILURES,
    MIN_PENALTY,
    MAX_PENALTY,
    JITTER_RATIO,
    THRESHOLD,
    WINDOW,
    MIN_REQUESTS,
    HONOR_RETRY_AFTER,
    PENALIZE,
    PENALTY,
    MAX_RETRY_AFTER,
];
const MODE: &str = "balancer.linkerd.io/failure-accrual";
const MAX_FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
const MIN_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
const MAX_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-penalty";
const JITTER_RATIO: &str = "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio";
const THRESHOLD: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold";
const WINDOW: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-window";
const MIN_REQUESTS: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-min-requests";
const HONOR_RETRY_AFTER: &str = "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after";
const PENALIZE: &str = "balancer.alpha.linkerd.io/penalize-failures";
const PENALTY: &str = "balancer.alpha.linkerd.io/load-biaser-penalty";
const MAX_RETRY_AFTER: &str = "balancer.alpha.linkerd.io/load-biaser-max-retry-after";
const MAX_DURATION: Duration = Duration::from_hours(24);
/// What a linkerd2-proxy takes.
const MIN_WINDOW: Duration = Duration::from_millis(10);
/// What a linkerd2-proxy takes.
const MAX_MIN_REQUESTS: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn balancing(annotations: &[(&str, &str)]) -> Result<Balancing, Vec<AnnotationError>> {
        let annotations = annotations.iter();
        Balancing::of(
            &annotations
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn nothing_asked_nothing_given() {
        assert_eq!(balancing(&[]), Ok(Balancing::default()));
        let unused = [
            (MAX_FAILURES, "3"),
            (THRESHOLD, "0.9"),
            (PENALTY, "2s"),
            (PENALIZE, "false"),
            ("other.example/failure-accrual", "magic"),
        ];
        assert_eq!(balancing(&unused), Ok(Balancing::default()));
    }

    #[test]
    fn defaults_are_linkerds() {
        let (s, breaker) = (Duration::from_secs, |mode| {
            balancing(&[(MODE, mode)]).unwrap().breaker
        });
        let consecutive = Breaker {
            max_failures: 7,
            success_rate: None,
            min_penalty: s(1),
            max_penalty: s(60),
            jitter_ratio: 0.5,
            honor_retry_after: false,
        };
        assert_eq!(breaker("consecutive"), Some(consecutive));
        let success_rate = Some(SuccessRate {
            threshold: 0.8,
            window: s(10),
            min_requests: 5,
        });
        let unified = Breaker {
            success_rate,
            ..consecutive
        };
        assert_eq!(breaker("unified"), Some(unified));
        let penalty = Penalty {
            latency: s(5),
            max_retry_after: s(300),
        };
        let penalized = balancing(&[(PENALIZE, "true")]).unwrap();
        assert_eq!(
            (penalized.penalty, penalized.breaker),
            (Some(penalty), None)
        );
    }

    #[test]
    fn every_setting_counts() {
        let read = balancing(&[
            (MODE, "unified"),
            (MAX_FAILURES, "0"),
            (MIN_PENALTY, "250ms"),
            (MAX_PENALTY, "2m"),
            (JITTER_RATIO, "0"),
            (THRESHOLD, "0.95"),
            (WINDOW, "1m"),
            (MIN_REQUESTS, "20"),
            (HONOR_RETRY_AFTER, "true"),
            (PENALIZE, "true"),
            (PENALTY, "3s"),
            (MAX_RETRY_AFTER, "1h"),
        ]);
        let expected = Balancing {
            breaker: Some(Breaker {
                max_failures: 0,
                success_rate: Some(SuccessRate {
                    threshold: 0.95,
                    window: Duration::from_mins(1),
                    min_requests: 20,
                }),
                min_penalty: Duration::from_millis(250),
                max_penalty: Duration::from_mins(2),
                jitter_ratio: 0.0,
                honor_retry_after: true,
            }),
            penalty: Some(Penalty {
                latency: Duration::from_secs(3),
                max_retry_after: Duration::from_hours(1),
            }),
        };
        assert_eq!(read, Ok(expected));
        let without_rate = balancing(&[(MODE, "unified"), (THRESHOLD, "0")]);
        assert_eq!(without_rate.unwrap().breaker.unwrap().success_rate, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (key, value) in [
            (MODE, "magic"),
            (MAX_FAILURES, "0"),
            (MAX_FAILURES, "many"),
            (MIN_PENALTY, "1"),
            (MIN_PENALTY, "1 s"),
            (MIN_PENALTY, "0s"),
            (MIN_PENALTY, "2m"),
            (MAX_PENALTY, "500ms"),
            (MAX_PENALTY, "9999999999d"),
            (JITTER_RATIO, "-1"),
            (JITTER_RATIO, "NaN"),
            (THRESHOLD, "1.1"),
            (THRESHOLD, "80%"),
            (WINDOW, "9ms"),
            (WINDOW, "2d"),
            (MIN_REQUESTS, "0"),
            (MIN_REQUESTS, "1000001"),
            (HONOR_RETRY_AFTER, "yes"),
            (PENALIZE, "1"),
            (PENALTY, "0s"),
            (MAX_RETRY_AFTER, "300"),
            ("balancer.linkerd.io/failure-acrual", "consecutive"),
            ("balancer.alpha.linkerd.io/load-bias", "true"),
        ] {
            let mut annotations = vec![(MODE, "consecutive")];
            annotations.retain(|(mode, _)| *mode != key);
            annotations.push((key, value));
            let errors = balancing(&annotations).unwrap_err();
            let named: Vec<_> = errors
                .iter()
                .map(|error| (error.annotation.as_str(), error.value.as_str()))
                .collect();
            assert_eq!(named, [(key, value)]);
        }
        let neither = [(MODE, "unified"), (THRESHOLD, "0"), (MAX_FAILURES, "0")];
        assert_eq!(balancing(&neither).unwrap_err()[0].annotation, MAX_FAILURES);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let errors = balancing(&[(MODE, "magic"), (PENALTY, "long")]).unwrap_err();
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "\"magic\": must be consecutive or unified",
                "\"long\": must be a whole number with a unit, as in 500ms, 1s or 2m",
            ]
        );
    }
}
