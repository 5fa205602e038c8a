//! How large a connection's windows have to be, from what comes in during a round trip.

use std::time::Duration;

/// Beyond this, TCP's own flow control is what limits.
pub(crate) const MAX_WINDOW: usize = 16 << 20;
/// How long after a round trip the next one is measured, at least and at most.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The share that a new round-trip time has in the estimate.
const GAIN: f64 = 0.125;

/// The bandwidth-delay product as far as it was seen: once what comes in during a round trip nearly fills the window while
/// the bandwidth still grows, the window doubles. A value, told of round trips.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    bytes: usize,
    bandwidth: f64,
    round_trip: Option<f64>,
    pause: Duration,
}

impl Window {
    /// Begins at a window of so many bytes.
    pub(crate) fn new(bytes: u32) -> Self {
        Self {
            bytes: bytes as usize,
            bandwidth: 0.0,
            round_trip: None,
            pause: MIN_PAUSE,
        }
    }

    /// How long to wait before the next round trip is measured.
    pub(crate) fn pause(&self) -> Duration {
        self.pause
    }

    /// So many bytes came in during a round trip. Gives the new window, if it is to grow.
    pub(crate) fn measured(&mut self, bytes: usize, took: Duration) -> Option<u32> {
        let took = took.as_secs_f64().max(1e-6);
        let before = self.round_trip.unwrap_or(took);
        let round_trip = before + GAIN * (took - before);
        self.round_trip = Some(round_trip);
        let bandwidth = bytes as f64 / round_trip;
        let faster = bandwidth > self.bandwidth;
        self.bandwidth = self.bandwidth.max(bandwidth);
        if !faster || self.bytes >= MAX_WINDOW || bytes < self.bytes / 3 * 2 {
            self.pause = (self.pause * 2).min(MAX_PAUSE);
            return None;
        }
        self.bytes = (2 * bytes).min(MAX_WINDOW);
        self.pause = MIN_PAUSE;
        u32::try_from(self.bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(50);

    /// A path of 1 Gbit/s and 50 ms lets in what the window does, up to 6.25 MB a round trip.
    #[test]
    fn it_grows_to_what_the_path_carries_and_no_further() {
        let mut window = Window::new(65_535);
        let mut bytes = 65_535;
        for _ in 0..40 {
            let came = bytes.min(6_250_000);
            bytes = window
                .measured(came, ROUND_TRIP)
                .map_or(bytes, |new| new as usize);
        }
        assert!((6_250_000..=2 * 6_250_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn it_never_exceeds_its_bound() {
        let mut window = Window::new(65_535);
        let mut bytes = 65_535;
        for _ in 0..40 {
            bytes = window
                .measured(bytes, ROUND_TRIP)
                .map_or(bytes, |new| new as usize);
        }
        assert_eq!(bytes, MAX_WINDOW);
    }

    #[test]
    fn a_quiet_connection_is_measured_more_and_more_rarely() {
        let mut window = Window::new(65_535);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert_eq!(window.measured(100, ROUND_TRIP), None);
            pauses.push(window.pause());
        }
        assert!(pauses.is_sorted());
        assert_eq!(*pauses.last().unwrap(), MAX_PAUSE);
    }
}
