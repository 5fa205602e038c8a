//! The one signal that tells every part to stop taking work and finish what it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Makes the two halves: the trigger fires once, every clone of the signal sees it.
#[must_use]
pub fn channel() -> (Trigger, Signal) {
    let (sender, receiver) = watch::channel(false);
    let fired = Arc::new(AtomicBool::new(false));
    let trigger = Trigger {
        fired: Arc::clone(&fired),
        sender,
    };
    (trigger, Signal { fired, receiver })
}

/// Fires the drain. Dropping it without firing leaves the signal silent for ever.
#[derive(Debug)]
pub struct Trigger {
    fired: Arc<AtomicBool>,
    sender: watch::Sender<bool>,
}

impl Trigger {
    /// Starts the drain. Further calls do nothing.
    pub fn fire(&self) {
        self.fired.store(true, Ordering::Release);
        self.sender.send_replace(true);
    }
}

/// Sees the drain start. Cheap to clone; usable from any thread and runtime.
#[derive(Clone, Debug)]
pub struct Signal {
    fired: Arc<AtomicBool>,
    receiver: watch::Receiver<bool>,
}

impl Signal {
    /// Whether the drain has started: one atomic load.
    #[must_use]
    pub fn fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// Resolves when the drain starts, at once if it already has. Cancel safe.
    pub async fn recv(&self) {
        let mut receiver = self.receiver.clone();
        if receiver.wait_for(|fired| *fired).await.is_err() {
            // The trigger is gone and never fired: no drain will come.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Duration, timeout};

    #[tokio::test(start_paused = true)]
    async fn every_clone_sees_the_signal_before_and_after_it_fires() {
        let (trigger, signal) = channel();
        let early = signal.clone();
        assert!(!early.fired());
        assert!(
            timeout(Duration::from_secs(60), early.recv())
                .await
                .is_err()
        );
        let waiting = tokio::spawn(async move { early.recv().await });
        trigger.fire();
        trigger.fire();
        waiting.await.unwrap();
        assert!(signal.fired());
        signal.recv().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_trigger_is_not_a_drain() {
        let (trigger, signal) = channel();
        drop(trigger);
        assert!(
            timeout(Duration::from_secs(60), signal.recv())
                .await
                .is_err()
        );
        assert!(!signal.fired());
    }
}
