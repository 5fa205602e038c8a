//! The process: builds the parts, runs them, drains them.

use std::future::pending;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use mesh_metrics::{Metrics, ProxyFamilies};
use mesh_tls::{Tls, TrustBundle, TrustWriter, credential_store, trust_store};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config};
use crate::control::Control;
use crate::control::channel::{self, ALPN, Security};
use crate::identity::{Certifier, Reconnect};
use crate::readiness::Readiness;
use crate::signals::Signals;
use crate::{admin, drain, worker};

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
    /// Who is ready; the workers say so here.
    pub readiness: Readiness,
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
    start_log(&config.admin.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<ExitCode, Error> {
    let mut signals = Signals::new().map_err(Error::Runtime)?;
    let admin = bind_admin(config.admin.listen).await?;
    let (trigger, drain) = drain::channel();
    let (fatal, mut failure) = watch::channel(None);
    let (shared, _trust) = build(config, drain, fatal)?;
    tokio::spawn(admin::serve(admin, Arc::clone(&shared)));

    let workers = (0..shared.workers)
        .map(|index| worker::spawn(index, Arc::clone(&shared)))
        .collect();
    let mut ended = reap(workers)?;
    tracing::info!(identity = %shared.config.name, workers = shared.workers, "started");

    tokio::select! {
        signal = signals.recv() => tracing::info!(signal, "draining"),
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

/// Builds what is shared and starts the certifier.
fn build(
    config: Config,
    drain: drain::Signal,
    fatal: watch::Sender<Option<String>>,
) -> Result<(Arc<Shared>, TrustWriter), Error> {
    let (trust_writer, trust) = trust_store(anchors(&config.identity)?);
    let (credential_writer, credentials) = credential_store();
    let tls = Tls::new(trust.clone(), credentials.clone());

    let missing = |key| {
        Error::Config(config::Error::Missing {
            key,
            why: "needed to start",
        })
    };
    let address = config
        .control
        .address
        .ok_or_else(|| missing("control.address"))?;
    let token_file = config
        .identity
        .token_file
        .clone()
        .ok_or_else(|| missing("identity.token_file"))?;
    let security = |client, credentials| match &config.controller {
        Some(controller) => Security::Tls {
            client,
            controller: controller.clone(),
            credentials,
        },
        None => Security::Plaintext,
    };
    let open = |security| channel::open(&config.control, address, security).map_err(Error::Channel);
    let reconnect = config.controller.clone().map(|controller| -> Reconnect {
        let (settings, client, credentials) = (
            config.control.clone(),
            tls.client(ALPN),
            credentials.clone(),
        );
        Box::new(move || {
            let security = Security::Tls {
                client: client.clone(),
                controller: controller.clone(),
                credentials: Some(credentials.clone()),
            };
            channel::open(&settings, address, security).ok()
        })
    });
    // The first Certify is the one call that is made without a certificate: the token proves the identity.
    let certify = open(security(tls.anonymous_client(ALPN), None))?;
    let watches = open(security(tls.client(ALPN), Some(credentials)))?;

    let metrics = Metrics::proxy(env!("CARGO_PKG_VERSION"));
    let (certifier, certification) = Certifier::new(
        config.name.clone(),
        token_file,
        certify,
        trust,
        credential_writer,
        metrics.families.control.identity(),
        Box::new(SystemTime::now),
    );
    tokio::spawn(match reconnect {
        Some(reconnect) => certifier.renew_over(reconnect).run(),
        None => certifier.run(),
    });
    let workers = worker_count(config.limits.workers);
    let config = Arc::new(config);
    let shared = Shared {
        control: Control::new(
            tokio::runtime::Handle::current(),
            watches,
            Arc::clone(&config),
            &metrics.families,
        ),
        readiness: Readiness::new(certification, workers, drain.clone()),
        config,
        workers,
        metrics,
        tls,
        drain,
        fatal,
    };
    Ok((Arc::new(shared), trust_writer))
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
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        count => count,
    }
}

async fn bind_admin(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Bind {
            key: "admin.listen",
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

fn start_log(directives: &str) -> Result<(), Error> {
    let filter = EnvFilter::try_new(directives).map_err(|error| Error::Log {
        directives: directives.to_owned(),
        reason: error.to_string(),
    })?;
    // Fails only when the embedder has installed a subscriber of its own: then that one is used.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
    Ok(())
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
