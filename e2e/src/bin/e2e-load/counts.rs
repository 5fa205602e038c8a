//! What came of attempts.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::time::Instant;

use e2e::{Report, SAMPLES};

const LATENCIES_KEPT: usize = 1_000_000;

#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) report: RefCell<Report>,
    latencies: RefCell<Vec<u64>>,
    start: Instant,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            report: RefCell::default(),
            latencies: RefCell::default(),
            start: Instant::now(),
        }
    }
}

impl Counts {
    pub(crate) fn record(&self, began: Instant, outcome: Result<String, Failure>) {
        let mut report = self.report.borrow_mut();
        match outcome {
            Ok(server) => {
                report.ok += 1;
                *report.served_by.entry(server).or_default() += 1;
                let mut latencies = self.latencies.borrow_mut();
                if latencies.len() < LATENCIES_KEPT {
                    latencies.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                }
            }
            Err(Failure { kind, text }) => {
                *report.failures.entry(kind.to_owned()).or_default() += 1;
                if report.samples.len() < SAMPLES {
                    let at = self.start.elapsed().as_secs_f32();
                    report.samples.push(format!("{at:.3}s {kind}: {text}"));
                }
            }
        }
    }

    pub(crate) fn percentiles(&self) -> [u64; 3] {
        let mut sorted = self.latencies.borrow().clone();
        sorted.sort_unstable();
        let at = |part: usize| {
            sorted
                .get((sorted.len() * part / 1000).min(sorted.len().saturating_sub(1)))
                .copied()
        };
        [500, 990, 1000].map(|part| at(part).unwrap_or_default())
    }
}

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::ConnectionReset => "reset",
            ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => "closed",
            _ => "other",
        };
        Self::new(kind, error.to_string())
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        let mut text = error.to_string();
        let mut kind = if error.is_incomplete_message() || error.is_canceled() || error.is_closed()
        {
            "closed"
        } else {
            "other"
        };
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                kind = Self::from(io::Error::from(error.kind())).kind;
            }
            source = cause.source();
        }
        if text.contains("refused stream") {
            kind = "refused";
        } else if text.contains("stream error") {
            kind = "reset";
        }
        Self { kind, text }
    }
}
