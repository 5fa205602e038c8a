//! A server for tests. It tells what it saw, so that a test can tell what the mesh did on the way.
//!
//! HTTP/1 and HTTP/2 on one port, every answer with `x-served-by`:
//! `/` the request's head as JSON; `/echo` the body, streamed, with a trailer; `/slow?ms=N` an answer after a while;
//! `/held?as=NAME&id=N` an answer when SIGUSR1 has come; `held NAME N` is printed when the request has;
//! `/stream?chunks=N&ms=M` a body in pieces; `/status?code=N`; `Upgrade: echo` anywhere, then the bytes back.
//! Any gRPC call, by its content type: its messages back, and status 0.
//! TCP: an echo that honours half-close, and one that greets first.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior};

type Payload = BoxBody<Bytes, hyper::Error>;

#[derive(Debug, Parser)]
#[command(about = "A server that tells what it saw")]
struct Arguments {
    /// What it calls itself in `x-served-by` and in its greeting.
    name: String,
    /// The address it binds.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    bind: IpAddr,
    /// The port for HTTP.
    #[arg(long)]
    http: Option<u16>,
    /// The port for a TCP echo.
    #[arg(long)]
    echo: Option<u16>,
    /// The port for a TCP echo that speaks first: `hello NAME` and a line feed.
    #[arg(long)]
    greet: Option<u16>,
    /// Milliseconds before every HTTP answer.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let shared = Rc::new(Shared {
        arguments: Arguments::parse(),
        released: Notify::new(),
    });
    let mut release = signal(SignalKind::user_defined1())?;
    let local = tokio::task::LocalSet::new();
    let arguments = &shared.arguments;
    for (port, kind) in [
        (arguments.http, Kind::Http),
        (arguments.echo, Kind::Echo),
        (arguments.greet, Kind::Greet),
    ] {
        if let Some(port) = port {
            let listener = TcpListener::bind((arguments.bind, port)).await?;
            local.spawn_local(accept(listener, kind, Rc::clone(&shared)));
        }
    }
    local
        .run_until(async {
            while release.recv().await.is_some() {
                shared.released.notify_waiters();
            }
        })
        .await;
    Ok(())
}

/// What every connection knows.
#[derive(Debug)]
struct Shared {
    arguments: Arguments,
    /// Notified when the requests that are held are to be answered.
    released: Notify,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Http,
    Echo,
    Greet,
}

async fn accept(listener: TcpListener, kind: Kind, shared: Rc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            // A connection that breaks is the client's to report.
            match kind {
                Kind::Http => serve(stream, shared).await,
                Kind::Echo => drop(echo(stream, None).await),
                Kind::Greet => drop(echo(stream, Some(&shared.arguments.name)).await),
            }
        });
    }
}

async fn echo(mut stream: TcpStream, greeting: Option<&str>) -> io::Result<()> {
    if let Some(name) = greeting {
        stream
            .write_all(format!("hello {name}\n").as_bytes())
            .await?;
    }
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

async fn serve(stream: TcpStream, shared: Rc<Shared>) {
    let service = service_fn(move |request| answer(request, Rc::clone(&shared)));
    let builder = auto::Builder::new(LocalExecutor);
    let _ = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}

/// Runs hyper's tasks on the thread they were made on.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Rc<Shared>,
) -> Result<Response<Payload>, Infallible> {
    let query = query(request.uri().query().unwrap_or_default());
    let number = |name: &str| query.get(name).and_then(|value| value.parse::<u64>().ok());
    let arguments = &shared.arguments;
    let delay = arguments.delay_ms
        + number("ms")
            .filter(|_| request.uri().path() == "/slow")
            .unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(delay)).await;
    if request.uri().path() == "/held" {
        let released = shared.released.notified();
        let of = |name: &str| query.get(name).map_or("", String::as_str);
        say(&format!("held {} {}", of("as"), of("id")));
        released.await;
    }
    let head = request.method() == Method::HEAD;
    let upgrades = request
        .headers()
        .get(UPGRADE)
        .is_some_and(|protocol| protocol == "echo");
    let mut response = match request.uri().path() {
        _ if upgrades => upgrade(request),
        _ if is_grpc(request.headers()) => {
            let mut response = Response::new(trailed(request, "grpc-status", "0"));
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(CONTENT_TYPE, grpc);
            response
        }
        "/echo" => Response::new(trailed(request, "x-echoed", "whole")),
        "/stream" => {
            let mut ticks =
                tokio::time::interval(Duration::from_millis(number("ms").unwrap_or(10).max(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            Response::new(
                Chunks {
                    left: number("chunks").unwrap_or(10),
                    ticks,
                }
                .boxed(),
            )
        }
        "/status" => {
            let mut response = Response::new(whole(String::new()));
            let code = number("code")
                .and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
            *response.status_mut() = code.unwrap_or(StatusCode::BAD_REQUEST);
            response
        }
        _ => Response::new(whole(describe(&request))),
    };
    let name = HeaderValue::from_str(&arguments.name).unwrap_or(HeaderValue::from_static("?"));
    response.headers_mut().insert("x-served-by", name);
    // Over HTTP/2, hyper leaves it to the service to send no body.
    if head {
        *response.body_mut() = whole(String::new());
    }
    Ok(response)
}

/// To the test that started it. What it cannot say, nobody waits for.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// The head of the request as JSON: method, version, URI, and every value of every header field.
fn describe(request: &Request<Incoming>) -> String {
    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in request.headers() {
        headers
            .entry(name.as_str())
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    serde_json::json!({
        "method": request.method().as_str(),
        "version": format!("{:?}", request.version()),
        "uri": request.uri().to_string(),
        "headers": headers,
    })
    .to_string()
}

fn upgrade(request: Request<Incoming>) -> Response<Payload> {
    tokio::task::spawn_local(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    });
    let mut response = Response::new(whole(String::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("echo"));
    response
}

fn query(query: &str) -> BTreeMap<String, String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

fn whole(text: String) -> Payload {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

fn trailed(request: Request<Incoming>, name: &'static str, value: &'static str) -> Payload {
    let body = request.into_body();
    let done = false;
    Trailed {
        body,
        name,
        value,
        done,
    }
    .boxed()
}

/// A request's body sent back, with a trailer after it.
#[derive(Debug)]
struct Trailed {
    body: Incoming,
    name: &'static str,
    value: &'static str,
    done: bool,
}

impl Body for Trailed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.done {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(None) => {
                self.done = true;
                let mut trailers = HeaderMap::new();
                trailers.insert(self.name, HeaderValue::from_static(self.value));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
            }
            other => other,
        }
    }
}

/// A body in pieces, one a tick.
#[derive(Debug)]
struct Chunks {
    left: u64,
    ticks: Interval,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        std::task::ready!(self.ticks.poll_tick(context));
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(format!(
            "chunk {}\n",
            self.left
        ))))))
    }
}
