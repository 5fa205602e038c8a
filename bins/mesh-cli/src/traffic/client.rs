//! A caller with one connection. A call is never tried again (one of which nothing was sent, as its connection had closed,
//! is sent on another); a connection that broke is made anew for the next call.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::report::Outcome;
use super::target::{Call, Target};

/// For one call, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);
/// Exchanges on one TCP connection, so that new connections are part of the load.
const EXCHANGES: u32 = 20;
/// A gRPC frame around an empty message: not compressed, of length zero.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// Calls one target, one call at a time.
#[derive(Debug)]
pub(super) struct Caller {
    target: Target,
    connection: Option<Connection>,
}

#[derive(Debug)]
enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
    Tcp(TcpStream, u32),
}

impl Caller {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            connection: None,
        }
    }

    pub(super) async fn call(&mut self) -> Outcome {
        let outcome = timeout(PATIENCE, self.try_call()).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Outcome::Failure(format!("no answer within {} s", PATIENCE.as_secs()))
        });
        if outcome != Outcome::Success {
            self.connection = None;
        }
        outcome
    }

    async fn try_call(&mut self) -> Outcome {
        // Taken, so that a call that is cut off by its deadline leaves no half-used connection behind.
        let kept = match self.connection.take() {
            Some(connection) => connection.usable().await,
            None => None,
        };
        let connection = match kept {
            Some(connection) => connection,
            None => match self.connect().await {
                Ok(connection) => connection,
                Err(error) => return Outcome::Failure(format!("{}: {error}", self.target.address)),
            },
        };
        let request = self.request();
        match connection {
            Connection::Http1(mut sender) => {
                let outcome = match sender.try_send_request(request).await {
                    Ok(response) => http_outcome(response).await,
                    Err(mut error) => match error.take_message() {
                        Some(unsent) => return self.send_anew(unsent).await,
                        None => broken(error.error()),
                    },
                };
                self.connection = Some(Connection::Http1(sender));
                outcome
            }
            Connection::Http2(mut sender) => {
                let outcome = match sender.try_send_request(request).await {
                    Ok(response) => grpc_outcome(response).await,
                    Err(mut error) => match error.take_message() {
                        Some(unsent) => return self.send_anew(unsent).await,
                        None => broken(error.error()),
                    },
                };
                self.connection = Some(Connection::Http2(sender));
                outcome
            }
            Connection::Tcp(mut stream, exchanges) => match exchange(&mut stream).await {
                Ok(true) => {
                    self.connection = Some(Connection::Tcp(stream, exchanges + 1))
                        .filter(|_| exchanges + 1 < EXCHANGES);
                    Outcome::Success
                }
                Ok(false) => Outcome::Failure("other bytes came back".to_owned()),
                Err(error) => Outcome::Reset(error.to_string()),
            },
        }
    }

    /// Sends what was not sent, because its connection was closed first: not a second try, as nobody saw a first.
    async fn send_anew(&mut self, request: Request<Full<Bytes>>) -> Outcome {
        let connection = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => return Outcome::Failure(format!("{}: {error}", self.target.address)),
        };
        let (outcome, connection) = match connection {
            Connection::Http1(mut sender) => match sender.send_request(request).await {
                Ok(response) => (http_outcome(response).await, Connection::Http1(sender)),
                Err(error) => return broken(&error),
            },
            Connection::Http2(mut sender) => match sender.send_request(request).await {
                Ok(response) => (grpc_outcome(response).await, Connection::Http2(sender)),
                Err(error) => return broken(&error),
            },
            tcp @ Connection::Tcp(..) => {
                return Outcome::Reset(format!("{tcp:?} carries no requests"));
            }
        };
        self.connection = Some(connection);
        outcome
    }

    async fn connect(&self) -> Result<Connection, String> {
        let stream = TcpStream::connect(self.target.address)
            .await
            .map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        let text = |error: hyper::Error| error.to_string();
        Ok(match self.target.call {
            Call::Http { .. } => {
                let (sender, connection) =
                    http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
                tokio::spawn(connection);
                Connection::Http1(sender)
            }
            Call::Grpc { .. } => {
                let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
                let (sender, connection) = handshake.await.map_err(text)?;
                tokio::spawn(connection);
                Connection::Http2(sender)
            }
            Call::Echo => Connection::Tcp(stream, 0),
        })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let authority = &self.target.authority;
        let request = match &self.target.call {
            Call::Grpc { method } => Request::post(format!("http://{authority}{method}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::from(EMPTY_MESSAGE)),
            Call::Http { path } => Request::get(path)
                .header("host", authority)
                .body(Full::default()),
            Call::Echo => Request::get("/").body(Full::default()),
        };
        request.unwrap_or_default()
    }
}

impl Connection {
    /// This connection, unless it was closed while nothing was asked of it.
    async fn usable(self) -> Option<Self> {
        match self {
            Self::Http1(mut sender) => sender.ready().await.is_ok().then_some(Self::Http1(sender)),
            Self::Http2(mut sender) => sender.ready().await.is_ok().then_some(Self::Http2(sender)),
            tcp @ Self::Tcp(..) => Some(tcp),
        }
    }
}

async fn http_outcome(response: Response<Incoming>) -> Outcome {
    let (head, body) = response.into_parts();
    match body.collect().await {
        Ok(_) if head.status.is_success() => Outcome::Success,
        Ok(body) => {
            let text = String::from_utf8_lossy(&body.to_bytes())
                .trim()
                .chars()
                .take(200)
                .collect::<String>();
            Outcome::Failure(
                format!(
                    "status {}{} {text}",
                    head.status.as_u16(),
                    proxy_error(&head.headers)
                )
                .trim_end()
                .to_owned(),
            )
        }
        Err(error) => broken(&error),
    }
}

async fn grpc_outcome(response: Response<Incoming>) -> Outcome {
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        return Outcome::Failure(format!(
            "HTTP status {}{}",
            head.status.as_u16(),
            proxy_error(&head.headers)
        ));
    }
    let trailers = match body.collect().await {
        Ok(body) => body.trailers().cloned().unwrap_or_default(),
        Err(error) => return broken(&error),
    };
    let field = |name: &str| {
        let value = trailers.get(name).or_else(|| head.headers.get(name))?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    match field("grpc-status").as_deref() {
        Some("0") => Outcome::Success,
        Some(status) => {
            let message = field("grpc-message").unwrap_or_default();
            Outcome::Failure(format!(
                "gRPC status {status}{} {message}",
                proxy_error(&head.headers)
            ))
        }
        None => Outcome::Reset("the answer ended without a gRPC status".to_owned()),
    }
}

/// What a proxy says about an answer that is its own.
fn proxy_error(headers: &HeaderMap) -> String {
    let text = headers
        .get("l5d-proxy-error")
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    text.map(|text| format!(" (l5d-proxy-error: {text})"))
        .unwrap_or_default()
}

fn broken(error: &hyper::Error) -> Outcome {
    let reason = std::error::Error::source(error)
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    Outcome::Reset(reason)
}

/// Whether what was sent came back.
async fn exchange(stream: &mut TcpStream) -> std::io::Result<bool> {
    let sent: [u8; 64] = std::array::from_fn(|_| fastrand::u8(..));
    let mut heard = [0; 64];
    stream.write_all(&sent).await?;
    stream.read_exact(&mut heard).await?;
    Ok(sent == heard)
}
