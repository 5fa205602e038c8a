//! A burst of requests at an application that takes no more connections is answered over those that it has taken.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::mesh::Mesh;
use crate::wire::{Wire, ask};

const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const CLIENTS: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn by_an_application_that_accepts_no_more() {
    let mesh = Mesh::start();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(mesh.net.app()).unwrap();
    let listener = socket.listen(1).unwrap();
    // Over one worker, as a connection is one worker's. Each request would wait for as long as a client waits.
    let settings = "limits.workers = 1\ninbound.connect_timeout = \"30s\"";
    let _proxies = tokio::join!(mesh.client(""), mesh.server(settings));
    let (first, app) = tokio::join!(ask(mesh.net.web(), GET), answer_one(&listener));
    assert_eq!(first.status(), 200);
    let _app = tokio::spawn(app);
    let _full = fill(mesh.net.app()).await;

    let burst = join_all((0..CLIENTS).map(|_| ask(mesh.net.web(), GET)));
    let answers = timeout(Duration::from_secs(20), burst).await.unwrap();
    assert!(answers.iter().all(|answer| answer.status() == 200));
}

/// Answers the first request of the first connection; what it gives answers those that follow.
async fn answer_one(listener: &TcpListener) -> impl Future<Output = ()> + use<> {
    let (stream, _) = listener.accept().await.unwrap();
    let mut wire = Wire::over(stream);
    wire.request().await.unwrap();
    wire.send(OK).await;
    async move {
        while wire.request().await.is_some() {
            wire.send(OK).await;
        }
    }
}

/// Connections of which none is accepted, as many as there is room for.
async fn fill(address: SocketAddr) -> Vec<TcpStream> {
    let mut waiting = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    waiting
}
