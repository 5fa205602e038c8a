//! A load client that tries everything exactly once and reports what came of it: one JSON line ten times a second,
//! the last one when it is told to stop (SIGTERM) or its time is over. See `e2e::Report`.

use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::io::{self, ErrorKind, Write as _};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use e2e::{Report, SAMPLES};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::LocalSet;

const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_millis(100);
const LATENCIES_KEPT: usize = 1_000_000;

#[derive(Debug, Parser)]
#[command(about = "A load client that never retries")]
struct Arguments {
    /// How the load is carried.
    carriage: Carriage,
    /// A URL, or ADDRESS:PORT for TCP. A path of /echo sends bodies and checks that they come back.
    target: String,
    /// Clients that each do one thing at a time.
    #[arg(long, default_value_t = 4)]
    lanes: u32,
    /// Milliseconds between two attempts of a lane.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Seconds after which it stops by itself.
    #[arg(long, default_value_t = 55)]
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Carriage {
    Http1,
    Http2,
    Tcp,
    TcpOnce,
    ServerFirst,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    LocalSet::new().run_until(run(arguments)).await
}

async fn run(arguments: Arguments) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let counts = Rc::new(Counts::default());
    let stop = Rc::new(Cell::new(false));
    let deadline = Instant::now() + Duration::from_secs(arguments.limit);
    let shared = Slot::default();
    let lanes: Vec<_> = (0..arguments.lanes)
        .map(|_| {
            let slot = if arguments.carriage == Carriage::Http2 {
                Rc::clone(&shared)
            } else {
                Slot::default()
            };
            let lane = Lane {
                carriage: arguments.carriage,
                target: arguments.target.clone(),
                slot,
                stream: None,
                counts: Rc::clone(&counts),
            };
            let pause = Duration::from_millis(arguments.pause_ms);
            tokio::task::spawn_local(lane.run(Rc::clone(&stop), pause))
        })
        .collect();
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    while Instant::now() < deadline {
        tokio::select! {
            _ = ticks.tick() => print(&counts.report.borrow())?,
            _ = terminate.recv() => break,
        }
    }
    stop.set(true);
    for lane in lanes {
        lane.await.map_err(io::Error::other)?;
    }
    let mut report = counts.report.borrow().clone();
    report.latency_micros = counts.percentiles();
    report.last = true;
    print(&report)
}

fn print(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_string(report)?;
    line.push('\n');
    io::stdout().lock().write_all(line.as_bytes())
}

#[derive(Debug)]
struct Counts {
    report: RefCell<Report>,
    latencies: RefCell<Vec<u64>>,
    start: Instant,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            report: RefCell::default(),
            latencies: RefCell::default(),
            start: Instant::now(),
        }
    }
}

impl Counts {
    fn record(&self, began: Instant, outcome: Result<String, Failure>) {
        let mut report = self.report.borrow_mut();
        match outcome {
            Ok(server) => {
                report.ok += 1;
                *report.served_by.entry(server).or_default() += 1;
                let mut latencies = self.latencies.borrow_mut();
                if latencies.len() < LATENCIES_KEPT {
                    latencies.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                }
            }
            Err(Failure { kind, text }) => {
                *report.failures.entry(kind.to_owned()).or_default() += 1;
                if report.samples.len() < SAMPLES {
                    let at = self.start.elapsed().as_secs_f32();
                    report.samples.push(format!("{at:.3}s {kind}: {text}"));
                }
            }
        }
    }

    fn percentiles(&self) -> [u64; 3] {
        let mut sorted = self.latencies.borrow().clone();
        sorted.sort_unstable();
        let at = |part: usize| {
            sorted
                .get((sorted.len() * part / 1000).min(sorted.len().saturating_sub(1)))
                .copied()
        };
        [500, 990, 1000].map(|part| at(part).unwrap_or_default())
    }
}

#[derive(Debug)]
struct Failure {
    kind: &'static str,
    text: String,
}

impl Failure {
    fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::ConnectionReset => "reset",
            ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => "closed",
            _ => "other",
        };
        Self::new(kind, error.to_string())
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        let mut text = error.to_string();
        let mut kind = if error.is_incomplete_message() || error.is_canceled() || error.is_closed()
        {
            "closed"
        } else {
            "other"
        };
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                kind = Self::from(io::Error::from(error.kind())).kind;
            }
            source = cause.source();
        }
        if text.contains("refused stream") {
            kind = "refused";
        } else if text.contains("stream error") {
            kind = "reset";
        }
        Self { kind, text }
    }
}

/// A connection that HTTP lanes send on: one a lane for HTTP/1, one for all for HTTP/2.
type Slot = Rc<Mutex<Option<Sender>>>;

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

struct Lane {
    carriage: Carriage,
    target: String,
    slot: Slot,
    stream: Option<(TcpStream, String)>,
    counts: Rc<Counts>,
}

impl Lane {
    async fn run(mut self, stop: Rc<Cell<bool>>, pause: Duration) {
        while !stop.get() {
            let began = Instant::now();
            self.counts.report.borrow_mut().attempts += 1;
            let attempt = tokio::time::timeout(ATTEMPT_LIMIT, self.attempt());
            let outcome = match attempt.await {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::new(
                    "timeout",
                    format!("nothing in {ATTEMPT_LIMIT:?}"),
                )),
            };
            let failed = outcome.is_err();
            if failed {
                self.stream = None;
            }
            self.counts.record(began, outcome);
            // A server that refuses at once must not turn the loop into a spin.
            let pause = if failed {
                pause.max(Duration::from_millis(10))
            } else {
                pause
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&mut self) -> Result<String, Failure> {
        match self.carriage {
            Carriage::Http1 | Carriage::Http2 => self.request().await,
            Carriage::TcpOnce => self.once().await,
            Carriage::Tcp | Carriage::ServerFirst => self.round().await,
        }
    }

    /// One request, sent once. Only one that the connection handed back untouched goes to a new connection.
    async fn request(&self) -> Result<String, Failure> {
        let uri: Uri = self
            .target
            .parse()
            .map_err(|_| Failure::new("other", "not a URL"))?;
        let body = if uri.path() == "/echo" {
            random_line()
        } else {
            Bytes::new()
        };
        let mut request = self.compose(&uri, &body)?;
        let response = loop {
            match self.send(request, &uri).await? {
                Ok(response) => break response,
                Err(unsent) => request = unsent,
            }
            self.counts.report.borrow_mut().unsent += 1;
        };
        let status = response.status();
        let server = text(
            response
                .headers()
                .get("x-served-by")
                .or_else(|| response.headers().get("server")),
        );
        let why = text(response.headers().get("l5d-proxy-error"));
        let answer = response.into_body().collect().await?.to_bytes();
        *self
            .counts
            .report
            .borrow_mut()
            .statuses
            .entry(status.as_u16())
            .or_default() += 1;
        if status != StatusCode::OK {
            return Err(Failure::new("status", format!("{status} {why}")));
        }
        if !body.is_empty() && answer != body {
            return Err(Failure::new(
                "content",
                format!("{} bytes, not those that were sent", answer.len()),
            ));
        }
        Ok(server)
    }

    fn compose(&self, uri: &Uri, body: &Bytes) -> Result<Request<Full<Bytes>>, Failure> {
        let method = if body.is_empty() {
            Method::GET
        } else {
            Method::POST
        };
        let builder = Request::builder().method(method);
        let builder = if self.carriage == Carriage::Http2 {
            builder.uri(uri.clone())
        } else {
            let host = uri.authority().map(ToString::to_string).unwrap_or_default();
            builder
                .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
                .header("host", host)
        };
        builder
            .body(Full::new(body.clone()))
            .map_err(|error| Failure::new("other", error.to_string()))
    }

    /// Sends on the slot's connection, opened if need be. The inner error is the request, if nothing of it was sent.
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        uri: &Uri,
    ) -> Result<Result<Response<Incoming>, Request<Full<Bytes>>>, Failure> {
        let mut slot = self.slot.lock().await;
        let usable = match slot.as_mut() {
            Some(Sender::Http1(sender)) => sender.ready().await.is_ok(),
            Some(Sender::Http2(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            *slot = Some(self.open(uri).await?);
        }
        let sent = match slot.as_mut() {
            // An HTTP/1 lane has its slot to itself.
            Some(Sender::Http1(sender)) => sender.try_send_request(request).await,
            Some(Sender::Http2(sender)) => {
                let mut sender = sender.clone();
                drop(slot);
                sender.try_send_request(request).await
            }
            None => return Err(Failure::new("other", "no connection")),
        };
        match sent {
            Ok(response) => Ok(Ok(response)),
            Err(mut error) => match error.take_message() {
                Some(request) => Ok(Err(request)),
                None => Err(error.into_error().into()),
            },
        }
    }

    async fn open(&self, uri: &Uri) -> Result<Sender, Failure> {
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let authority = if uri.port().is_some() {
            authority
        } else {
            format!("{authority}:80")
        };
        let io = TokioIo::new(self.connect(&authority).await?);
        if self.carriage == Carriage::Http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::task::spawn_local(connection);
            return Ok(Sender::Http2(sender));
        }
        let (sender, connection) = http1::handshake(io).await?;
        tokio::task::spawn_local(connection);
        Ok(Sender::Http1(sender))
    }

    async fn connect(&self, address: &str) -> Result<TcpStream, Failure> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| Failure::new("connect", error.to_string()))?;
        stream.set_nodelay(true)?;
        self.counts.report.borrow_mut().connections += 1;
        Ok(stream)
    }

    /// One line there and back on a connection that stays.
    async fn round(&mut self) -> Result<String, Failure> {
        if self.stream.is_none() {
            let mut stream = self.connect(&self.target).await?;
            let greeting = if self.carriage == Carriage::ServerFirst {
                read_line(&mut stream).await?
            } else {
                String::new()
            };
            self.stream = Some((stream, greeting));
        }
        let Some((stream, greeting)) = &mut self.stream else {
            return Err(Failure::new("other", "no connection"));
        };
        let line = random_line();
        stream.write_all(&line).await?;
        let mut answer = vec![0; line.len()];
        stream.read_exact(&mut answer).await?;
        if line != answer {
            return Err(Failure::new("content", "not the bytes that were sent"));
        }
        Ok(greeting.clone())
    }

    /// One connection: send, close the sending half, read to the end.
    async fn once(&self) -> Result<String, Failure> {
        let mut stream = self.connect(&self.target).await?;
        let line = random_line();
        stream.write_all(&line).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        if line != answer {
            return Err(Failure::new(
                "content",
                format!("{} bytes, not those that were sent", answer.len()),
            ));
        }
        Ok(String::new())
    }
}

/// Reads up to a line feed, byte by byte: greetings are short and nothing after them may be taken.
async fn read_line(stream: &mut TcpStream) -> Result<String, Failure> {
    let mut line = Vec::new();
    while line.len() < 256 {
        match stream.read_u8().await? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn random_line() -> Bytes {
    let mut line: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(63)
        .collect();
    line.push('\n');
    line.into()
}

fn text(value: Option<&http::HeaderValue>) -> String {
    value
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default()
}
