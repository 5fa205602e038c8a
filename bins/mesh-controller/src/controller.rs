//! A running controller.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use mesh_discovery::{Registry, manifests::Watcher, shared};
use mesh_metrics::{ControllerMetrics, Metrics, TrustState};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
    time,
};
use tracing::info;

use crate::{
    Error,
    admin::{AdminService, HttpAdmin, serve_socket},
    api::ProxyApi,
    config::Config,
    data_folder::{Announcement, DataFolder, bind, bind_unix, reachable},
    destination::{Destinations, UpdateEncoder},
    identity::Certifier,
    listener::{ConnectionLimits, Listener, StreamAdmission},
    mesh::{Mesh, source},
    policy::{InboundPolicies, OutboundPolicies},
    readiness::Readiness,
    store::{EmbeddedStore, EtcdOptions, EtcdStore, StateStore},
    tokens::Tokens,
    trust::{Place, Trust},
};

/// Everything, running. Dropped, it stops at once; [`Controller::stop`] lets what is in flight end.
pub struct Controller {
    announcement: Announcement,
    data: DataFolder,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    _manifests: Watcher,
}

impl Controller {
    /// Opens the store, reads the manifests, serves, and says so in `controller.json`.
    ///
    /// # Errors
    /// Whatever keeps it from serving.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let data_error = |source| Error::Data {
            path: config.data.clone(),
            source,
        };
        let data = DataFolder::open(&config.data).map_err(data_error)?;
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let (store, place) = open_store(&config, &data, &mut tasks, &stopping)?;
        let metrics = Metrics::controller(env!("CARGO_PKG_VERSION"));
        let (writer, registry) = shared::new(Registry::new(UpdateEncoder));
        let mesh = Arc::new(Mesh::new(registry, config.cluster_domain.clone()));
        let manifests = source::follow(
            &config.manifests,
            writer,
            mesh.clone(),
            metrics.families.clone(),
        )?;
        let settings = mesh.settings();
        let (trust, mut driver) = Trust::open(
            place.with_outside(config.outside_ca.clone()),
            &settings,
            SystemTime::now(),
        )
        .await?;
        let trust = Arc::new(trust);
        driver.write_to(data.clone())?;
        watch_trust(&metrics.families, &trust);

        let sockets = Sockets::bind(&config, &data)?;
        let tokens = Tokens::new(store);
        let streams = Arc::new(StreamAdmission::new(config.max_streams));
        let parts = Parts {
            readiness: Readiness::new(mesh.clone(), trust.clone()),
            mesh,
            trust,
            tokens,
            streams,
            metrics,
        };
        tasks.spawn(driver.run(parts.mesh.clone(), stopping.clone()));
        let announcement = parts.serve(&config, sockets, &mut tasks, &stopping)?;
        data.announce(&announcement).map_err(data_error)?;
        info!(
            grpc = %announcement.grpc,
            admin = %announcement.admin,
            trust_domain = %parts.trust.trust_domain(),
            bundle = %parts.trust.bundle().digest(),
            "serving"
        );
        Ok(Self {
            announcement,
            data,
            stop,
            tasks,
            _manifests: manifests,
        })
    }

    /// Where it serves.
    #[must_use]
    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// Stops accepting, tells every connection to go elsewhere, and ends within five seconds.
    pub async fn stop(mut self) {
        let _ = std::fs::remove_file(self.data.admin_socket());
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            info!(timeout = ?STOP_TIMEOUT, "cut what was still open");
        }
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("announcement", &self.announcement)
            .finish_non_exhaustive()
    }
}

/// Every port, bound before anything is served.
struct Sockets {
    listeners: Vec<TcpListener>,
    admin: TcpListener,
    unix: UnixListener,
}

impl Sockets {
    fn bind(config: &Config, data: &DataFolder) -> Result<Self, Error> {
        let last = data.last_announcement();
        let tcp = |key, address: SocketAddr, last| {
            bind(address, last)
                .and_then(TcpListener::from_std)
                .map_err(|source| Error::Listen {
                    key,
                    address,
                    source,
                })
        };
        let last_listeners = last
            .as_ref()
            .map(|last| &last.listeners[..])
            .unwrap_or_default();
        let listeners = config
            .listen
            .iter()
            .enumerate()
            .map(|(index, address)| tcp("listen", *address, last_listeners.get(index).copied()))
            .collect::<Result<_, _>>()?;
        let admin = tcp("admin", config.admin, last.map(|last| last.admin))?;
        let path = data.admin_socket();
        let unix = bind_unix(&path)
            .and_then(UnixListener::from_std)
            .map_err(|source| Error::AdminSocket { path, source })?;
        Ok(Self {
            listeners,
            admin,
            unix,
        })
    }
}

/// Has metrics tell how trust stands. A scrape reads it many times and is answered once.
fn watch_trust(metrics: &ControllerMetrics, trust: &Arc<Trust>) {
    let (trust, last) = (trust.clone(), Mutex::new(None));
    metrics.watch_trust(move || {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match &*last {
            Some((at, state)) if now.duration_since(*at) < STATE_LASTS => TrustState::clone(state),
            _ => {
                let state = trust.state(SystemTime::now());
                *last = Some((now, state.clone()));
                state
            }
        }
    });
}

/// The store of the data folder, or the one that several share.
fn open_store(
    config: &Config,
    data: &DataFolder,
    tasks: &mut JoinSet<()>,
    stopping: &watch::Receiver<bool>,
) -> Result<(Arc<dyn StateStore>, Place), Error> {
    let Some(etcd) = &config.etcd else {
        let store: Arc<dyn StateStore> = Arc::new(EmbeddedStore::open(&data.store())?);
        return Ok((store.clone(), Place::sole(store)));
    };
    let options = EtcdOptions {
        endpoints: etcd.members.clone(),
        prefix: etcd.prefix.clone(),
        ca: etcd.ca.clone(),
        certificate: etcd.certificate.clone(),
        compact_every: Some(etcd.compact_minutes)
            .filter(|minutes| *minutes > 0)
            .map(|minutes| Duration::from_mins(minutes.into())),
    };
    let lease = Duration::from_secs(etcd.lead_lease_seconds.into());
    let name = name();
    let (store, candidate) = EtcdStore::connect(&options, &name, lease)?;
    tasks.spawn(candidate.run(stopping.clone()));
    Ok((Arc::new(store.clone()), Place::among_several(store, name)))
}

/// What no other process is called that stands for election.
fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let micros = since.unwrap_or_default().as_micros();
    let host: String = host.trim().chars().take(MAX_HOST_CHARS).collect();
    format!("{host}-{}-{micros:x}", std::process::id())
}

struct Parts {
    mesh: Arc<Mesh>,
    trust: Arc<Trust>,
    tokens: Tokens,
    streams: Arc<StreamAdmission>,
    readiness: Readiness,
    metrics: Metrics<ControllerMetrics>,
}

impl Parts {
    fn serve(
        &self,
        config: &Config,
        sockets: Sockets,
        tasks: &mut JoinSet<()>,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Announcement, Error> {
        let api = self.proxy_api(config.max_certifications);
        let limits = Arc::new(ConnectionLimits::new(
            config.max_connections,
            config.max_uncertified,
        ));
        let mut listeners = Vec::new();
        for socket in sockets.listeners {
            let address = socket.local_addr().map_err(Error::Start)?;
            let trust = config.speaks_tls(address.ip()).then(|| self.trust.clone());
            listeners.push((address, trust.is_some()));
            let listener = Listener::new(socket, trust, limits.clone());
            tasks.spawn(listener.serve(api.clone(), stopping.clone()));
        }
        let admin = sockets.admin.local_addr().map_err(Error::Start)?;
        // There is at least one listener (config).
        let first = listeners.first().map_or(admin, |(address, _)| *address);
        let named = config.advertise.as_ref().map(|to| to.as_str().to_owned());
        let specific = || {
            let mut addresses = listeners.iter().map(|(address, _)| address);
            let specific = addresses.find(|address| !address.ip().is_unspecified())?;
            Some(specific.to_string())
        };
        let advertised = named.or_else(specific);
        let announcement = Announcement {
            grpc: reachable(first),
            listeners: listeners.iter().map(|(address, _)| *address).collect(),
            admin,
            pid: std::process::id(),
        };

        let http = HttpAdmin::new(
            self.readiness.clone(),
            self.metrics.clone(),
            self.config_json(config, &announcement),
        );
        tasks.spawn(http.serve(sockets.admin, stopping.clone()));
        let service = AdminService {
            mesh: self.mesh.clone(),
            trust: self.trust.clone(),
            tokens: self.tokens.clone(),
            readiness: self.readiness.clone(),
            metrics: self.metrics.families.clone(),
            streams: self.streams.clone(),
            listeners,
            advertised,
        };
        tasks.spawn(serve_socket(sockets.unix, service, stopping.clone()));
        Ok(announcement)
    }

    fn proxy_api(&self, max_certifications: u32) -> ProxyApi {
        ProxyApi::new(
            Destinations::new(self.mesh.clone()),
            OutboundPolicies::new(self.mesh.clone()),
            InboundPolicies::new(self.mesh.clone()),
            Certifier::new(
                self.trust.clone(),
                self.tokens.clone(),
                self.metrics.families.clone(),
                max_certifications,
            ),
            self.trust.clone(),
            self.streams.clone(),
            &self.metrics.families,
        )
    }

    /// Nothing in it is secret.
    fn config_json(&self, config: &Config, announcement: &Announcement) -> String {
        let json = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "settings": config,
            "serving": announcement,
            "bundle_digest": self.trust.bundle().digest().to_string(),
        });
        format!("{json:#}\n")
    }
}

const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const STATE_LASTS: Duration = Duration::from_millis(500);
const MAX_HOST_CHARS: usize = 64;
