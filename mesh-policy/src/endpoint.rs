use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;

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
        }
    }
}
