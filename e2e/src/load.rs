//! Load from a host while a test does something to the mesh.

use std::time::Duration;

use crate::network::Host;
use crate::process::Process;
use crate::programs;
use crate::report::Report;

/// How the load is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carriage {
    /// HTTP/1.1 on kept-alive connections, one a lane.
    Http1,
    /// HTTP/2 with prior knowledge, all lanes on one connection.
    Http2,
    /// Unary gRPC calls, all on one connection.
    Grpc,
    /// A bidirectional gRPC stream a lane, on a connection of its own: a conversation.
    GrpcStream,
    /// One TCP connection a lane, sending rounds of bytes that must come back.
    Tcp,
    /// A new TCP connection for every round: sends, closes its sending half, and reads the answer to the end.
    TcpOnce,
    /// One TCP connection a lane, on which messages are sent when they are due: a conversation.
    TcpStream,
    /// As [`Carriage::Tcp`], to a server that speaks first.
    ServerFirst,
}

impl Carriage {
    /// In reports, and to `e2e-load`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::GrpcStream => "grpc-stream",
            Self::Tcp => "tcp",
            Self::TcpOnce => "tcp-once",
            Self::TcpStream => "tcp-stream",
            Self::ServerFirst => "server-first",
        }
    }
}

/// A load client that is running on a host; it never retries. See [`Report`].
#[derive(Debug)]
pub struct Load {
    process: Process,
}

impl Load {
    /// The longest a load runs: a test that hangs ends.
    pub const LIMIT: Duration = Duration::from_secs(55);

    /// `lanes` clients in a closed loop: each begins the next attempt when its last one has ended.
    ///
    /// `target` is a URL, or `ADDRESS:PORT` for TCP. Each lane pauses `pause` between attempts.
    ///
    /// # Panics
    /// If the client does not start.
    #[must_use]
    pub fn start(
        host: &Host,
        carriage: Carriage,
        target: &str,
        lanes: u32,
        pause: Duration,
    ) -> Self {
        let pause = pause.as_millis().to_string();
        let limit = Self::LIMIT;
        Self::run(host, carriage, target, lanes, ["--pause-ms", &pause], limit)
    }

    /// An open loop: `rate` attempts a second, each begun when it is due, whatever became of those before it. Of conversations
    /// there are `lanes`, and `rate` is that of messages on all of them together; otherwise there are as many connections as
    /// are needed. Ends after `limit`.
    ///
    /// # Panics
    /// If the client does not start.
    #[must_use]
    pub fn open(
        host: &Host,
        carriage: Carriage,
        target: &str,
        lanes: u32,
        rate: u32,
        limit: Duration,
    ) -> Self {
        let rate = rate.to_string();
        Self::run(host, carriage, target, lanes, ["--rate", &rate], limit)
    }

    fn run(
        host: &Host,
        carriage: Carriage,
        target: &str,
        lanes: u32,
        pace: [&str; 2],
        limit: Duration,
    ) -> Self {
        let process = host
            .spawn(programs::built("e2e-load"))
            .args([carriage.name(), target, "--lanes", &lanes.to_string()])
            .args(pace)
            .args(["--limit", &limit.as_secs().to_string()])
            .start();
        Self { process }
    }

    /// Has all conversations ended as soon as what was sent has come back, and others begun.
    pub fn renew(&mut self) {
        self.process.signal("USR1");
    }

    /// The counts so far.
    #[must_use]
    pub fn so_far(&self) -> Report {
        let line = self.process.last_line().unwrap_or_default();
        serde_json::from_str(&line).unwrap_or_default()
    }

    /// Waits until `more` further attempts have come back right.
    ///
    /// # Panics
    /// If they do not in time.
    pub fn wait_ok(&mut self, more: u64) {
        let wanted = self.so_far().ok + more;
        self.wait_for(&format!("{wanted} attempts are right"), |report| {
            report.ok >= wanted
        });
    }

    /// Waits until `server` has given `more` further right answers.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_served(&mut self, server: &str, more: u64) {
        let wanted = self.so_far().served(server) + more;
        self.wait_for(&format!("{server} gave {wanted} answers"), |report| {
            report.served(server) >= wanted
        });
    }

    /// Waits until the counts so far satisfy `done`; `what` names it in the message.
    ///
    /// # Panics
    /// If they do not in time.
    pub fn wait_for(&mut self, what: &str, mut done: impl FnMut(&Report) -> bool) {
        self.process.wait_within(Self::LIMIT, what, |process| {
            let line = process.last_line().unwrap_or_default();
            serde_json::from_str(&line).is_ok_and(|report| done(&report))
        });
    }

    /// Lets the attempts in flight end, then gives the final counts.
    ///
    /// # Panics
    /// If the client does not end, or its report cannot be read.
    #[must_use]
    pub fn stop(mut self) -> Report {
        self.process.terminate();
        self.process.success();
        let line = self.process.last_line().unwrap_or_default();
        let report: Report = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error}: {line}\n{}", self.process.tail()));
        assert!(report.last, "no final report: {line}");
        report
    }
}
