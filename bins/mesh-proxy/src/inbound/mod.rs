//! Traffic to the application: accepted, its peer identified, authorized, handed to the application.
//!
//! - [`serve`]: from the accepted connection to who is at its other end and which port it is for.
//! - `session`: what it carries, and who may. `admission`: whether a request is let in; `counters`: what counts it. `http`: one request. `opaque`: one connection of bytes.

mod admission;
mod counters;
mod http;
mod opaque;
mod session;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use mesh_http::Prefixed;
use mesh_http::connections::Connection;
use mesh_http::detect::{Protocol, classify};
use mesh_http::transport_header::{self, TransportHeader};
use mesh_metrics::{ResourceLabels, TlsStatus};
use mesh_policy::inbound::ServerProtocol;
use mesh_tls::Identity;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::PortMap;
use crate::worker::{Worker, detect, sni, socket};
pub(crate) use counters::Counters;
use session::Session;

/// How long a TLS handshake or a transport header may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an opaque connection's first bytes may take before it is taken for one whose server speaks first.
const OPAQUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where an accepted connection came in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    /// At the mesh port of an application port.
    Port(PortMap),
    /// At the address that redirect rules and other proxies send to.
    Redirected,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) peer: Peer,
}

/// What the other end has proven.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Plaintext,
    /// Mesh TLS, with the identity of its certificate if it presented one.
    Tls(Option<Identity>),
}

impl Peer {
    pub(crate) fn tls_status(&self) -> TlsStatus {
        match self {
            Self::Plaintext => TlsStatus::Plaintext,
            Self::Tls(None) => TlsStatus::Anonymous,
            Self::Tls(Some(_)) => TlsStatus::Mutual,
        }
    }

    pub(crate) fn for_policy(&self) -> mesh_policy::inbound::Peer<'_> {
        match self {
            Self::Plaintext => mesh_policy::inbound::Peer::Plaintext,
            Self::Tls(identity) => mesh_policy::inbound::Peer::Tls(identity.as_ref()),
        }
    }
}

/// Serves one connection to the application to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    connection: Connection,
    stream: TcpStream,
    peer: SocketAddr,
    arrival: Arrival,
) {
    if let Err(why) = identify(&worker, &connection, stream, peer, arrival).await {
        tracing::debug!(client = %peer, %why, "an inbound connection failed");
    }
}

async fn identify(
    worker: &Rc<Worker>,
    connection: &Connection,
    stream: TcpStream,
    address: SocketAddr,
    arrival: Arrival,
) -> Result<(), Failure> {
    let local = stream.local_addr()?;
    let application = match arrival {
        Arrival::Port(port) => Some(port.app),
        Arrival::Redirected => socket::original_destination(&stream),
    };
    let ips = &worker.shared.config.inbound.ips;
    if let (Arrival::Redirected, Some(to)) = (arrival, application)
        && !ips.is_empty()
        && !ips.contains(&to.ip().to_canonical())
    {
        return Err(Failure::WrongAddress(to.ip()));
    }
    // The admin server may be scraped through the mesh; the other listeners would make the client's calls this workload's.
    let own = application
        .filter(|to| worker.is_own(*to) && to.port() != worker.shared.config.admin.listen.port());
    if let (Arrival::Redirected, Some(own)) = (arrival, own) {
        return Err(Failure::WrongPort(own.port()));
    }
    let limit = first_bytes_timeout(worker, application, address.ip()).await;
    let (protocol, stream) = detect(connection, stream, limit).await?;
    let (ours, stream) = match (protocol, arrival) {
        (Protocol::Tls, Arrival::Port(_)) => (true, stream),
        (Protocol::Tls, Arrival::Redirected) => {
            timeout(HANDSHAKE_TIMEOUT, is_ours(worker, stream)).await??
        }
        _ => (false, stream),
    };
    if !ours {
        let carries = Carries::detected(protocol, stream.prefix());
        let client = Client {
            address,
            peer: Peer::Plaintext,
        };
        let application = application.ok_or(Failure::NoTarget)?;
        return Session::new(worker, connection, client, application, arrival)
            .await?
            .serve(stream, carries)
            .await;
    }
    // Boxed, so that no state of what follows has room for a handshake, or for a TLS stream that it only hands on.
    let handshake = Box::pin(worker.server_tls.accept_verified(stream));
    let (stream, verified) = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    let mut stream = Box::new(stream);
    let has_identity = verified.is_some();
    // In its place among those of the anchor until it has been served.
    let record = verified.as_ref().map(|peer| {
        let record = worker.shared.connections.told(peer.keys.anchor);
        connection.mark(record.group());
        record
    });
    let _record = record;
    let identity = verified.map(|peer| peer.identity);
    let client = Client {
        address,
        peer: Peer::Tls(identity),
    };
    if stream.get_ref().1.alpn_protocol() != Some(transport_header::ALPN) {
        let application = application.ok_or(Failure::NoTarget)?;
        return Session::new(worker, connection, client, application, arrival)
            .await?
            .serve(stream, Carries::Unknown)
            .await;
    }
    // Who chooses a port has to say who it is, whatever the port's policy.
    if !has_identity {
        return Err(Failure::Anonymous);
    }
    let header = timeout(HANDSHAKE_TIMEOUT, TransportHeader::read(&mut stream)).await??;
    let host = application.map_or(local.ip(), |original| original.ip());
    let application = target(worker, arrival, host, header.port)?;
    let carries = match header.session {
        Some(session) => Carries::Session(session),
        None => Carries::Opaque,
    };
    Session::new(worker, connection, client, application, arrival)
        .await?
        .serve(stream, carries)
        .await
}

/// Whether redirected TLS is the mesh's: it asks for this proxy's own name. Otherwise it is the application's own.
async fn is_ours(
    worker: &Worker,
    stream: Prefixed<TcpStream>,
) -> std::io::Result<(bool, Prefixed<TcpStream>)> {
    let config = &worker.shared.config;
    // A SPIFFE URI cannot be asked for by name; the configuration is checked to have one then.
    let named = config.identity.server_name.as_deref();
    let name = named.unwrap_or(config.name.as_str());
    let (asked, stream) = sni::server_name(stream).await?;
    let ours = asked.is_some_and(|asked| asked.eq_ignore_ascii_case(name));
    Ok((ours, stream))
}

/// How long the first bytes may take. Where the server may speak first, to a client that need not speak TLS, that is not long:
/// a client of the mesh begins TLS at once.
async fn first_bytes_timeout(
    worker: &Worker,
    application: Option<SocketAddr>,
    client: IpAddr,
) -> Duration {
    let Some(application) = application else {
        return HANDSHAKE_TIMEOUT;
    };
    let watched = worker.shared.control.inbound(application.port()).await;
    let policy = watched.load();
    match policy.protocol {
        ServerProtocol::Opaque
            if policy
                .authorize(client, Peer::Plaintext.for_policy())
                .is_allowed() =>
        {
            OPAQUE_TIMEOUT
        }
        ServerProtocol::Opaque => HANDSHAKE_TIMEOUT,
        ServerProtocol::Detect { timeout, .. } => timeout,
        _ => worker.shared.config.inbound.detect_timeout,
    }
}

/// The application that a transport header names by its port: one that this proxy stands before, never the proxy itself.
fn target(
    worker: &Worker,
    arrival: Arrival,
    host: IpAddr,
    port: u16,
) -> Result<SocketAddr, Failure> {
    let Arrival::Port(here) = arrival else {
        let target = SocketAddr::new(host, port);
        return if worker.is_own(target) {
            Err(Failure::WrongPort(port))
        } else {
            Ok(target)
        };
    };
    if here.app.port() == port {
        return Ok(here.app);
    }
    let ports = &worker.shared.config.inbound.ports;
    let other = ports
        .iter()
        .find(|other| other.app.port() == port && other.listen.ip() == here.listen.ip());
    other.map(|other| other.app).ok_or(Failure::WrongPort(port))
}

/// What is known of what a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// Nothing yet.
    Unknown,
    /// What its first bytes say.
    Detected(Protocol),
    /// Anything still: the client had not said enough when the time was up.
    Undecided,
    /// What the transport header says.
    Session(transport_header::Session),
    /// Bytes that are not to be looked into, as the transport header says.
    Opaque,
}

impl Carries {
    /// What `protocol` is when these are all the bytes it was told by.
    fn detected(protocol: Protocol, bytes: &[u8]) -> Self {
        match protocol {
            Protocol::Opaque if classify(bytes).is_none() => Self::Undecided,
            protocol => Self::Detected(protocol),
        }
    }
}

/// Why a connection was not served to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("it was neither redirected here nor begins with a transport header")]
    NoTarget,
    #[error("it is for {0}, which is neither in inbound.ips nor in the policy of the port")]
    WrongAddress(IpAddr),
    #[error("it is for port {0}, which is not an application's here")]
    WrongPort(u16),
    #[error("a transport header is taken from clients with an identity only")]
    Anonymous,
    #[error("it does not speak HTTP, which the policy of the port expects")]
    NotHttp,
    #[error("the handshake took too long")]
    Slow(#[from] tokio::time::error::Elapsed),
    #[error("no mesh TLS: {0}")]
    Tls(#[from] mesh_tls::Error),
    #[error(transparent)]
    Carry(#[from] mesh_http::Error),
    #[error("I/O failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("not authorized: {0}")]
    Denied(mesh_policy::inbound::DenyReason),
    #[error("the application at {address} cannot be connected to: {error}")]
    Application {
        address: SocketAddr,
        error: mesh_http::Error,
    },
}

/// The labels of the port's server, as its policy names them.
fn server_labels(labels: &BTreeMap<String, String>, port: u16) -> ResourceLabels {
    let label = |name| labels.get(name).map_or("", String::as_str);
    ResourceLabels::new(label("group"), label("kind"), "", label("name")).with_port(port)
}
