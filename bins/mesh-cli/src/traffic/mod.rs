//! Load through the mesh: calls at a steady rate, never tried twice, and what came of them.

mod client;
mod histogram;
mod report;
mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use self::client::Caller;
pub(crate) use self::report::Report;
use self::report::Seen;
pub(crate) use self::target::{Call, Target, targets};
use crate::Error;

/// Connections to each target.
const CONNECTIONS: u32 = 4;

/// Load that runs on a thread of its own until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    seen: Vec<Arc<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts calling each of `targets`, `rate` times a second.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(crate) fn start(targets: Vec<Target>, rate: u32) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen: Vec<_> = targets
            .iter()
            .map(|target| Arc::new(Seen::new(target)))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let (stopped, seen_there) = (stop.clone(), seen.clone());
        let work = move || {
            runtime.block_on(async {
                let mut callers = tokio::task::JoinSet::new();
                for (target, seen) in targets.into_iter().zip(seen_there) {
                    for number in 0..CONNECTIONS {
                        callers.spawn(call(
                            target.clone(),
                            number,
                            rate,
                            seen.clone(),
                            stopped.clone(),
                        ));
                    }
                }
                // Each call has a deadline, so each caller ends.
                callers.join_all().await;
            });
        };
        let thread = std::thread::Builder::new()
            .name("traffic".to_owned())
            .spawn(work)
            .map_err(Error::Runtime)?;
        Ok(Self {
            stop,
            seen,
            thread: Some(thread),
        })
    }

    /// What came of it so far.
    pub(crate) fn report(&self) -> Report {
        Report::new(self.seen.iter().map(|seen| seen.counts()).collect())
    }

    /// Lets the calls under way finish, and says what came of all of them.
    pub(crate) async fn finish(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has counted what it counted.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.report()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn call(target: Target, number: u32, rate: u32, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    let every = Duration::from_secs(1) * CONNECTIONS / rate;
    // Callers take turns rather than call all at once.
    let mut ticks = interval_at(Instant::now() + every * number / CONNECTIONS, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut caller = Caller::new(target);
    loop {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let began = Instant::now();
        let outcome = caller.call().await;
        seen.count(began.elapsed(), outcome);
    }
}
