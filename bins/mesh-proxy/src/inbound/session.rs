//! One identified connection: what it carries, and who may.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mesh_http::connections::Connection;
use mesh_http::detect::Protocol;
use mesh_http::transport_header;
use mesh_http::{Prefixed, server};
use mesh_policy::inbound::{ServerPolicy, ServerProtocol};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Arrival, Carries, Client, Failure, Peer, http, opaque};
use crate::control::Watched;
use crate::worker::{Worker, detect};

/// A connection whose client and application are known.
pub(super) struct Session<'a> {
    worker: &'a Rc<Worker>,
    connection: &'a Connection,
    client: Client,
    application: SocketAddr,
    watched: Arc<Watched<ServerPolicy>>,
}

impl<'a> Session<'a> {
    /// Learns the policy of the application's port.
    pub(super) async fn new(
        worker: &'a Rc<Worker>,
        connection: &'a Connection,
        client: Client,
        application: SocketAddr,
        arrival: Arrival,
    ) -> Result<Self, Failure> {
        let watched = worker.shared.control.inbound(application.port()).await;
        // At a mesh port, what is connected to is the mesh port; its application may well be elsewhere.
        if matches!(arrival, Arrival::Redirected) && !watched.load().serves(application.ip()) {
            return Err(Failure::WrongAddress(application.ip()));
        }
        Ok(Self {
            worker,
            connection,
            client,
            application,
            watched,
        })
    }

    /// Serves it to its end.
    pub(super) async fn serve<I>(self, io: I, carries: Carries) -> Result<(), Failure>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let timeout = match &self.watched.load().protocol {
            ServerProtocol::Opaque | ServerProtocol::Tls => None,
            ServerProtocol::Detect { timeout, .. } => Some(*timeout),
            ServerProtocol::Http1(_) | ServerProtocol::Http2(_) | ServerProtocol::Grpc(_) => {
                Some(self.worker.shared.config.inbound.detect_timeout)
            }
        };
        // A policy that tells requests apart is not passed by what does not look like one.
        let carries = match carries {
            Carries::Opaque if self.expects_http() => Carries::Unknown,
            carries => carries,
        };
        match (carries, timeout) {
            (Carries::Opaque, _) | (_, None) => self.opaque(io).await,
            (Carries::Session(transport_header::Session::Http1), _) => {
                self.http(io, Protocol::Http1).await
            }
            (Carries::Session(transport_header::Session::Http2), _) => {
                self.http(io, Protocol::Http2).await
            }
            (Carries::Detected(protocol), Some(_)) => self.http(io, protocol).await,
            (Carries::Undecided, Some(_)) => self.hinted(io).await,
            (Carries::Unknown, Some(timeout)) => {
                let (protocol, io): (_, Prefixed<I>) = detect(self.connection, io, timeout).await?;
                match Carries::detected(protocol, io.prefix()) {
                    Carries::Undecided => self.hinted(io).await,
                    _ => self.http(io, protocol).await,
                }
            }
        }
    }

    /// Serves a client that has not said what it speaks as one that speaks what the policy names.
    async fn hinted<I>(self, io: I) -> Result<(), Failure>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let hint = match &self.watched.load().protocol {
            ServerProtocol::Http1(_) => Protocol::Http1,
            ServerProtocol::Http2(_) | ServerProtocol::Grpc(_) => Protocol::Http2,
            ServerProtocol::Detect { .. } | ServerProtocol::Opaque | ServerProtocol::Tls => {
                Protocol::Opaque
            }
        };
        self.http(io, hint).await
    }

    /// Whether the policy names HTTP, or has routes, so that connections of bytes have no place under it.
    fn expects_http(&self) -> bool {
        let policy = self.watched.load();
        policy.routes().is_some()
            || matches!(
                policy.protocol,
                ServerProtocol::Http1(_) | ServerProtocol::Http2(_) | ServerProtocol::Grpc(_)
            )
    }

    async fn http<I>(self, io: I, protocol: Protocol) -> Result<(), Failure>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if !matches!(protocol, Protocol::Http1 | Protocol::Http2) {
            return if self.expects_http() {
                Err(Failure::NotHttp)
            } else {
                self.opaque(io).await
            };
        }
        let Self {
            worker,
            connection,
            client,
            application,
            watched,
        } = self;
        let limits = match client.peer {
            Peer::Tls(Some(_)) => &worker.limits_of_peers,
            Peer::Tls(None) | Peer::Plaintext => &worker.limits_of_strangers,
        };
        let http = http::Http::new(
            worker.clone(),
            application,
            watched,
            connection.activity(),
            client,
        );
        if protocol == Protocol::Http2 {
            let served = server::http2(io, limits, connection, http::service(http));
            return Ok(Box::pin(served).await?);
        }
        server::http1(io, limits, connection, http::service(http.clone())).await?;
        match http.take_switch() {
            Some(switch) => Box::pin(switch.carry(&http, connection)).await,
            None => Ok(()),
        }
    }

    async fn opaque<I>(self, io: I) -> Result<(), Failure>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let carried = opaque::carry(
            self.worker,
            self.application,
            self.connection,
            io,
            &self.watched,
            &self.client,
        );
        Box::pin(carried).await
    }
}
