//! Who does not read slows down who writes, both ways; the proxies hold little in between.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::controller::soon;
use crate::h2::{self, Body};
use crate::mesh::{Mesh, Proxy};
use crate::policy;

/// Streams that nobody reads, at once.
const STREAMS: usize = 8;
/// The most that a proxy may hold of one stream: an HTTP/2 window, a queue to be sent, and what HTTP/1 reads at once.
const HELD: u64 = 2 << 20;
/// The most that the kernel may hold of one HTTP/1 stream in the buffers of three connections, and the proxies beside.
const TAKEN: usize = 40 << 20;

/// Counts what it writes, until somebody does not want it.
async fn flood(mut io: impl AsyncWrite + Unpin, written: Arc<AtomicUsize>) {
    while let Ok(count) = io.write(&[7; 16 * 1024]).await {
        written.fetch_add(count, Relaxed);
    }
}

/// A body without end, and how much of it was taken.
fn endless(taken: Arc<AtomicUsize>) -> Body {
    let frames = std::iter::from_fn(move || {
        taken.fetch_add(16 * 1024, Relaxed);
        Some(Ok(Frame::data(Bytes::from_static(&[7; 16 * 1024]))))
    });
    StreamBody::new(tokio_stream::iter(frames)).boxed_unsync()
}

/// Waits until nothing more is taken.
async fn stalled(count: &AtomicUsize) -> usize {
    let stalling = async {
        loop {
            let before = count.load(Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            if before > 0 && count.load(Relaxed) == before {
                return before;
            }
        }
    };
    soon("a stall", stalling).await
}

async fn read_head(io: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(soon("a head", io.read_line(&mut line)).await.unwrap() > 0);
    }
}

/// Accepts connections, reads what is no HTTP body of each, and does `serve`.
async fn listen<F>(
    address: SocketAddr,
    serve: impl Fn(BufReader<TcpStream>) -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(BufReader::new(stream)));
        }
    })
}

struct Before([u64; 2]);

impl Before {
    fn of(proxies: &(Proxy, Proxy)) -> Self {
        Self([proxies.0.peak_memory(), proxies.1.peak_memory()])
    }

    fn check(&self, proxies: &(Proxy, Proxy), streams: usize) {
        for (before, after) in self.0.into_iter().zip(Self::of(proxies).0) {
            let grown = after.saturating_sub(before);
            assert!(
                grown < HELD * streams as u64,
                "{grown} bytes are held for {streams} streams"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_answers_that_nobody_reads() {
    let mesh = Mesh::start();
    let proxies = mesh.both().await;
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let app = listen(mesh.net.app(), move |mut io| {
        let counter = counter.clone();
        async move {
            read_head(&mut io).await;
            io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n")
                .await
                .unwrap();
            flood(io, counter).await;
        }
    })
    .await;
    let before = Before::of(&proxies);
    let mut clients = Vec::new();
    for _ in 0..STREAMS {
        let mut io = BufReader::new(TcpStream::connect(mesh.net.web()).await.unwrap());
        io.write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\n\r\n")
            .await
            .unwrap();
        read_head(&mut io).await;
        clients.push(io);
    }
    let taken = stalled(&written).await;
    assert!(taken < STREAMS * TAKEN, "{taken} bytes were taken");
    before.check(&proxies, STREAMS);
    app.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_requests_that_nobody_reads() {
    let mesh = Mesh::start();
    let proxies = mesh.both().await;
    let app = listen(mesh.net.app(), |mut io| async move {
        read_head(&mut io).await;
        std::future::pending::<()>().await;
    })
    .await;
    let before = Before::of(&proxies);
    let written = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..STREAMS {
        let mut io = TcpStream::connect(mesh.net.web()).await.unwrap();
        io.write_all(b"POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 9999999999\r\n\r\n")
            .await
            .unwrap();
        clients.push(tokio::spawn(flood(io, written.clone())));
    }
    let taken = stalled(&written).await;
    assert!(taken < STREAMS * TAKEN, "{taken} bytes were taken");
    before.check(&proxies, STREAMS);
    clients.iter().for_each(JoinHandle::abort);
    app.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_http_2_streams_that_nobody_reads() {
    let mesh = Mesh::start();
    let proxies = mesh.both().await;
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let _app = h2::app(mesh.net.app(), move |request| {
        let counter = counter.clone();
        async move {
            if request.method() == "GET" {
                return Response::new(endless(counter));
            }
            // Keeps the body, unread.
            let _request = request;
            std::future::pending().await
        }
    })
    .await;
    let before = Before::of(&proxies);
    let (sender, _connection) = h2::connect(mesh.net.web()).await;
    let mut answers = Vec::new();
    for _ in 0..STREAMS {
        let request = Request::get("http://web.test/").body(h2::full("")).unwrap();
        let answer = soon("an answer", sender.clone().send_request(request)).await;
        answers.push(answer.unwrap());
    }
    let taken = stalled(&written).await;
    assert!(taken < STREAMS * (8 << 20), "{taken} bytes were taken");
    before.check(&proxies, STREAMS);

    let sent = Arc::new(AtomicUsize::new(0));
    let mut requests = Vec::new();
    for _ in 0..STREAMS {
        let request = Request::post("http://web.test/").body(endless(sent.clone()));
        let sending = sender.clone().send_request(request.unwrap());
        requests.push(tokio::spawn(sending));
    }
    let taken = stalled(&sent).await;
    assert!(taken < STREAMS * (8 << 20), "{taken} bytes were taken");
    before.check(&proxies, 2 * STREAMS);
    requests.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_bytes_that_nobody_reads() {
    let mesh = Mesh::start();
    mesh.says.policy("web.test:80", policy::opaque("web"));
    let port = mesh.net.app().port();
    let meshed = policy::meshed_opaque(mesh.net.mesh_port(), port);
    mesh.says.endpoints("web.test:80", vec![meshed]);
    mesh.says.server(port, policy::as_opaque(policy::open()));
    let proxies = mesh.both().await;
    // Both ends write and neither reads.
    let (there, back) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counter = back.clone();
    let app = listen(mesh.net.app(), move |io| flood(io, counter.clone())).await;
    let before = Before::of(&proxies);
    let mut clients = Vec::new();
    for _ in 0..STREAMS {
        let io = TcpStream::connect(mesh.net.web()).await.unwrap();
        clients.push(tokio::spawn(flood(io, there.clone())));
    }
    for written in [there, back] {
        let taken = stalled(&written).await;
        assert!(taken < STREAMS * TAKEN, "{taken} bytes were taken");
    }
    before.check(&proxies, STREAMS);
    clients.iter().for_each(JoinHandle::abort);
    app.abort();
}
