//! What is seen of the proxies meanwhile: memory, and the leaves they have.

use std::fmt::Write as _;
use std::time::Duration;

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

/// Everything that was seen of memory, a line for each sample.
pub(super) fn memory_csv(proxies: &[Watched<'_>]) -> String {
    let mut text = "sample,proxy,rss_kib\n".to_owned();
    for proxy in proxies {
        for (sample, kib) in (1_u32..).zip(&proxy.rss_kib) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{sample},{},{kib}", proxy.name);
        }
    }
    text
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

/// What became of memory in the second half: a line through the least of each short stretch of it. A leak is what memory does not fall
/// below; what waits in queues for a moment, on a machine that others have meanwhile, is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Growth {
    /// How much the line rises from the middle to the end, in KiB; negative where it falls.
    pub(super) kib: f64,
    /// How much more or less it may be, by how far these lie from the line (95%), in KiB.
    pub(super) noise_kib: f64,
}

impl Growth {
    /// What memory may have grown by in the second half, in KiB: more is taken for a leak, and noise that could hide more for no answer.
    const BOUND_KIB: f64 = 1024.0;
    /// Stretches of the second half.
    const STRETCHES: usize = 10;
    /// Student's t for 95% on both sides, for a line through as many points.
    const T: f64 = 2.306;

    /// Of what was seen at even times, from the beginning to the end; `None` if that is too little to tell.
    pub(super) fn of(rss_kib: &[u64]) -> Option<Self> {
        let half = &rss_kib[rss_kib.len() / 2..];
        let length = half.len() / Self::STRETCHES;
        if length < 2 {
            return None;
        }
        // The last ones, where it does not come out even.
        let half = &half[half.len() - length * Self::STRETCHES..];
        let least = |stretch: &[u64]| stretch.iter().min().map(|kib| *kib as f64);
        let floor: Vec<f64> = half.chunks(length).filter_map(least).collect();
        let mean = floor.iter().sum::<f64>() / floor.len() as f64;
        let middle = (floor.len() - 1) as f64 / 2.0;
        let points = || (0..floor.len()).map(|n| n as f64 - middle).zip(&floor);
        let width: f64 = points().map(|(x, _)| x * x).sum();
        let slope = points().map(|(x, y)| x * (y - mean)).sum::<f64>() / width;
        let off: f64 = points().map(|(x, y)| (y - mean - slope * x).powi(2)).sum();
        let error = (off / (floor.len() - 2) as f64 / width).sqrt();
        let whole = floor.len() as f64;
        Some(Self {
            kib: slope * whole,
            noise_kib: Self::T * error * whole,
        })
    }

    /// What is to be said of it.
    pub(super) fn verdict(self) -> Verdict {
        if self.kib + self.noise_kib <= Self::BOUND_KIB {
            Verdict::Flat
        } else if self.kib > self.noise_kib {
            Verdict::Grows
        } else {
            Verdict::TooNoisy
        }
    }

    /// What counts as flat in a run of this length, for the report.
    pub(super) fn criterion(time: Duration) -> String {
        format!(
            "a line through the least of every twentieth of the run, noise included, rises in the second half by at most {:.0} KiB, which is {:.1} MiB/h in a run of {} s",
            Self::BOUND_KIB,
            per_hour(Self::BOUND_KIB, time),
            time.as_secs()
        )
    }

    /// Growth and noise in MiB/h, for a run of this length.
    pub(super) fn describe(self, time: Duration) -> String {
        let [growth, noise] = [self.kib, self.noise_kib].map(|kib| per_hour(kib, time));
        format!("{growth:.1} ±{noise:.1} MiB/h")
    }
}

/// What is said of a proxy's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Flat,
    Grows,
    TooNoisy,
    TooShort,
}

impl Verdict {
    /// What a process takes at its start takes it minutes to have: before, growth says nothing.
    pub(super) const SHORTEST: Duration = Duration::from_secs(300);

    /// Of memory at even times of a run of this length.
    pub(super) fn of(growth: Option<Growth>, time: Duration) -> Self {
        match growth {
            Some(growth) if time >= Self::SHORTEST => growth.verdict(),
            _ => Self::TooShort,
        }
    }

    /// Whether the run has failed. One that was too short was not made for this.
    pub(super) fn is_fault(self) -> bool {
        matches!(self, Self::Grows | Self::TooNoisy)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Grows => "grows",
            Self::TooNoisy => "too noisy to tell",
            Self::TooShort => "too short to tell",
        }
    }
}

/// KiB in half of `time` as MiB in an hour.
fn per_hour(kib: f64, time: Duration) -> f64 {
    kib / 1024.0 / (time.as_secs_f64() / 2.0) * 3600.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,200 samples of ten minutes: half a MiB of noise that repeats, and what is added.
    fn ten_minutes(added: impl Fn(u64) -> u64) -> Vec<u64> {
        let noise = |n: u64| n * 7_919 % 512;
        (0..1_200).map(|n| 30_000 + noise(n) + added(n)).collect()
    }

    fn verdict(samples: &[u64]) -> Verdict {
        Growth::of(samples).unwrap().verdict()
    }

    #[test]
    fn growth_at_the_start_is_no_leak() {
        let mut samples = ten_minutes(|n| 50 * n.min(600));
        assert_eq!(verdict(&samples), Verdict::Flat);
        samples[1_000] += 50_000;
        assert_eq!(verdict(&samples), Verdict::Flat, "one peak");
        let queues = ten_minutes(|n| if n % 40 < 30 { n * 13 } else { 0 });
        assert_eq!(verdict(&queues), Verdict::Flat, "what is soon gone again");
    }

    #[test]
    fn a_leak_of_23_mib_an_hour_is_seen() {
        // 1,200 samples are ten minutes.
        let leak = ten_minutes(|n| 23 * 1_024 * n / 7_200);
        assert_eq!(verdict(&leak), Verdict::Grows);
        let among_peaks = ten_minutes(|n| 23 * 1_024 * n / 7_200 + n * 31 % 40 * 100);
        assert_eq!(verdict(&among_peaks), Verdict::Grows);
        let growth = Growth::of(&leak).unwrap();
        let told = growth.describe(Duration::from_secs(600));
        let per_hour = per_hour(growth.kib, Duration::from_secs(600));
        assert!((22.0..24.0).contains(&per_hour), "{told}");
    }

    #[test]
    fn noise_that_could_hide_a_leak_is_no_answer() {
        let waves = ten_minutes(|n| if n % 160 < 80 { 0 } else { 6_000 });
        assert_eq!(verdict(&waves), Verdict::TooNoisy);
    }

    #[test]
    fn too_few_samples_tell_nothing() {
        assert_eq!(Growth::of(&[1; 38]), None);
        let growth = Growth::of(&[1; 40]);
        assert!(growth.is_some());
        let [minute, hour] = [60, 3_600].map(Duration::from_secs);
        assert_eq!(Verdict::of(growth, minute), Verdict::TooShort);
        assert_eq!(Verdict::of(growth, hour), Verdict::Flat);
        assert_eq!(Verdict::of(None, hour), Verdict::TooShort);
    }

    #[test]
    fn the_bound_is_said_by_the_hour() {
        let said = Growth::criterion(Duration::from_secs(600));
        assert!(said.contains("12.0 MiB/h in a run of 600 s"), "{said}");
    }

    #[test]
    fn the_leaf_is_read_from_the_metrics() {
        let metrics = "# HELP x\ncontrol_identity_cert_expiration_timestamp_seconds 1795370000.5\n";
        assert_eq!(leaf_expiry(metrics), Some(1_795_370_000));
        assert_eq!(leaf_expiry("other 1\n"), None);
    }
}
