use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_tls::Identity;

use crate::Meta;

/// Clients that are let in: from any of `networks`, and as `authentication` demands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authorization {
    /// Where the authorization comes from.
    pub meta: Arc<Meta>,
    /// Where clients may come from; nobody when empty.
    pub networks: Vec<Network>,
    /// What clients must prove.
    pub authentication: Authentication,
}

/// A network with parts cut out of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Network {
    /// The network.
    pub net: IpNet,
    /// Parts of it that do not belong.
    pub except: Vec<IpNet>,
}

/// What clients must prove.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Authentication {
    /// Nothing.
    Unauthenticated,
    /// That they speak mesh TLS; a client certificate is not needed.
    TlsUnauthenticated,
    /// That they are one of these, by a verified client certificate. Both empty lets nobody in.
    TlsAuthenticated {
        /// Whole identities.
        identities: BTreeSet<Identity>,
        /// Identities by the end of their DNS name.
        suffixes: Vec<IdentitySuffix>,
    },
}

/// Identities that are DNS names below some domain.
///
/// An empty domain is every verified identity, SPIFFE URIs included. Any other has nothing to say about SPIFFE URIs,
/// whose last path segment the workload's owner may choose freely.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdentitySuffix(Box<str>);

/// What is known of who is on the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Peer<'a> {
    /// It speaks plaintext, or TLS that is not the mesh's.
    Plaintext,
    /// It speaks mesh TLS, with this verified identity if it presented a certificate.
    Tls(Option<&'a Identity>),
}

impl Authorization {
    /// Everyone from this machine's `127.0.0.1` and `::1`.
    ///
    /// Where workloads share a machine by loopback addresses of their own, this lets each of them in.
    pub fn localhost() -> Self {
        Self {
            meta: Arc::new(Meta::default_named("localhost")),
            networks: vec![
                Network::from(IpNet::from(IpAddr::V4(Ipv4Addr::LOCALHOST))),
                Network::from(IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST))),
            ],
            authentication: Authentication::Unauthenticated,
        }
    }

    /// True when `client_ip` lies in one of the networks.
    pub fn covers(&self, client_ip: IpAddr) -> bool {
        let client_ip = client_ip.to_canonical();
        self.networks
            .iter()
            .any(|network| network.contains(client_ip))
    }

    /// True when each request or connection it lets in is to be logged.
    pub fn is_audit(&self) -> bool {
        matches!(&*self.meta, Meta::Default { name } if name == "audit")
    }
}

impl Network {
    /// True when `ip` belongs. An IPv4 address in IPv6 form is taken as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.net.contains(&ip) && !self.except.iter().any(|net| net.contains(&ip))
    }

    /// Every address, of both families.
    pub fn all() -> Vec<Self> {
        let all = [
            IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            IpNet::new_assert(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        ];
        all.map(Self::from).to_vec()
    }
}

impl From<IpNet> for Network {
    fn from(net: IpNet) -> Self {
        Self {
            net,
            except: Vec::new(),
        }
    }
}

impl Authentication {
    /// Any verified identity.
    pub fn any_identity() -> Self {
        Self::TlsAuthenticated {
            identities: BTreeSet::new(),
            suffixes: vec![IdentitySuffix::new("")],
        }
    }

    /// True when `peer` has proven enough.
    pub fn admits(&self, peer: Peer<'_>) -> bool {
        match (self, peer) {
            (Self::Unauthenticated, _) | (Self::TlsUnauthenticated, Peer::Tls(_)) => true,
            (
                Self::TlsAuthenticated {
                    identities,
                    suffixes,
                },
                Peer::Tls(Some(identity)),
            ) => {
                identities.contains(identity)
                    || suffixes.iter().any(|suffix| suffix.contains(identity))
            }
            (Self::TlsUnauthenticated | Self::TlsAuthenticated { .. }, _) => false,
        }
    }
}

impl IdentitySuffix {
    /// Identities below `domain`: `ns.local` admits `web.ns.local`, not `ns.local`. An empty domain, or `*`, is every identity.
    pub fn new(domain: &str) -> Self {
        let domain = domain.strip_prefix('*').unwrap_or(domain);
        let domain = domain.strip_prefix('.').unwrap_or(domain);
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        if domain.is_empty() {
            return Self("".into());
        }
        Self(format!(".{}", domain.to_ascii_lowercase()).into())
    }

    /// True when `identity` is one of these.
    pub fn contains(&self, identity: &Identity) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let name = identity.as_str();
        !identity.is_spiffe() && name.len() > self.0.len() && name.ends_with(&*self.0)
    }
}

/// Someone without an identity is taken to speak plaintext.
impl<'a> From<Option<&'a Identity>> for Peer<'a> {
    fn from(identity: Option<&'a Identity>) -> Self {
        match identity {
            Some(_) => Self::Tls(identity),
            None => Self::Plaintext,
        }
    }
}

impl<'a> From<&'a Identity> for Peer<'a> {
    fn from(identity: &'a Identity) -> Self {
        Self::Tls(Some(identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str) -> Identity {
        Identity::parse(name).unwrap()
    }

    #[test]
    fn a_network_is_without_its_exceptions() {
        let network = Network {
            net: "10.0.0.0/8".parse().unwrap(),
            except: vec!["10.1.0.0/16".parse().unwrap()],
        };
        assert!(network.contains("10.0.0.1".parse().unwrap()));
        assert!(network.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(!network.contains("10.1.0.1".parse().unwrap()));
        assert!(!network.contains("::ffff:10.1.0.1".parse().unwrap()));
        assert!(!network.contains("fe80::1".parse().unwrap()));
    }

    #[test]
    fn authentication_admits_no_less_than_it_says() {
        let web = identity("web.ns.example.com");
        let named = |name: &str| Authentication::TlsAuthenticated {
            identities: [identity(name)].into(),
            suffixes: Vec::new(),
        };
        let nobody = Authentication::TlsAuthenticated {
            identities: BTreeSet::new(),
            suffixes: Vec::new(),
        };
        let (plain, anonymous, peer) = (Peer::Plaintext, Peer::Tls(None), Peer::Tls(Some(&web)));
        let cases = [
            (Authentication::Unauthenticated, [true, true, true]),
            (Authentication::TlsUnauthenticated, [false, true, true]),
            (Authentication::any_identity(), [false, false, true]),
            (named("web.ns.example.com"), [false, false, true]),
            (named("api.ns.example.com"), [false, false, false]),
            (nobody, [false, false, false]),
        ];
        for (authentication, expected) in cases {
            let given = [plain, anonymous, peer].map(|peer| authentication.admits(peer));
            assert_eq!(given, expected, "{authentication:?}");
        }
    }

    #[test]
    fn a_suffix_is_of_dns_names_only() {
        let suffix = IdentitySuffix::new("ns.example.com");
        assert!(suffix.contains(&identity("web.ns.example.com")));
        assert!(!suffix.contains(&identity("ns.example.com")));
        assert!(!suffix.contains(&identity("webns.example.com")));
        assert!(!suffix.contains(&identity("spiffe://other/web.ns.example.com")));
        assert!(IdentitySuffix::new("*").contains(&identity("spiffe://other/web")));
    }
}
