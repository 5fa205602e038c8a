//! A controller that does what the test says: each call arrives at the test, which answers it as it likes.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses its own part of it"
)]

pub mod messages;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linkerd2_proxy_api::destination::destination_server::{Destination, DestinationServer};
use linkerd2_proxy_api::destination::{DestinationProfile, GetDestination, Update};
use linkerd2_proxy_api::identity::identity_server::{Identity, IdentityServer};
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use linkerd2_proxy_api::inbound::inbound_server_policies_server::{
    InboundServerPolicies, InboundServerPoliciesServer,
};
use linkerd2_proxy_api::inbound::{PortSpec, Server as ServerPolicy};
use linkerd2_proxy_api::outbound::outbound_policies_server::{
    OutboundPolicies, OutboundPoliciesServer,
};
use linkerd2_proxy_api::outbound::{OutboundPolicy, TrafficSpec};
use mesh_balance::core::SlotId;
use mesh_control_api::metadata;
use mesh_control_api::trust::{
    self,
    trust_server::{Trust, TrustServer},
};
use mesh_metrics::{Metrics, ProxyFamilies};
use mesh_policy::Distribution;
use mesh_policy::outbound::{Protocol, RouteBackend};
use mesh_proxy::config::Config;
use mesh_proxy::control::Control;
use mesh_proxy::control::channel::{self, Security};
use mesh_proxy::model::{Backend, BackendKind, Outbound, Target};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming, async_trait};

/// Nothing a test waits for takes this long, unless it is broken.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Asks again and again until it is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    soon(what, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

type Stream<T> = ReceiverStream<Result<T, Status>>;

/// A call that waits for the test's answer.
#[derive(Debug)]
pub struct Call<Q, A> {
    pub request: Q,
    answer: oneshot::Sender<Result<A, Status>>,
}

impl<Q: Debug, A> Call<Q, A> {
    pub fn refuse(self, code: Code) {
        let _ = self
            .answer
            .send(Err(Status::new(code, "as the test wants it")));
    }

    pub fn reply(self, answer: A) {
        let _ = self.answer.send(Ok(answer));
    }
}

impl<Q: Debug, T> Call<Q, Stream<T>> {
    /// Accepts the call. The stream ends when the feed is dropped.
    pub fn accept(self) -> Feed<T> {
        self.take().1
    }

    /// Accepts the call, and gives what was asked with it.
    pub fn take(self) -> (Q, Feed<T>) {
        let (feed, messages) = mpsc::channel(16);
        let _ = self.answer.send(Ok(ReceiverStream::new(messages)));
        (self.request, Feed(feed))
    }
}

/// The sending side of a stream.
#[derive(Debug)]
pub struct Feed<T>(mpsc::Sender<Result<T, Status>>);

impl<T> Feed<T> {
    pub async fn send(&self, message: T) {
        assert!(self.offer(message).await, "the proxy reads the stream");
    }

    /// Sends; `false` when the proxy has let go of the stream.
    pub async fn offer(&self, message: T) -> bool {
        self.0.send(Ok(message)).await.is_ok()
    }

    /// Resolves when the proxy has let go of the stream.
    pub async fn abandoned(&self) {
        self.0.closed().await;
    }
}

/// The calls of one method, in the order they came.
#[derive(Debug)]
pub struct Calls<Q, A>(mpsc::UnboundedReceiver<Call<Q, A>>);

impl<Q, A> Calls<Q, A> {
    pub async fn next(&mut self) -> Call<Q, A> {
        soon("a call", self.0.recv())
            .await
            .expect("the controller runs")
    }

    /// The next call, however long it takes; `None` when the controller has ended.
    pub async fn whenever(&mut self) -> Option<Call<Q, A>> {
        self.0.recv().await
    }

    /// Whether no call is waiting.
    pub fn is_empty(&mut self) -> bool {
        self.0.is_empty()
    }
}

type Calling<Q, A> = mpsc::UnboundedSender<Call<Q, A>>;

#[derive(Clone)]
struct Service {
    policies: Calling<TrafficSpec, Stream<OutboundPolicy>>,
    endpoints: Calling<GetDestination, Stream<Update>>,
    profiles: Calling<GetDestination, Stream<DestinationProfile>>,
    ports: Calling<PortSpec, Stream<ServerPolicy>>,
    certify: Calling<CertifyRequest, CertifyResponse>,
    trust: Calling<Watching, Stream<trust::Update>>,
}

/// A trust stream: the token that it came with, and what the proxy says on it.
#[derive(Debug)]
pub struct Watching {
    pub token: Option<Vec<u8>>,
    pub reports: Streaming<trust::Report>,
}

/// The controller. Dropping it breaks its connections.
#[derive(Debug)]
pub struct Controller {
    pub policies: Calls<TrafficSpec, Stream<OutboundPolicy>>,
    pub endpoints: Calls<GetDestination, Stream<Update>>,
    pub profiles: Calls<GetDestination, Stream<DestinationProfile>>,
    pub ports: Calls<PortSpec, Stream<ServerPolicy>>,
    pub certify: Calls<CertifyRequest, CertifyResponse>,
    pub trust: Calls<Watching, Stream<trust::Update>>,
    pub address: SocketAddr,
    /// A runtime of its own, so that ending it ends every connection as a crash does.
    runtime: Option<Runtime>,
}

impl Controller {
    /// Starts on a free port.
    pub fn start() -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts on this address.
    pub fn start_on(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (policies, policy_calls) = mpsc::unbounded_channel();
        let (endpoints, endpoint_calls) = mpsc::unbounded_channel();
        let (profiles, profile_calls) = mpsc::unbounded_channel();
        let (ports, port_calls) = mpsc::unbounded_channel();
        let (certify, certify_calls) = mpsc::unbounded_channel();
        let (trust, trust_calls) = mpsc::unbounded_channel();
        let service = Service {
            policies,
            endpoints,
            profiles,
            ports,
            certify,
            trust,
        };
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            service
                .router()
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self {
            policies: Calls(policy_calls),
            endpoints: Calls(endpoint_calls),
            profiles: Calls(profile_calls),
            ports: Calls(port_calls),
            certify: Calls(certify_calls),
            trust: Calls(trust_calls),
            address,
            runtime: Some(runtime),
        }
    }

    /// The control side of a proxy that follows this controller. `settings` are lines of TOML.
    pub fn follow(&self, settings: &str) -> (Control, Metrics<ProxyFamilies>) {
        let config = Arc::new(config(self.address, settings));
        let channel = channel::open(&config.control, self.address, Security::Plaintext).unwrap();
        let metrics = Metrics::proxy("test");
        let control = Control::new(Handle::current(), channel, config, &metrics.families);
        (control, metrics)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // On a thread of its own, as a runtime may not be waited for on another one's.
            let ending = std::thread::spawn(move || runtime.shutdown_timeout(DEADLINE));
            let _ = ending.join();
        }
    }
}

/// A configuration whose pauses are short.
pub fn config(controller: SocketAddr, settings: &str) -> Config {
    let text = format!(
        r#"
        identity.name = "client.default.serviceaccount.identity.linkerd.cluster.local"
        identity.trust_anchors_file = "unused"
        identity.token_file = "unused"
        control.address = "{controller}"
        control.workload = "the-workload"
        control.context = "the-context"
        control.backoff_min = "5ms"
        control.backoff_max = "20ms"
        {settings}
        "#
    );
    Config::from_toml(&text).unwrap()
}

impl Service {
    fn router(self) -> tonic::transport::server::Router {
        Server::builder()
            .add_service(OutboundPoliciesServer::new(self.clone()))
            .add_service(DestinationServer::new(self.clone()))
            .add_service(InboundServerPoliciesServer::new(self.clone()))
            .add_service(IdentityServer::new(self.clone()))
            .add_service(TrustServer::new(self))
    }
}

async fn ask<Q, A>(calls: &Calling<Q, A>, request: Request<Q>) -> Result<Response<A>, Status> {
    let (answer, answered) = oneshot::channel();
    let gone = || Status::unavailable("the test has ended");
    calls
        .send(Call {
            request: request.into_inner(),
            answer,
        })
        .map_err(|_| gone())?;
    answered.await.map_err(|_| gone())?.map(Response::new)
}

#[async_trait]
impl OutboundPolicies for Service {
    type WatchStream = Stream<OutboundPolicy>;

    async fn get(&self, _: Request<TrafficSpec>) -> Result<Response<OutboundPolicy>, Status> {
        Err(Status::unimplemented("a proxy watches"))
    }

    async fn watch(
        &self,
        request: Request<TrafficSpec>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        ask(&self.policies, request).await
    }
}

#[async_trait]
impl Destination for Service {
    type GetStream = Stream<Update>;
    type GetProfileStream = Stream<DestinationProfile>;

    async fn get(
        &self,
        request: Request<GetDestination>,
    ) -> Result<Response<Self::GetStream>, Status> {
        ask(&self.endpoints, request).await
    }

    async fn get_profile(
        &self,
        request: Request<GetDestination>,
    ) -> Result<Response<Self::GetProfileStream>, Status> {
        ask(&self.profiles, request).await
    }
}

#[async_trait]
impl InboundServerPolicies for Service {
    type WatchPortStream = Stream<ServerPolicy>;

    async fn get_port(&self, _: Request<PortSpec>) -> Result<Response<ServerPolicy>, Status> {
        Err(Status::unimplemented("a proxy watches"))
    }

    async fn watch_port(
        &self,
        request: Request<PortSpec>,
    ) -> Result<Response<Self::WatchPortStream>, Status> {
        ask(&self.ports, request).await
    }
}

#[async_trait]
impl Identity for Service {
    async fn certify(
        &self,
        request: Request<CertifyRequest>,
    ) -> Result<Response<CertifyResponse>, Status> {
        ask(&self.certify, request).await
    }
}

#[async_trait]
impl Trust for Service {
    type WatchStream = Stream<trust::Update>;

    async fn watch(
        &self,
        request: Request<Streaming<trust::Report>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let token = request.metadata().get_bin(metadata::TOKEN);
        let token = token.map(|token| token.to_bytes().unwrap().to_vec());
        let reports = request.into_inner();
        ask(&self.trust, Request::new(Watching { token, reports })).await
    }

    async fn catch_up(&self, _: Request<trust::Since>) -> Result<Response<trust::Update>, Status> {
        Err(Status::unimplemented("as a controller of before"))
    }
}

/// The one backend of a detected policy.
pub fn backend(policy: &Outbound) -> Arc<Backend> {
    let Protocol::Detect {
        http1,
        http2,
        opaque,
        ..
    } = &policy.protocol
    else {
        panic!("not detected: {policy:?}")
    };
    let only = |backends: &Distribution<RouteBackend<Arc<Backend>>>| {
        let mut backends = backends.backends();
        let backend = Arc::clone(&backends.next().expect("a backend").backend);
        assert!(backends.next().is_none(), "one backend");
        backend
    };
    let backend = only(&http1.routes[0].rules[0].policy.backends);
    assert!(
        Arc::ptr_eq(&backend, &only(&http2.routes[0].rules[0].policy.backends)),
        "shared"
    );
    assert!(
        opaque
            .pick(0)
            .is_some_and(|picked| Arc::ptr_eq(&backend, picked)),
        "shared"
    );
    backend
}

/// The endpoints of a balancer with their places, by address.
pub fn endpoints(backend: &Backend) -> BTreeMap<String, SlotId> {
    let BackendKind::Balancer(picker) = backend.kind() else {
        panic!("not a balancer: {backend:?}")
    };
    let snapshot = picker.snapshot();
    snapshot
        .stats(Instant::now())
        .map(|(endpoint, stats)| (endpoint.addr.to_string(), stats.slot))
        .collect()
}

/// The addresses of a balancer.
pub fn addresses(backend: &Backend) -> Vec<String> {
    endpoints(backend).into_keys().collect()
}

/// The address that a forwarding backend forwards to.
pub fn forwarded(backend: &Backend) -> SocketAddr {
    match backend.kind() {
        BackendKind::Forward(endpoint) => endpoint.addr,
        BackendKind::Balancer(_) => panic!("a balancer: {backend:?}"),
    }
}

/// A target by name.
pub fn authority(name: &str) -> Target {
    Target::Authority(name.into())
}

/// A target by address.
pub fn addr(address: &str) -> Target {
    Target::Addr(address.parse().unwrap())
}
