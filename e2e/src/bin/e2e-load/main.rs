//! A load client that tries everything exactly once and reports what came of it: one JSON line ten times a second,
//! the last one when it is told to stop (SIGTERM) or its time is over. See `e2e::Report`.
//!
//! Closed loop: each lane begins the next attempt when its last one has ended. Open loop (`--rate`): attempts begin when they
//! are due, whatever has become of those before them, and their latency counts from then. Conversations
//! (`grpc-stream`, `tcp-stream`) are kept until SIGUSR1 has them ended and others begun.

mod conversation;
mod counts;
mod grpc;
mod lane;

use std::cell::{Cell, RefCell};
use std::io::{self, Write as _};
use std::rc::Rc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use e2e::Report;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet, LocalSet};
use tokio::time::Instant;

use self::counts::{Counts, Failure};
use self::lane::{Lane, Slot};

const REPORT_EVERY: Duration = Duration::from_millis(100);
/// More than this at a time means that nothing comes back.
const MAX_IN_FLIGHT: usize = 5_000;

#[derive(Debug, Parser)]
#[command(about = "A load client that never retries")]
struct Arguments {
    /// How the load is carried.
    carriage: Carriage,
    /// A URL, or ADDRESS:PORT for TCP. A path of /echo sends bodies and checks that they come back.
    target: String,
    /// Clients that each do one thing at a time, or conversations at a time.
    #[arg(long, default_value_t = 4)]
    lanes: u32,
    /// Milliseconds between two attempts of a lane.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Attempts a second, begun when they are due: an open loop. In conversations, messages a second of all together.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds after which it stops by itself.
    #[arg(long, default_value_t = 55)]
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Carriage {
    Http1,
    Http2,
    Grpc,
    GrpcStream,
    Tcp,
    TcpOnce,
    TcpStream,
    ServerFirst,
}

impl Carriage {
    fn is_conversation(self) -> bool {
        matches!(self, Self::GrpcStream | Self::TcpStream)
    }

    /// All lanes on one connection.
    fn is_shared(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}

/// What the signals say.
#[derive(Debug, Default)]
struct Wishes {
    stop: Cell<bool>,
    /// Conversations of another round are to be ended.
    round: Cell<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    LocalSet::new().run_until(run(arguments)).await
}

async fn run(arguments: Arguments) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut renew = signal(SignalKind::user_defined1())?;
    let counts = Rc::new(Counts::default());
    let wishes = Rc::new(Wishes::default());
    let deadline = Instant::now() + Duration::from_secs(arguments.limit);
    let work = begin(&arguments, &counts, &wishes);
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    while Instant::now() < deadline {
        tokio::select! {
            _ = ticks.tick() => print(&counts.report.borrow())?,
            _ = renew.recv() => wishes.round.set(wishes.round.get() + 1),
            _ = terminate.recv() => break,
        }
    }
    wishes.stop.set(true);
    for task in work {
        task.await.map_err(io::Error::other)?;
    }
    let mut report = counts.report.borrow().clone();
    report.latency_micros = counts.percentiles();
    report.last = true;
    print(&report)
}

fn begin(arguments: &Arguments, counts: &Rc<Counts>, wishes: &Rc<Wishes>) -> Vec<JoinHandle<()>> {
    let shared = Slot::default();
    let carriage = arguments.carriage;
    let lane = {
        let (target, counts) = (arguments.target.clone(), Rc::clone(counts));
        move || {
            let slot = if carriage.is_shared() {
                Rc::clone(&shared)
            } else {
                Slot::default()
            };
            Lane::new(carriage, target.clone(), slot, Rc::clone(&counts))
        }
    };
    let lanes = 0..arguments.lanes;
    if carriage.is_conversation() {
        let rate = arguments.rate.unwrap_or(f64::from(arguments.lanes) * 20.0);
        let every = Duration::from_secs_f64(f64::from(arguments.lanes) / rate);
        return lanes
            .map(|_| {
                let (target, counts) = (arguments.target.clone(), Rc::clone(counts));
                let hold = conversation::hold(carriage, target, every, counts, Rc::clone(wishes));
                tokio::task::spawn_local(hold)
            })
            .collect();
    }
    if let Some(rate) = arguments.rate {
        let every = Duration::from_secs_f64(1.0 / rate);
        let open = open_loop(lane, every, Rc::clone(counts), Rc::clone(wishes));
        return vec![tokio::task::spawn_local(open)];
    }
    let pause = Duration::from_millis(arguments.pause_ms);
    lanes
        .map(|_| tokio::task::spawn_local(lane().run(Rc::clone(wishes), pause)))
        .collect()
}

/// Attempts that begin when they are due. Each takes a lane that has nothing to do, or a new one.
async fn open_loop(
    new_lane: impl Fn() -> Lane,
    every: Duration,
    counts: Rc<Counts>,
    wishes: Rc<Wishes>,
) {
    let idle = Rc::new(RefCell::new(Vec::new()));
    let mut in_flight = JoinSet::new();
    let mut due = Instant::now();
    while !wishes.stop.get() {
        tokio::time::sleep_until(due).await;
        while in_flight.try_join_next().is_some() {}
        if in_flight.len() < MAX_IN_FLIGHT {
            let lane = idle.borrow_mut().pop();
            let mut lane: Lane = lane.unwrap_or_else(&new_lane);
            let (idle, began) = (Rc::clone(&idle), due.into_std());
            in_flight.spawn_local(async move {
                lane.attempt_since(began).await;
                idle.borrow_mut().push(lane);
            });
        } else {
            counts.report.borrow_mut().attempts += 1;
            let failure = Failure::new("other", "too many attempts in flight");
            counts.record(due.into_std(), Err(failure));
        }
        due += every;
    }
    while in_flight.join_next().await.is_some() {}
}

fn print(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_string(report)?;
    line.push('\n');
    io::stdout().lock().write_all(line.as_bytes())
}
