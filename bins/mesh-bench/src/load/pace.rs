//! When requests of an open loop are due.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};

/// A schedule of evenly spaced requests, for whichever connection is free first.
pub(crate) struct Pace {
    interval: Duration,
    due: RefCell<VecDeque<Instant>>,
    waiting: Semaphore,
    made: Cell<u32>,
}

impl Pace {
    /// So many a second; at least one.
    pub(crate) fn new(rate: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / rate.max(1),
            due: RefCell::default(),
            waiting: Semaphore::new(0),
            made: Cell::new(0),
        }
    }

    /// Makes requests due, for ever.
    pub(crate) async fn keep(self: Rc<Self>) {
        let start = Instant::now();
        let mut ticks = ticks(start, self.interval);
        while let Some(count) = ticks.recv().await {
            self.release(start, count);
        }
    }

    /// Makes as many more due, each when it should have begun.
    fn release(&self, start: Instant, count: u32) {
        for _ in 0..count {
            let number = self.made.get().saturating_add(1);
            self.made.set(number);
            self.due
                .borrow_mut()
                .push_back(start + self.interval * number);
        }
        self.waiting.add_permits(count as usize);
    }

    /// When the next request should have begun, as soon as that has come.
    pub(crate) async fn next(&self) -> Instant {
        if let Ok(permit) = self.waiting.acquire().await {
            permit.forget();
        }
        // A permit is given for each that is due, so there is one.
        let due = self.due.borrow_mut().pop_front();
        due.unwrap_or_else(Instant::now)
    }
}

/// How many intervals have passed since it was said last. The clock is a thread's: the runtime's own timer is only good to
/// a millisecond.
fn ticks(start: Instant, interval: Duration) -> mpsc::UnboundedReceiver<u32> {
    let (send, ticks) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut told: u32 = 0;
        loop {
            let next = start + interval * told.saturating_add(1);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let passed = start.elapsed().as_nanos() / interval.as_nanos().max(1);
            let passed = u32::try_from(passed).unwrap_or(u32::MAX);
            if passed > told && send.send(passed - told).is_err() {
                return;
            }
            told = passed;
        }
    });
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn who_comes_late_is_told_when_it_should_have_begun() {
        let pace = Pace::new(1000);
        let start = Instant::now();
        pace.release(start, 3);
        for number in 1..=3 {
            let due = pace.next().await;
            assert_eq!(due, start + Duration::from_millis(number));
        }
        // The schedule goes on where it was, however late the next ones are made due.
        pace.release(start, 1);
        assert_eq!(pace.next().await, start + Duration::from_millis(4));
    }
}
