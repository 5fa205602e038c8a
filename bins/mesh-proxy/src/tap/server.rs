//! Who may observe, and the streams to them: `Tap.Observe` over mesh TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use linkerd2_proxy_api::tap::ObserveRequest;
use linkerd2_proxy_api::tap::tap_server::{Tap, TapServer};
use mesh_tls::{ClientAuth, TlsServer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tonic::{Request, Response, Status, async_trait};

use super::observer::{Events, MAX_OBSERVERS, Taps};
use crate::Shared;
use crate::trust::Recorded;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Streams at once on one of them.
const MAX_STREAMS: u32 = 32;
/// The largest request.
const MAX_REQUEST_BYTES: usize = 256 * 1024;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a client is asked whether it is still there, and how long it has to say so.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// How long a client that may not observe is told so.
const REFUSING: Duration = Duration::from_secs(10);

/// Serves from the first certificate until the drain. Who observes then goes on until the process ends.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    shared.readiness.certified().await;
    let tls = shared.tls.server(&[b"h2"], ClientAuth::Required);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = shared.drain.recv() => return,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                listener.accept().await.map(|accepted| (accepted, place))
            } => accepted,
        };
        match accepted {
            Ok(((stream, client), place)) => {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    if let Err(error) = connection(&shared, &tls, stream, client).await {
                        tracing::debug!(%client, %error, "a connection to tap.listen failed");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept at tap.listen");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    shared: &Shared,
    tls: &TlsServer,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let (stream, verified) = timeout(HANDSHAKE_TIMEOUT, tls.accept_verified(stream)).await??;
    let Some(peer) = verified else {
        // A certificate is required.
        return Ok(());
    };
    let record = shared.connections.own(peer.keys.anchor);
    let (stream, identity) = (Recorded::new(stream, record), Some(peer.identity));
    let permitted = identity
        .as_ref()
        .is_some_and(|identity| shared.config.tap.identities.contains(identity));
    let service = TapServer::new(Service {
        taps: permitted.then(|| shared.taps.clone()),
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(
            TokioIo::new(stream),
            TowerToHyperService::new(service.max_decoding_message_size(MAX_REQUEST_BYTES)),
        );
    if permitted {
        return Ok(connection.await?);
    }
    let client = identity.map_or_else(String::new, |identity| identity.to_string());
    tracing::warn!(%address, client, "is not among tap.identities: refused to observe");
    Ok(timeout(REFUSING, connection).await??)
}

/// The service as one client sees it.
struct Service {
    /// `None` for a client that may not observe.
    taps: Option<Arc<Taps>>,
}

#[async_trait]
impl Tap for Service {
    type ObserveStream = Events;

    async fn observe(&self, request: Request<ObserveRequest>) -> Result<Response<Events>, Status> {
        let taps = self.taps.as_ref().ok_or_else(|| {
            Status::permission_denied("the client's identity is not among tap.identities")
        })?;
        let observed = taps.observe(request.get_ref());
        let observed = observed.map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
        observed.map(Response::new).ok_or_else(|| {
            Status::resource_exhausted(format!(
                "{MAX_OBSERVERS} observe already, which is the most"
            ))
        })
    }
}
