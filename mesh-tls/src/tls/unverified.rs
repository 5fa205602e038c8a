//! A client that believes nobody.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, PeerIncompatible, SignatureScheme, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Tls;
use crate::error::{Error, excerpt};
use crate::identity::Identity;
use crate::read_ahead::ReadAhead;

/// Connects to a server without verifying who it is: only for what proves itself, such as a signed bundle. Nothing secret may be
/// sent, and what is said there may be known to anybody. Made by [`Tls::unverified_client`].
#[derive(Clone)]
pub struct UnverifiedClient {
    config: Arc<ClientConfig>,
}

impl UnverifiedClient {
    pub(super) fn new(tls: &Tls, alpn: Vec<Vec<u8>>, presents: bool) -> Result<Self, Error> {
        let anyone = Anyone {
            provider: tls.crypto.clone(),
        };
        let builder = ClientConfig::builder_with_details(tls.crypto.clone(), tls.time.clone())
            .with_protocol_versions(&[&version::TLS13])?;
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(anyone));
        let mut config = match tls.credentials.load().filter(|_| presents) {
            Some(credentials) => {
                let certified = SingleCertAndKey::from(credentials.certified().clone());
                builder.with_client_cert_resolver(Arc::new(certified))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn;
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Takes one connection through the handshake, asking for `name`, which nobody has to prove.
    ///
    /// # Errors
    /// [`Error::InvalidServerName`], [`Error::PeerRefused`], [`Error::Tls`] or [`Error::Io`].
    pub async fn connect<IO>(
        &self,
        io: IO,
        name: &Identity,
    ) -> Result<TlsStream<ReadAhead<IO>>, Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = name.server_name().ok_or_else(|| Error::InvalidServerName {
            value: excerpt(name.as_str()),
        })?;
        let connector = TlsConnector::from(self.config.clone());
        Ok(connector.connect(name, ReadAhead::new(io)).await?)
    }
}

impl fmt::Debug for UnverifiedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedClient").finish_non_exhaustive()
    }
}

/// Whoever holds the key of the certificate that is shown, which says nothing of who that is.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
