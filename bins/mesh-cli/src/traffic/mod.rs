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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn target(listener: &TcpListener, call: Call) -> Target {
        let address = listener.local_addr().unwrap();
        Target {
            service: "it".into(),
            address,
            authority: "it.default.svc.cluster.local:80".into(),
            call,
        }
    }

    /// Answers each request on a connection with what `answers` says next; an empty answer closes the connection.
    async fn serve(mut stream: TcpStream, answers: &[&str]) {
        let mut request = [0; 4096];
        for answer in answers {
            if !matches!(stream.read(&mut request).await, Ok(1..)) || answer.is_empty() {
                return;
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nl5d-proxy-error: no endpoints\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn each_call_is_made_once_and_counted_for_what_it_came_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut caller = Caller::new(target(&listener, Call::Http { path: "/".into() }));
        let server = async {
            // The first connection breaks at its third call; the calls after that come on a second one.
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, &[OK, OK, ""]).await;
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, &[BUSY]).await;
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, &[OK]).await;
        };
        let calls = async {
            let seen = Seen::new(&target(&listener, Call::Http { path: "/".into() }));
            for _ in 0..5 {
                let outcome = caller.call().await;
                seen.count(Duration::from_millis(1), outcome);
            }
            seen.counts()
        };
        let (counts, ()) = tokio::join!(calls, server);
        assert_eq!((counts.attempts, counts.failures, counts.resets), (5, 1, 1));
        assert_eq!(
            counts.last_failure.as_deref(),
            Some("status 503 (l5d-proxy-error: no endpoints)")
        );
    }

    #[tokio::test]
    async fn bytes_that_do_not_come_back_are_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut caller = Caller::new(target(&listener, Call::Echo));
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = [0; 64];
            stream.read_exact(&mut heard).await.unwrap();
            stream.write_all(&heard).await.unwrap();
            stream.read_exact(&mut heard).await.unwrap();
        };
        let calls = async { (caller.call().await, caller.call().await) };
        let ((first, second), ()) = tokio::join!(calls, server);
        assert_eq!(first, report::Outcome::Success);
        assert!(matches!(second, report::Outcome::Reset(_)), "{second:?}");
    }

    #[tokio::test]
    async fn load_runs_at_its_rate_and_stops_clean() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let load = Load::start(vec![target(&listener, Call::Echo)], 200).unwrap();
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        while load.report() == Report::default() || !load.report().is_clean() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let report = load.finish().await;
        serving.abort();
        assert!(report.is_clean(), "{:?}", report.last_failures());
    }
}
