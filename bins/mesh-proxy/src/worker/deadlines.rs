//! How long a request may take.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use mesh_policy::outbound::Timeouts;
use tokio::time::{Instant, Sleep, sleep_until};

use super::body::Progress;

/// The deadlines of one request, from its head to the end of its response.
#[derive(Debug)]
pub(crate) struct Deadlines {
    timeouts: Timeouts,
    started: Instant,
    /// When the response last moved.
    moved: Instant,
    /// Of the request's body; `None` when there is none.
    progress: Option<Rc<Progress>>,
    sleep: Pin<Box<Sleep>>,
}

impl Deadlines {
    /// Those of a request that starts now; `None` where nothing is bounded.
    pub(crate) fn new(timeouts: Timeouts, progress: Option<Rc<Progress>>) -> Option<Self> {
        let Timeouts {
            request,
            response,
            idle,
        } = timeouts;
        let first = [request, response, idle].into_iter().flatten().min()?;
        let started = Instant::now();
        if let Some(progress) = &progress {
            progress.watch(started);
        }
        Some(Self {
            timeouts,
            started,
            moved: started,
            progress,
            sleep: Box::pin(sleep_until(started + first)),
        })
    }

    /// A frame of the response passed.
    pub(crate) fn moved(&mut self) {
        if self.timeouts.idle.is_some() {
            self.moved = Instant::now();
        }
    }

    /// Resolves when a deadline has passed.
    pub(crate) async fn passed(&mut self) {
        poll_fn(|cx| self.poll_passed(cx)).await;
    }

    /// Ready when a deadline has passed.
    pub(crate) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(due) = self.due(cx) else {
                return Poll::Pending;
            };
            if self.sleep.deadline() != due {
                self.sleep.as_mut().reset(due);
            }
            ready!(self.sleep.as_mut().poll(cx));
            // What has moved in the meantime puts the deadline off.
            if self.due(cx).is_none_or(|due| due <= Instant::now()) {
                return Poll::Ready(());
            }
        }
    }

    /// The first deadline as things are; `None` while there is none yet, `cx` being woken when there may be.
    fn due(&self, cx: &Context<'_>) -> Option<Instant> {
        let sent = match &self.progress {
            None => Some(self.started),
            Some(progress) if progress.poll_ended(cx) => progress.moved(),
            Some(_) => None,
        };
        let request_moved = self.progress.as_ref().and_then(|progress| progress.moved());
        let moved = self.moved.max(request_moved.unwrap_or(self.moved));
        let deadlines = [
            self.timeouts.request.map(|limit| self.started + limit),
            self.timeouts.response.and_then(|limit| Some(sent? + limit)),
            self.timeouts.idle.map(|limit| moved + limit),
        ];
        deadlines.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    async fn passes_after(deadlines: &mut Deadlines) -> Duration {
        let before = Instant::now();
        deadlines.passed().await;
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_deadline_counts_and_none_is_none() {
        assert!(Deadlines::new(Timeouts::default(), None).is_none());
        let timeouts = Timeouts {
            request: Some(3 * SECOND),
            response: Some(2 * SECOND),
            ..Timeouts::default()
        };
        let mut deadlines = Deadlines::new(timeouts, None).unwrap();
        assert_eq!(passes_after(&mut deadlines).await, 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_not_idle() {
        let timeouts = Timeouts {
            idle: Some(2 * SECOND),
            ..Timeouts::default()
        };
        let mut deadlines = Deadlines::new(timeouts, None).unwrap();
        for _ in 0..3 {
            tokio::time::sleep(SECOND).await;
            deadlines.moved();
        }
        assert_eq!(passes_after(&mut deadlines).await, 2 * SECOND);
    }
}
