//! The endpoints of backends: one stream for each path, however many balancers follow it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, btree_map};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use linkerd2_proxy_api::destination::GetDestination;
use linkerd2_proxy_api::destination::destination_client::DestinationClient;

use mesh_metrics::{BalancerMetrics, StreamHandle};
use mesh_policy::EndpointSpec;
use mesh_policy::outbound::{BackendKind, BackendSpec};
use mesh_policy::proxy_api::{self, Converted, EndpointUpdate};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tonic::Status;
use tonic::transport::Channel;

use super::backoff::Backoff;
use super::interned::Interned;
use super::metered::Metered;
use super::outbound::policy_is_unknown;
use super::pool::Balanced;
use super::unsupported::Unsupported;
use crate::config;
use crate::model::{Backend, Endpoint, ProtocolHint};

/// The largest update accepted, in bytes; a snapshot of a large service is one message.
const MAX_UPDATE_BYTES: usize = 64 * 1024 * 1024;
/// How often a stream looks whether any policy still wants it.
const UNUSED_CHECK: Duration = Duration::from_secs(5);

/// All backends in use, each once.
#[derive(Debug)]
pub(super) struct Destinations {
    source: Arc<Source>,
    paths: Arc<Mutex<HashMap<String, Arc<Discovery>>>>,
    forwards: Mutex<Forwards>,
}

/// Where endpoints come from, and what sees them pass.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) runtime: Handle,
    pub(super) channel: Channel,
    pub(super) settings: config::Control,
    pub(super) balance: config::Balance,
    /// The workload's own addresses.
    pub(super) own: Vec<IpAddr>,
    pub(super) unsupported: Unsupported,
    pub(super) streams: StreamHandle,
    pub(super) balancers: BalancerMetrics,
}

impl Source {
    /// An endpoint as it is connected to. At an address of this workload's own no proxy would answer: what it sends to itself is
    /// not redirected a second time.
    fn endpoint(&self, spec: &EndpointSpec) -> Endpoint {
        let endpoint = Endpoint::from(spec);
        if !self.own.contains(&spec.addr.ip().to_canonical()) {
            return endpoint;
        }
        Endpoint {
            identity: None,
            hint: ProtocolHint::Unknown,
            opaque_transport: None,
            ..endpoint
        }
    }
}

impl Destinations {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source: Arc::new(source),
            paths: Arc::default(),
            forwards: Mutex::default(),
        }
    }

    /// The backend of a specification: the one that lives, or a new one.
    pub(super) fn backend(&self, spec: &BackendSpec) -> Arc<Backend> {
        let path = match &spec.kind {
            BackendKind::Forward(endpoint) => {
                let new =
                    || Backend::forward(spec.meta.as_ref().clone(), self.source.endpoint(endpoint));
                return lock(&self.forwards).backend(spec, new);
            }
            BackendKind::Balancer { path, .. } => path,
        };
        // Joining happens under the lock under which a stream that nobody wants is taken out.
        let mut paths = lock(&self.paths);
        match paths.entry(path.clone()) {
            Entry::Occupied(discovery) => lock(&discovery.get().state).join(spec, &self.source),
            Entry::Vacant(entry) => {
                let discovery = Arc::new(Discovery {
                    path: path.clone(),
                    state: Mutex::default(),
                });
                let backend = lock(&discovery.state).join(spec, &self.source);
                let task = watch(
                    Arc::clone(&self.source),
                    Arc::clone(&self.paths),
                    Arc::clone(&discovery),
                );
                self.source.runtime.spawn(task);
                entry.insert(discovery);
                backend
            }
        }
    }

    /// The backends that balance, those of one path together, each with its path.
    pub(super) fn balancers(&self) -> Vec<(String, Arc<Backend>)> {
        let paths = lock(&self.paths);
        let mut found = Vec::new();
        for (path, discovery) in &*paths {
            let state = lock(&discovery.state);
            let live = state.balanced.iter().filter_map(Balanced::backend);
            found.extend(live.map(|backend| (path.clone(), backend)));
        }
        found
    }
}

/// The backends of a single endpoint.
#[derive(Debug, Default)]
struct Forwards {
    live: HashMap<BackendSpec, Weak<Backend>>,
    /// The size at which dead entries are looked for again.
    sweep_at: usize,
}

impl Forwards {
    fn backend(&mut self, spec: &BackendSpec, new: impl FnOnce() -> Backend) -> Arc<Backend> {
        if let Some(backend) = self.live.get(spec).and_then(Weak::upgrade) {
            return backend;
        }
        if self.live.len() >= self.sweep_at {
            self.live.retain(|_, backend| backend.strong_count() > 0);
            self.sweep_at = 2 * self.live.len() + 16;
        }
        let backend = Arc::new(new());
        self.live.insert(spec.clone(), Arc::downgrade(&backend));
        backend
    }
}

/// One path: its endpoints and who follows them.
#[derive(Debug)]
struct Discovery {
    path: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` until the controller has answered.
    endpoints: Option<BTreeMap<SocketAddr, Arc<Endpoint>>>,
    interned: Interned,
    balanced: Vec<Balanced>,
}

impl State {
    /// The live backend of an equal specification, or a new one that knows what is known.
    fn join(&mut self, spec: &BackendSpec, source: &Source) -> Arc<Backend> {
        if let Some(backend) = self
            .balanced
            .iter()
            .find_map(|balanced| balanced.backend_of(spec))
        {
            return backend;
        }
        let (mut balanced, backend) = Balanced::new(spec, &source.balance, &source.balancers);
        if let Some(endpoints) = &self.endpoints {
            balanced.apply(
                &[],
                &endpoints.values().cloned().collect::<Vec<_>>(),
                endpoints.is_empty(),
            );
        }
        self.balanced.push(balanced);
        backend
    }

    /// Takes in a whole set: what is not in it goes, what is in it unchanged is not touched.
    fn replace(&mut self, set: Vec<Arc<Endpoint>>) {
        let kept: HashSet<_> = set.iter().map(|endpoint| endpoint.addr).collect();
        let known = self.endpoints.iter().flat_map(BTreeMap::keys);
        let gone = known
            .copied()
            .filter(|address| !kept.contains(address))
            .collect();
        self.change(gone, set);
    }

    /// Takes out `removed`, then takes in `added`. Tells the balancers only what really changed.
    fn change(&mut self, mut removed: Vec<SocketAddr>, mut added: Vec<Arc<Endpoint>>) {
        let endpoints = self.endpoints.get_or_insert_default();
        removed.retain(|address| endpoints.remove(address).is_some());
        added.retain(|endpoint| match endpoints.entry(endpoint.addr) {
            // What is there stays, as the balancers share it.
            btree_map::Entry::Occupied(known) if known.get() == endpoint => false,
            btree_map::Entry::Occupied(mut known) => {
                if !known.get().same_connection(endpoint) {
                    // A new slot: connections and what was learned belong to the old one.
                    removed.push(endpoint.addr);
                }
                known.insert(endpoint.clone());
                true
            }
            btree_map::Entry::Vacant(new) => {
                new.insert(endpoint.clone());
                true
            }
        });
        let empty = endpoints.is_empty();
        for balanced in &mut self.balanced {
            balanced.apply(&removed, &added, empty);
        }
    }
}

/// Feeds one path until no policy names it.
async fn watch(
    source: Arc<Source>,
    paths: Arc<Mutex<HashMap<String, Arc<Discovery>>>>,
    discovery: Arc<Discovery>,
) {
    let unused = async {
        loop {
            sleep(UNUSED_CHECK).await;
            let mut paths = lock(&paths);
            let mut state = lock(&discovery.state);
            state.balanced.retain(Balanced::is_used);
            if state.balanced.is_empty() {
                paths.remove(&discovery.path);
                return;
            }
        }
    };
    let feed = async {
        let mut backoff = Backoff::new(source.settings.backoff_min, source.settings.backoff_max);
        loop {
            let Err(status) = follow(&source, &discovery, &mut backoff).await;
            tracing::debug!(path = discovery.path, %status, "endpoint watch ended");
            if policy_is_unknown(status.code()) {
                // Nothing is there, as far as this controller knows. What an earlier stream told stays.
                let mut state = lock(&discovery.state);
                if state.endpoints.is_none() {
                    state.replace(Vec::new());
                }
            }
            sleep(backoff.next(fastrand::u64(..))).await;
            source.streams.reconnecting();
        }
    };
    tokio::select! {
        () = unused => tracing::debug!(path = discovery.path, "backend left"),
        () = feed => {}
    }
}

/// One stream of updates, to its end.
async fn follow(
    source: &Source,
    discovery: &Discovery,
    backoff: &mut Backoff,
) -> Result<Infallible, Status> {
    let request = GetDestination {
        scheme: String::new(),
        path: discovery.path.clone(),
        context_token: source.settings.context.clone(),
    };
    let mut client =
        DestinationClient::new(source.channel.clone()).max_decoding_message_size(MAX_UPDATE_BYTES);
    let mut stream = Metered::new(client.get(request).await, &source.streams)?;
    // The stream begins with a snapshot; until it has come, what an earlier stream told is served.
    let mut fresh = true;
    loop {
        let converted = proxy_api::endpoint_update(&stream.next().await?);
        backoff.reset();
        stream.used(converted.is_ok());
        match converted {
            Ok(update) => apply(source, discovery, update, &mut fresh),
            Err(error) => {
                tracing::warn!(path = discovery.path, %error, "a wrong endpoint update was refused");
            }
        }
    }
}

fn apply(
    source: &Source,
    discovery: &Discovery,
    update: Converted<EndpointUpdate>,
    fresh: &mut bool,
) {
    let mut state = lock(&discovery.state);
    match source.unsupported.take(update) {
        EndpointUpdate::Add {
            endpoints,
            rejected,
        } => {
            for error in rejected {
                tracing::warn!(path = discovery.path, %error, "a wrong endpoint was left out");
            }
            let mut shared = |spec| state.interned.share(source.endpoint(spec));
            let added = endpoints.iter().map(&mut shared).collect();
            if std::mem::take(fresh) {
                state.replace(added);
            } else {
                state.change(Vec::new(), added);
            }
        }
        EndpointUpdate::Remove(addresses) => state.change(addresses, Vec::new()),
        EndpointUpdate::NoEndpoints { .. } => {
            *fresh = false;
            state.replace(Vec::new());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
