//! Getting and renewing this proxy's certificate: from the controller here, from a SPIFFE Workload API in
//! [`workload_api`].
//!
//! The key is made in memory and never leaves it, unless it is one of [`Documents`]. The token file is read anew for
//! each attempt, as whoever writes it may replace it.

mod documents;
pub mod workload_api;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use linkerd2_proxy_api::identity::CertifyRequest;
use linkerd2_proxy_api::identity::identity_client::IdentityClient;
use mesh_metrics::IdentityHandle;
use mesh_tls::renewal::Renewal;
use mesh_tls::{CredentialWriter, Credentials, Identity, LeafKey, TrustReader};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::Request;
use tonic::transport::Channel;

use crate::readiness::Certification;
use crate::trust::Standing;
pub use documents::{Documents, DocumentsError};

/// How long one Certify call may take, connecting included.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// By how much a clock that is set back is set, and not only put right.
const SET_BACK: Duration = Duration::from_secs(1);
/// The longest sleep before the clock is read again: machines are suspended and clocks are set.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// Tokens are a few hundred bytes to a few KiB.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;
/// How long the first attempt waits for the trust stream's first word: who uses an old bundle is given no certificate.
const TRUST_TIMEOUT: Duration = Duration::from_secs(1);
/// A leaf, a few intermediates.
const MAX_CHAIN: usize = 10;

/// Where the time comes from: `SystemTime::now`, save in tests.
pub type Clock = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// Opens a channel that presents the credentials of the moment.
pub type Reconnect = Box<dyn Fn() -> Option<Channel> + Send + Sync>;

/// Keeps the credentials fresh. Made by [`Certifier::new`], run by [`Certifier::run`].
pub struct Certifier {
    name: Identity,
    token_file: PathBuf,
    channel: Channel,
    reconnect: Option<Reconnect>,
    documents: Option<Documents>,
    refresh: (Duration, Duration),
    standing: Option<Standing>,
    orders: Option<watch::Receiver<Option<SystemTime>>>,
    trust: TrustReader,
    credentials: CredentialWriter,
    status: watch::Sender<Certification>,
    metrics: IdentityHandle,
    clock: Clock,
}

impl Certifier {
    /// A certifier for `name` that calls Certify over `channel` and puts what it gets in `credentials`, provided that
    /// `trust` vouches for it. The receiver tells how it stands.
    #[must_use]
    pub fn new(
        name: Identity,
        token_file: PathBuf,
        channel: Channel,
        trust: TrustReader,
        credentials: CredentialWriter,
        metrics: IdentityHandle,
        clock: Clock,
    ) -> (Self, watch::Receiver<Certification>) {
        let (status, receiver) = watch::channel(Certification::default());
        (
            Self {
                name,
                token_file,
                channel,
                reconnect: None,
                documents: None,
                refresh: (Renewal::MIN_DELAY, Renewal::MAX_DELAY),
                standing: None,
                orders: None,
                trust,
                credentials,
                status,
                metrics,
                clock,
            },
            receiver,
        )
    }

    /// Renews by the live certificate, over channels that `reconnect` opens: a token is then needed only to begin with.
    #[must_use]
    pub fn renew_over(self, reconnect: Reconnect) -> Self {
        Self {
            reconnect: Some(reconnect),
            ..self
        }
    }

    /// Has the key of `documents` certified, by the request among them, rather than a new key each time.
    #[must_use]
    pub fn certify_key(self, documents: Documents) -> Self {
        Self {
            documents: Some(documents),
            ..self
        }
    }

    /// Renews no sooner than `min` after a certificate came, and no later than `max`.
    #[must_use]
    pub fn renew_between(self, min: Duration, max: Duration) -> Self {
        Self {
            refresh: (min, max),
            ..self
        }
    }

    /// Says with each call how the process stands.
    #[must_use]
    pub fn stating(self, standing: Standing) -> Self {
        Self {
            standing: Some(standing),
            ..self
        }
    }

    /// Renews also when it is ordered to, by the time that `orders` holds.
    #[must_use]
    pub fn renew_by(self, orders: watch::Receiver<Option<SystemTime>>) -> Self {
        Self {
            orders: Some(orders),
            ..self
        }
    }

    /// Certifies and renews, for ever.
    pub async fn run(mut self) {
        if let Some(standing) = &self.standing {
            // Whether it has said something or not: this is only to spare a refusal.
            let _ = timeout(TRUST_TIMEOUT, standing.heard()).await;
        }
        let (min, max) = self.refresh;
        let mut renewal = Renewal::start((self.clock)()).between(min, max);
        let mut orders = Orders {
            receiver: self.orders.take(),
            done: None,
        };
        loop {
            self.until(renewal.next_attempt(), &mut orders).await;
            match self.attempt().await {
                Ok(fresh) => {
                    let not_after = fresh.not_after();
                    self.credentials.set(fresh);
                    let now = (self.clock)();
                    renewal.succeeded(not_after, now, fastrand::u64(..));
                    self.metrics.renewed(now, not_after);
                    self.status.send_replace(Certification {
                        not_after: Some(not_after),
                        failure: None,
                    });
                    let lifetime = not_after.duration_since(now).unwrap_or_default();
                    tracing::info!(identity = %self.name, ?lifetime, "certified");
                }
                Err(error) => {
                    renewal.failed((self.clock)(), fastrand::u64(..));
                    self.metrics.failed();
                    tracing::warn!(identity = %self.name, %error, "cannot get a certificate");
                    self.status
                        .send_modify(|status| status.failure = Some(error.to_string()));
                }
            }
        }
    }

    async fn until(&self, due: SystemTime, orders: &mut Orders) {
        let mut before = (self.clock)();
        loop {
            let now = (self.clock)();
            if before.duration_since(now).unwrap_or_default() > SET_BACK {
                // What was planned by the time of before may be hours away by now.
                return;
            }
            before = now;
            let ordered = orders.next();
            let due = ordered.map_or(due, |ordered| due.min(ordered));
            let left = due.duration_since(now).unwrap_or_default();
            if left.is_zero() {
                // Whatever comes of the attempt, it was made; a failed one is repeated as any other.
                orders.done = ordered.filter(|ordered| *ordered <= now).or(orders.done);
                return;
            }
            tokio::select! {
                () = sleep(left.min(MAX_SLEEP)) => {}
                () = orders.changed() => {}
            }
        }
    }

    /// By the live certificate if there is one, else, and where that does not do, by the token.
    async fn attempt(&self) -> Result<Credentials, Error> {
        let live = |until| (self.clock)() < until;
        let is_live = self.status.borrow().not_after.is_some_and(live);
        // A new connection each time: an open one may have begun with a certificate that has expired since.
        let renewal = self.reconnect.as_ref().filter(|_| is_live);
        if let Some(channel) = renewal.and_then(|reconnect| reconnect()) {
            match self.certify(channel, Vec::new()).await {
                Ok(fresh) => return Ok(fresh),
                Err(error) => {
                    tracing::debug!(%error, "cannot renew by the certificate; trying the token");
                }
            }
        }
        self.certify(self.channel.clone(), token(&self.token_file)?)
            .await
    }

    async fn certify(&self, channel: Channel, token: Vec<u8>) -> Result<Credentials, Error> {
        let made;
        let (key, csr) = match &self.documents {
            Some(documents) => (documents.key(), documents.csr().to_vec()),
            None => {
                made = LeafKey::generate()?;
                (&made, made.csr(&self.name)?)
            }
        };
        let request = CertifyRequest {
            identity: self.name.to_string(),
            token,
            certificate_signing_request: csr,
        };
        let mut request = Request::new(request);
        if let Some(standing) = &self.standing {
            standing.state(request.metadata_mut());
        }
        let mut client = IdentityClient::new(channel);
        let response = timeout(CALL_TIMEOUT, client.certify(request))
            .await
            .map_err(|_| Error::Timeout)??
            .into_inner();
        let found = response.intermediate_certificates.len() + 1;
        if found > MAX_CHAIN {
            return Err(Error::ChainTooLong { found });
        }
        let chain =
            std::iter::once(response.leaf_certificate).chain(response.intermediate_certificates);
        let credentials = key.credentials(chain.map(certificate).collect::<Result<_, _>>()?)?;
        if *credentials.identity() != self.name {
            return Err(Error::OtherIdentity {
                found: credentials.identity().clone(),
                expected: self.name.clone(),
            });
        }
        credentials.verify(&self.trust.load(), (self.clock)())?;
        Ok(credentials)
    }
}

/// Reads a token file: a small local file, which is quicker read here than handed to a thread.
pub(crate) fn token(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::Token {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length == 0 || length > MAX_TOKEN_BYTES {
        return Err(Error::TokenLength {
            path: path.to_owned(),
            length,
        });
    }
    std::fs::read(path).map_err(unreadable)
}

/// Orders to renew, of which the last one counts.
struct Orders {
    receiver: Option<watch::Receiver<Option<SystemTime>>>,
    /// The one that was followed last.
    done: Option<SystemTime>,
}

impl Orders {
    /// By when to renew, if that is not done.
    fn next(&mut self) -> Option<SystemTime> {
        let ordered = *self.receiver.as_mut()?.borrow_and_update();
        ordered.filter(|ordered| Some(*ordered) != self.done)
    }

    async fn changed(&mut self) {
        let changed = match &mut self.receiver {
            Some(receiver) => receiver.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            self.receiver = None;
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Certifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certifier")
            .field("name", &self.name)
            .field("token_file", &self.token_file)
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

/// DER, or the PEM that the API's own comment speaks of.
fn certificate(bytes: Vec<u8>) -> Result<CertificateDer<'static>, Error> {
    if bytes.starts_with(b"-----BEGIN") {
        return CertificateDer::from_pem_slice(&bytes)
            .map_err(|error| Error::Pem(error.to_string()));
    }
    Ok(CertificateDer::from(bytes))
}

/// Why an attempt failed. Never holds the token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The token file cannot be read.
    #[error("cannot read the token file {}: {source}", path.display())]
    Token {
        /// identity.token_file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token file holds nothing, or too much to be a token.
    #[error("the token file {} has {length} bytes, expected 1 to {MAX_TOKEN_BYTES}", path.display())]
    TokenLength {
        /// identity.token_file.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// The controller does not answer.
    #[error("Certify was not answered within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    /// The controller refused, or cannot be reached.
    #[error("Certify failed: {}: {}", .0.code(), .0.message())]
    Call(#[from] tonic::Status),
    /// What came back is longer than a chain can be.
    #[error("Certify returned a chain of {found} certificates, expected at most {MAX_CHAIN}")]
    ChainTooLong {
        /// Its length.
        found: usize,
    },
    /// What came back is PEM, but no certificate.
    #[error("Certify returned PEM that holds no certificate: {0}")]
    Pem(String),
    /// What came back is for somebody else.
    #[error("Certify returned a certificate for {found}, expected {expected}")]
    OtherIdentity {
        /// The certificate's identity.
        found: Identity,
        /// identity.name.
        expected: Identity,
    },
    /// What came back is no certificate that fits the key, the anchors or the time.
    #[error(transparent)]
    Tls(#[from] mesh_tls::Error),
}
