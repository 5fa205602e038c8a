//! How linkerd2-proxy writes what is written otherwise here.

use std::time::Duration;

use crate::config::value::Value;
use crate::config::{LogFormat, Pem};

/// How many threads linkerd2-proxy would use.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Cores {
    pub(super) min: Option<usize>,
    pub(super) max: Option<usize>,
    pub(super) max_ratio: Option<f64>,
}

impl Cores {
    /// The most that is allowed, else that share of the machine, else one; but the least that is asked for, and no more
    /// than there are. `None` when nothing was said.
    pub(super) fn workers(&self, available: usize) -> Option<usize> {
        if self.min.is_none() && self.max.is_none() && self.max_ratio.is_none() {
            return None;
        }
        let share = |ratio: f64| {
            // Cores are few, and the ratio is from 0 to 1.
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss
            )]
            let share = (available as f64 * ratio).round() as usize;
            (share > 0).then_some(share)
        };
        let most = self
            .max
            .or_else(|| self.max_ratio.and_then(share))
            .unwrap_or(1);
        Some(most.max(self.min.unwrap_or(1)).min(available.max(1)))
    }
}

/// A count of cores.
pub(super) fn cores(text: &str) -> Result<usize, String> {
    match usize::parse(text) {
        Ok(0) | Err(_) => Err(format!("expected a whole number from 1, found {text:?}")),
        Ok(cores) => Ok(cores),
    }
}

/// A share of the machine's cores.
pub(super) fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if ratio > 0.0 && ratio <= 1.0 => Ok(ratio),
        _ => Err(format!(
            "expected a number over 0 and up to 1, found {text:?}"
        )),
    }
}

/// A duration; nothing at all needs no unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        text => Duration::parse(text),
    }
}

/// Trust anchors, each once: bundles are put together of others, which may overlap.
pub(super) fn anchors(text: &str) -> Result<Option<Pem>, String> {
    let mut distinct: Vec<&str> = Vec::new();
    for anchor in text.split_inclusive(END).map(str::trim) {
        if !distinct.contains(&anchor) {
            distinct.push(anchor);
        }
    }
    Pem::parse(&distinct.join("\n")).map(Some)
}

/// What a certificate in PEM ends with.
const END: &str = "-----END CERTIFICATE-----";

/// A duration that need not be set.
pub(super) fn limit(text: &str) -> Result<Option<Duration>, String> {
    duration(text).map(Some)
}

/// A count of connections, of which no more than a kernel holds are granted.
pub(super) fn backlog(text: &str) -> Result<u16, String> {
    u32::parse(text).map(|count| u16::try_from(count).unwrap_or(u16::MAX))
}

/// A duration of which no more than two minutes are granted.
pub(super) fn grace(text: &str) -> Result<Duration, String> {
    Ok(duration(text)?.min(Duration::from_secs(120)))
}

/// Log directives. What linkerd2-proxy calls `linkerd`, its own code, is `mesh` here.
pub(super) fn log(text: &str) -> Result<String, String> {
    let directive = |directive: &str| {
        let directive = directive.trim();
        match directive.strip_prefix("linkerd") {
            Some(rest) if rest.is_empty() || rest.starts_with(['=', '[']) => format!("mesh{rest}"),
            _ => directive.to_owned(),
        }
    };
    Ok(text.split(',').map(directive).collect::<Vec<_>>().join(","))
}

/// Anything but `JSON` is plain text.
pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    let json = text.eq_ignore_ascii_case("json");
    LogFormat::parse(if json { "json" } else { "plain" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_bounded_from_both_sides() {
        for (min, max, max_ratio, workers) in [
            (None, None, None, None),
            (Some(2), None, None, Some(2)),
            (Some(9), None, None, Some(8)),
            (None, Some(3), Some(1.0), Some(3)),
            (None, None, Some(0.5), Some(4)),
            (None, None, Some(0.01), Some(1)),
            (Some(3), Some(2), None, Some(3)),
        ] {
            let cores = Cores {
                min,
                max,
                max_ratio,
            };
            assert_eq!(cores.workers(8), workers, "{cores:?}");
        }
        for wrong in ["0", "-1", "x", ""] {
            assert!(super::cores(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "1.1", "NaN", "x"] {
            assert!(ratio(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn anchors_count_once() {
        let anchor = |name: &str| format!("-----BEGIN CERTIFICATE-----\n{name}\n{END}\n");
        let (a, b) = (anchor("a"), anchor("b"));
        let bundle = anchors(&[a.as_str(), &b, "\n", &a].concat()).unwrap();
        assert_eq!(bundle.unwrap().0.trim(), [a, b].concat().trim());
        assert!(anchors("").is_err());
    }

    #[test]
    fn its_own_code_is_ours() {
        assert_eq!(
            log("warn, linkerd=info,linkerd[span]=debug,linkerd_app=debug,linkerd").unwrap(),
            "warn,mesh=info,mesh[span]=debug,linkerd_app=debug,mesh"
        );
    }

    #[test]
    fn nothing_needs_no_unit() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("1").is_err());
        assert_eq!(grace("5m"), Ok(Duration::from_secs(120)));
    }
}
