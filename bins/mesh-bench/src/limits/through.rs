//! What chooses an endpoint for each request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mesh_balance::mesh_breaker::{AutoClassifier, Unified};
use mesh_balance::{Balance, BoxError};
use tower::discover::Change;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt, service_fn};

use super::server::Server;
use crate::args::{Limits, Through};
use crate::error::Error;

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Answered whole, with this status.
    Status(StatusCode),
    /// Refused where it was sent from: no endpoint has room.
    Shed,
    /// No answer.
    Failed(String),
}

/// Sends requests of one client.
#[derive(Debug, Clone)]
pub(crate) struct Sender(BoxCloneSyncService<(), Answer, Infallible>);

impl Sender {
    /// Sends one request, and waits for the end of its answer.
    pub(crate) async fn send(self) -> Answer {
        match self.0.oneshot(()).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }
}

/// A way for one client, and what has to run for it.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) sender: Sender,
    _processes: Vec<Process>,
}

impl Through {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded in a hyper client",
            Self::Proxy => "mesh-proxy",
            Self::Tower => "tower Peak EWMA",
            Self::Envoy => "Envoy least request",
            Self::EnvoyRoundRobin => "Envoy round robin",
        }
    }
}

/// For clients number 0 to `clients`, each knowing nothing of the others.
pub(crate) async fn ways(
    through: Through,
    clients: usize,
    servers: &[Arc<Server>],
    arguments: &Limits,
) -> Result<Vec<Way>, Error> {
    let mut ways = Vec::new();
    match through {
        Through::Embedded => ways.extend((0..clients).map(|_| embedded(servers))),
        Through::Tower => ways.extend((0..clients).map(|_| towers(servers))),
        Through::Envoy | Through::EnvoyRoundRobin => {
            let program = found(arguments.envoy.as_ref(), "envoy", "name it with --envoy")?;
            for _ in 0..clients {
                ways.push(envoy(&program, through, servers).await?);
            }
        }
        Through::Proxy => {
            let mut mesh = super::mesh::Mesh::start(servers, arguments).await?;
            for number in 0..clients {
                let (address, process) = mesh.proxy(number).await?;
                ways.push(Way {
                    sender: towards(address, "web.default.svc.cluster.local:80"),
                    _processes: vec![process],
                });
            }
            if let Some(way) = ways.first_mut() {
                way._processes.extend(mesh.processes);
            }
        }
    }
    Ok(ways)
}

type Http = Client<HttpConnector, Empty<Bytes>>;

fn http() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// This project's balancer, with everything at its defaults, and a unified breaker.
fn embedded(servers: &[Arc<Server>]) -> Way {
    let client = http();
    let endpoints: Vec<_> = servers
        .iter()
        .map(|server| {
            let address = server.address;
            let endpoint = client
                .clone()
                .map_request(move |(): ()| request(address, &address.to_string()));
            Ok::<_, Infallible>(Change::Insert(address, endpoint))
        })
        .collect();
    let (balance, driver) = Balance::builder(futures_util::stream::iter(endpoints))
        .http(AutoClassifier::default())
        .breaker(Unified::default())
        .build();
    tokio::spawn(driver);
    let sender = service_fn(move |()| {
        let balance = balance.clone();
        async move {
            Ok(match balance.oneshot(()).await {
                Ok(response) => whole(response).await,
                Err(mesh_balance::Error::Limited { .. }) => Answer::Shed,
                Err(error) => Answer::Failed(error.to_string()),
            })
        }
    });
    Way {
        sender: Sender(BoxCloneSyncService::new(sender)),
        _processes: Vec::new(),
    }
}

/// tower's own, as it is: `p2c::Balance` over `PeakEwma`, behind a `Buffer`, as many requests share it.
fn towers(servers: &[Arc<Server>]) -> Way {
    use tower::load::{CompleteOnResponse, PeakEwma};
    let client = http();
    let endpoints: Vec<_> = servers
        .iter()
        .map(|server| {
            let address = server.address;
            let endpoint = client
                .clone()
                .map_request(move |(): ()| request(address, &address.to_string()));
            let rtt = Duration::from_millis(30);
            PeakEwma::new(endpoint, rtt, 1e10, CompleteOnResponse::default())
        })
        .collect();
    let discovered = tower::discover::ServiceList::new(endpoints);
    let balance = tower::balance::p2c::Balance::new(discovered);
    let balance = tower::buffer::Buffer::new(balance, 10_000);
    let sender = service_fn(move |()| {
        let answer = balance.clone().oneshot(());
        answer.then(|answer: Result<_, BoxError>| async {
            Ok(match answer {
                Ok(response) => whole(response).await,
                Err(error) => Answer::Failed(error.to_string()),
            })
        })
    });
    Way {
        sender: Sender(BoxCloneSyncService::new(sender)),
        _processes: Vec::new(),
    }
}

/// A plain client of a proxy.
fn towards(proxy: SocketAddr, authority: &'static str) -> Sender {
    let client = http();
    let sender = service_fn(move |()| {
        let answer = client.request(request(proxy, authority));
        async move {
            Ok(match answer.await {
                Ok(response) => whole(response).await,
                Err(error) => Answer::Failed(error.to_string()),
            })
        }
    });
    Sender(BoxCloneSyncService::new(sender))
}

fn request(to: SocketAddr, authority: &str) -> Request<Empty<Bytes>> {
    let uri = Uri::builder()
        .scheme("http")
        .authority(to.to_string())
        .path_and_query("/")
        .build();
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri.unwrap_or_default();
    if let Ok(host) = authority.parse() {
        request.headers_mut().insert(http::header::HOST, host);
    }
    request
}

async fn whole<B: http_body::Body>(response: http::Response<B>) -> Answer
where
    B::Error: std::fmt::Display,
{
    let status = response.status();
    match response.into_body().collect().await {
        Ok(_) => Answer::Status(status),
        Err(error) => Answer::Failed(error.to_string()),
    }
}

async fn envoy(program: &Path, through: Through, servers: &[Arc<Server>]) -> Result<Way, Error> {
    let policy = if through == Through::Envoy {
        "LEAST_REQUEST"
    } else {
        "ROUND_ROBIN"
    };
    let listen = free_address()?;
    let socket = |address: SocketAddr| serde_json::json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let endpoints: Vec<_> = servers
        .iter()
        .map(|server| serde_json::json!({"endpoint": {"address": socket(server.address)}}))
        .collect();
    let unlimited = serde_json::json!({"thresholds": [{"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}]});
    let config = serde_json::json!({"static_resources": {
        "listeners": [{"address": socket(listen), "filter_chains": [{"filters": [{
            "name": "http",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "http",
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                    {"match": {"prefix": "/"}, "route": {"cluster": "endpoints", "timeout": "15s"}}]}]},
                "http_filters": [{"name": "router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
            }}]}]}],
        "clusters": [{
            "name": "endpoints", "type": "STATIC", "lb_policy": policy, "connect_timeout": "1s",
            "circuit_breakers": unlimited,
            "load_assignment": {"cluster_name": "endpoints", "endpoints": [{"lb_endpoints": endpoints}]},
        }],
    }});
    let arguments = [
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "error",
    ];
    let process = Process::start(
        Command::new(program)
            .args(arguments)
            .args(["--config-yaml", &config.to_string()]),
    )?;
    listens(listen, program).await?;
    Ok(Way {
        sender: towards(listen, "web.default.svc.cluster.local"),
        _processes: vec![process],
    })
}

/// A program that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Process(Child);

impl Process {
    pub(super) fn start(command: &mut Command) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .map_err(|source| Error::Program { program, source })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program that was named, or else the one beside this program or on the path.
pub(super) fn found(
    named: Option<&PathBuf>,
    program: &str,
    remedy: &str,
) -> Result<PathBuf, Error> {
    if let Some(named) = named {
        return Ok(named.clone());
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::Missing {
            program: program.to_owned(),
            remedy: remedy.to_owned(),
        })
}

/// An address that nobody has at the moment.
pub(super) fn free_address() -> Result<SocketAddr, Error> {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(Error::io("no free port"))
}

/// Waits until something listens there.
pub(super) async fn listens(address: SocketAddr, program: &Path) -> Result<(), Error> {
    let began = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        if began.elapsed() > PATIENCE {
            return Err(Error::NotInTime {
                what: format!("{} listens on {address}", program.display()),
                limit: PATIENCE,
                said: String::new(),
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

pub(super) const PATIENCE: Duration = Duration::from_secs(30);
