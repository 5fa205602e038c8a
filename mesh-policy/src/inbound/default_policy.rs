use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Authentication, Authorization, Network};
use crate::{Error, Meta};

/// What a port allows when nothing was said about it, by the names Linkerd uses.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum DefaultPolicy {
    /// Everyone.
    AllUnauthenticated,
    /// Every client with a verified identity.
    AllAuthenticated,
    /// Everyone from the cluster's networks.
    ClusterUnauthenticated,
    /// Every client from the cluster's networks with a verified identity.
    ClusterAuthenticated,
    /// Everyone; what no other authorization would have let in is logged.
    Audit,
    /// Nobody.
    Deny,
}

impl DefaultPolicy {
    /// Every policy there is.
    pub const ALL: [Self; 6] = [
        Self::AllUnauthenticated,
        Self::AllAuthenticated,
        Self::ClusterUnauthenticated,
        Self::ClusterAuthenticated,
        Self::Audit,
        Self::Deny,
    ];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllUnauthenticated => "all-unauthenticated",
            Self::AllAuthenticated => "all-authenticated",
            Self::ClusterUnauthenticated => "cluster-unauthenticated",
            Self::ClusterAuthenticated => "cluster-authenticated",
            Self::Audit => "audit",
            Self::Deny => "deny",
        }
    }

    /// The authorizations it stands for, where `cluster` lists the cluster's networks. Empty for [`Deny`](Self::Deny).
    pub fn authorizations(self, cluster: &[IpNet]) -> Vec<Authorization> {
        let (in_cluster, authentication) = match self {
            Self::AllUnauthenticated | Self::Audit => (false, Authentication::Unauthenticated),
            Self::AllAuthenticated => (false, Authentication::any_identity()),
            Self::ClusterUnauthenticated => (true, Authentication::Unauthenticated),
            Self::ClusterAuthenticated => (true, Authentication::any_identity()),
            Self::Deny => return Vec::new(),
        };
        let networks = if in_cluster {
            cluster.iter().copied().map(Network::from).collect()
        } else {
            Network::all()
        };
        vec![Authorization {
            meta: Arc::new(Meta::default_named(self.as_str())),
            networks,
            authentication,
        }]
    }
}

impl FromStr for DefaultPolicy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|policy| policy.as_str() == name);
        found.ok_or_else(|| {
            let expected = "all-unauthenticated, all-authenticated, cluster-unauthenticated, \
                            cluster-authenticated, audit or deny";
            Error::invalid("inbound.defaultPolicy", name, expected)
        })
    }
}

impl fmt::Display for DefaultPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
