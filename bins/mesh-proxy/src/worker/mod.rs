//! The data path: one thread each, with its own runtime, listeners and connections.
//!
//! A request is handled on one thread from the first byte to the last. What workers share (policies, balancers, TLS) they
//! read through snapshots; what they own (connections) they share with nobody.
//!
//! - `settings`: what the configuration comes to. `socket`: listeners, and where a redirected connection was meant to go.
//! - `stream`, `upstream`: a connection to an endpoint, and all of one worker's. `tunnel`: streams that carry something else.
//! - `body`, `replay`, `answer`: what passes through, what of it can be sent again, and what the proxy says itself. `expect`: bodies that wait to be asked for. `deadlines`: how long that may take. `count`: opaque bytes. `sni`: what TLS asks for.
//! - [`outbound`](crate::outbound) and [`inbound`](crate::inbound): what becomes of an accepted connection.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod count;
pub(crate) mod deadlines;
pub(crate) mod expect;
pub(crate) mod replay;
mod settings;
pub(crate) mod sni;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod tunnel;
pub(crate) mod upstream;

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use mesh_balance::core::SlotId;
use mesh_http::client::ClientSettings;
use mesh_http::connections::{Connection, Connections, Told};
use mesh_http::detect::Protocol;
use mesh_http::transport_header;
use mesh_http::{Prefixed, ServerLimits};
use mesh_tls::{ClientAuth, TlsServer};
use tokio::io::AsyncRead;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::inbound::{self, Arrival};
use crate::model::{Backend, Endpoint, Target};
use crate::outbound::{self, Source};
use crate::run::Shared;
use crate::trust;
use settings::{Settings, Sockets};
use socket::Liveness;
use upstream::{Connector, Upstream};

/// How often connections are looked over for heads that never end.
const TICK: Duration = Duration::from_secs(1);
/// How many ticks an unused upstream connection is kept, once it was seen unused: of HTTP/1, which applications close when they like, so
/// that a request that cannot be sent twice may meet that; and to an endpoint that is gone.
const SWEEP_TICKS: u64 = 15;
/// How many sweeps an unused HTTP/2 connection is kept, five minutes: it costs some tens of KiB, another one mTLS, and its peer says
/// before it closes.
const HTTP2_SWEEPS: u32 = 20;
/// How often the allocator is made to look for what it can give back to the system.
const GIVE_BACK_TICKS: u64 = 5;
/// More than it keeps at hand.
const LARGE: usize = 1 << 20;
/// How long a client that was accepted has for its first bytes once the proxy is ending.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// How long accepting pauses after it failed, say for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one worker owns.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    /// What the workload's own application may use.
    pub(crate) limits: ServerLimits,
    /// What clients with an identity may use.
    pub(crate) limits_of_peers: ServerLimits,
    /// Those of clients without an identity.
    pub(crate) limits_of_strangers: ServerLimits,
    pub(crate) server_tls: TlsServer,
    inbound: Connections,
    outbound: Connections,
    inbound_sockets: Sockets,
    outbound_sockets: Sockets,
    to_endpoints: Rc<Connector>,
    to_applications: Rc<Connector>,
    /// By the address of the backend, which its entry keeps alive.
    backends: RefCell<HashMap<usize, Rc<BackendConnections>>>,
    applications: RefCell<HashMap<SocketAddr, Rc<Upstream>>>,
    /// Of requests to the application.
    pub(crate) counters: inbound::Counters,
}

/// One worker's connections to the endpoints of one backend, by slot.
#[derive(Debug)]
pub(crate) struct BackendConnections {
    /// Kept so that its address is not another's.
    backend: Arc<Backend>,
    slots: RefCell<Vec<Option<Slot>>>,
}

/// The connections to the endpoint that held a slot in this generation.
#[derive(Debug)]
struct Slot {
    generation: u32,
    upstream: Rc<Upstream>,
}

/// Starts worker `index`. It ends when it has drained.
///
/// # Panics
/// When the operating system gives no thread, as [`std::thread::spawn`] does.
pub(crate) fn spawn(index: usize, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let built = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default());
        match built {
            Ok(runtime) => runtime.block_on(run(shared)),
            Err(error) => shared.fail(format!("worker {index} has no runtime: {error}")),
        }
    })
}

async fn run(shared: Arc<Shared>) {
    let worker = Rc::new(Worker::new(shared.clone()));
    // Without a certificate nothing can be carried, and beside a proxy that this one replaces nothing should come here yet.
    tokio::select! {
        () = shared.readiness.certified() => {}
        () = shared.drain.recv() => return,
    }
    let mut tasks = JoinSet::new();
    if let Err(why) = worker.listen(&mut tasks) {
        shared.fail(why);
        return;
    }
    shared.readiness.worker_bound();
    let mut tick = tokio::time::interval(TICK);
    let mut ticks = 0u64;
    let mut orders = shared.connections.orders();
    loop {
        tokio::select! {
            () = shared.drain.recv() => break,
            order = orders.recv() => worker.ordered(order),
            _ = tick.tick() => {
                ticks += 1;
                worker.look_over(ticks);
            }
        }
    }
    // The listeners end by themselves; then nobody opens a connection any more.
    while tasks.join_next().await.is_some() {}
    // The runtime asks the kernel what has come in before this goes on, so that connections know of it when they are told.
    tokio::task::yield_now().await;
    worker.inbound.drain();
    worker.outbound.drain();
    let mut ended = pin!(async {
        worker.inbound.ended().await;
        worker.outbound.ended().await;
    });
    loop {
        tokio::select! {
            () = &mut ended => return,
            order = orders.recv() => worker.ordered(order),
            _ = tick.tick() => {
                ticks += 1;
                worker.look_over(ticks);
            }
        }
    }
}

/// How many ticks pass in `time`, at least.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX)
}

/// Detects what `io` carries. Once the proxy is ending, a client that goes on saying nothing is not waited for.
pub(crate) async fn detect<I>(
    connection: &Connection,
    io: I,
    timeout: Duration,
) -> std::io::Result<(Protocol, Prefixed<I>)>
where
    I: AsyncRead + Unpin,
{
    let mut detecting = pin!(mesh_http::detect::detect(io, timeout));
    tokio::select! {
        detected = &mut detecting => detected,
        _ = connection.told(None) => match tokio::time::timeout(DRAIN_GRACE, detecting).await {
            Ok(detected) => detected,
            Err(late) => Err(late.into()),
        },
    }
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Self {
        let limits = &shared.config.limits;
        let each = limits.max_connections.div_ceil(shared.workers);
        let head_ticks = ticks(limits.header_read_timeout);
        let idle_ticks = Some(ticks(limits.client_idle_timeout)).filter(|ticks| *ticks > 0);
        let Settings {
            limits: limits_of_application,
            limits_of_peers,
            limits_of_strangers,
            inbound,
            outbound,
        } = Settings::new(&shared.config);
        let connector = |sockets: Sockets| {
            let mut settings = ClientSettings::default();
            settings.max_header_bytes = u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX);
            let (tls, tls_transport) = (
                shared.tls.client(&[]),
                shared.tls.client(&[transport_header::ALPN]),
            );
            Rc::new(Connector {
                tls,
                tls_transport,
                connections: shared.connections.clone(),
                timeout: sockets.connect_timeout,
                liveness: sockets.connected,
                settings,
            })
        };
        Self {
            limits: limits_of_application,
            limits_of_peers,
            limits_of_strangers,
            // Peers that offer no ALPN, or one of these, are served; HTTP is told by its preface.
            server_tls: shared.tls.server(
                &[transport_header::ALPN, b"h2", b"http/1.1"],
                ClientAuth::Optional,
            ),
            inbound: Connections::ending_idle(each, head_ticks, idle_ticks),
            outbound: Connections::ending_idle(each, head_ticks, idle_ticks),
            to_endpoints: connector(outbound),
            to_applications: connector(inbound),
            inbound_sockets: inbound,
            outbound_sockets: outbound,
            backends: RefCell::default(),
            applications: RefCell::default(),
            counters: inbound::Counters::default(),
            shared,
        }
    }

    /// Binds every configured address and accepts on it.
    fn listen(self: &Rc<Self>, tasks: &mut JoinSet<()>) -> Result<(), String> {
        let config = &self.shared.config;
        let (inbound, outbound) = (self.inbound_sockets, self.outbound_sockets);
        for port in &config.inbound.ports {
            let listener = bind("inbound.ports", inbound.backlog, port.listen)?;
            self.accept_inbound(tasks, listener, Arrival::Port(*port));
        }
        for &address in &config.inbound.listen {
            let listener = bind("inbound.listen", inbound.backlog, address)?;
            self.accept_inbound(tasks, listener, Arrival::Redirected);
        }
        for service in &config.outbound.services {
            let listener = bind("outbound.services", outbound.backlog, service.listen)?;
            let target = Target::Authority(service.authority.as_str().into());
            self.accept_outbound(tasks, listener, Source::Service(target));
        }
        for &address in &config.outbound.listen {
            let listener = bind("outbound.listen", outbound.backlog, address)?;
            self.accept_outbound(tasks, listener, Source::Redirected);
        }
        if let Some(address) = config.outbound.http_proxy {
            let listener = bind("outbound.http_proxy", outbound.backlog, address)?;
            self.accept_outbound(tasks, listener, Source::HttpProxy);
        }
        Ok(())
    }

    fn accept_inbound(
        self: &Rc<Self>,
        tasks: &mut JoinSet<()>,
        listener: TcpListener,
        arrival: Arrival,
    ) {
        let worker = self.clone();
        let serve = move |connection, stream, peer| {
            inbound::serve(worker.clone(), connection, stream, peer, arrival)
        };
        tasks.spawn_local(accept(
            self.shared.clone(),
            self.inbound.clone(),
            listener,
            self.inbound_sockets.accepted,
            serve,
        ));
    }

    fn accept_outbound(
        self: &Rc<Self>,
        tasks: &mut JoinSet<()>,
        listener: TcpListener,
        source: Source,
    ) {
        let worker = self.clone();
        let serve = move |connection, stream, client| {
            outbound::serve(worker.clone(), connection, stream, client, source.clone())
        };
        tasks.spawn_local(accept(
            self.shared.clone(),
            self.outbound.clone(),
            listener,
            self.outbound_sockets.accepted,
            serve,
        ));
    }

    /// Whether this proxy itself listens on `address`: what is sent there comes back, or passes as what it is not.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        let config = &self.shared.config;
        let (inbound, outbound) = (&config.inbound, &config.outbound);
        let ports = inbound.ports.iter().map(|port| port.listen);
        let services = outbound.services.iter().map(|service| service.listen);
        let redirected = inbound.listen.iter().chain(&outbound.listen).copied();
        ports
            .chain(services)
            .chain(redirected)
            .chain(outbound.http_proxy)
            .chain([config.admin.listen])
            .chain(config.tap.listen)
            .any(|own| {
                // `::ffff:127.0.0.1` leads to 127.0.0.1.
                let (here, there) = (own.ip().to_canonical(), address.ip().to_canonical());
                own.port() == address.port()
                    && (here == there || here.is_unspecified() || there.is_unspecified())
            })
    }

    /// This worker's connections to `backend`.
    pub(crate) fn backend(&self, backend: &Arc<Backend>) -> Rc<BackendConnections> {
        let key = Arc::as_ptr(backend) as usize;
        let mut backends = self.backends.borrow_mut();
        let make = || {
            Rc::new(BackendConnections {
                backend: backend.clone(),
                slots: RefCell::default(),
            })
        };
        backends.entry(key).or_insert_with(make).clone()
    }

    /// This worker's connections to the application at `address`.
    pub(crate) fn application(&self, address: SocketAddr) -> Rc<Upstream> {
        let mut applications = self.applications.borrow_mut();
        let make = || {
            Rc::new(Upstream::new(
                Endpoint::plain(address).into(),
                self.to_applications.clone(),
            ))
        };
        applications.entry(address).or_insert_with(make).clone()
    }

    /// The connections to `endpoint`, which is in `slot` of `backend`; new ones when another endpoint had the slot.
    pub(crate) fn upstream(
        &self,
        backend: &BackendConnections,
        slot: SlotId,
        endpoint: &Arc<Endpoint>,
    ) -> Rc<Upstream> {
        let mut slots = backend.slots.borrow_mut();
        let index = slot.index as usize;
        if slots.len() <= index {
            slots.resize_with(index + 1, || None);
        }
        match &slots[index] {
            Some(known) if known.generation == slot.generation => known.upstream.clone(),
            _ => {
                let upstream = Rc::new(Upstream::new(endpoint.clone(), self.to_endpoints.clone()));
                slots[index] = Some(Slot {
                    generation: slot.generation,
                    upstream: upstream.clone(),
                });
                upstream
            }
        }
    }

    /// Obeys an order. What was missed of them is made up for by what holds.
    fn ordered(&self, order: Result<trust::Order, RecvError>) {
        match order {
            Ok(order) => self.obey(&order),
            Err(RecvError::Lagged(_)) => {
                for order in self.shared.connections.standing_orders() {
                    self.obey(&order);
                }
            }
            // All who could give orders outlive the workers.
            Err(RecvError::Closed) => {}
        }
    }

    /// Has the connections end that an anchor verified which retires: clients are told, and endpoints get new connections.
    fn obey(&self, order: &trust::Order) {
        self.inbound.tell_marked(&order.groups, order.told);
        if order.told == Told::Drain {
            for connections in self.backends.borrow().values() {
                connections.forget(&order.groups);
            }
        }
    }

    fn look_over(&self, ticks: u64) {
        let late = self.inbound.sweep() + self.outbound.sweep();
        if late > 0 {
            tracing::debug!(
                connections = late,
                "closed: the head of a request took too long"
            );
        }
        if ticks.is_multiple_of(GIVE_BACK_TICKS) {
            // mimalloc gives back what has been free for a second, but looks for it only when it needs a page or gets one. Without
            // this, what many connections have given up stays this process's until the next ones come.
            drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
        }
        if ticks.is_multiple_of(SWEEP_TICKS) {
            self.applications.borrow_mut().retain(|_, upstream| {
                !upstream.sweep(HTTP2_SWEEPS) || Rc::strong_count(upstream) > 1
            });
            self.backends
                .borrow_mut()
                .retain(|_, connections| !connections.sweep());
        }
    }
}

impl BackendConnections {
    /// Uses no connection any more that was verified in one of `groups`: those without a request end, the others when their
    /// requests have.
    fn forget(&self, groups: &[u64]) {
        for slot in self.slots.borrow_mut().iter_mut() {
            if slot
                .as_ref()
                .is_some_and(|slot| slot.upstream.is_of(groups))
            {
                *slot = None;
            }
        }
    }

    /// `true` when no connection is left.
    fn sweep(&self) -> bool {
        let there = self.backend.generations();
        let mut empty = true;
        for (index, slot) in self.slots.borrow_mut().iter_mut().enumerate() {
            let ended = slot.as_ref().is_some_and(|slot| {
                let is_there = there.as_ref().is_none_or(|there| {
                    there.get(index).copied().flatten() == Some(slot.generation)
                });
                let kept = if is_there { HTTP2_SWEEPS } else { 1 };
                slot.upstream.sweep(kept)
            });
            if ended {
                *slot = None;
            }
            empty &= slot.is_none();
        }
        empty
    }
}

fn bind(key: &str, backlog: u16, address: SocketAddr) -> Result<TcpListener, String> {
    socket::listen(address, backlog)
        .map_err(|error| format!("cannot listen on {address} ({key}): {error}"))
}

/// Accepts until the drain; connections that the kernel had taken by then are served still.
async fn accept<S, F>(
    shared: Arc<Shared>,
    connections: Connections,
    listener: TcpListener,
    liveness: Liveness,
    serve: S,
) where
    S: Fn(Connection, TcpStream, SocketAddr) -> F,
    F: Future<Output = ()> + 'static,
{
    let take = |connection, stream: TcpStream, peer| {
        if let Err(error) = socket::tune(&stream, liveness) {
            tracing::debug!(%peer, %error, "a connection broke before it was served");
        }
        // The task ends when the connection does; `connections` waits for its guard.
        tokio::task::spawn_local(serve(connection, stream, peer));
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.drain.recv() => break,
            // A listener that nobody connects to holds no place that another one may need.
            accepted = async { connections.room().await; listener.accept().await } => accepted,
        };
        match accepted {
            Ok((stream, peer)) => tokio::select! {
                biased;
                connection = connections.open() => take(connection, stream, peer),
                () = shared.drain.recv() => break,
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Asked of the kernel itself: what it holds may not have been announced to the runtime yet.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((stream, peer)) = listener.accept() {
        let stream = match stream.set_nonblocking(true) {
            Ok(()) => TcpStream::from_std(stream),
            Err(error) => Err(error),
        };
        if let (Ok(stream), Some(connection)) = (stream, connections.open().now_or_never()) {
            take(connection, stream, peer);
        }
    }
}
