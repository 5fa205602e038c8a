//! The accepting side.

use std::fmt;
use std::sync::Arc;

use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{ServerConfig, version};

use crate::bundle::TrustBundle;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::tls::{Latest, Tls};
use crate::verify::ClientVerifier;

/// Accepts connections with the credentials and the trust of the moment. Cloning shares the
/// configuration.
#[derive(Clone)]
pub struct TlsServer(Arc<Inner>);

struct Inner {
    tls: Tls,
    alpn: Vec<Vec<u8>>,
    client_auth: ClientAuth,
    latest: Latest<ServerConfig>,
}

/// What a server asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAuth {
    /// A certificate that verifies.
    Required,
    /// A certificate that verifies, or none.
    Optional,
    /// Nothing: a certificate is not asked for.
    None,
}

impl TlsServer {
    pub(super) fn new(tls: Tls, alpn: Vec<Vec<u8>>, client_auth: ClientAuth) -> Self {
        Self(Arc::new(Inner {
            tls,
            alpn,
            client_auth,
            latest: Latest::new(),
        }))
    }

    /// The configuration for a handshake that begins now. Ask again for each handshake; do not
    /// change it.
    ///
    /// # Errors
    /// [`Error::NoCredentials`] before the first are set.
    pub fn config(&self) -> Result<Arc<ServerConfig>, Error> {
        self.config_under(self.0.tls.trust.load())
    }

    pub(crate) fn config_under(&self, trust: Arc<TrustBundle>) -> Result<Arc<ServerConfig>, Error> {
        let Inner { tls, latest, .. } = &*self.0;
        latest.config(trust, tls.credentials.load(), |trust, credentials| {
            self.build(trust, credentials.ok_or(Error::NoCredentials)?)
        })
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn tls(&self) -> &Tls {
        &self.0.tls
    }

    fn build(
        &self,
        trust: &Arc<TrustBundle>,
        credentials: &Credentials,
    ) -> Result<ServerConfig, Error> {
        let Inner { tls, alpn, .. } = &*self.0;
        let builder = ServerConfig::builder_with_details(tls.crypto.clone(), tls.time.clone())
            .with_protocol_versions(&[&version::TLS13])?;
        let verifier = |mandatory| {
            let policy = tls.policy(trust);
            Arc::new(ClientVerifier::new(policy, mandatory))
        };
        let builder = match self.0.client_auth {
            ClientAuth::Required => builder.with_client_cert_verifier(verifier(true)),
            ClientAuth::Optional => builder.with_client_cert_verifier(verifier(false)),
            ClientAuth::None => builder.with_no_client_auth(),
        };
        let certified = SingleCertAndKey::from(credentials.certified().clone());
        let mut config = builder.with_cert_resolver(Arc::new(certified));
        config.alpn_protocols.clone_from(alpn);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer")
            .field("tls", &self.0.tls)
            .field("client_auth", &self.0.client_auth)
            .finish_non_exhaustive()
    }
}
