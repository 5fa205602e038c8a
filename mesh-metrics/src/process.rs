//! What the kernel says of this process, read from `/proc` at each scrape (Linux; nothing elsewhere).

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// The `process_*` families, as the Prometheus guide for client libraries names them.
#[derive(Debug)]
pub(crate) struct Process;

/// The unit of times in `/proc` (`USER_HZ`, 100 on every architecture Rust has a Linux target for; `proc_stat(5)`).
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sample {
    Counter(f64),
    Gauge(f64),
}

/// What `/proc/self/stat` says, in ticks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    /// Since boot.
    start_ticks: u64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, sample) in samples() {
            let metric = encoder.encode_descriptor(name, help, None, sample.metric_type())?;
            sample.encode(metric)?;
        }
        Ok(())
    }
}

fn samples() -> Vec<(&'static str, &'static str, Sample)> {
    let mut samples = Vec::new();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let stat = parse_stat(&read("/proc/self/stat"));
    if let Some(stat) = stat {
        let seconds = ticks_to_seconds(stat.cpu_ticks);
        samples.push((
            "process_cpu_seconds",
            "CPU time used, user and system, in seconds.",
            Sample::Counter(seconds),
        ));
        if let Some(boot) = field(&read("/proc/stat"), "btime") {
            samples.push((
                "process_start_time_seconds",
                "When the process started, in seconds since 1970.",
                Sample::Gauge(boot + ticks_to_seconds(stat.start_ticks)),
            ));
        }
    }
    let status = read("/proc/self/status");
    let mut gauge = |name, help, value: Option<f64>| {
        samples.extend(value.map(|value| (name, help, Sample::Gauge(value))));
    };
    let kibibytes = |name| field(&status, name).map(|kibibytes| kibibytes * 1024.0);
    gauge(
        "process_resident_memory_bytes",
        "Memory that is resident, in bytes.",
        kibibytes("VmRSS:"),
    );
    gauge(
        "process_virtual_memory_bytes",
        "Memory that is mapped, in bytes.",
        kibibytes("VmSize:"),
    );
    gauge("process_threads", "Threads.", field(&status, "Threads:"));
    gauge(
        "process_open_fds",
        "File descriptors that are open.",
        // Reading the folder opens one more.
        fs::read_dir("/proc/self/fd")
            .ok()
            .map(|fds| fds.count().saturating_sub(1) as f64),
    );
    gauge(
        "process_max_fds",
        "File descriptors that may be open.",
        field(&read("/proc/self/limits"), "Max open files"),
    );
    samples
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn parse_stat(stat: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let numbers: Vec<&str> = rest.split_whitespace().collect();
    // `rest` starts with the third field: state. Then utime is the 14th, stime the 15th and starttime the 22nd.
    let number = |field: usize| numbers.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: number(14)?.saturating_add(number(15)?),
        start_ticks: number(22)?,
    })
}

fn ticks_to_seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}

impl Sample {
    fn metric_type(self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
        }
    }
}

impl EncodeMetric for Sample {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter(value) => encoder.encode_counter::<NoLabelSet, f64, f64>(value, None),
            Self::Gauge(value) => encoder.encode_gauge(value),
        }
    }

    fn metric_type(&self) -> MetricType {
        (*self).metric_type()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_may_hold_anything() {
        let fields: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) S (b c)) R {}", fields.join(" "));
        let expected = Stat {
            cpu_ticks: 29,
            start_ticks: 22,
        };
        assert_eq!(parse_stat(&stat), Some(expected));
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_stat("1 (x) R 1 2"), None);
    }

    #[test]
    fn a_field_is_found_at_the_start_of_its_line() {
        let status = "Name:\tVmRSS: 9\nVmRSS:\t  12 kB\n";
        assert_eq!(field(status, "VmRSS:"), Some(12.0));
        assert_eq!(
            field("Max open files            unlimited\n", "Max open files"),
            None
        );
    }
}
