//! Two proxies, the controller they follow, and the addresses they use.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use linkerd2_proxy_api::destination::{
    AddrSet, DestinationProfile, Update, WeightedAddr, WeightedAddrSet, update,
};
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use linkerd2_proxy_api::inbound::Server;
use linkerd2_proxy_api::outbound::{OutboundPolicy, traffic_spec};
use mesh_control_api::trust;
use mesh_tls::ca::{Anchor, Authority};
use mesh_tls::{ClientAuth, LeafKey, ReadAhead, Tls, TlsServer, TrustBundle};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::controller::{Controller, Feed, Watching, messages, soon};
use crate::policy;
use crate::wire::Wire;

pub const CLIENT: &str = "client.test";
pub const SERVER: &str = "server.test";
const DOMAIN_NAMES: [&str; 2] = [
    "client.default.serviceaccount.identity.linkerd.mesh.example",
    "server.default.serviceaccount.identity.linkerd.mesh.example",
];
/// A service of whose endpoints the controller says nothing.
pub const SILENT: &str = "silent.test:80";
const HOUR: Duration = Duration::from_secs(3600);

/// Loopback addresses that nobody else uses: four of IPv4, or ports of the one of IPv6.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    index: u8,
    ipv6: bool,
}

impl Net {
    pub fn take() -> Self {
        static TAKEN: AtomicU8 = AtomicU8::new(0);
        let index = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(index < 248, "one process has addresses for 248 meshes");
        Self { index, ipv6: false }
    }

    pub fn take_ipv6() -> Self {
        static TAKEN: AtomicU8 = AtomicU8::new(0);
        let index = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(index < 4, "one process has ports for 4 meshes");
        Self { index, ipv6: true }
    }

    /// `port` of a host; in IPv6, where all hosts have one address, another port that is nobody else's.
    fn at(self, host: u8, port: u16) -> SocketAddr {
        let process = std::process::id();
        if self.ipv6 {
            // The ports in use differ by their remainders of 17.
            let mesh = process % 44 * 4 + u32::from(self.index);
            let own = 20_000 + mesh as u16 * 68 + u16::from(host % 4) * 17 + port % 17;
            return SocketAddr::new(Ipv6Addr::LOCALHOST.into(), own);
        }
        let [.., high, low] = process.to_be_bytes();
        let second = 64 + (high % 16) * 4 + self.index / 62;
        let ip = Ipv4Addr::new(127, second, low, self.index % 62 * 4 + host);
        SocketAddr::new(ip.into(), port)
    }

    /// Where the client's application reaches the service `web.test:80`.
    pub fn web(self) -> SocketAddr {
        self.at(1, 8000)
    }

    /// Where the client's application reaches the service `other.test:80`.
    pub fn other(self) -> SocketAddr {
        self.at(1, 8001)
    }

    pub fn http_proxy(self) -> SocketAddr {
        self.at(1, 3128)
    }

    /// Where the server takes what is redirected, once a test says so.
    pub fn inbound(self) -> SocketAddr {
        self.at(2, 4143)
    }

    /// Where a proxy tells how it is.
    pub fn admin(self, host: u8) -> SocketAddr {
        self.at(host, 4191)
    }

    /// Where a proxy lets be observed, once a test says so.
    pub fn tap(self, host: u8) -> SocketAddr {
        self.at(host, 4190)
    }

    /// The server's mesh port for [`Net::app`].
    pub fn mesh_port(self) -> SocketAddr {
        self.at(2, 14_143)
    }

    pub fn app(self) -> SocketAddr {
        self.at(3, 8080)
    }

    /// Where an application that is not in the mesh may listen.
    pub fn plain(self, index: u16) -> SocketAddr {
        self.at(4, 9000 + index)
    }
}

/// What the controller says. Changed at any time, it reaches the proxies that asked.
#[derive(Clone, Debug)]
pub struct Says {
    policies: watch::Sender<HashMap<String, OutboundPolicy>>,
    endpoints: watch::Sender<HashMap<String, Vec<WeightedAddr>>>,
    servers: watch::Sender<HashMap<u32, Server>>,
    profiles: watch::Sender<HashMap<String, DestinationProfile>>,
}

impl Says {
    pub fn policy(&self, target: &str, policy: OutboundPolicy) {
        self.policies
            .send_modify(|all| drop(all.insert(target.to_owned(), policy)));
    }

    pub fn endpoints(&self, path: &str, endpoints: Vec<WeightedAddr>) {
        self.endpoints
            .send_modify(|all| drop(all.insert(path.to_owned(), endpoints)));
    }

    /// The profile of a target, for which there should be no policy.
    pub fn profile(&self, target: &str, profile: DestinationProfile) {
        self.profiles
            .send_modify(|all| drop(all.insert(target.to_owned(), profile)));
    }

    pub fn server(&self, port: u16, server: Server) {
        self.servers
            .send_modify(|all| drop(all.insert(port.into(), server)));
    }
}

/// A connection in mesh TLS.
pub type MeshWire = Wire<TlsStream<ReadAhead<TcpStream>>>;

/// A controller that answers by itself.
pub struct Mesh {
    pub net: Net,
    pub says: Says,
    controller: SocketAddr,
    authority: Arc<Authority>,
    /// Whoever signs certificates from now on.
    pub issuing: watch::Sender<Arc<Authority>>,
    /// The trust streams that proxies open.
    pub streams: mpsc::UnboundedReceiver<(Watching, Feed<trust::Update>)>,
    names: [&'static str; 2],
    folder: tempfile::TempDir,
}

impl Mesh {
    /// `web.test:80` goes to the mesh port of the server, `other.test:80` is not known yet; the application is open to all.
    pub fn start() -> Self {
        Self::start_at(Net::take())
    }

    /// The same, with proxies whose names have a trust domain.
    pub fn start_in_domain() -> Self {
        let mut mesh = Self::start_at(Net::take());
        mesh.names = DOMAIN_NAMES;
        let server = policy::meshed_as(mesh.net.mesh_port(), DOMAIN_NAMES[1]);
        mesh.says.endpoints("web.test:80", vec![server]);
        mesh
    }

    /// What all trust at first.
    #[allow(
        dead_code,
        reason = "not every test that shares this file replaces anchors"
    )]
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// A file that goes with the mesh.
    #[allow(
        dead_code,
        reason = "not every test that shares this file replaces anchors"
    )]
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The same as `start`, at these addresses.
    pub fn start_at(net: Net) -> Self {
        let authority = Arc::new(authority());
        let controller = Controller::start();
        let says = Says {
            policies: watch::channel(HashMap::new()).0,
            endpoints: watch::channel(HashMap::new()).0,
            servers: watch::channel(HashMap::new()).0,
            profiles: watch::channel(HashMap::new()).0,
        };
        says.policy("web.test:80", messages::balanced("web", "web.test:80"));
        says.endpoints("web.test:80", vec![policy::meshed(net.mesh_port())]);
        says.server(net.app().port(), policy::open());
        let issuing = watch::Sender::new(authority.clone());
        let (opened, streams) = mpsc::unbounded_channel();
        let mesh = Self {
            net,
            says: says.clone(),
            controller: controller.address,
            authority: authority.clone(),
            issuing: issuing.clone(),
            streams,
            names: [CLIENT, SERVER],
            folder: tempfile::tempdir().unwrap(),
        };
        tokio::spawn(answer(controller, says, issuing.subscribe(), opened));
        mesh
    }

    /// The proxy beside the client.
    pub async fn client(&self, settings: &str) -> Proxy {
        let net = self.net;
        let listeners = format!(
            "outbound.services = [{{listen = \"{}\", authority = \"web.test:80\"}}, {{listen = \"{}\", authority = \"other.test:80\"}}]\noutbound.http_proxy = \"{}\"\n",
            net.web(),
            net.other(),
            net.http_proxy()
        );
        self.proxy(self.names[0], 1, &(listeners + settings)).await
    }

    /// The proxy beside the application.
    pub async fn server(&self, settings: &str) -> Proxy {
        let net = self.net;
        let ports = format!(
            "inbound.ports = [{{listen = \"{}\", app = \"{}\"}}]\n",
            net.mesh_port(),
            net.app()
        );
        self.proxy(self.names[1], 2, &(ports + settings)).await
    }

    /// Another proxy beside the same application, and its mesh port.
    pub async fn another_server(&self) -> (Proxy, SocketAddr) {
        let port = self.net.at(4, 14_143);
        let ports = format!(
            "inbound.ports = [{{listen = \"{port}\", app = \"{}\"}}]\n",
            self.net.app()
        );
        (self.proxy(SERVER, 4, &ports).await, port)
    }

    /// Both proxies.
    pub async fn both(&self) -> (Proxy, Proxy) {
        tokio::join!(self.client(""), self.server(""))
    }

    /// Mesh TLS to the server's proxy, as a client that has this name or no certificate.
    pub async fn tls(&self, to: SocketAddr, name: Option<&str>, alpn: &[&[u8]]) -> MeshWire {
        Wire::over(self.handshake(to, SERVER, name, alpn).await.unwrap())
    }

    /// A gRPC channel in mesh TLS to the proxy `server`, for a client as in [`Mesh::tls`].
    pub async fn channel(
        &self,
        to: SocketAddr,
        server: &str,
        name: Option<&str>,
    ) -> Result<Channel, tonic::transport::Error> {
        let stream = self.handshake(to, server, name, &[b"h2"]).await.unwrap();
        let mut stream = Some(TokioIo::new(stream));
        let once = tower::service_fn(move |_| {
            std::future::ready(
                stream
                    .take()
                    .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)),
            )
        });
        Endpoint::from_static("http://tap.test")
            .connect_with_connector(once)
            .await
    }

    async fn handshake(
        &self,
        to: SocketAddr,
        server: &str,
        name: Option<&str>,
        alpn: &[&[u8]],
    ) -> Result<TlsStream<ReadAhead<TcpStream>>, mesh_tls::Error> {
        let client = match name {
            None => self.member(None).anonymous_client(alpn),
            Some(name) => self.member(Some(name)).client(alpn),
        };
        let tcp = soon("a connection", TcpStream::connect(to)).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        client.connect(tcp, &server.parse().unwrap(), None).await
    }

    /// Mesh TLS of a server that has this name.
    #[allow(
        dead_code,
        reason = "not every test that shares this file has a server of its own"
    )]
    pub fn tls_server(&self, name: &str, alpn: &[&[u8]], clients: ClientAuth) -> TlsServer {
        self.member(Some(name)).server(alpn, clients)
    }

    fn member(&self, name: Option<&str>) -> Tls {
        let anchors = TrustBundle::from_pem(1, self.authority.anchor_pem().as_bytes()).unwrap();
        let ((_trust, anchors), (credentials, own)) =
            (mesh_tls::trust_store(anchors), mesh_tls::credential_store());
        if let Some(name) = name {
            let (key, identity) = (LeafKey::generate().unwrap(), name.parse().unwrap());
            let csr = key.csr(&identity).unwrap();
            let leaf = self
                .authority
                .issue(&csr, &identity, HOUR, SystemTime::now())
                .unwrap();
            credentials.set(key.credentials(leaf.chain().to_vec()).unwrap());
        }
        Tls::new(anchors, own)
    }

    async fn proxy(&self, name: &str, host: u8, settings: &str) -> Proxy {
        let file = |file: &str, text: &str| {
            let path = self.folder.path().join(format!("{host}.{file}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        let admin = self.net.admin(host);
        let (anchors, token) = (
            file("pem", &self.authority.anchor_pem()),
            file("token", "token"),
        );
        let workers = if settings.contains("limits.workers") {
            ""
        } else {
            "limits.workers = 2"
        };
        let config = format!(
            "identity.name = \"{name}\"\nidentity.trust_anchors_file = {anchors:?}\nidentity.token_file = {token:?}\n\
             control.address = \"{}\"\nadmin.listen = \"{admin}\"\n{workers}\n{settings}",
            self.controller
        );
        let process = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
            .env_clear()
            .arg("--config")
            .arg(file("toml", &config))
            .args(["--admin-log"])
            .arg(std::env::var("TRAFFIC_LOG").unwrap_or_else(|_| "error".to_owned()))
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let proxy = Proxy { process, admin };
        proxy.until("/ready", |body| body == "ready\n").await;
        proxy
    }
}

/// A proxy process, killed when the test ends.
pub struct Proxy {
    process: Child,
    admin: SocketAddr,
}

impl Proxy {
    async fn get(&self, path: &str) -> Option<String> {
        let mut wire = Wire::try_connect(self.admin).await?;
        wire.send(format!(
            "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n"
        ))
        .await;
        Some(wire.response("GET").await.body_text())
    }

    /// Asks until the answer is so.
    pub async fn until(&self, path: &str, so: impl Fn(&str) -> bool) -> String {
        let asking = async {
            loop {
                if let Some(body) = self.get(path).await
                    && so(&body)
                {
                    return body;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(path, asking).await
    }

    /// The sum of a metric's series whose labels contain all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.get("/metrics").await.unwrap(), name, labels)
    }

    /// Waits until the sum is `value`.
    pub async fn metric_becomes(&self, name: &str, labels: &[&str], value: f64) {
        let waiting = self.until("/metrics", |text| {
            (sum(text, name, labels) - value).abs() < 0.5
        });
        if tokio::time::timeout(Duration::from_secs(5), waiting)
            .await
            .is_err()
        {
            let all = self.get("/metrics").await.unwrap();
            let lines: Vec<_> = all.lines().filter(|line| line.starts_with(name)).collect();
            panic!("{name} {labels:?} does not become {value}: {lines:#?}");
        }
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends it a signal, by the name that `kill` takes.
    pub fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub async fn ended(&mut self) -> ExitStatus {
        soon("its end", async {
            loop {
                if let Some(status) = self.process.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// The most memory it has held, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| {
            rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
        })
        .map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

async fn answer(
    mut controller: Controller,
    says: Says,
    issuing: watch::Receiver<Arc<Authority>>,
    opened: mpsc::UnboundedSender<(Watching, Feed<trust::Update>)>,
) {
    loop {
        tokio::select! {
            Some(call) = controller.policies.whenever() => {
                let key = match call.request.target.clone() {
                    Some(traffic_spec::Target::Authority(authority)) => authority,
                    _ => String::new(),
                };
                if says.policies.borrow().contains_key(&key) {
                    tokio::spawn(tell(call.accept(), says.policies.subscribe(), key));
                } else {
                    call.refuse(Code::NotFound);
                }
            }
            Some(call) = controller.ports.whenever() => {
                let key = call.request.port;
                if says.servers.borrow().contains_key(&key) {
                    tokio::spawn(tell(call.accept(), says.servers.subscribe(), key));
                } else {
                    call.refuse(Code::NotFound);
                }
            }
            Some(call) = controller.endpoints.whenever() => {
                let key = call.request.path.clone();
                if key == SILENT {
                    let feed = call.accept();
                    tokio::spawn(async move { feed.abandoned().await });
                    continue;
                }
                tokio::spawn(tell_endpoints(call.accept(), says.endpoints.subscribe(), key));
            }
            Some(call) = controller.profiles.whenever() => {
                let key = call.request.path.clone();
                if says.profiles.borrow().contains_key(&key) {
                    tokio::spawn(tell(call.accept(), says.profiles.subscribe(), key));
                } else {
                    call.refuse(Code::NotFound);
                }
            }
            Some(call) = controller.certify.whenever() => {
                let certificate = issue(&issuing.borrow(), &call.request);
                call.reply(certificate);
            }
            Some(call) = controller.trust.whenever() => {
                let _ = opened.send(call.take());
            }
            else => return,
        }
    }
}

async fn tell<K: std::hash::Hash + Eq, T: Clone + PartialEq>(
    feed: Feed<T>,
    mut says: watch::Receiver<HashMap<K, T>>,
    key: K,
) {
    let mut said = None;
    loop {
        let now = says.borrow_and_update().get(&key).cloned();
        if now != said {
            said.clone_from(&now);
            if let Some(now) = now
                && !feed.offer(now).await
            {
                return;
            }
        }
        if says.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_endpoints(
    feed: Feed<Update>,
    mut says: watch::Receiver<HashMap<String, Vec<WeightedAddr>>>,
    path: String,
) {
    let mut said: Option<Vec<WeightedAddr>> = None;
    loop {
        let now = says
            .borrow_and_update()
            .get(&path)
            .cloned()
            .unwrap_or_default();
        let mut updates = Vec::new();
        if now.is_empty() {
            updates.push(messages::no_endpoints());
        } else {
            let before = said.take().unwrap_or_default();
            let gone = before
                .iter()
                .filter(|old| now.iter().all(|new| new.addr != old.addr));
            let addrs: Vec<_> = gone.filter_map(|old| old.addr).collect();
            let set = WeightedAddrSet {
                addrs: now.clone(),
                ..Default::default()
            };
            updates.push(Update {
                update: Some(update::Update::Add(set)),
            });
            if !addrs.is_empty() {
                updates.push(Update {
                    update: Some(update::Update::Remove(AddrSet { addrs })),
                });
            }
        }
        said = Some(now);
        for update in updates {
            if !feed.offer(update).await {
                return;
            }
        }
        if says.changed().await.is_err() {
            return;
        }
    }
}

/// An authority that nobody else trusts.
pub fn authority() -> Authority {
    let now = SystemTime::now();
    let anchor = Anchor::generate("test", 24 * HOUR, now).unwrap();
    let issuer = anchor.issuer("issuer", 24 * HOUR, now).unwrap();
    Authority::new(anchor.certificate().clone(), issuer).unwrap()
}

fn issue(authority: &Authority, request: &CertifyRequest) -> CertifyResponse {
    let identity = request.identity.parse().unwrap();
    let csr = &request.certificate_signing_request;
    let leaf = authority
        .issue(csr, &identity, HOUR, SystemTime::now())
        .unwrap();
    CertifyResponse {
        leaf_certificate: leaf.leaf().to_vec(),
        intermediate_certificates: leaf
            .intermediates()
            .iter()
            .map(|der| der.to_vec())
            .collect(),
        valid_until: None,
    }
}
