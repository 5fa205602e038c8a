//! The connection to the controller: plaintext HTTP/2 on loopback, TLS elsewhere; reconnects are paced.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use mesh_tls::{CredentialReader, Identity, ReadAhead, TlsClient};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use super::backoff::Backoff;
use crate::config::{self, HostPort, Lookup};
use crate::trust::{Connections, Recorded};

/// The ALPN protocol of gRPC.
pub const ALPN: &[&[u8]] = &[b"h2"];

/// How the controller is spoken to.
#[derive(Clone, Debug)]
pub enum Security {
    /// Without TLS: only to a loopback address.
    Plaintext,
    /// TLS.
    Tls {
        /// Verifies the controller, and shows our certificate unless it is anonymous.
        client: TlsClient,
        /// The identity that the controller must prove.
        controller: Identity,
        /// The credentials to wait for before connecting; `None` when none are needed.
        credentials: Option<CredentialReader>,
    },
}

/// Opens a channel to the controller at `address`, looked up at each connection, that connects when it is first used, and again whenever it must.
/// Call it on the runtime that is to drive the channel.
///
/// # Errors
/// When address and name make no URI: the configuration does not let that happen.
pub fn open(
    settings: &config::Control,
    address: impl Into<HostPort>,
    security: Security,
) -> Result<Channel, tonic::transport::Error> {
    open_recorded(settings, address, security, Connections::default())
}

/// As [`open`], with its connections among those that end when the anchor retires that verified the controller.
///
/// # Errors
/// As there.
pub fn open_recorded(
    settings: &config::Control,
    address: impl Into<HostPort>,
    security: Security,
    connections: Connections,
) -> Result<Channel, tonic::transport::Error> {
    let address = address.into();
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .http2_keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_with_connector_lazy(Connector {
        address,
        security,
        connections,
        timeout: settings.connect_timeout,
        spacing: settings.backoff_min,
        pace: Arc::new(Mutex::new(Pace {
            backoff: Backoff::new(settings.backoff_min, settings.backoff_max),
            not_before: None,
        })),
    }))
}

#[derive(Clone)]
struct Connector {
    address: HostPort,
    security: Security,
    connections: Connections,
    timeout: Duration,
    /// The least between two connections.
    spacing: Duration,
    pace: Arc<Mutex<Pace>>,
}

/// When the next attempt may start. One for the channel, so that ten thousand watches reconnect once, not each.
struct Pace {
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Connector {
    async fn connect(self) -> io::Result<TokioIo<Io>> {
        self.certified().await;
        let not_before = self
            .pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .not_before;
        if let Some(not_before) = not_before {
            sleep_until(not_before).await;
        }
        let result = timeout(self.timeout, self.attempt())
            .await
            .unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "connecting took too long",
                ))
            });
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(_) => {
                pace.backoff.reset();
                // A server that refuses our certificate does so only after the handshake: no storm then either.
                pace.not_before = Some(Instant::now() + self.spacing);
            }
            Err(error) => {
                let pause = pace.backoff.next(fastrand::u64(..));
                pace.not_before = Some(Instant::now() + pause);
                tracing::debug!(address = %self.address, %error, ?pause, "cannot connect to the controller");
            }
        }
        result
    }

    /// Waits for the credentials that the connection needs.
    async fn certified(&self) {
        if let Security::Tls {
            credentials: Some(credentials),
            ..
        } = &self.security
        {
            let mut credentials = credentials.clone();
            // When there will be none any more, the attempt fails and says so.
            while credentials.load().is_none() && credentials.changed().await.is_ok() {}
        }
    }

    /// Connects to the first of the controller's addresses that accepts. Several are tried in a random order, so that many
    /// proxies spread over many controllers.
    async fn tcp(&self) -> io::Result<TcpStream> {
        let mut addresses = match self.address.lookup() {
            Lookup::Known(addresses) => addresses,
            Lookup::Ask(name, port) => {
                let mut found: Vec<_> = lookup_host((name, port)).await?.collect();
                fastrand::shuffle(&mut found);
                found
            }
        };
        let last = addresses
            .pop()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no addresses"))?;
        // One that does not answer must not take the others' time.
        let each = self.timeout / u32::try_from(addresses.len() + 1).unwrap_or(u32::MAX);
        for address in addresses {
            match timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => tracing::debug!(%address, %error, "the controller is not there"),
                Err(_) => tracing::debug!(%address, "the controller does not answer there"),
            }
        }
        TcpStream::connect(last).await
    }

    async fn attempt(&self) -> io::Result<TokioIo<Io>> {
        let tcp = self.tcp().await?;
        tcp.set_nodelay(true)?;
        let io = match &self.security {
            Security::Plaintext => Io::Plain { inner: tcp },
            Security::Tls {
                client, controller, ..
            } => {
                let (stream, keys) = client
                    .connect_verified(tcp, controller, None)
                    .await
                    .map_err(io::Error::other)?;
                let record = self.connections.own(keys.anchor);
                Io::Tls {
                    inner: Box::new(Recorded::new(stream, record)),
                }
            }
        };
        Ok(TokioIo::new(io))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Io>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Io>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

pin_project_lite::pin_project! {
    /// A connection, with or without TLS.
    #[project = IoProjection]
    enum Io {
        Plain { #[pin] inner: TcpStream },
        Tls { #[pin] inner: Box<Recorded<tokio_rustls::client::TlsStream<ReadAhead<TcpStream>>>> },
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.project() {
            IoProjection::Plain { inner } => inner.poll_read(cx, buffer),
            IoProjection::Tls { inner } => inner.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.project() {
            IoProjection::Plain { inner } => inner.poll_write(cx, bytes),
            IoProjection::Tls { inner } => inner.poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            IoProjection::Plain { inner } => inner.poll_flush(cx),
            IoProjection::Tls { inner } => inner.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            IoProjection::Plain { inner } => inner.poll_shutdown(cx),
            IoProjection::Tls { inner } => inner.poll_shutdown(cx),
        }
    }
}
