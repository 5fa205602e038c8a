//! One HTTP/2 connection.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time,
};
use tracing::debug;

use super::{Peer, stopped};
use crate::api::ProxyApi;

pub(super) async fn serve<IO>(io: IO, peer: Peer, api: ProxyApi, mut stop: watch::Receiver<bool>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = AtomicBool::new(false);
    let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer.clone());
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.call(request).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let mut first_request = std::pin::pin!(time::sleep(FIRST_REQUEST_TIMEOUT));
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = first_request.as_mut(), if !first_request.is_elapsed() => {
                if !asked.load(Ordering::Relaxed) {
                    debug!("closed a connection that asks for nothing");
                    return;
                }
            }
            () = stopped(&mut stop) => {
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

/// A proxy has about two streams for each service it talks to.
const MAX_STREAMS: u32 = 10_000;
/// The proxy API has no large headers; this leaves room for tracing and metadata.
const MAX_HEADER_BYTES: u32 = 16 << 10;
const MAX_FRAME_BYTES: u32 = 64 << 10;
/// Of messages that are encoded for one stream alone. Shared ones are not copied.
const MAX_SEND_BUFFER_BYTES: usize = 64 << 10;
const MAX_RESET_STREAMS: usize = 64;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_millis(500);
