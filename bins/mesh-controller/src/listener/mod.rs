//! The proxy API on a TCP port: plaintext or TLS, HTTP/2, bounded in every direction.

mod admission;
mod connection;
mod handshake;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_tls::{Identity, TlsServer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time,
};
use tracing::{Instrument, Span, debug_span, warn};

use crate::{
    api::ProxyApi,
    trust::{Shown, ShownLeaf, Trust},
};

pub(crate) use self::admission::{Admitted, ConnectionLimits, StreamAdmission, come_back};
use self::handshake::{Handshake, Handshakes};

/// Who is at the other end of a connection; an extension of each of its requests.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// Whether the connection is encrypted. If not, the peer is on this host.
    pub tls: bool,
    /// What its certificate proves, and until when, if it has shown one.
    pub certified: Option<(Identity, SystemTime)>,
    /// The key of that certificate, and whom it was verified by.
    pub leaf: Option<ShownLeaf>,
    /// What it has seen of the controller's own chain.
    pub accepted: Shown,
}

impl Peer {
    /// Who it is at `now`. A connection may outlive the certificate it was opened with; the proof does not.
    pub(crate) fn identity(&self, now: SystemTime) -> Option<&Identity> {
        let (identity, until) = self.certified.as_ref()?;
        (now < *until).then_some(identity)
    }

    /// How long from `now` until it is to connect anew, by the certificate that it will have then: shortly before that of this
    /// connection ends. `None` where it has shown none.
    fn comes_back(&self, now: SystemTime) -> Option<Duration> {
        let (_, until) = self.certified.as_ref()?;
        let left = until.duration_since(now).unwrap_or_default();
        Some(left - left / 20)
    }

    /// Whether it may be anybody: it came over the network and has shown no certificate of the mesh.
    pub(crate) fn is_stranger(&self) -> bool {
        self.tls && self.certified.is_none()
    }
}

/// One bound port of the proxy API.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    tls: Option<Tls>,
    limits: Arc<ConnectionLimits>,
}

#[derive(Debug)]
struct Tls {
    trust: Arc<Trust>,
    server: TlsServer,
    handshakes: Handshakes,
}

enum Accepted {
    Plaintext(TcpStream, SocketAddr),
    Tls(Handshake),
}

impl Listener {
    /// Serves `socket`, over TLS by `trust` if there is any.
    #[must_use]
    pub(crate) fn new(
        socket: TcpListener,
        trust: Option<Arc<Trust>>,
        limits: Arc<ConnectionLimits>,
    ) -> Self {
        Self {
            socket,
            tls: trust.map(|trust| Tls {
                server: trust.server(),
                trust,
                handshakes: Handshakes::new(limits.max_uncertified),
            }),
            limits,
        }
    }

    /// Accepts and serves until `stop` turns true; then every connection gets a GOAWAY and a moment to finish.
    pub(crate) async fn serve(self, api: ProxyApi, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = stopped(&mut stop) => break,
            };
            match accepted {
                Ok(Accepted::Plaintext(stream, address)) => {
                    let peer = Peer {
                        address,
                        tls: false,
                        certified: None,
                        leaf: None,
                        accepted: Shown::Local,
                    };
                    if let Some(place) = self.limits.admit(&peer) {
                        let _ = stream.set_nodelay(true);
                        let serve = connection::serve(stream, peer, api.clone(), stop.clone());
                        connections.spawn(async move {
                            serve.instrument(span(address)).await;
                            drop(place);
                        });
                    }
                }
                Ok(Accepted::Tls(handshake)) => {
                    let span = span(handshake.address);
                    let limits = self.limits.clone();
                    let serve = serve_tls(handshake, limits, api.clone(), stop.clone());
                    connections.spawn(serve.instrument(span));
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

    /// The next connection. Over TLS, not before there is a place for its handshake.
    async fn accept(&self) -> io::Result<Accepted> {
        let Some(tls) = &self.tls else {
            let (stream, address) = self.socket.accept().await?;
            return Ok(Accepted::Plaintext(stream, address));
        };
        let place = tls.handshakes.place().await;
        let (stream, address) = self.socket.accept().await?;
        Ok(Accepted::Tls(Handshake {
            stream,
            address,
            trust: tls.trust.clone(),
            server: tls.server.clone(),
            place,
        }))
    }
}

/// Waits until `stop` turns true, or nobody is left to turn it.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve_tls(
    handshake: Handshake,
    limits: Arc<ConnectionLimits>,
    api: ProxyApi,
    mut stop: watch::Receiver<bool>,
) {
    let shaken = tokio::select! {
        shaken = handshake.finish() => shaken,
        () = stopped(&mut stop) => return,
    };
    let Some((stream, peer)) = shaken else { return };
    if let Some(place) = limits.admit(&peer) {
        connection::serve(stream, peer, api, stop).await;
        drop(place);
    }
}

fn span(address: SocketAddr) -> Span {
    debug_span!("connection", %address)
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
