//! Handshakes over tokio streams.
//!
//! A handshake waits for as long as its peer lets it: callers put a deadline around it. Dropping the
//! future drops the connection.

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::certificate::peer_identity;
use crate::error::{Error, excerpt};
use crate::identity::Identity;
use crate::read_ahead::ReadAhead;
use crate::tls::{TlsClient, TlsServer};

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
        let stream = TlsAcceptor::from(self.config()?)
            .accept(ReadAhead::new(io))
            .await?;
        let (_, connection) = stream.get_ref();
        let peer = connection.peer_certificates().map(peer_identity);
        let peer = peer.transpose()?;
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
        let name = server_name
            .into()
            .or_else(|| expected.server_name())
            .ok_or_else(|| Error::InvalidServerName {
                value: excerpt(expected.as_str()),
            })?;
        let connector = TlsConnector::from(self.config(expected)?);
        Ok(connector.connect(name, ReadAhead::new(io)).await?)
    }
}
