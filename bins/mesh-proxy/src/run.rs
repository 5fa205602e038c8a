//! The process: builds the parts, runs them, drains them.

use std::future::pending;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use mesh_metrics::{IdentityHandle, Metrics, ProxyFamilies};
use mesh_tls::{
    CredentialReader, CredentialWriter, Tls, TlsClient, TrustBundle, TrustReader, TrustWriter,
    credential_store, restricted_crypto_provider, trust_store,
};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;
use tonic::transport::Channel;
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config, Controller, Controllers, Issuer, LogFormat};
use crate::control::channel::{self, ALPN, Security};
use crate::control::{Channels, Control};
use crate::identity::workload_api::WorkloadApi;
use crate::identity::{Certifier, Documents, DocumentsError};
use crate::os::{LISTENERS_SHARE, Signals, use_small_pages};
use crate::readiness::{Certification, Readiness};
use crate::tap::{self, Taps};
use crate::trust::{self, CatchUp, Dial, Dialled, Follower, Process, Start};
use crate::{admin, drain, identity, worker};

/// What every worker and the admin server share.
#[derive(Debug)]
pub struct Shared {
    /// The effective configuration.
    pub config: Arc<Config>,
    /// How many workers there are.
    pub workers: usize,
    /// Policies and backends.
    pub control: Control,
    /// The metric families.
    pub metrics: Metrics<ProxyFamilies>,
    /// This proxy's trust and credentials.
    pub tls: Tls,
    /// Says when to stop accepting and finish.
    pub drain: drain::Signal,
    /// Live connections by the anchors that verified them.
    pub(crate) connections: trust::Connections,
    /// Who observes requests.
    pub(crate) taps: Arc<Taps>,
    /// Who is ready; the workers say so here.
    pub readiness: Readiness,
    /// Asks the process to drain and end.
    pub(crate) end: Notify,
    fatal: watch::Sender<Option<String>>,
}

impl Shared {
    /// A worker cannot go on, say because an address is taken: the process ends with this reason. The first one counts.
    pub fn fail(&self, why: impl Into<String>) {
        self.fatal.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(why.into());
            }
            first
        });
    }
}

/// Runs the proxy until it has drained after a signal. Exit code 0 after a whole drain, 1 when it was cut off by
/// `limits.drain_timeout` or a second signal.
///
/// # Errors
/// When the proxy cannot start, or a worker cannot go on.
pub fn run(config: Config) -> Result<ExitCode, Error> {
    use_small_pages();
    start_log(&config.admin)?;
    report(&config.unheeded);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<ExitCode, Error> {
    let mut signals = Signals::new().map_err(Error::Runtime)?;
    let admin = bind("admin.listen", config.admin.listen).await?;
    let tap = match config.tap.listen {
        Some(address) => Some(bind("tap.listen", address).await?),
        None => None,
    };
    let (trigger, drain) = drain::channel();
    let (fatal, mut failure) = watch::channel(None);
    let (shared, _trust) = build(config, drain, fatal)?;
    tokio::spawn(admin::serve(admin, Arc::clone(&shared)));
    if let Some(tap) = tap {
        tokio::spawn(tap::server::serve(tap, Arc::clone(&shared)));
    }

    let workers = (0..shared.workers)
        .map(|index| worker::spawn(index, Arc::clone(&shared)))
        .collect();
    let mut ended = reap(workers)?;
    tracing::info!(identity = %shared.config.name, workers = shared.workers, "started");

    tokio::select! {
        signal = signals.recv() => tracing::info!(signal, "draining"),
        () = shared.end.notified() => tracing::info!("asked to end; draining"),
        why = first_failure(&mut failure) => return Err(Error::Worker(why)),
        _ = &mut ended => return Err(Error::Worker("all workers have ended".to_owned())),
    }
    trigger.fire();
    tokio::select! {
        drained = timeout(shared.config.limits.drain_timeout, &mut ended) => {
            if drained.is_ok() {
                tracing::info!("drained");
                return Ok(ExitCode::SUCCESS);
            }
            tracing::warn!(timeout = ?shared.config.limits.drain_timeout, "the drain took too long; what is left is cut off");
        }
        signal = signals.recv() => tracing::warn!(signal, "a second signal; what is left is cut off"),
        why = first_failure(&mut failure) => return Err(Error::Worker(why)),
    }
    Ok(ExitCode::FAILURE)
}

/// Builds what is shared and starts what keeps the certificate fresh.
fn build(
    config: Config,
    drain: drain::Signal,
    fatal: watch::Sender<Option<String>>,
) -> Result<(Arc<Shared>, Arc<TrustWriter>), Error> {
    let followed = match config.name.trust_domain() {
        Some(domain) => Start::read(&config.identity, domain.as_str())?,
        // Checked: bundles are not followed then.
        None => None,
    };
    let kept = followed.as_ref().and_then(|start| start.bundle.clone());
    let bundle = match kept {
        Some(bundle) => {
            tracing::info!(
                generation = bundle.generation(),
                "starting with the trust bundle of identity.bundle_file"
            );
            bundle
        }
        None => anchors(&config.identity)?,
    };
    let (trust_writer, trust) = trust_store(bundle);
    let trust_writer = Arc::new(trust_writer);
    let (credential_writer, credentials) = credential_store();
    let suites: Vec<_> = config
        .identity
        .cipher_suites
        .iter()
        .map(|suite| suite.0)
        .collect();
    let groups: Vec<_> = config
        .identity
        .key_exchanges
        .iter()
        .map(|group| group.0)
        .collect();
    let tls = Tls::new(trust.clone(), credentials.clone())
        .with_crypto_provider(restricted_crypto_provider(&suites, &groups));
    let metrics = Metrics::proxy(env!("CARGO_PKG_VERSION"));
    let trusting = metrics.families.trust.handle();
    let connections = trust::Connections::counted_by(&trusting);
    let opener = Opener {
        settings: config.control.clone(),
        connections: connections.clone(),
        tls: tls.clone(),
        credentials: credentials.clone(),
    };
    let channels = opener.channels(&config.controllers)?;
    let follower = followed.map(|start| {
        let process = Process::new(
            u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..)),
            &config.control.workload,
            SystemTime::now(),
        );
        let dial = dial(&config, &opener, &channels);
        let pauses = (config.control.backoff_min, config.control.backoff_max);
        let writer = Arc::clone(&trust_writer);
        Follower::new(process, start, writer, credentials, dial, pauses)
            .with_connections(connections.clone())
            .catching_up_over(unverified(&config, &opener))
            .counted_by(trusting)
    });
    let issued = Issued {
        trust,
        writer: credential_writer,
        metrics: metrics.families.control.identity(),
    };
    let certification = certify(&config, opener, issued, follower.as_ref())?;
    if let Some(follower) = follower {
        tokio::spawn(follower.run());
    }
    let workers = worker_count(config.limits.workers);
    let config = Arc::new(config);
    let shared = Shared {
        control: Control::new(
            tokio::runtime::Handle::current(),
            channels,
            Arc::clone(&config),
            &metrics.families,
        ),
        taps: Arc::new(Taps::new(fastrand::u32(..), metrics.families.tap.handle())),
        readiness: Readiness::new(certification, workers, drain.clone()),
        config,
        workers,
        metrics,
        tls,
        connections,
        drain,
        end: Notify::new(),
        fatal,
    };
    tokio::spawn(watch_ports(
        shared.control.clone(),
        Arc::clone(&shared.config),
    ));
    Ok((Arc::new(shared), trust_writer))
}

/// Where certificates go, and what vouches for them.
struct Issued {
    trust: TrustReader,
    writer: CredentialWriter,
    metrics: IdentityHandle,
}

/// Starts what gets and renews the certificate.
fn certify(
    config: &Config,
    opener: Opener,
    issued: Issued,
    follower: Option<&Follower>,
) -> Result<watch::Receiver<Certification>, Error> {
    let (name, clock) = (config.name.clone(), Box::new(SystemTime::now));
    let Issued {
        trust,
        writer,
        metrics,
    } = issued;
    let settings = &config.identity;
    let (controller, token_file) = match &config.issuer {
        Issuer::Controller {
            controller,
            token_file,
        } => (controller, token_file),
        Issuer::WorkloadApi(socket) => {
            let socket = socket.clone();
            let (api, certification) =
                WorkloadApi::new(name, socket, trust, writer, metrics, clock);
            tokio::spawn(api.run());
            return Ok(certification);
        }
    };
    // The first Certify is the one call that is made without a certificate: the token proves the identity.
    let channel = opener.anonymous(controller).map_err(Error::Channel)?;
    let (mut certifier, certification) = Certifier::new(
        name,
        token_file.clone(),
        channel,
        trust,
        writer,
        metrics,
        clock,
    );
    certifier = certifier.renew_between(settings.refresh_min, settings.refresh_max);
    if let Some(follower) = follower {
        certifier = certifier
            .stating(follower.standing())
            .renew_by(follower.reissues());
    }
    if let Some(folder) = &settings.key_dir {
        certifier = certifier.certify_key(Documents::read(folder)?);
    }
    if controller.name.is_some() {
        let controller = controller.clone();
        certifier = certifier.renew_over(Box::new(move || opener.certified(&controller).ok()));
    }
    tokio::spawn(certifier.run());
    Ok(certification)
}

/// How the trust stream is opened: where certificates come from. Over TLS the certificate says who this is, or the token
/// until there is one; without TLS the token does.
fn dial(config: &Config, opener: &Opener, channels: &Channels) -> Dial {
    let (controller, token_file) = match &config.issuer {
        Issuer::Controller {
            controller,
            token_file,
        } => (controller.clone(), Some(token_file.clone())),
        Issuer::WorkloadApi(_) => (config.controllers.policy.clone(), None),
    };
    let shared = (controller == config.controllers.policy).then(|| channels.policy.clone());
    let opener = opener.clone();
    Box::new(move |certified| {
        let tls = controller.name.is_some();
        let read = |path: &PathBuf| identity::token(path).map_err(|error| error.to_string());
        let token = match &token_file {
            Some(path) if !(tls && certified) => Some(read(path)?),
            _ => None,
        };
        let opened = match &shared {
            Some(shared) if certified || !tls => Ok(shared.clone()),
            _ if certified => opener.certified(&controller),
            _ => opener.anonymous(&controller),
        };
        Ok(Dialled {
            channel: opened.map_err(|error| error.to_string())?,
            token,
            provisional: tls && !certified,
        })
    })
}

/// How bundles are asked for that have to prove themselves, as nobody there is believed.
fn unverified(config: &Config, opener: &Opener) -> CatchUp {
    let controller = match &config.issuer {
        Issuer::Controller { controller, .. } => controller.clone(),
        Issuer::WorkloadApi(_) => config.controllers.policy.clone(),
    };
    let opener = opener.clone();
    Box::new(move |presents| opener.unverified(&controller, presents))
}

/// Opens channels to the services of the controller.
#[derive(Clone)]
struct Opener {
    settings: config::Control,
    connections: trust::Connections,
    tls: Tls,
    credentials: CredentialReader,
}

impl Opener {
    /// One for each place.
    fn channels(&self, controllers: &Controllers) -> Result<Channels, Error> {
        let policy = self
            .certified(&controllers.policy)
            .map_err(Error::Channel)?;
        if controllers.destination == controllers.policy {
            return Ok(policy.into());
        }
        let destination = self
            .certified(&controllers.destination)
            .map_err(Error::Channel)?;
        Ok(Channels {
            destination,
            policy,
        })
    }

    /// Shows this proxy's certificate, once there is one, where it is spoken to over TLS.
    fn certified(&self, controller: &Controller) -> Result<Channel, tonic::transport::Error> {
        self.open(
            controller,
            self.tls.client(ALPN),
            Some(self.credentials.clone()),
        )
    }

    /// Shows no certificate.
    fn anonymous(&self, controller: &Controller) -> Result<Channel, tonic::transport::Error> {
        self.open(controller, self.tls.anonymous_client(ALPN), None)
    }

    fn open(
        &self,
        controller: &Controller,
        client: TlsClient,
        credentials: Option<CredentialReader>,
    ) -> Result<Channel, tonic::transport::Error> {
        let security = match &controller.name {
            Some(name) => Security::Tls {
                client,
                controller: name.clone(),
                credentials,
            },
            None => Security::Plaintext,
        };
        let (address, connections) = (controller.address.clone(), self.connections.clone());
        channel::open_recorded(&self.settings, address, security, connections)
    }

    /// Verifies nobody; none where the controller is spoken to without TLS.
    fn unverified(&self, controller: &Controller, presents: bool) -> Option<Channel> {
        let security = Security::Unverified {
            client: self.tls.unverified_client(ALPN, presents).ok()?,
            controller: controller.name.clone()?,
        };
        channel::open(&self.settings, controller.address.clone(), security).ok()
    }
}

/// Asks for the policies of `inbound.watch_ports`, and holds them so that they stay watched.
async fn watch_ports(control: Control, config: Arc<Config>) {
    let ranges = &config.inbound.watch_ports;
    let ports = ranges.iter().flat_map(|range| range.first..=range.last);
    let _held = control.inbound_all(ports).await;
    pending::<()>().await;
}

fn anchors(identity: &config::Identity) -> Result<TrustBundle, Error> {
    let (origin, pem) = match (&identity.trust_anchors, &identity.trust_anchors_file) {
        (Some(pem), _) => (
            PathBuf::from("identity.trust_anchors"),
            pem.0.clone().into_bytes(),
        ),
        (None, Some(path)) => match std::fs::read(path) {
            Ok(pem) => (path.clone(), pem),
            Err(source) => {
                return Err(Error::ReadAnchors {
                    path: path.clone(),
                    source,
                });
            }
        },
        (None, None) => (PathBuf::from("identity.trust_anchors"), Vec::new()),
    };
    TrustBundle::from_pem(0, &pem).map_err(|source| Error::Anchors { origin, source })
}

fn worker_count(configured: usize) -> usize {
    match configured {
        _ if !LISTENERS_SHARE => 1,
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        count => count,
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Bind {
            key,
            address,
            source,
        })
}

async fn first_failure(failure: &mut watch::Receiver<Option<String>>) -> String {
    let Ok(reason) = failure
        .wait_for(Option::is_some)
        .await
        .map(|reason| reason.clone())
    else {
        return pending().await;
    };
    reason.unwrap_or_default()
}

/// Resolves when all threads have ended.
fn reap(workers: Vec<JoinHandle<()>>) -> Result<oneshot::Receiver<()>, Error> {
    let (sender, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(move || {
            for worker in workers {
                // A panic has been printed by its own thread; ended is ended.
                let _ = worker.join();
            }
            let _ = sender.send(());
        })
        .map_err(Error::Runtime)?;
    Ok(ended)
}

fn start_log(settings: &config::Admin) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|error| Error::Log {
        directives: settings.log.clone(),
        reason: error.to_string(),
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails only when the embedder has installed a subscriber of its own: then that one is used.
    let _ = match settings.log_format {
        LogFormat::Plain => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            log.with_ansi(is_terminal).try_init()
        }
        LogFormat::Json => log.json().try_init(),
    };
    Ok(())
}

/// Says once which variables of linkerd2-proxy make no difference.
fn report(unheeded: &config::Unheeded) {
    if !unheeded.is_empty() {
        let config::Unheeded {
            not_honoured,
            overridden,
            unknown,
        } = unheeded;
        tracing::warn!(
            ?not_honoured,
            ?overridden,
            ?unknown,
            "variables that make no difference"
        );
    }
}

/// Why the proxy cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration lacks something.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The log's directives mean nothing.
    #[error("admin.log is {directives:?}: {reason}")]
    Log {
        /// The directives.
        directives: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The key that is to be certified cannot be used.
    #[error(transparent)]
    Documents(#[from] DocumentsError),
    /// Trust bundles cannot be followed.
    #[error(transparent)]
    Trust(#[from] trust::Error),
    /// The trust anchors cannot be read.
    #[error("cannot read identity.trust_anchors_file {}: {source}", path.display())]
    ReadAnchors {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The trust anchors are none.
    #[error("{} holds no usable trust anchors: {source}", origin.display())]
    Anchors {
        /// The file or key.
        origin: PathBuf,
        /// Why.
        source: mesh_tls::Error,
    },
    /// The controller's address cannot be used.
    #[error("control.address cannot be used: {0}")]
    Channel(tonic::transport::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key}): {source}")]
    Bind {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system gives no threads, signals or timers.
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
    /// A worker cannot go on.
    #[error("{0}")]
    Worker(String),
}
