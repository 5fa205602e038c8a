//! The load: so many connections, each with one thing in flight, on one thread. It never retries.
//!
//! Closed loop: each connection begins the next request when its last one has ended. Open loop: requests begin by
//! schedule, whether or not earlier ones have ended, and their latency counts from when they should have begun, so a
//! proxy that stalls is charged for everybody who had to wait.

mod http1;
mod http2;
mod pace;
mod tally;
mod tcp;

use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

use crate::error::Error;
use pace::Pace;
use tally::Tally;

/// What each connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// `GET` in HTTP/1.1, one after the other.
    Http1,
    /// `GET` in HTTP/2, one after the other.
    Http2,
    /// Calls of gRPC with one message each way.
    GrpcUnary,
    /// One stream of gRPC; a message goes out when the last one has come back.
    GrpcStream,
    /// Bytes to the server, as many as it takes.
    TcpUp,
    /// Bytes from the server, as many as it gives.
    TcpDown,
    /// A new connection for every byte that comes back.
    Connect,
}

impl Work {
    /// As tables say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1",
            Self::Http2 => "HTTP/2",
            Self::GrpcUnary => "gRPC unary",
            Self::GrpcStream => "gRPC streaming",
            Self::TcpUp => "TCP to the server",
            Self::TcpDown => "TCP from the server",
            Self::Connect => "new connections",
        }
    }
}

/// A number of bytes as tables say it.
pub(crate) fn size_name(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

/// A load to make.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Where to.
    pub(crate) target: SocketAddr,
    /// What each connection does.
    pub(crate) work: Work,
    /// The bytes of each answer or message.
    pub(crate) size: usize,
    /// How many connections.
    pub(crate) connections: u32,
    /// How long before anything counts.
    pub(crate) warm_up: Duration,
    /// How long what happens counts.
    pub(crate) time: Duration,
    /// Requests, or chunks of bulk to the server, per second over all connections; as fast as it goes if not set.
    pub(crate) rate: Option<u32>,
    /// Keep the connections idle after one request each, until killed.
    pub(crate) idle: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How long it counted, in seconds.
    pub(crate) seconds: f64,
    /// Requests, messages or connections that were answered right.
    pub(crate) done: u64,
    /// Bytes of bulk.
    pub(crate) bytes: u64,
    /// What failed.
    pub(crate) failures: u64,
    /// What the first failure said.
    pub(crate) first_failure: String,
    /// Latencies in microseconds: half, 99% and 99.9% were not above.
    pub(crate) latency_micros: [u32; 3],
    /// How late requests began, in microseconds: 99% not above. Nothing in a closed loop. Part of the latency.
    pub(crate) late_micros: u32,
}

/// What the load says on standard output, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Said {
    /// Every connection has been answered once and is warm: what happens counts from now on.
    Counting,
    /// It is over.
    Over(Outcome),
}

impl Said {
    /// What came of it, if it is over.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn into_outcome(self) -> Result<Outcome, Error> {
        match self {
            Self::Over(outcome) => Ok(outcome),
            Self::Counting => Err(Error::Io {
                what: "a load".into(),
                source: std::io::Error::other("it said twice that it counts"),
            }),
        }
    }
}

/// Makes the load and says how it goes.
///
/// # Errors
/// If standard output is closed, or no timer can be had.
pub(crate) async fn make(plan: Plan) -> Result<(), Error> {
    LocalSet::new().run_until(run(plan)).await
}

async fn run(plan: Plan) -> Result<(), Error> {
    let tally = Rc::new(Tally::default());
    let pace = plan.rate.map(|rate| Rc::new(Pace::new(rate)));
    let gate = Rc::new(tokio::sync::Semaphore::new(CONNECTING));
    let plan = Rc::new(plan);
    for _ in 0..plan.connections {
        let lane = Lane {
            plan: Rc::clone(&plan),
            tally: Rc::clone(&tally),
            pace: pace.clone(),
        };
        let gate = Rc::clone(&gate);
        spawn_local(async move {
            match lane.run(&gate).await {
                Ok(()) => lane.tally.ended_well(),
                Err(failure) => lane.tally.fail(&failure),
            }
        });
    }
    // A lane that fails before it is warm will never be.
    while tally.warm() < plan.connections && tally.failures() == 0 {
        tally.changed().await;
    }
    if plan.idle {
        say(&if tally.failures() == 0 {
            Said::Counting
        } else {
            Said::Over(tally.outcome())
        })?;
        return std::future::pending().await;
    }
    if let Some(pace) = &pace {
        spawn_local(Rc::clone(pace).keep());
    }
    tokio::time::sleep(plan.warm_up).await;
    tally.count_from_now();
    say(&Said::Counting)?;
    tokio::time::sleep(plan.time).await;
    let outcome = tally.outcome();
    say(&Said::Over(outcome.clone()))?;
    // Who asked reads from the system what this process has cost, while it is there.
    until_released().await;
    tally.stop();
    // What is in flight ends in order, and all of bulk must have arrived. Requests that are dropped would be resets, of which a
    // peer may bear only so many on a connection.
    let ends = async {
        while u64::from(tally.ended()) + tally.failures() < u64::from(plan.connections) {
            tally.changed().await;
        }
    };
    let in_time = tokio::time::timeout(ENDING, ends).await.is_ok();
    if plan.work == Work::TcpUp {
        if !in_time {
            return Err(Error::NotInTime {
                what: "all bytes arrive".into(),
                limit: ENDING,
                said: String::new(),
            });
        }
        if tally.failures() > outcome.failures {
            return Err(Error::LoadFailed {
                work: "the end of bulk".into(),
                failures: tally.failures(),
                attempts: plan.connections.into(),
                first: tally.outcome().first_failure,
            });
        }
    }
    Ok(())
}

/// How long what is in flight may take to end.
const ENDING: Duration = Duration::from_secs(10);

/// Waits until standard input ends.
async fn until_released() {
    let end =
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    // If there is none to read, there is nobody to wait for.
    let _ = end.await;
}

/// How many connections are being made at once.
const CONNECTING: usize = 64;

fn say(said: &Said) -> Result<(), Error> {
    let mut line = serde_json::to_string(said).map_err(|source| Error::Json {
        what: "the load's outcome".into(),
        source,
    })?;
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::io("standard output"))
}

/// One connection's work.
pub(crate) struct Lane {
    plan: Rc<Plan>,
    tally: Rc<Tally>,
    pace: Option<Rc<Pace>>,
}

impl Lane {
    async fn run(&self, gate: &tokio::sync::Semaphore) -> Result<(), Failure> {
        let turn = gate.acquire().await.map_err(|error| error.to_string())?;
        match self.plan.work {
            Work::Http1 => {
                let mut client = http1::Client::connect(&self.plan).await?;
                client.exchange().await?;
                drop(turn);
                self.repeat(async || client.exchange().await).await
            }
            Work::Http2 | Work::GrpcUnary => {
                let mut client = http2::Client::connect(&self.plan).await?;
                client.exchange().await?;
                drop(turn);
                self.repeat(async || client.exchange().await).await
            }
            Work::GrpcStream => {
                let client = http2::Client::connect(&self.plan).await?;
                let mut stream = client.stream().await?;
                stream.round().await?;
                drop(turn);
                self.repeat(async || stream.round().await).await
            }
            Work::Connect => {
                tcp::once(&self.plan).await?;
                drop(turn);
                self.repeat(async || tcp::once(&self.plan).await).await
            }
            Work::TcpUp => {
                drop(turn);
                tcp::up(&self.plan, &self.tally, self.pace.as_deref()).await
            }
            Work::TcpDown => {
                drop(turn);
                tcp::down(&self.plan, &self.tally).await
            }
        }
    }

    /// Does one thing after the other, as the pace wants it, until it is over. The caller has done it once.
    async fn repeat(
        &self,
        mut once: impl AsyncFnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.tally.is_warm();
        if self.plan.idle {
            // The connection is kept by who borrowed it for `once`.
            return std::future::pending().await;
        }
        while !self.tally.is_over() {
            let (due, late) = match &self.pace {
                Some(pace) => {
                    let due = pace.next().await;
                    (due, Some(due.elapsed()))
                }
                None => (std::time::Instant::now(), None),
            };
            once().await?;
            self.tally.done(due, late);
        }
        Ok(())
    }
}

/// Why something was not answered right.
pub(crate) type Failure = Box<dyn std::error::Error>;

async fn connect(target: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(target)
        .await
        .map_err(|error| format!("cannot connect to {target}: {error}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
