//! The connecting side.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, version};

use crate::bundle::TrustBundle;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::identity::Identity;
use crate::tls::{Latest, Tls};
use crate::verify::{PeerPolicy, ServerVerifier};

/// Connects with the credentials and the trust of the moment. Cloning shares the configuration.
#[derive(Clone)]
pub struct TlsClient(Arc<Inner>);

struct Inner {
    tls: Tls,
    alpn: Vec<Vec<u8>>,
    authenticated: bool,
    latest: Latest<Base>,
}

/// The configuration for the first peer called with these snapshots; for another peer, all but its
/// verifier is the same.
struct Base {
    config: Arc<ClientConfig>,
    expected: Identity,
    policy: Arc<PeerPolicy>,
}

impl TlsClient {
    pub(super) fn new(tls: Tls, alpn: Vec<Vec<u8>>, authenticated: bool) -> Self {
        Self(Arc::new(Inner {
            tls,
            alpn,
            authenticated,
            latest: Latest::new(),
        }))
    }

    /// The configuration for a handshake with `expected` that begins now. The handshake fails
    /// unless the peer proves that identity, whatever server name is sent. Ask again for each
    /// handshake; do not change it.
    ///
    /// # Errors
    /// [`Error::NoCredentials`] before the first are set, unless the client is anonymous.
    pub fn config(&self, expected: &Identity) -> Result<Arc<ClientConfig>, Error> {
        self.config_under(self.0.tls.trust.load(), expected)
    }

    pub(crate) fn config_under(
        &self,
        trust: Arc<TrustBundle>,
        expected: &Identity,
    ) -> Result<Arc<ClientConfig>, Error> {
        let Inner { tls, latest, .. } = &*self.0;
        let credentials = if self.0.authenticated {
            Some(tls.credentials.load().ok_or(Error::NoCredentials)?)
        } else {
            None
        };
        let base = latest.config(trust, credentials, |trust, credentials| {
            self.build(trust, credentials, expected)
        })?;
        if base.expected == *expected {
            return Ok(base.config.clone());
        }
        let mut config = ClientConfig::clone(&base.config);
        config
            .dangerous()
            .set_certificate_verifier(verifier(&base.policy, expected));
        Ok(Arc::new(config))
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn tls(&self) -> &Tls {
        &self.0.tls
    }

    fn build(
        &self,
        trust: &Arc<TrustBundle>,
        credentials: Option<&Credentials>,
        expected: &Identity,
    ) -> Result<Base, Error> {
        let Inner { tls, alpn, .. } = &*self.0;
        let policy = tls.policy(trust);
        let builder = ClientConfig::builder_with_details(tls.crypto.clone(), tls.time.clone())
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier(&policy, expected));
        let mut config = match credentials {
            Some(credentials) => {
                let certified = SingleCertAndKey::from(credentials.certified().clone());
                builder.with_client_cert_resolver(Arc::new(certified))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(alpn);
        config.resumption = Resumption::disabled();
        Ok(Base {
            config: Arc::new(config),
            expected: expected.clone(),
            policy,
        })
    }
}

fn verifier(policy: &Arc<PeerPolicy>, expected: &Identity) -> Arc<ServerVerifier> {
    Arc::new(ServerVerifier::new(policy.clone(), expected.clone()))
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("tls", &self.0.tls)
            .field("authenticated", &self.0.authenticated)
            .finish_non_exhaustive()
    }
}
