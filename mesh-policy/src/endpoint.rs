use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use http::uri::Authority;
use mesh_tls::Identity;

/// An endpoint and how to talk to it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct EndpointSpec {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its share of the traffic relative to its neighbours'; never zero.
    pub weight: u32,
    /// The zone it is in, when known.
    pub zone: Option<String>,
    /// Labels for metrics.
    pub labels: BTreeMap<String, String>,
    /// Who must answer the mesh TLS handshake; plaintext when absent.
    pub tls: Option<TlsSpec>,
    /// What it is known to speak.
    pub hint: ProtocolHint,
    /// Where its proxy takes opaque traffic behind a transport header.
    pub opaque_transport: Option<NonZeroU16>,
    /// Replaces the authority of requests sent to it.
    pub authority_override: Option<Authority>,
    /// How HTTP/2 connections to it are to be made, where something is said about it.
    pub http2: Option<Http2Params>,
}

/// How HTTP/2 connections are to be made; as the embedder likes where absent.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Http2Params {
    /// How much may be on its way.
    pub flow_control: Option<FlowControl>,
    /// How connections that died are found out.
    pub keep_alive: Option<KeepAlive>,
    /// How many streams that were reset locally are remembered.
    pub max_concurrent_reset_streams: Option<u32>,
    /// The largest frame that is taken, in bytes: from 16 KiB to 16 MiB less one (RFC 9113, section 6.5.2).
    pub max_frame_size: Option<u32>,
    /// How much is kept for sending on one stream, in bytes.
    pub max_send_buf_size: Option<u32>,
}

/// How much may be on its way towards the client of an HTTP/2 connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FlowControl {
    /// By the delay and bandwidth that are seen.
    Adaptive,
    /// Windows of this size; each at most 2³¹ - 1 (RFC 9113, section 6.9.1).
    Fixed {
        /// Of the connection, in bytes.
        connection_window: u32,
        /// Of each stream, in bytes.
        stream_window: u32,
    },
}

/// Pings by which HTTP/2 connections that died are found out.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct KeepAlive {
    /// The time between them; above zero.
    pub interval: Duration,
    /// How long an answer may take; above zero.
    pub timeout: Duration,
    /// True when they are sent without open streams too.
    pub while_idle: bool,
}

/// The server's side of a mesh TLS connection.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TlsSpec {
    /// The identity that must be proven.
    pub identity: Identity,
    /// The name to send in the ClientHello (SNI).
    pub server_name: String,
}

/// What an endpoint is known to speak.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ProtocolHint {
    /// Nothing is known.
    #[default]
    Unknown,
    /// HTTP/2, and the carrying of HTTP/1 over it.
    Http2,
    /// Bytes that are not to be looked into.
    Opaque,
}

impl EndpointSpec {
    /// The weight of an endpoint that was given none (Linkerd's controller sends this for a weight of one).
    pub const DEFAULT_WEIGHT: u32 = 10_000;

    /// A plaintext endpoint at `addr` of which nothing else is known.
    pub fn plaintext(addr: SocketAddr) -> Self {
        Self {
            addr,
            weight: Self::DEFAULT_WEIGHT,
            zone: None,
            labels: BTreeMap::new(),
            tls: None,
            hint: ProtocolHint::Unknown,
            opaque_transport: None,
            authority_override: None,
            http2: None,
        }
    }
}
