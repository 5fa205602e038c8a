//! Those that are compared. Each module knows how one of them is configured and started, and nothing else.

mod certificates;
mod envoy;
mod find;
mod floor;
mod haproxy;
mod linkerd;
mod mesh;
mod none;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::load::Work;
use crate::stage::{Child, Ground, Host, Usage};

pub(crate) use certificates::Certificates;
pub(crate) use find::{Found, MeshWanted, Wanted, checkout, find, programs};
pub(crate) use mesh::{Control, identity, start as start_mesh};

/// The pinned cipher suite, by its name in TLS 1.3.
pub(crate) const CIPHER_SUITE: &str = "TLS_AES_128_GCM_SHA256";
/// The pinned key exchange.
pub(crate) const KEY_EXCHANGE: &str = "X25519";

/// Who is compared.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// No proxy
    None,
    /// mesh-proxy
    Mesh,
    /// HAProxy
    Haproxy,
    /// Envoy
    Envoy,
    /// linkerd2-proxy
    Linkerd,
    /// The bare pipeline
    Floor,
}

impl Kind {
    /// All, in the order of the tables.
    pub(crate) const ALL: [Self; 6] = [
        Self::None,
        Self::Mesh,
        Self::Haproxy,
        Self::Envoy,
        Self::Linkerd,
        Self::Floor,
    ];

    /// As tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no proxy",
            Self::Mesh => "mesh-proxy",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Linkerd => "linkerd2-proxy",
            Self::Floor => "floor",
        }
    }
}

/// A peer that runs: two proxies, unless it is none.
#[derive(Debug)]
pub(crate) struct Running {
    /// Who.
    pub(crate) kind: Kind,
    /// Where the client sends HTTP/1.
    pub(crate) http1: SocketAddr,
    /// Where the client sends HTTP/2.
    pub(crate) http2: SocketAddr,
    /// Where the client sends gRPC; `None` for who carries none.
    pub(crate) grpc: Option<SocketAddr>,
    /// Where the client sends bytes; `None` for who carries none.
    pub(crate) tcp: Option<SocketAddr>,
    /// The proxy beside the client.
    pub(crate) client: Option<Child>,
    /// The proxy beside the server.
    pub(crate) server: Option<Child>,
    /// What else must run for it. Its costs do not count.
    #[allow(dead_code, reason = "they end when this is dropped")]
    pub(crate) others: Vec<Child>,
}

impl Running {
    /// Starts it, and waits until it carries what it can.
    ///
    /// # Errors
    /// If it cannot be started, or carries nothing in time.
    pub(crate) async fn start(
        found: &Found,
        ground: &Ground,
        certificates: &Certificates,
    ) -> Result<Self, Error> {
        match found {
            Found::None => Ok(none::start(ground)),
            Found::Mesh(programs) => mesh::start(ground, programs, 1).await,
            Found::Haproxy(program) => haproxy::start(ground, program, certificates).await,
            Found::Envoy(program) => envoy::start(ground, program, certificates).await,
            Found::Linkerd(program, programs) => linkerd::start(ground, program, programs).await,
            Found::Floor(program) => floor::start(ground, program, certificates).await,
        }
    }

    /// Where such work is sent; `None` if this peer carries none.
    pub(crate) fn target(&self, work: Work) -> Option<SocketAddr> {
        match work {
            Work::Http1 => Some(self.http1),
            Work::Http2 => Some(self.http2),
            Work::GrpcUnary | Work::GrpcStream => self.grpc,
            Work::TcpUp | Work::TcpDown | Work::Connect => self.tcp,
        }
    }

    /// What both proxies have cost so far; nothing without one.
    ///
    /// # Errors
    /// If one has ended.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        let proxies = [&self.client, &self.server].into_iter().flatten();
        proxies.map(|proxy| Ok(proxy.usage()?.cpu)).sum()
    }

    /// What the proxy beside the client has cost so far.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn client_usage(&self) -> Result<Option<Usage>, Error> {
        self.client.as_ref().map(Child::usage).transpose()
    }

    /// What the proxy beside the server has cost so far.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn server_usage(&self) -> Result<Option<Usage>, Error> {
        self.server.as_ref().map(Child::usage).transpose()
    }

    /// Waits until it carries everything that it says it does.
    ///
    /// # Errors
    /// If it does not in time.
    async fn answers(&self, ground: &Ground) -> Result<(), Error> {
        for work in [Work::Http1, Work::Http2, Work::Connect] {
            if let Some(target) = self.target(work) {
                ground.until_answered(work, target).await?;
            }
        }
        Ok(())
    }
}

/// The addresses of the three pipes of a peer: HTTP/1, HTTP/2, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Links {
    /// Where the client's proxy listens.
    pub(crate) listen: [SocketAddr; 3],
    /// Where the server's proxy listens.
    pub(crate) between: [SocketAddr; 3],
    /// The application.
    pub(crate) apps: [SocketAddr; 3],
}

impl Links {
    /// Every peer has ports of its own.
    pub(crate) fn of(kind: Kind, ground: &Ground) -> Self {
        let first = 2_000 + 100 * kind as u16;
        let far = ground.network.server.address();
        Self {
            listen: [1, 2, 3].map(|pipe| (Ipv4Addr::LOCALHOST, first + pipe).into()),
            between: [11, 12, 13].map(|pipe| (far, first + pipe).into()),
            apps: [
                Ground::local_http(),
                Ground::local_http(),
                Ground::local_tcp(),
            ],
        }
    }

    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            listen: [1, 2, 3].map(at),
            between: [11, 12, 13].map(at),
            apps: [21, 21, 22].map(at),
        }
    }
}

/// Starts the client's and the server's proxy of one program, each with a file of its own and `arguments` before its path.
fn start_pair(
    ground: &Ground,
    kind: Kind,
    program: &Path,
    arguments: &[&str],
    files: &[(&str, String); 2],
) -> Result<Running, Error> {
    let [http1, http2, tcp] = Links::of(kind, ground).listen;
    let folder = ground.folder(kind.name())?;
    let start = |host: &Host, cores: &Option<String>, (name, text): &(&str, String)| {
        let file = folder.join(name);
        std::fs::write(&file, text).map_err(Error::file(&file))?;
        host.spawn(program)
            .args(arguments)
            .args([&file])
            .cores(cores.as_ref())
            .start(&folder.join("log"))
    };
    let Ground { network, cores, .. } = ground;
    let server = start(&network.server, &cores.server_proxy, &files[1])?;
    let client = start(&network.client, &cores.client_proxy, &files[0])?;
    Ok(Running {
        kind,
        http1,
        http2,
        grpc: Some(http2),
        tcp: Some(tcp),
        client: Some(client),
        server: Some(server),
        others: Vec::new(),
    })
}
