//! What manifests say, read and checked.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::rotation::Rotation;
use crate::resource::{Service, Workload};

/// The group and version of the kinds that are ours.
pub const API_VERSION: &str = "mesh-rs.io/v1alpha1";

/// One resource of a manifest. A value that exists is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// `Service` of `v1`.
    Service(Service),
    /// `Workload` of [`API_VERSION`].
    Workload(WorkloadManifest),
    /// `MeshConfig` of [`API_VERSION`].
    MeshConfig(MeshConfig),
}

/// A workload as its manifest describes it: all but what depends on the trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadManifest {
    /// Its identity is `None` unless the manifest states one.
    pub(crate) stated: Workload,
    /// `spec.serviceAccount`; default `default`.
    pub service_account: String,
    /// `spec.run`: how `mesh up` runs it. `None` when something else does.
    pub run: Option<Run>,
}

/// How to run a workload's application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Variables set for it.
    pub env: BTreeMap<String, String>,
    /// Where it runs, relative to the folder of manifests unless absolute.
    pub working_dir: Option<PathBuf>,
    /// What shows that it is ready.
    pub ready: Option<Ready>,
}

/// What shows that an application is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// A GET that is answered with a status of 200 to 399.
    HttpGet {
        /// Starts with `/`.
        path: String,
        /// The application's port; default its first.
        port: u16,
    },
    /// A connection that is taken.
    Tcp {
        /// The application's port.
        port: u16,
    },
}

/// What holds for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MeshConfig {
    /// What identities end in; default `cluster.local`.
    pub trust_domain: String,
    /// How long a workload's certificate lives; 10 s to 365 days, default 24 h.
    pub leaf_lifetime: Duration,
    /// What a workload's proxy lets in where no policy says otherwise.
    pub default_policy: DefaultPolicy,
    /// When trust anchors and issuers are replaced by themselves, and how.
    pub rotation: Rotation,
}

/// Who may reach a port that no policy speaks of, in Linkerd's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DefaultPolicy {
    /// Everybody, meshed or not. Linkerd's default.
    AllUnauthenticated,
    /// Callers with an identity of this mesh, from anywhere. The default.
    #[default]
    AllAuthenticated,
    /// Callers from the cluster's networks, meshed or not.
    ClusterUnauthenticated,
    /// Callers with an identity of this mesh, from the cluster's networks.
    ClusterAuthenticated,
    /// Nobody.
    Deny,
}

impl WorkloadManifest {
    /// Its name and namespace.
    pub fn id(&self) -> crate::Name {
        self.stated.id()
    }

    /// The workload as the registry takes it, with its identity in this trust domain.
    pub fn workload(&self, trust_domain: &str) -> Workload {
        Workload {
            identity: Some(self.identity(trust_domain)),
            ..self.stated.clone()
        }
    }

    /// The identity stated, else the one that its service account and namespace make.
    pub fn identity(&self, trust_domain: &str) -> String {
        match &self.stated.identity {
            Some(identity) => identity.clone(),
            None => format!(
                "{}.{}.serviceaccount.identity.linkerd.{trust_domain}",
                self.service_account, self.stated.namespace
            ),
        }
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            leaf_lifetime: LEAF_LIFETIME,
            default_policy: DefaultPolicy::default(),
            rotation: Rotation::of_leaves(LEAF_LIFETIME),
        }
    }
}

impl DefaultPolicy {
    /// Every word, as manifests and annotations write them.
    pub const ALL: [Self; 5] = [
        Self::AllUnauthenticated,
        Self::AllAuthenticated,
        Self::ClusterUnauthenticated,
        Self::ClusterAuthenticated,
        Self::Deny,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllUnauthenticated => "all-unauthenticated",
            Self::AllAuthenticated => "all-authenticated",
            Self::ClusterUnauthenticated => "cluster-unauthenticated",
            Self::ClusterAuthenticated => "cluster-authenticated",
            Self::Deny => "deny",
        }
    }

    /// The policy of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }
}

const LEAF_LIFETIME: Duration = Duration::from_hours(24);
