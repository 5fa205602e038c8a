//! An HTTP/1 connection between requests gives its buffers back, and serves the next request as if nothing had been.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use mesh_http::connections::{Connections, REST_TICKS};
use mesh_http::{Error, Incoming, ServerLimits, server};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};
use tokio::time::timeout;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/// How many of them share what is allocated once.
const CONNECTIONS: usize = 100;

/// More than what one rests with by a margin; hyper's two buffers alone are 16 KiB.
const MAX_BYTES_AT_REST: i64 = 3 * 1024;

/// A served connection, and how many requests it has carried.
struct Served {
    all: Connections,
    client: DuplexStream,
    requests: Rc<Cell<u32>>,
    task: JoinHandle<Result<(), Error>>,
}

impl Served {
    fn new() -> Self {
        let (client, io) = duplex(64 * 1024);
        Self::on(client, io)
    }

    fn on<I>(client: DuplexStream, io: I) -> Self
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let all = Connections::new(10, 100);
        let requests = Rc::<Cell<u32>>::default();
        let task = spawn_local(serve(all.clone(), io, requests.clone()));
        Self {
            all,
            client,
            requests,
            task,
        }
    }

    async fn ask(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
        self.answered().await;
    }

    async fn answered(&mut self) {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nhello") {
            assert_ne!(self.client.read_buf(&mut answer).await.unwrap(), 0);
        }
    }

    /// Ticks until it must have come to rest.
    async fn rest(&self) {
        for _ in 0..=REST_TICKS {
            self.all.sweep();
            yield_now().await;
        }
    }
}

/// Never gets its end across, as to a peer that does not read.
struct Endless(DuplexStream);

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// Answers without reading any request's body.
async fn serve<I>(all: Connections, io: I, requests: Rc<Cell<u32>>) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = all.open().await;
    let activity = connection.activity();
    let service = service_fn(|_: Request<Incoming>| {
        let _in_flight = activity.request();
        requests.set(requests.get() + 1);
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(
            Bytes::from_static(b"hello"),
        ))))
    });
    server::http1(io, &ServerLimits::default(), &connection, service).await
}

#[tokio::test]
async fn requests_after_a_rest_are_served() {
    let test = async {
        let mut served = Served::new();
        for _ in 0..3 {
            served.ask(GET).await;
            served.rest().await;
        }
        // In pieces, with a rest that is not one between them.
        let (begun, rest) = GET.split_at(7);
        served.client.write_all(begun).await.unwrap();
        served.rest().await;
        served.ask(rest).await;
        assert_eq!(served.requests.get(), 4);
        drop(served.client);
        served.task.await.unwrap().unwrap();
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn what_came_in_before_a_rest_is_served_after_it() {
    let test = async {
        let mut served = Served::new();
        // The beginning of the second head stays in hyper's buffer, where nobody notes it.
        let (begun, rest) = GET.split_at(7);
        served.ask(&[GET, begun].concat()).await;
        served.rest().await;
        served.ask(rest).await;
        assert_eq!(served.requests.get(), 2);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_body_that_nobody_read_is_never_taken_for_a_request() {
    let test = async {
        let mut served = Served::new();
        let head = b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100000\r\n\r\n";
        served.ask(head).await;
        served.rest().await;
        // The connection was closed, as no next request could be found.
        let _ = served.client.write_all(GET).await;
        let _ = served.client.read_to_end(&mut Vec::new()).await;
        assert!(served.task.await.unwrap().is_ok());
        assert_eq!(served.requests.get(), 1);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_drain_ends_those_at_rest() {
    let test = async {
        let mut served = Served::new();
        served.ask(GET).await;
        served.rest().await;
        served.all.drain();
        assert_eq!(served.client.read(&mut [0; 10]).await.unwrap(), 0);
        served.task.await.unwrap().unwrap();
        assert!(served.all.is_empty());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn one_at_rest_that_cannot_end_is_closed() {
    let test = async {
        let (client, io) = duplex(64 * 1024);
        let mut served = Served::on(client, Endless(io));
        served.ask(GET).await;
        served.rest().await;
        served.all.drain();
        let wait = Duration::from_secs(60);
        assert!(timeout(wait, &mut served.task).await.is_err());
        served.all.close();
        timeout(wait, served.task).await.unwrap().unwrap().unwrap();
    };
    LocalSet::new().run_until(test).await;
}

#[test]
fn at_rest_a_connection_holds_no_buffers() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = LocalSet::new();
    let all = Connections::new(CONNECTIONS, 100);
    let connected = local.block_on(&runtime, connected());
    // The streams are there already: what is counted is what serving them takes.
    let held = allocation_counter::measure(|| {
        let serving = async {
            let mut clients = Vec::with_capacity(CONNECTIONS);
            for (mut client, io) in connected {
                spawn_local(serve(all.clone(), io, Rc::default()));
                client.write_all(GET).await.unwrap();
                assert_ne!(client.read(&mut [0; 200]).await.unwrap(), 0);
                clients.push(client);
            }
            for _ in 0..=REST_TICKS {
                all.sweep();
                // A LocalSet takes some dozens of tasks at a time.
                for _ in 0..CONNECTIONS {
                    yield_now().await;
                }
            }
            clients
        };
        std::mem::forget(local.block_on(&runtime, serving));
    });
    let each = held.bytes_current / CONNECTIONS as i64;
    assert!(each < MAX_BYTES_AT_REST, "{each} bytes at rest");
}

async fn connected() -> Vec<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut pairs = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        pairs.push((client.unwrap(), accepted.unwrap().0));
    }
    pairs
}
