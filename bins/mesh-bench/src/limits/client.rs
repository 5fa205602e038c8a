//! An open-loop client: it sends at random (Poisson) times of a given rate whatever has become of the earlier requests, and
//! never again.

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::mpsc;

use super::through::{Answer, Sender};

/// What became of the requests of one client.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// By the second in which they were sent.
    pub(crate) offered: Vec<u64>,
    /// Of those, the ones answered 200.
    pub(crate) served: Vec<u64>,
    /// Answered 429 by whoever.
    pub(crate) limited: u64,
    /// Not sent to any endpoint, as none had room.
    pub(crate) shed: u64,
    /// Anything else, and the first of it.
    pub(crate) failed: u64,
    pub(crate) failure: Option<String>,
    /// Of the answers with 200: when each was sent, and its microseconds.
    pub(crate) latencies: Vec<(Duration, u32)>,
}

impl Tally {
    fn new(seconds: usize) -> Self {
        Self {
            offered: vec![0; seconds],
            served: vec![0; seconds],
            ..Self::default()
        }
    }

    fn add(&mut self, sent: Duration, took: Duration, answer: Answer) {
        match answer {
            Answer::Status(StatusCode::OK) => {
                if let Some(served) = self.served.get_mut(sent.as_secs() as usize) {
                    *served += 1;
                }
                let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
                self.latencies.push((sent, micros));
            }
            Answer::Status(StatusCode::TOO_MANY_REQUESTS) => self.limited += 1,
            Answer::Shed => self.shed += 1,
            Answer::Status(status) => self.fail(|| format!("answered {status}")),
            Answer::Failed(error) => self.fail(|| error),
        }
    }

    fn fail(&mut self, what: impl FnOnce() -> String) {
        self.failed += 1;
        self.failure.get_or_insert_with(what);
    }
}

/// Sends between these times after `start`, at `rate` a second.
pub(crate) async fn run(
    sender: Sender,
    start: Instant,
    times: (Duration, Duration),
    rate: f64,
    seed: u64,
) -> Tally {
    let (from, until) = times;
    let mut tally = Tally::new(until.as_secs() as usize);
    let mut random = fastrand::Rng::with_seed(seed);
    let (answers, mut answered) = mpsc::unbounded_channel();
    let mut next = from;
    loop {
        next += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
        if next >= until {
            break;
        }
        tokio::time::sleep_until((start + next).into()).await;
        tally.offered[next.as_secs() as usize] += 1;
        let (sender, answers, sent) = (sender.clone(), answers.clone(), next);
        tokio::spawn(async move {
            let began = Instant::now();
            let answer = tokio::time::timeout(TIMEOUT, sender.send()).await;
            let answer = answer.unwrap_or_else(|_| Answer::Failed("no answer in time".into()));
            // The receiver is there until the last answer.
            let _ = answers.send((sent, began.elapsed(), answer));
        });
        while let Ok((sent, took, answer)) = answered.try_recv() {
            tally.add(sent, took, answer);
        }
    }
    drop(answers);
    while let Some((sent, took, answer)) = answered.recv().await {
        tally.add(sent, took, answer);
    }
    tally
}

/// A request that is not answered by then has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
