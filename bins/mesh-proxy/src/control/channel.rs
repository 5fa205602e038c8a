//! The connection to the controller: plaintext HTTP/2 on loopback, TLS elsewhere; reconnects are paced.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use mesh_tls::{CredentialReader, Identity, ReadAhead, TlsClient, UnverifiedClient};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use super::backoff::Backoff;
use crate::config::{self, Addresses, HostPort, Lookup};
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
    /// TLS with whoever is there: only for what proves itself.
    Unverified {
        /// Verifies nobody.
        client: UnverifiedClient,
        /// The name to ask for.
        controller: Identity,
    },
}

/// Opens a channel to the controller at `address`, looked up at each connection, that connects when it is first used, and again whenever it must.
/// Call it on the runtime that is to drive the channel.
///
/// Of several addresses, those of a name too, each is tried, in a random order, so that many proxies spread over many
/// controllers; the one that was connected to last comes last, as it has just been lost.
///
/// # Errors
/// When address and name make no URI: the configuration does not let that happen.
pub fn open(
    settings: &config::Control,
    address: impl Into<Addresses>,
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
    address: impl Into<Addresses>,
    security: Security,
    connections: Connections,
) -> Result<Channel, tonic::transport::Error> {
    let addresses = address.into();
    let named = addresses.all().first().map(ToString::to_string);
    let endpoint = Endpoint::from_shared(format!("http://{}", named.unwrap_or_default()))?
        .http2_keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_with_connector_lazy(Connector {
        addresses,
        security,
        connections,
        timeout: settings.connect_timeout,
        spacing: settings.backoff_min,
        pace: Arc::new(Mutex::new(Pace {
            backoff: Backoff::new(settings.backoff_min, settings.backoff_max),
            not_before: None,
            last: None,
        })),
    }))
}

#[derive(Clone)]
struct Connector {
    addresses: Addresses,
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
    /// Where it was connected to last.
    last: Option<SocketAddr>,
}

impl Connector {
    async fn connect(self) -> io::Result<TokioIo<Io>> {
        self.certified().await;
        let (not_before, last) = {
            let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            (pace.not_before, pace.last)
        };
        if let Some(not_before) = not_before {
            sleep_until(not_before).await;
        }
        let result = timeout(self.timeout, self.any(last))
            .await
            .unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "connecting took too long",
                ))
            });
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok((address, _)) => {
                pace.backoff.reset();
                pace.last = Some(*address);
                // A server that refuses our certificate does so only after the handshake: no storm then either.
                pace.not_before = Some(Instant::now() + self.spacing);
            }
            Err(error) => {
                let pause = pace.backoff.next(fastrand::u64(..));
                pace.not_before = Some(Instant::now() + pause);
                tracing::debug!(address = %self.addresses, %error, ?pause, "cannot connect to the controller");
            }
        }
        result.map(|(_, io)| io)
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

    /// Connects to the first of the controllers that is what it should be.
    async fn any(&self, last: Option<SocketAddr>) -> io::Result<(SocketAddr, TokioIo<Io>)> {
        let deadline = Instant::now() + self.timeout;
        let mut failed = None;
        let candidates = self.candidates(last, &mut failed).await;
        for (number, address) in candidates.iter().enumerate() {
            // One that does not answer must not take the others' time.
            let left = u32::try_from(candidates.len() - number).unwrap_or(u32::MAX);
            let each = deadline.saturating_duration_since(Instant::now()) / left;
            let late = || {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "it does not answer",
                ))
            };
            match timeout(each, self.attempt(*address))
                .await
                .unwrap_or_else(|_| late())
            {
                Ok(connected) => return Ok((*address, connected)),
                Err(error) => {
                    tracing::debug!(%address, %error, "the controller cannot be had there");
                    failed = Some(error);
                }
            }
        }
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
        Err(failed.unwrap_or_else(none))
    }

    /// All addresses in the order in which they are tried.
    async fn candidates(
        &self,
        last: Option<SocketAddr>,
        failed: &mut Option<io::Error>,
    ) -> Vec<SocketAddr> {
        let mut places: Vec<&HostPort> = self.addresses.all().iter().collect();
        fastrand::shuffle(&mut places);
        let each = self.timeout / 2 / u32::try_from(places.len()).unwrap_or(u32::MAX);
        let mut all = Vec::new();
        for place in &places {
            match place.lookup() {
                Lookup::Known(addresses) => all.extend(addresses),
                Lookup::Ask(name, port) => match timeout(each, lookup_host((name, port))).await {
                    Ok(Ok(found)) => {
                        let from = all.len();
                        all.extend(found);
                        fastrand::shuffle(&mut all[from..]);
                    }
                    Ok(Err(error)) => *failed = Some(error),
                    Err(_) => {
                        let late = "the name is not looked up in time";
                        *failed = Some(io::Error::new(io::ErrorKind::TimedOut, late));
                    }
                },
            }
        }
        let known =
            matches!(self.addresses.all(), [one] if matches!(one.lookup(), Lookup::Known(_)));
        if let Some(last) = last.filter(|_| !known) {
            // Stable: only that one moves.
            all.sort_by_key(|address| *address == last);
        }
        all
    }

    async fn attempt(&self, address: SocketAddr) -> io::Result<TokioIo<Io>> {
        let tcp = TcpStream::connect(address).await?;
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
            Security::Unverified { client, controller } => {
                let connected = client.connect(tcp, controller).await;
                Io::Unverified {
                    inner: Box::new(connected.map_err(io::Error::other)?),
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
        Unverified { #[pin] inner: Box<tokio_rustls::client::TlsStream<ReadAhead<TcpStream>>> },
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
            IoProjection::Unverified { inner } => inner.poll_read(cx, buffer),
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
            IoProjection::Unverified { inner } => inner.poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            IoProjection::Plain { inner } => inner.poll_flush(cx),
            IoProjection::Tls { inner } => inner.poll_flush(cx),
            IoProjection::Unverified { inner } => inner.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            IoProjection::Plain { inner } => inner.poll_shutdown(cx),
            IoProjection::Tls { inner } => inner.poll_shutdown(cx),
            IoProjection::Unverified { inner } => inner.poll_shutdown(cx),
        }
    }
}
