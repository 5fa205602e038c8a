//! Who may connect when nothing more precise is said, by Linkerd's names.

use std::collections::HashMap;

use linkerd2_proxy_api::{
    inbound::{Authn, Authz, IdentitySuffix, Network, authn},
    meta::{Metadata, metadata},
};
use mesh_discovery::manifests::DefaultPolicy;

/// Labels of a server or an authorization that comes from the default.
pub(super) fn labels(policy: DefaultPolicy) -> HashMap<String, String> {
    [
        ("group", ""),
        ("kind", "default"),
        ("name", policy.as_str()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Whom a default policy allows. Empty: nobody, and so for policies that are not known here.
pub(super) fn authorizations(policy: DefaultPolicy) -> Vec<Authz> {
    let (networks, authenticated) = match policy {
        DefaultPolicy::AllUnauthenticated => (ALL, false),
        DefaultPolicy::AllAuthenticated => (ALL, true),
        DefaultPolicy::ClusterUnauthenticated => (CLUSTER, false),
        DefaultPolicy::ClusterAuthenticated => (CLUSTER, true),
        _ => return Vec::new(),
    };
    let permit = if authenticated {
        // A suffix of no parts matches every identity.
        let identities = authn::permit_mesh_tls::PermitClientIdentities {
            identities: Vec::new(),
            suffixes: vec![IdentitySuffix { parts: Vec::new() }],
        };
        authn::Permit::MeshTls(authn::PermitMeshTls {
            clients: Some(authn::permit_mesh_tls::Clients::Identities(identities)),
        })
    } else {
        authn::Permit::Unauthenticated(authn::PermitUnauthenticated {})
    };
    vec![Authz {
        networks: networks.iter().filter_map(|text| network(text)).collect(),
        authentication: Some(Authn {
            permit: Some(permit),
        }),
        labels: labels(policy),
        metadata: Some(Metadata {
            kind: Some(metadata::Kind::Default(policy.as_str().to_owned())),
        }),
    }]
}

fn network(text: &str) -> Option<Network> {
    let net: ipnet::IpNet = text.parse().ok()?;
    Some(Network {
        net: Some(net.into()),
        except: Vec::new(),
    })
}

const ALL: &[&str] = &["0.0.0.0/0", "::/0"];
/// Linkerd's default cluster networks, and this host.
const CLUSTER: &[&str] = &[
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fd00::/8",
    "127.0.0.0/8",
    "::1/128",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_allows_nobody_and_every_other_has_networks() {
        for policy in DefaultPolicy::ALL {
            let allowed = authorizations(policy);
            assert_eq!(allowed.is_empty(), policy == DefaultPolicy::Deny);
            let whole = |networks: &[&str], authz: &Authz| networks.len() == authz.networks.len();
            assert!(allowed.iter().all(|a| whole(ALL, a) || whole(CLUSTER, a)));
        }
    }
}
