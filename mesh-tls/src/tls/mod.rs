//! rustls configurations that follow the stores.

mod client;
mod server;
#[cfg(feature = "tokio")]
mod unverified;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::crypto::CryptoProvider;
#[cfg(feature = "tokio")]
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

pub use client::TlsClient;
pub use server::{ClientAuth, TlsServer};
#[cfg(feature = "tokio")]
pub use unverified::UnverifiedClient;

use crate::bundle::TrustBundle;
#[cfg(feature = "tokio")]
use crate::certificate::Usage;
use crate::credentials::Credentials;
use crate::crypto::crypto_provider;
use crate::error::Error;
use crate::identity::TrustDomain;
#[cfg(feature = "tokio")]
use crate::store::InProgress;
use crate::store::{CredentialReader, TrustReader};
use crate::verify::PeerPolicy;
#[cfg(feature = "tokio")]
use crate::verify::VerifiedPeer;

/// One workload's TLS: its trust, its credentials and its clock.
///
/// Servers and clients made from it build an immutable rustls configuration at the first handshake
/// after the bundle or the credentials changed, and share it until the next change. Live
/// connections keep what they were made with. TLS 1.3 only; no tickets, no session storage and no
/// resumption, as rustls does not verify certificates again when it resumes.
#[derive(Clone)]
pub struct Tls {
    trust: TrustReader,
    credentials: CredentialReader,
    time: Arc<dyn TimeProvider>,
    crypto: Arc<CryptoProvider>,
    trust_domain: Option<TrustDomain>,
    /// The policy for the last bundle: what it has proven outlives renewals of the credentials.
    policy: Arc<ArcSwapOption<PeerPolicy>>,
}

impl Tls {
    /// Follows the two stores, by the system's clock, accepting peers of any trust domain that
    /// the bundle's anchors vouch for.
    #[must_use]
    pub fn new(trust: TrustReader, credentials: CredentialReader) -> Self {
        Self {
            trust,
            credentials,
            time: Arc::new(DefaultTimeProvider),
            crypto: crypto_provider(),
            trust_domain: None,
            policy: Arc::default(),
        }
    }

    /// Judges validity by this clock.
    #[must_use]
    pub fn with_time_provider(mut self, time: Arc<dyn TimeProvider>) -> Self {
        self.time = time;
        self
    }

    /// Speaks what this provider does, such as [`restricted_crypto_provider`](crate::restricted_crypto_provider); by default
    /// all of [`crypto_provider`]. Certificates are verified by the latter's algorithms all the same.
    #[must_use]
    pub fn with_crypto_provider(mut self, crypto: Arc<CryptoProvider>) -> Self {
        self.crypto = crypto;
        self
    }

    /// Refuses peers of any other trust domain, on either side.
    #[must_use]
    pub fn with_trust_domain(mut self, trust_domain: TrustDomain) -> Self {
        self.trust_domain = Some(trust_domain);
        // Others may share that of before.
        self.policy = Arc::default();
        self
    }

    /// A server that presents the credentials and offers `alpn`, most preferred first. Without
    /// protocols it does not negotiate one.
    #[must_use]
    pub fn server(&self, alpn: &[&[u8]], client_auth: ClientAuth) -> TlsServer {
        TlsServer::new(self.clone(), owned(alpn), client_auth)
    }

    /// A client that presents the credentials and offers `alpn`, most preferred first.
    #[must_use]
    pub fn client(&self, alpn: &[&[u8]]) -> TlsClient {
        TlsClient::new(self.clone(), owned(alpn), true)
    }

    /// A client that verifies the server and presents no certificate: how a workload without
    /// credentials asks for its first.
    #[must_use]
    pub fn anonymous_client(&self, alpn: &[&[u8]]) -> TlsClient {
        TlsClient::new(self.clone(), owned(alpn), false)
    }

    /// A client that verifies nobody: for what proves itself only. It presents the credentials that there are now, if it is to;
    /// whoever is there learns the identity then.
    ///
    /// # Errors
    /// [`Error::Tls`], if the cryptography cannot do TLS 1.3.
    #[cfg(feature = "tokio")]
    pub fn unverified_client(
        &self,
        alpn: &[&[u8]],
        presents: bool,
    ) -> Result<UnverifiedClient, Error> {
        UnverifiedClient::new(self, owned(alpn), presents)
    }

    /// Enters a handshake: the bundle that it is under, and what keeps it from counting as ended.
    #[cfg(feature = "tokio")]
    pub(crate) fn begin(&self) -> (Arc<TrustBundle>, InProgress) {
        self.trust.begin()
    }

    /// Who showed this chain in a handshake under `trust` that has just ended.
    #[cfg(feature = "tokio")]
    pub(crate) fn shown(
        &self,
        trust: &Arc<TrustBundle>,
        chain: &[CertificateDer<'_>],
        usage: Usage,
    ) -> Result<VerifiedPeer, Error> {
        let now = self.time.current_time().unwrap_or_else(UnixTime::now);
        self.policy(trust).shown(chain, usage, now)
    }

    /// What is checked of peers under this bundle. One for all that is made from this, as a chain is known by its usage too.
    fn policy(&self, trust: &Arc<TrustBundle>) -> Arc<PeerPolicy> {
        if let Some(policy) = self.policy.load_full()
            && policy.is_for(trust)
        {
            return policy;
        }
        let policy = Arc::new(PeerPolicy::new(trust.clone(), self.trust_domain.clone()));
        self.policy.store(Some(policy.clone()));
        policy
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("trust", &self.trust)
            .field("credentials", &self.credentials)
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

/// The last configuration built, with the snapshots it was built from.
struct Latest<C>(ArcSwapOption<Built<C>>);

struct Built<C> {
    trust: Arc<TrustBundle>,
    credentials: Option<Arc<Credentials>>,
    config: Arc<C>,
}

impl<C> Latest<C> {
    fn new() -> Self {
        Self(ArcSwapOption::empty())
    }

    /// The configuration for these snapshots, built if they are new. Two handshakes that find a
    /// change at once both build; either result stands.
    fn config(
        &self,
        trust: Arc<TrustBundle>,
        credentials: Option<Arc<Credentials>>,
        build: impl FnOnce(&Arc<TrustBundle>, Option<&Credentials>) -> Result<C, Error>,
    ) -> Result<Arc<C>, Error> {
        if let Some(built) = &*self.0.load()
            && Arc::ptr_eq(&built.trust, &trust)
            && same(built.credentials.as_ref(), credentials.as_ref())
        {
            return Ok(built.config.clone());
        }
        let config = Arc::new(build(&trust, credentials.as_deref())?);
        self.0.store(Some(Arc::new(Built {
            trust,
            credentials,
            config: config.clone(),
        })));
        Ok(config)
    }
}

fn same(a: Option<&Arc<Credentials>>, b: Option<&Arc<Credentials>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::ca::Anchor;
    use crate::store::{credential_store, trust_store};

    #[test]
    fn what_is_proven_is_kept_while_the_bundle_stays() {
        let lifetime = Duration::from_secs(3600);
        let anchor = Anchor::generate("mesh.example", lifetime, SystemTime::now()).unwrap();
        let bundle =
            |generation| TrustBundle::from_der(generation, [anchor.certificate().clone()]).unwrap();
        let (writer, trust) = trust_store(bundle(1));
        let tls = Tls::new(trust, credential_store().1);
        let policy = tls.policy(&writer.load());
        assert!(Arc::ptr_eq(&policy, &tls.clone().policy(&writer.load())));
        writer.set(bundle(2)).unwrap();
        assert!(!Arc::ptr_eq(&policy, &tls.policy(&writer.load())));
    }
}
