//! TLS handshakes: until one is done nobody knows who is at the other end, so they have places of their own.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_tls::{TlsServer, pki_types::CertificateDer};
use mesh_trust_rotation::{AnchorId, Digest, audit::Hash as _, crypto::Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};
use tracing::debug;

use super::Peer;
use crate::trust::{Shown, ShownLeaf, Trust};

/// How many handshakes are under way on one listener.
#[derive(Debug)]
pub(super) struct Handshakes {
    places: Arc<Semaphore>,
}

/// A connection whose peer has yet to say who it is.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) trust: Arc<Trust>,
    pub(super) server: TlsServer,
    pub(super) place: Place,
}

/// A handshake's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Semaphore>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Handshakes {
    /// Up to `limit` at a time.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limit as usize)),
        }
    }

    /// Waits until there is a place. Who is not accepted yet waits in the system's queue.
    pub(super) async fn place(&self) -> Place {
        let places = self.places.clone();
        Place {
            // The semaphore is never closed.
            _permit: places.clone().acquire_owned().await.ok(),
            places,
        }
    }
}

impl Handshake {
    /// The connection and who is at the other end; `None` when it failed or took too long.
    pub(super) async fn finish(
        self,
    ) -> Option<(impl AsyncRead + AsyncWrite + Unpin + Send + use<>, Peer)> {
        let _ = self.stream.set_nodelay(true);
        let address = self.address;
        let before = self.trust.own_anchor();
        let accepted = tokio::select! {
            accepted = self.server.accept_verified(self.stream) => accepted,
            () = self.place.overdue() => {
                debug!("the TLS handshake took too long");
                return None;
            }
        };
        let (stream, verified) = accepted
            .inspect_err(|error| debug!(%error, "the TLS handshake failed"))
            .ok()?;
        let certificate = stream.get_ref().1.peer_certificates();
        let leaf = certificate.and_then(|chain| read(chain.first()?));
        let identity = verified.as_ref().map(|peer| peer.identity.clone());
        let anchor = verified.map(|peer| AnchorId::new(*peer.keys.anchor.as_bytes()));
        // If the controller's chain moved meanwhile, it is not known which one was shown.
        let shown = before.filter(|_| before == self.trust.own_anchor());
        let peer = Peer {
            address,
            tls: true,
            certified: identity.zip(leaf.map(|(until, _)| until)),
            leaf: anchor
                .zip(leaf)
                .map(|(anchor, (_, key))| ShownLeaf { anchor, key }),
            accepted: Shown::Chain(shown),
        };
        Some((stream, peer))
    }
}

impl Place {
    /// Waits until the handshake has had its time: little when others wait for its place.
    async fn overdue(&self) {
        for _ in 0..HANDSHAKE_SECONDS {
            time::sleep(Duration::from_secs(1)).await;
            if self.places.available_permits() == 0 {
                return;
            }
        }
    }
}

/// The end of a certificate's validity, and the digest of its key.
fn read(certificate: &CertificateDer<'_>) -> Option<(SystemTime, Digest)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    let since = Duration::from_secs(u64::try_from(seconds).ok()?);
    let key = Sha256.digest(certificate.public_key().raw);
    Some((SystemTime::UNIX_EPOCH.checked_add(since)?, key))
}

const HANDSHAKE_SECONDS: u32 = 10;

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slow_handshakes_make_room_only_when_all_places_are_taken() {
        let handshakes = Handshakes::new(2);
        let start = Instant::now();
        let slow = handshakes.place().await;
        slow.overdue().await;
        assert_eq!(start.elapsed(), Duration::from_secs(10));

        let start = Instant::now();
        let other = handshakes.place().await;
        let waiting = handshakes.place();
        let ends = async {
            slow.overdue().await;
            drop(slow);
        };
        let (place, ()) = tokio::join!(waiting, ends);
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        drop((place, other));
    }
}
