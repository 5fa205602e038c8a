//! One thing at a time: a request, a round on a TCP connection, or a connection.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::counts::{Counts, Failure};
use super::{Carriage, Wishes, grpc};

/// The longest that an attempt may take.
pub(crate) const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);
/// What is sent in one piece.
pub(crate) const LINE_BYTES: usize = 64;

/// A connection that HTTP lanes send on: one a lane for HTTP/1, one for all for HTTP/2.
pub(crate) type Slot = Rc<Mutex<Option<Sender>>>;

#[derive(Debug)]
pub(crate) enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

pub(crate) struct Lane {
    carriage: Carriage,
    target: String,
    slot: Slot,
    stream: Option<(TcpStream, String)>,
    counts: Rc<Counts>,
}

impl Lane {
    pub(crate) fn new(carriage: Carriage, target: String, slot: Slot, counts: Rc<Counts>) -> Self {
        Self {
            carriage,
            target,
            slot,
            stream: None,
            counts,
        }
    }

    /// One attempt after the other.
    pub(crate) async fn run(mut self, wishes: Rc<Wishes>, pause: Duration) {
        while !wishes.stop.get() {
            let done = self.attempt_since(Instant::now()).await;
            // A server that refuses at once must not turn the loop into a spin.
            let pause = if done {
                pause
            } else {
                pause.max(Duration::from_millis(10))
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt that was due at `began`; whether it came back right.
    pub(crate) async fn attempt_since(&mut self, began: Instant) -> bool {
        self.counts.report.borrow_mut().attempts += 1;
        let attempt = tokio::time::timeout(ATTEMPT_LIMIT, self.attempt());
        let outcome = attempt.await.unwrap_or_else(|_| {
            let text = format!("nothing in {ATTEMPT_LIMIT:?}");
            Err(Failure::new("timeout", text))
        });
        let done = outcome.is_ok();
        if !done {
            self.stream = None;
        }
        self.counts.record(began, outcome);
        done
    }

    async fn attempt(&mut self) -> Result<String, Failure> {
        match self.carriage {
            Carriage::Http1 | Carriage::Http2 | Carriage::Grpc => self.request().await,
            Carriage::TcpOnce => self.once().await,
            _ => self.round().await,
        }
    }

    /// One request, sent once. Only one that the connection handed back untouched goes to a new connection.
    async fn request(&self) -> Result<String, Failure> {
        let uri: Uri = self
            .target
            .parse()
            .map_err(|_| Failure::new("other", "not a URL"))?;
        let line = random_line();
        let body = match self.carriage {
            Carriage::Grpc => grpc::framed(&line),
            _ if uri.path() == "/echo" => line,
            _ => Bytes::new(),
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
        let answer = response.into_body().collect().await?;
        let ended = grpc::status(answer.trailers());
        let answer = answer.to_bytes();
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
        if self.carriage == Carriage::Grpc {
            ended?;
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
        if self.carriage == Carriage::Grpc {
            return grpc::call(uri, Full::new(body.clone()));
        }
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
        if self.carriage.is_shared() {
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

pub(crate) fn random_line() -> Bytes {
    let mut line: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(LINE_BYTES - 1)
        .collect();
    line.push('\n');
    line.into()
}

fn text(value: Option<&http::HeaderValue>) -> String {
    value
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default()
}
