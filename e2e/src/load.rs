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
    /// One TCP connection a lane, sending rounds of bytes that must come back.
    Tcp,
    /// A new TCP connection for every round: sends, closes its sending half, and reads the answer to the end.
    TcpOnce,
    /// As [`Carriage::Tcp`], to a server that speaks first.
    ServerFirst,
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
        let carriage = match carriage {
            Carriage::Http1 => "http1",
            Carriage::Http2 => "http2",
            Carriage::Tcp => "tcp",
            Carriage::TcpOnce => "tcp-once",
            Carriage::ServerFirst => "server-first",
        };
        let process = host
            .spawn(programs::built("e2e-load"))
            .args([carriage, target, "--lanes", &lanes.to_string()])
            .args([
                "--pause-ms",
                &pause.as_millis().to_string(),
                "--limit",
                &Self::LIMIT.as_secs().to_string(),
            ])
            .start();
        Self { process }
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
