//! What the machine did with its time.

use std::io;

use crate::error::Error;

/// Where the kernel counts it.
const STAT: &str = "/proc/stat";
/// Of the counters in the kernel's order, those that add up to all time: user, nice, system, idle, iowait, irq, softirq and steal.
/// Those after them count time of guests, which user and nice contain already.
const COUNTERS: usize = 8;

/// The time of all cores together since the machine started, in the kernel's ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// When a core had work, whether or not it could do it.
    busy: u64,
    /// Of that, when the hypervisor had the hardware do others' work instead.
    stolen: u64,
}

impl Machine {
    /// Up to now.
    ///
    /// # Errors
    /// If the kernel does not tell: what nobody counted is not to be taken for nothing.
    pub(crate) fn now() -> Result<Self, Error> {
        let text = std::fs::read_to_string(STAT).map_err(Error::file(STAT))?;
        Self::parse(&text).ok_or_else(|| {
            let missing = "its first line does not have the eight counters of all cores";
            Error::file(STAT)(io::Error::new(io::ErrorKind::InvalidData, missing))
        })
    }

    /// The first line is of all cores; `None` if it does not have all counters.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let counters = line.split_ascii_whitespace().take(COUNTERS);
        let counters: Vec<u64> = counters
            .map(|one| one.parse().ok())
            .collect::<Option<_>>()?;
        let [user, nice, system, _idle, _iowait, irq, softirq, stolen] = counters[..] else {
            return None;
        };
        Some(Self {
            busy: user + nice + system + irq + softirq + stolen,
            stolen,
        })
    }

    /// Which share of the time that there was work since then others on the same hardware had: of 1.
    pub(crate) fn stolen_since(self, then: Self) -> f64 {
        match self.busy.saturating_sub(then.busy) {
            0 => 0.0,
            busy => self.stolen.saturating_sub(then.stolen) as f64 / busy as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_had_is_told_of_the_time_that_there_was_work() {
        let parse = |text| Machine::parse(text).unwrap();
        let before = parse("cpu  10 0 5 78 2 0 1 4 7 0\ncpu0 1 2 3");
        let (busy, stolen) = (20, 4);
        assert_eq!(before, Machine { busy, stolen });
        let after = parse("cpu  75 0 5 100 3 0 1 39 50 0\n");
        assert_eq!(after.stolen_since(before), 0.35);
        assert_eq!(after.stolen_since(after), 0.0);
    }

    #[test]
    fn what_is_not_counted_is_not_taken_for_nothing() {
        for text in [
            "",
            "cpu 1 2 3 4",
            "cpu 1 2 3 4 5 6 7 x",
            "cpu0 1 2 3 4 5 6 7 8",
        ] {
            assert_eq!(Machine::parse(text), None, "{text}");
        }
    }

    /// The kernel's own words, and that they are of all cores: what this thread has used is in them.
    #[cfg(target_os = "linux")]
    #[test]
    fn work_done_here_is_counted() {
        let before = Machine::now().unwrap();
        let began = std::time::Instant::now();
        while Machine::now().unwrap().busy < before.busy + 5 {
            assert!(began.elapsed().as_secs() < 30, "{before:?}");
        }
    }
}
