//! What the controller knows of the mesh, and how those who ask follow it.

pub(crate) mod source;
pub(crate) mod target;
pub(crate) mod workload;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use mesh_discovery::{
    Registry,
    manifests::{DefaultPolicy, MeshConfig, Rotation},
    shared::{ReadGuard, Reader},
};
use mesh_tls::TrustDomain;
use tokio::sync::watch;
use tonic::Status;

use crate::{api::Frames, policy::AnnotationError};

/// Services, workloads and settings, as the manifests have them now.
pub(crate) struct Mesh {
    registry: Reader,
    state: RwLock<State>,
    /// Moves with every change of registry or settings.
    epoch: watch::Sender<u64>,
    cluster_domain: String,
}

/// What holds for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// What identities end in.
    pub trust_domain: TrustDomain,
    /// How long an issued leaf lives.
    pub leaf_lifetime: Duration,
    /// Whom a port lets in when its Service says nothing.
    pub default_policy: DefaultPolicy,
    /// When trust anchors and issuers are replaced by themselves, and how.
    pub rotation: Rotation,
}

/// Something wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The file, below the manifests folder; empty when it is not known.
    pub file: String,
    /// From 1; zero when the whole file is meant.
    pub line: usize,
    /// The field; empty when none can be named.
    pub field: String,
    /// What is wrong and what would be right.
    pub reason: String,
    /// Whether the resource counts without the setting that is wrong.
    pub kept: bool,
}

#[derive(Debug)]
struct State {
    settings: Arc<Settings>,
    problems: Arc<[Problem]>,
    loaded: bool,
}

/// The mesh at one moment. Not to be held across an await.
pub(crate) struct Snapshot<'a> {
    registry: ReadGuard<'a>,
    settings: Arc<Settings>,
    epoch: u64,
}

impl Mesh {
    /// Follows `registry`; settings are the defaults until the first [`Mesh::publish`].
    #[must_use]
    pub(crate) fn new(registry: Reader, cluster_domain: String) -> Self {
        Self {
            registry,
            state: RwLock::new(State {
                settings: Arc::new(Settings::default()),
                problems: Arc::new([]),
                loaded: false,
            }),
            epoch: watch::channel(0).0,
            cluster_domain,
        }
    }

    /// Settings and problems as they now are, after the registry was changed to match. Wakes who follows. `read` says
    /// whether the manifests could be read at all.
    pub(crate) fn publish(&self, settings: Settings, mut problems: Vec<Problem>, read: bool) {
        problems.extend(
            crate::policy::annotation_errors(&self.registry.read())
                .into_iter()
                .map(Problem::from),
        );
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.settings = Arc::new(settings);
            state.problems = problems.into();
            state.loaded |= read;
        }
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Whether the manifests have been read at least once.
    #[must_use]
    pub(crate) fn is_loaded(&self) -> bool {
        self.state().loaded
    }

    /// What holds for the whole mesh.
    #[must_use]
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.state().settings.clone()
    }

    /// What is wrong in the manifests.
    #[must_use]
    pub(crate) fn problems(&self) -> Arc<[Problem]> {
        self.state().problems.clone()
    }

    /// The registry.
    #[must_use]
    pub(crate) fn registry(&self) -> &Reader {
        &self.registry
    }

    /// The domain that service names end in, after `svc`.
    #[must_use]
    pub(crate) fn cluster_domain(&self) -> &str {
        &self.cluster_domain
    }

    /// Waits for changes from now on.
    #[must_use]
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        // In this order: a snapshot may be newer than its epoch, which costs a comparison, never older.
        let epoch = *self.epoch.borrow();
        Snapshot {
            epoch,
            settings: self.settings(),
            registry: self.registry.read(),
        }
    }

    /// A stream of what `compute` makes of the mesh, now and whenever that changes. However fast the mesh changes, a slow
    /// reader gets the latest only.
    ///
    /// # Errors
    /// What `compute` says at first. Later its error ends the stream.
    pub(crate) fn follow(
        self: &Arc<Self>,
        compute: impl Fn(&Snapshot<'_>) -> Result<Bytes, Status> + Send + Sync + 'static,
    ) -> Result<Frames, Status> {
        struct Following<F> {
            mesh: Arc<Mesh>,
            changes: watch::Receiver<u64>,
            compute: F,
            sent: Option<Bytes>,
            ended: bool,
        }
        let following = Following {
            changes: self.changes(),
            sent: None,
            ended: false,
            mesh: self.clone(),
            compute,
        };
        let first = (following.compute)(&self.snapshot())?;
        let mut first = Some(first);
        Ok(Frames::new(stream::unfold(
            following,
            move |mut following| {
                let first = first.take();
                async move {
                    if following.ended {
                        return None;
                    }
                    if let Some(first) = first {
                        following.sent = Some(first.clone());
                        return Some((Ok(first), following));
                    }
                    loop {
                        following.changes.changed().await.ok()?;
                        let next = (following.compute)(&following.mesh.snapshot());
                        match next {
                            Ok(next) if following.sent.as_ref() == Some(&next) => {}
                            Ok(next) => {
                                following.sent = Some(next.clone());
                                return Some((Ok(next), following));
                            }
                            Err(status) => {
                                following.ended = true;
                                return Some((Err(status), following));
                            }
                        }
                    }
                }
            },
        )))
    }

    fn state(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("registry", &*self.registry.read())
            .field("settings", &self.settings())
            .finish_non_exhaustive()
    }
}

impl Snapshot<'_> {
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Settings {
    /// Reads them from a manifest.
    ///
    /// # Errors
    /// If the trust domain is none.
    pub(crate) fn of(config: &MeshConfig) -> Result<Self, mesh_tls::Error> {
        Ok(Self {
            trust_domain: TrustDomain::parse(&config.trust_domain)?,
            leaf_lifetime: config.leaf_lifetime,
            default_policy: config.default_policy,
            rotation: config.rotation.clone(),
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        #[allow(clippy::expect_used)]
        Self::of(&MeshConfig::default()).expect("invariant: the default trust domain is one")
    }
}

impl Problem {
    /// Of a mesh configuration that is well formed and still not valid.
    pub(crate) fn of_settings(error: &mesh_tls::Error) -> Self {
        Self {
            file: String::new(),
            line: 0,
            field: "spec.trustDomain".to_owned(),
            reason: error.to_string(),
            kept: true,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if self.line > 0 {
                write!(f, ":{}", self.line)?;
            }
            f.write_str(": ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}

impl From<AnnotationError> for Problem {
    fn from(error: AnnotationError) -> Self {
        Self {
            file: String::new(),
            line: 0,
            field: format!("metadata.annotations[{}]", error.annotation),
            reason: error.to_string(),
            kept: true,
        }
    }
}
