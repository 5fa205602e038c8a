//! One HTTP/2 connection.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, watch},
    time,
};
use tracing::debug;

use super::{Peer, stopped};
use crate::api::ProxyApi;

pub(super) async fn serve<IO>(io: IO, peer: Peer, api: ProxyApi, mut stop: watch::Receiver<bool>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stranger = peer.is_stranger();
    let comes_back = peer.comes_back(SystemTime::now());
    let asked = AtomicBool::new(false);
    let (answered, turned_away) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer.clone());
        let open = ProxyApi::is_open_to_strangers(request.uri().path());
        let done = if open { &answered } else { &turned_away }.clone();
        let api = api.clone();
        async move {
            let answer = api.call(request).await;
            done.notify_one();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(if stranger {
            STRANGER_STREAMS
        } else {
            MAX_STREAMS
        })
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let mut first_request = std::pin::pin!(time::sleep(FIRST_REQUEST_TIMEOUT));
    let mut leaves = std::pin::pin!(async {
        tokio::select! {
            () = stopped(&mut stop) => {}
            () = is_to_leave(&answered, &turned_away, &asked), if stranger => {}
            // What is asked once the certificate has ended would be refused. By then the peer has another.
            () = time::sleep(comes_back.unwrap_or_default()), if comes_back.is_some() => {}
        }
    });
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = first_request.as_mut(), if !first_request.is_elapsed() => {
                if !asked.load(Ordering::Relaxed) {
                    debug!("closed a connection that asks for nothing");
                    return;
                }
            }
            () = leaves.as_mut() => {
                connection.as_mut().graceful_shutdown();
                // Watches do not end by themselves. Their clients know from the GOAWAY that they are to reconnect.
                match time::timeout(DRAIN, connection.as_mut()).await {
                    Ok(ended) => break ended,
                    Err(_) => return,
                }
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection failed");
    }
}

/// Waits until a stranger has had its time. Whoever got a certificate comes back with it, and a linkerd2-proxy opens the
/// connections that it will need before it has one: it must not go on to use them.
async fn is_to_leave(answered: &Notify, turned_away: &Notify, asked: &AtomicBool) {
    let answered_a_while_ago = async {
        answered.notified().await;
        time::sleep(AFTER_FIRST_ANSWER).await;
    };
    let asks_for_nothing = async {
        time::sleep(STRANGER_FIRST_REQUEST).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let enough = async {
        tokio::select! {
            () = answered_a_while_ago => {}
            () = turned_away.notified() => {}
            () = asks_for_nothing => {}
        }
    };
    let _ = time::timeout(STRANGER_LIFETIME, enough).await;
}

/// A proxy has about two streams for each service it talks to.
const MAX_STREAMS: u32 = 10_000;
/// Of Certify, the only call that strangers may make.
const STRANGER_STREAMS: u32 = 8;
/// The proxy API has no large headers; this leaves room for tracing and metadata.
const MAX_HEADER_BYTES: u32 = 16 << 10;
const MAX_FRAME_BYTES: u32 = 64 << 10;
/// Of messages that are encoded for one stream alone. Shared ones are not copied.
const MAX_SEND_BUFFER_BYTES: usize = 64 << 10;
const MAX_RESET_STREAMS: usize = 64;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stranger may wait before it asks for a certificate.
const STRANGER_FIRST_REQUEST: Duration = Duration::from_secs(2);
/// How long a stranger may stay after its first answer: enough to try another token.
const AFTER_FIRST_ANSWER: Duration = Duration::from_secs(3);
/// How long a stranger may stay in any case.
const STRANGER_LIFETIME: Duration = Duration::from_secs(15);
const DRAIN: Duration = Duration::from_millis(500);
