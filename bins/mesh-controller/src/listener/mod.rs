//! The proxy API on a TCP port: plaintext or TLS, HTTP/2, bounded in every direction.

mod admission;
mod connection;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_tls::{Identity, TlsServer, pki_types::CertificateDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time,
};
use tracing::{Instrument, debug, debug_span, warn};

use crate::api::ProxyApi;

pub(crate) use self::admission::StreamAdmission;
pub(crate) use self::admission::{Admitted, come_back};

/// Who is at the other end of a connection; an extension of each of its requests.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// Whether the connection is encrypted. If not, the peer is on this host.
    pub tls: bool,
    /// What its certificate proves, and until when, if it has shown one.
    pub certified: Option<(Identity, SystemTime)>,
}

impl Peer {
    /// Who it is at `now`. A connection may outlive the certificate it was opened with; the proof does not.
    pub(crate) fn identity(&self, now: SystemTime) -> Option<&Identity> {
        let (identity, until) = self.certified.as_ref()?;
        (now < *until).then_some(identity)
    }
}

/// One bound port of the proxy API.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    tls: Option<TlsServer>,
    limits: Arc<ConnectionLimits>,
}

/// What all listeners share.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    connections: Arc<Semaphore>,
    max_connections: u32,
}

impl Listener {
    /// Serves `socket`, over TLS if there is any.
    #[must_use]
    pub(crate) fn new(
        socket: TcpListener,
        tls: Option<TlsServer>,
        limits: Arc<ConnectionLimits>,
    ) -> Self {
        Self {
            socket,
            tls,
            limits,
        }
    }

    /// Accepts and serves until `stop` turns true; then every connection gets a GOAWAY and a moment to finish.
    pub(crate) async fn serve(self, api: ProxyApi, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = stopped(&mut stop) => break,
            };
            match accepted {
                Ok((stream, address)) => {
                    if let Some(permit) = self.limits.admit(address) {
                        connections.spawn(handle(
                            stream,
                            address,
                            self.tls.clone(),
                            api.clone(),
                            stop.clone(),
                            permit,
                        ));
                    }
                }
                // Out of file descriptors, or the peer is gone already: neither ends the listener.
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }
}

impl ConnectionLimits {
    /// Admits up to `max_connections` at a time.
    #[must_use]
    pub(crate) fn new(max_connections: u32) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(max_connections as usize)),
            max_connections,
        }
    }

    fn admit(&self, address: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.connections).try_acquire_owned().ok();
        if permit.is_none() {
            warn!(%address, limit = self.max_connections, "refused a connection: max-connections is reached");
        }
        permit
    }
}

/// Waits until `stop` turns true, or nobody is left to turn it.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn handle(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsServer>,
    api: ProxyApi,
    mut stop: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let span = debug_span!("connection", %address);
    let serve = async move {
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else {
            let peer = Peer {
                address,
                tls: false,
                certified: None,
            };
            return connection::serve(stream, peer, api, stop).await;
        };
        let handshake = tokio::select! {
            handshake = time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => handshake,
            () = stopped(&mut stop) => return,
        };
        match handshake {
            Ok(Ok((stream, identity))) => {
                let certificate = stream.get_ref().1.peer_certificates();
                let until = certificate.and_then(|chain| not_after(chain.first()?));
                let peer = Peer {
                    address,
                    tls: true,
                    certified: identity.zip(until),
                };
                connection::serve(stream, peer, api, stop).await;
            }
            Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
            Err(_) => debug!(timeout = ?HANDSHAKE_TIMEOUT, "TLS handshake took too long"),
        }
    };
    serve.instrument(span).await;
    drop(permit);
}

/// The end of a certificate's validity.
fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
