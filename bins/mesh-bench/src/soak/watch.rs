//! What is seen of the proxies meanwhile: memory, and the leaves they have.

use crate::error::Error;
use crate::stage::{Child, Host};

/// A proxy that is watched.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    /// Who it is, in the report.
    pub(super) name: &'static str,
    process: &'a Child,
    host: &'a Host,
    admin: u16,
    /// Memory in KiB, at even times.
    pub(super) rss_kib: Vec<u64>,
    /// When each of its leaves expires, in seconds since 1970.
    pub(super) expiries: Vec<u64>,
}

/// All proxies that are watched.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    pub(super) proxies: Vec<Watched<'a>>,
    samples: u32,
}

impl<'a> Watch<'a> {
    /// Each with its process, its host and the port on which it answers about itself.
    pub(super) fn new(proxies: Vec<(&'static str, &'a Child, &'a Host, u16)>) -> Self {
        let proxies = proxies
            .into_iter()
            .map(|(name, process, host, admin)| Watched {
                name,
                process,
                host,
                admin,
                rss_kib: Vec::new(),
                expiries: Vec::new(),
            });
        Self {
            proxies: proxies.collect(),
            samples: 0,
        }
    }

    /// Looks once more.
    ///
    /// # Errors
    /// If a proxy has ended, or does not answer.
    pub(super) fn sample(&mut self) -> Result<(), Error> {
        self.samples += 1;
        for proxy in &mut self.proxies {
            proxy.rss_kib.push(proxy.process.usage()?.rss_kib);
            if self.samples % METRICS_EVERY == 1 {
                let url = format!("http://127.0.0.1:{}/metrics", proxy.admin);
                let metrics = proxy.host.run("curl", &["-sSf", "--noproxy", "*", &url])?;
                if let Some(expiry) = leaf_expiry(&metrics)
                    && proxy.expiries.last() != Some(&expiry)
                {
                    proxy.expiries.push(expiry);
                }
            }
        }
        Ok(())
    }
}

/// Metrics are asked for with every so many samples.
const METRICS_EVERY: u32 = 4;

fn leaf_expiry(metrics: &str) -> Option<u64> {
    const NAME: &str = "control_identity_cert_expiration_timestamp_seconds";
    let line = metrics.lines().find(|line| line.starts_with(NAME))?;
    let value: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds since 1970"
    )]
    Some(value as u64)
}

/// Whether memory stayed as it was in the second half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flatness {
    /// The median of the third quarter, in KiB.
    pub(super) third_kib: u64,
    /// The median of the last quarter, in KiB.
    pub(super) last_kib: u64,
}

impl Flatness {
    /// What counts as flat, for the report.
    pub(super) const CRITERION: &str = "the median of the last quarter is at most 3% or 512 KiB (whichever is more) over that of the quarter before";

    /// `None` if there are too few samples to tell.
    pub(super) fn of(rss_kib: &[u64]) -> Option<Self> {
        let half = rss_kib.len() / 2;
        let quarter = rss_kib.len().div_ceil(4);
        if quarter < 3 {
            return None;
        }
        let split = rss_kib.len() - quarter;
        Some(Self {
            third_kib: median(&rss_kib[half..split])?,
            last_kib: median(&rss_kib[split..])?,
        })
    }

    pub(super) fn is_flat(self) -> bool {
        let room = (self.third_kib * 3 / 100).max(512);
        self.last_kib <= self.third_kib + room
    }
}

fn median(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_at_the_start_is_no_leak() {
        let mut samples: Vec<u64> = (0..40).map(|n| 10_000 + 500 * n.min(15)).collect();
        assert!(Flatness::of(&samples).unwrap().is_flat());
        samples[39] += 5_000;
        assert!(Flatness::of(&samples).unwrap().is_flat(), "one peak");
    }

    #[test]
    fn steady_growth_is_seen() {
        let leak: Vec<u64> = (0..40).map(|n| 10_000 + 100 * n).collect();
        assert!(!Flatness::of(&leak).unwrap().is_flat());
    }

    #[test]
    fn too_few_samples_tell_nothing() {
        assert_eq!(Flatness::of(&[1; 7]), None);
    }

    #[test]
    fn the_leaf_is_read_from_the_metrics() {
        let metrics = "# HELP x\ncontrol_identity_cert_expiration_timestamp_seconds 1795370000.5\n";
        assert_eq!(leaf_expiry(metrics), Some(1_795_370_000));
        assert_eq!(leaf_expiry("other 1\n"), None);
    }
}
