//! The certificate that a SPIFFE Workload API issues: SPIRE's agent, or any other.
//!
//! The API streams: what it sends is in use at once, without a restart, and a stream that ends is opened again. The key
//! comes with the certificate. An agent says a thing once, so what is refused is asked for anew: without a live certificate
//! soon, else after a while.
//!
//! The anchors that the API sends along are not used. Whom this proxy trusts is the mesh's to say, by
//! `identity.trust_anchors`, as it is for linkerd2-proxy: a mesh may hold workloads of several issuers, and whoever can
//! answer on a socket should not be able to make strangers trusted. A certificate that does not lead to these anchors is
//! refused, as no peer would take it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use mesh_control_api::spiffe::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use mesh_control_api::spiffe::{X509svid, X509svidRequest, X509svidResponse};
use mesh_metrics::IdentityHandle;
use mesh_tls::{CredentialWriter, Credentials, Identity, TrustReader};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Request, Status, Streaming};
use tower_service::Service;

use super::{CALL_TIMEOUT, Clock, MAX_CHAIN};
use crate::config::SocketPath;
use crate::control::backoff::Backoff;
use crate::os::{LocalStream, connect_local};
use crate::readiness::Certification;

/// Keeps the credentials those that the API issues. Made by [`WorkloadApi::new`], run by [`WorkloadApi::run`].
pub struct WorkloadApi {
    name: Identity,
    socket: SocketPath,
    trust: TrustReader,
    credentials: CredentialWriter,
    status: watch::Sender<Certification>,
    metrics: IdentityHandle,
    clock: Clock,
}

impl WorkloadApi {
    /// Takes the certificate of `name` from the API at `socket` and puts it in `credentials`, provided that `trust` vouches
    /// for it. The receiver tells how it stands.
    #[must_use]
    pub fn new(
        name: Identity,
        socket: SocketPath,
        trust: TrustReader,
        credentials: CredentialWriter,
        metrics: IdentityHandle,
        clock: Clock,
    ) -> (Self, watch::Receiver<Certification>) {
        let (status, receiver) = watch::channel(Certification::default());
        let api = Self {
            name,
            socket,
            trust,
            credentials,
            status,
            metrics,
            clock,
        };
        (api, receiver)
    }

    /// Follows the API, for ever.
    pub async fn run(self) {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            let Err(error) = self.follow(&mut backoff).await;
            self.failed(&error);
            sleep(backoff.next(fastrand::u64(..))).await;
        }
    }

    /// One stream, to its end.
    async fn follow(&self, backoff: &mut Backoff) -> Result<std::convert::Infallible, Error> {
        let opened = timeout(CALL_TIMEOUT, self.open());
        let mut stream = opened.await.map_err(|_| Error::Timeout)??;
        let mut refused = None;
        loop {
            let response = match refused.take() {
                // An agent sends nothing for as long as nothing changes.
                None => stream.message().await?,
                // What does not fit may fit later, say once the clock is right.
                Some(why) => match timeout(ASK_ANEW, stream.message()).await {
                    Ok(response) => response?,
                    Err(_) => return Err(why),
                },
            };
            match self.credentials(response.ok_or(Error::Ended)?) {
                Ok(fresh) => {
                    backoff.reset();
                    self.renewed(fresh);
                }
                Err(error) if self.is_certified() => {
                    self.failed(&error);
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the last certificate is still good.
    fn is_certified(&self) -> bool {
        let not_after = self.status.borrow().not_after;
        not_after.is_some_and(|not_after| (self.clock)() < not_after)
    }

    async fn open(&self) -> Result<Streaming<X509svidResponse>, Error> {
        let channel = Endpoint::from_static("http://workload-api")
            .connect_with_connector(Connector(self.socket.clone()))
            .await
            .map_err(|error| Error::Connect {
                socket: self.socket.clone(),
                reason: reason(&error),
            })?;
        let mut request = Request::new(X509svidRequest {});
        // Shows that the call is meant for the API, and not tricked out of somebody else's client.
        request
            .metadata_mut()
            .insert("workload.spiffe.io", MetadataValue::from_static("true"));
        let mut client = SpiffeWorkloadApiClient::new(channel);
        Ok(client.fetch_x509svid(request).await?.into_inner())
    }

    /// This workload's certificate among those of a response.
    fn credentials(&self, response: X509svidResponse) -> Result<Credentials, Error> {
        let found = response.svids.len();
        let mut svids = response.svids.into_iter();
        let svid = svids
            .find(|svid| svid.spiffe_id == self.name.as_str())
            .ok_or_else(|| Error::NotIssued {
                name: self.name.clone(),
                found,
            })?;
        let X509svid {
            x509_svid,
            x509_svid_key,
            ..
        } = svid;
        let key = PrivatePkcs8KeyDer::from(x509_svid_key);
        let credentials = Credentials::from_der(certificates(&x509_svid)?, key.into())?;
        if *credentials.identity() != self.name {
            return Err(Error::OtherIdentity {
                found: credentials.identity().clone(),
                expected: self.name.clone(),
            });
        }
        credentials.verify(&self.trust.load(), (self.clock)())?;
        Ok(credentials)
    }

    fn renewed(&self, fresh: Credentials) {
        let (not_after, now) = (fresh.not_after(), (self.clock)());
        self.credentials.set(fresh);
        self.metrics.renewed(now, not_after);
        self.status.send_replace(Certification {
            not_after: Some(not_after),
            failure: None,
        });
        let lifetime = not_after.duration_since(now).unwrap_or_default();
        tracing::info!(identity = %self.name, ?lifetime, "certified by the Workload API");
    }

    fn failed(&self, error: &Error) {
        self.metrics.failed();
        tracing::warn!(identity = %self.name, %error, "cannot get a certificate");
        self.status
            .send_modify(|status| status.failure = Some(error.to_string()));
    }
}

impl fmt::Debug for WorkloadApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadApi")
            .field("name", &self.name)
            .field("socket", &self.socket)
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

/// Opens connections to the API, whatever address is asked for.
struct Connector(SocketPath);

impl Service<Uri> for Connector {
    type Response = TokioIo<LocalStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move { connect_local(socket.path()).await.map(TokioIo::new) })
    }
}

/// Why the API gives no certificate. Never holds a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody is at the socket.
    #[error("cannot connect to the Workload API at {socket}: {reason}")]
    Connect {
        /// identity.workload_api.
        socket: SocketPath,
        /// Why.
        reason: String,
    },
    /// The API does not answer.
    #[error("the Workload API did not answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    /// The API refused, or broke off.
    #[error("the Workload API failed: {}: {}", .0.code(), .0.message())]
    Call(#[from] Status),
    /// The API has nothing more to say, which it should not.
    #[error("the Workload API ended its stream")]
    Ended,
    /// The API issues no such certificate.
    #[error("the Workload API issues {found} certificates, none of them for {name}")]
    NotIssued {
        /// identity.name.
        name: Identity,
        /// How many it issues.
        found: usize,
    },
    /// The certificate says otherwise than the API.
    #[error("the Workload API issued a certificate for {found}, expected {expected}")]
    OtherIdentity {
        /// The certificate's identity.
        found: Identity,
        /// identity.name.
        expected: Identity,
    },
    /// The bytes do not part into certificates.
    #[error("the Workload API sent a chain that is not up to {MAX_CHAIN} certificates, each DER")]
    Chain,
    /// What was issued is no certificate that fits the key, the anchors or the time.
    #[error(transparent)]
    Tls(#[from] mesh_tls::Error),
}

/// Parts certificates that follow one another.
fn certificates(mut der: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut chain = Vec::new();
    while !der.is_empty() {
        let (one, rest) = element_len(der)
            .and_then(|length| der.split_at_checked(length))
            .ok_or(Error::Chain)?;
        if chain.len() == MAX_CHAIN {
            return Err(Error::Chain);
        }
        chain.push(CertificateDer::from(one.to_vec()));
        der = rest;
    }
    Ok(chain)
}

/// The length of the DER element that `der` begins with, header included (X.690 section 8.1.3).
fn element_len(der: &[u8]) -> Option<usize> {
    let (_tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if first < 0x80 {
        return Some(2 + usize::from(first));
    }
    // The long form: so many bytes of length follow. No certificate needs more than four.
    let count = usize::from(first & 0x7f);
    let bytes = rest.get(..count).filter(|_| (1..=4).contains(&count))?;
    let length = bytes
        .iter()
        .fold(0usize, |length, byte| length << 8 | usize::from(*byte));
    length.checked_add(2 + count)
}

/// What lies under a transport error, which by itself says little.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The first and the longest pause after failures.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long what was refused is left alone while the last certificate is good.
const ASK_ANEW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_part_at_their_lengths() {
        let short = [0x30, 2, 1, 2];
        let mut long = vec![0x30, 0x82, 0x01, 0x00];
        long.resize(4 + 256, 7);
        let both = [&short[..], &long].concat();
        let parted = certificates(&both).unwrap();
        assert_eq!(
            parted.iter().map(|one| one.len()).collect::<Vec<_>>(),
            [4, 260]
        );
        assert!(certificates(&[]).unwrap().is_empty());
        for cut in [1, 3, 5, 6, 100, both.len() - 1] {
            assert!(certificates(&both[..cut]).is_err(), "{cut}");
        }
        assert!(
            certificates(&[0x30, 0x80, 0, 0]).is_err(),
            "no indefinite lengths in DER"
        );
        assert!(certificates(&[0x30, 0x89, 1, 1, 1, 1, 1, 1, 1, 1, 1]).is_err());
        assert!(certificates(&[0x30, 0x84, 255, 255, 255, 255]).is_err());
        assert!(certificates(&[0x30, 0].repeat(MAX_CHAIN + 1)).is_err());
    }
}
