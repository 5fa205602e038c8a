//! What the machine did with its time.

use crate::error::Error;

/// Where the kernel counts it.
const STAT: &str = "/proc/stat";
/// Of the counters in the kernel's order, those that add up to all time: user, nice, system, idle, iowait, irq, softirq and steal.
/// Those after them count time of guests, which user and nice contain already.
const COUNTERS: usize = 8;
/// Which of them are of cores that had nothing to do: idle and iowait.
const AT_REST: [usize; 2] = [3, 4];

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
    /// If the kernel does not tell.
    pub(crate) fn now() -> Result<Self, Error> {
        let text = std::fs::read_to_string(STAT).map_err(Error::file(STAT))?;
        Ok(Self::parse(&text))
    }

    /// The first line is of all cores; what an old kernel does not count is 0.
    fn parse(text: &str) -> Self {
        let line = text.lines().next().unwrap_or_default();
        let counters = line.split_ascii_whitespace().skip(1).take(COUNTERS);
        let counters: Vec<u64> = counters.map(|one| one.parse().unwrap_or(0)).collect();
        let counter = |at: usize| counters.get(at).copied().unwrap_or(0);
        let at_rest: u64 = AT_REST.into_iter().map(counter).sum();
        Self {
            busy: counters.iter().sum::<u64>() - at_rest,
            stolen: counter(COUNTERS - 1),
        }
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
        let before = Machine::parse("cpu  10 0 5 78 2 0 1 4 7 0\ncpu0 1 2 3");
        assert_eq!(
            before,
            Machine {
                busy: 20,
                stolen: 4
            }
        );
        let after = Machine::parse("cpu  75 0 5 100 3 0 1 39 50 0\n");
        assert_eq!(after.stolen_since(before), 0.35);
        assert_eq!(after.stolen_since(after), 0.0);
        // A kernel that does not count it.
        assert_eq!(
            Machine::parse("cpu 1 2 3 4"),
            Machine { busy: 6, stolen: 0 }
        );
        assert_eq!(Machine::parse(""), Machine::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_tells() {
        assert!(Machine::now().unwrap().busy > 0);
    }
}
