//! Handshakes over tokio streams.
//!
//! A handshake waits for as long as its peer lets it: callers put a deadline around it. Dropping the
//! future drops the connection.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::bundle::TrustBundle;
use crate::certificate::Usage;
use crate::error::{Error, excerpt};
use crate::identity::Identity;
use crate::key_id::ChainKeys;
use crate::read_ahead::ReadAhead;
use crate::tls::{TlsClient, TlsServer};
use crate::verify::VerifiedPeer;

impl TlsServer {
    /// Takes one connection through the handshake and says who the client is; `None` if it
    /// presented no certificate.
    ///
    /// # Errors
    /// What is wrong with the client's certificate, [`Error::PeerRefused`] if it refused ours during
    /// the handshake, [`Error::NoCredentials`], [`Error::Tls`] or [`Error::Io`].
    pub async fn accept<IO>(
        &self,
        io: IO,
    ) -> Result<(server::TlsStream<ReadAhead<IO>>, Option<Identity>), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (stream, peer) = self.accept_verified(io).await?;
        Ok((stream, peer.map(|peer| peer.identity)))
    }

    /// As [`accept`](Self::accept), and says by which keys the client was verified.
    ///
    /// # Errors
    /// As there.
    pub async fn accept_verified<IO>(
        &self,
        io: IO,
    ) -> Result<(server::TlsStream<ReadAhead<IO>>, Option<VerifiedPeer>), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (trust, _in_progress) = self.tls().begin();
        let stream = TlsAcceptor::from(self.config_under(trust.clone())?)
            .accept(ReadAhead::new(io))
            .await?;
        let (_, connection) = stream.get_ref();
        let shown = |chain| self.tls().shown(&trust, chain, Usage::Client);
        let peer = connection.peer_certificates().map(shown).transpose()?;
        Ok((stream, peer))
    }
}

impl TlsClient {
    /// Takes one connection through the handshake with `expected`, sending `server_name` (SNI), or
    /// the identity itself if it is a DNS name.
    ///
    /// In TLS 1.3 a client is done before the server has judged its certificate: a refusal shows
    /// as an error of the first read.
    ///
    /// # Errors
    /// What is wrong with the server's certificate, [`Error::InvalidServerName`] if there is no name
    /// to send, [`Error::PeerRefused`], [`Error::NoCredentials`], [`Error::Tls`] or [`Error::Io`].
    pub async fn connect<IO>(
        &self,
        io: IO,
        expected: &Identity,
        server_name: impl Into<Option<ServerName<'static>>>,
    ) -> Result<client::TlsStream<ReadAhead<IO>>, Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (trust, _in_progress) = self.tls().begin();
        self.handshake(io, expected, server_name.into(), trust)
            .await
    }

    /// As [`connect`](Self::connect), and says by which keys the server was verified.
    ///
    /// # Errors
    /// As there.
    pub async fn connect_verified<IO>(
        &self,
        io: IO,
        expected: &Identity,
        server_name: impl Into<Option<ServerName<'static>>>,
    ) -> Result<(client::TlsStream<ReadAhead<IO>>, ChainKeys), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (trust, _in_progress) = self.tls().begin();
        let stream = self
            .handshake(io, expected, server_name.into(), trust.clone())
            .await?;
        let (_, connection) = stream.get_ref();
        // Without a certificate there is no TLS 1.3 handshake that ends well.
        let chain = connection.peer_certificates().unwrap_or_default();
        let keys = self.tls().shown(&trust, chain, Usage::Server)?.keys;
        Ok((stream, keys))
    }

    async fn handshake<IO>(
        &self,
        io: IO,
        expected: &Identity,
        server_name: Option<ServerName<'static>>,
        trust: Arc<TrustBundle>,
    ) -> Result<client::TlsStream<ReadAhead<IO>>, Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = server_name
            .or_else(|| expected.server_name())
            .ok_or_else(|| Error::InvalidServerName {
                value: excerpt(expected.as_str()),
            })?;
        let connector = TlsConnector::from(self.config_under(trust, expected)?);
        Ok(connector.connect(name, ReadAhead::new(io)).await?)
    }
}
