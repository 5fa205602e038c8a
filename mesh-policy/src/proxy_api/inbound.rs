use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use linkerd2_proxy_api::inbound::{self, authn, proxy_protocol};
use linkerd2_proxy_api::{meta, net};
use mesh_tls::Identity;

use super::field::{ip, metadata, network, required, required_duration};
use super::filters::filters;
use super::rate_limit::rate_limit;
use super::routes::{check_grpc_patterns, check_http_patterns, grpc_matches, hosts, http_matches};
use super::unsupported::{Converted, Unsupported};
use crate::inbound::{
    Authentication, Authorization, IdentitySuffix, InboundGrpcRoute, InboundHttpRoute, Network,
    RouteAuthorizations, ServerPolicy, ServerProtocol,
};
use crate::route::Rule;
use crate::{Error, Meta, Resource};

/// The policy in `proto`.
///
/// An authorization lets nobody in when it has no networks, or demands something unknown. A rule with a filter of an unknown
/// kind lets clients in and answers every request itself: whoever is let in has the filters of the verdict to pass.
///
/// # Errors
///
/// [`Error`] naming the field that is missing or means nothing.
pub fn server_policy(proto: &inbound::Server) -> Result<Converted<ServerPolicy>, Error> {
    let mut unsupported = Unsupported::default();
    let field = "inbound.Server.protocol";
    let kind = required(field, &required(field, &proto.protocol)?.kind)?;
    let limit = match kind {
        proxy_protocol::Kind::Detect(proto) => &proto.http_local_rate_limit,
        proxy_protocol::Kind::Http1(proto) => &proto.local_rate_limit,
        proxy_protocol::Kind::Http2(proto) => &proto.local_rate_limit,
        proxy_protocol::Kind::Grpc(_)
        | proxy_protocol::Kind::Opaque(_)
        | proxy_protocol::Kind::Tls(_) => &None,
    };
    let rate_limit = match limit {
        Some(proto) => rate_limit(&mut unsupported, proto)?,
        None => None,
    };
    let policy = ServerPolicy {
        protocol: protocol(&mut unsupported, kind)?,
        authorizations: authorizations(&mut unsupported, &proto.authorizations)?,
        rate_limit,
        server_ips: server_ips(&proto.server_ips)?,
        labels: proto.labels.clone().into_iter().collect(),
    };
    Ok(unsupported.with(policy))
}

fn protocol(
    unsupported: &mut Unsupported,
    proto: &proxy_protocol::Kind,
) -> Result<ServerProtocol, Error> {
    use proxy_protocol::Kind;
    Ok(match proto {
        Kind::Detect(proto) => ServerProtocol::Detect {
            timeout: required_duration("inbound.ProxyProtocol.Detect.timeout", &proto.timeout)?,
            http: http_routes(unsupported, &proto.http_routes)?,
        },
        Kind::Http1(proto) => ServerProtocol::Http1(http_routes(unsupported, &proto.routes)?),
        Kind::Http2(proto) => ServerProtocol::Http2(http_routes(unsupported, &proto.routes)?),
        Kind::Grpc(proto) => ServerProtocol::Grpc(grpc_routes(unsupported, &proto.routes)?),
        Kind::Opaque(_) => ServerProtocol::Opaque,
        Kind::Tls(_) => ServerProtocol::Tls,
    })
}

fn server_ips(proto: &[net::IpAddress]) -> Result<BTreeSet<IpAddr>, Error> {
    if proto.len() > MAX_SERVER_IPS {
        return Err(Error::TooMany {
            what: "addresses of a server",
            given: proto.len(),
            max: MAX_SERVER_IPS,
        });
    }
    let ips = proto.iter().map(|proto| {
        let ip = ip("inbound.Server.server_ips", &Some(*proto))?;
        Ok(ip.to_canonical())
    });
    ips.collect()
}

/// The most addresses that a server may be limited to.
const MAX_SERVER_IPS: usize = 4096;

fn http_routes(
    unsupported: &mut Unsupported,
    routes: &[inbound::HttpRoute],
) -> Result<Vec<InboundHttpRoute>, Error> {
    let rules = routes.iter().flat_map(|route| &route.rules);
    check_http_patterns(rules.flat_map(|rule| &rule.matches))?;
    routes
        .iter()
        .map(|route| http_route(unsupported, route))
        .collect()
}

fn grpc_routes(
    unsupported: &mut Unsupported,
    routes: &[inbound::GrpcRoute],
) -> Result<Vec<InboundGrpcRoute>, Error> {
    let rules = routes.iter().flat_map(|route| &route.rules);
    check_grpc_patterns(rules.flat_map(|rule| &rule.matches))?;
    routes
        .iter()
        .map(|route| grpc_route(unsupported, route))
        .collect()
}

fn http_route(
    unsupported: &mut Unsupported,
    proto: &inbound::HttpRoute,
) -> Result<InboundHttpRoute, Error> {
    let extra: Arc<[Authorization]> = authorizations(unsupported, &proto.authorizations)?.into();
    let mut rules = Vec::with_capacity(proto.rules.len());
    for rule in &proto.rules {
        let filters = filters(unsupported, &rule.filters)?;
        rules.push(Rule {
            matches: http_matches(&rule.matches)?,
            policy: RouteAuthorizations {
                extra: Arc::clone(&extra),
                filters,
            },
        });
    }
    Ok(InboundHttpRoute {
        meta: metadata("inbound.HttpRoute.metadata", &proto.metadata)?,
        hosts: hosts(&proto.hosts)?,
        rules,
    })
}

fn grpc_route(
    unsupported: &mut Unsupported,
    proto: &inbound::GrpcRoute,
) -> Result<InboundGrpcRoute, Error> {
    let extra: Arc<[Authorization]> = authorizations(unsupported, &proto.authorizations)?.into();
    let mut rules = Vec::with_capacity(proto.rules.len());
    for rule in &proto.rules {
        let filters = filters(unsupported, &rule.filters)?;
        rules.push(Rule {
            matches: grpc_matches(&rule.matches)?,
            policy: RouteAuthorizations {
                extra: Arc::clone(&extra),
                filters,
            },
        });
    }
    Ok(InboundGrpcRoute {
        meta: metadata("inbound.GrpcRoute.metadata", &proto.metadata)?,
        hosts: hosts(&proto.hosts)?,
        rules,
    })
}

fn authorizations(
    unsupported: &mut Unsupported,
    proto: &[inbound::Authz],
) -> Result<Vec<Authorization>, Error> {
    proto
        .iter()
        .map(|authz| {
            Ok(Authorization {
                meta: authorization_meta(&authz.metadata, &authz.labels)?,
                networks: authz
                    .networks
                    .iter()
                    .map(client_network)
                    .collect::<Result<_, _>>()?,
                authentication: authentication(unsupported, &authz.authentication),
            })
        })
        .collect()
}

fn client_network(proto: &inbound::Network) -> Result<Network, Error> {
    let field = "inbound.Network.net";
    Ok(Network {
        net: network(field, required(field, &proto.net)?)?,
        except: proto
            .except
            .iter()
            .map(|net| network("inbound.Network.except", net))
            .collect::<Result<_, _>>()?,
    })
}

/// What is unset or unknown admits nobody, and what cannot be anyone's identity admits no one more.
fn authentication(unsupported: &mut Unsupported, proto: &Option<inbound::Authn>) -> Authentication {
    use authn::Permit;
    use authn::permit_mesh_tls::Clients;
    let permit = proto.as_ref().and_then(|proto| proto.permit.as_ref());
    let clients = match permit {
        Some(Permit::Unauthenticated(_)) => return Authentication::Unauthenticated,
        Some(Permit::MeshTls(tls)) => tls.clients.as_ref(),
        None => None,
    };
    match clients {
        Some(Clients::Unauthenticated(_)) => Authentication::TlsUnauthenticated,
        Some(Clients::Identities(clients)) => identities(unsupported, clients),
        None => {
            unsupported.note(true, "inbound.Authn.permit");
            Authentication::TlsAuthenticated {
                identities: BTreeSet::new(),
                suffixes: Vec::new(),
            }
        }
    }
}

fn identities(
    unsupported: &mut Unsupported,
    proto: &authn::permit_mesh_tls::PermitClientIdentities,
) -> Authentication {
    let mut identities = BTreeSet::new();
    for identity in &proto.identities {
        match Identity::parse(&identity.name) {
            Ok(identity) => {
                identities.insert(identity);
            }
            Err(_) => unsupported.note(true, "inbound.Identity.name"),
        }
    }
    let mut suffixes = Vec::new();
    for suffix in &proto.suffixes {
        // Only a suffix without parts is every identity; one with empty parts must not become it.
        if suffix
            .parts
            .iter()
            .any(|part| part.is_empty() || part.contains('*'))
        {
            unsupported.note(true, "inbound.IdentitySuffix.parts");
        } else {
            suffixes.push(IdentitySuffix::new(&suffix.parts.join(".")));
        }
    }
    Authentication::TlsAuthenticated {
        identities,
        suffixes,
    }
}

/// From the labels `group`, `kind` and `name` where an older controller sends no metadata. There, the name of a default
/// starts with `default:`.
fn authorization_meta(
    proto: &Option<meta::Metadata>,
    labels: &HashMap<String, String>,
) -> Result<Arc<Meta>, Error> {
    if proto.is_some() {
        return metadata("inbound.Authz.metadata", proto);
    }
    let label = |key| labels.get(key).cloned().unwrap_or_default();
    let (kind, name) = (label("kind"), label("name"));
    let meta = match name.strip_prefix("default:") {
        Some(name) => Meta::default_named(name),
        None if kind.is_empty() || kind == "default" => Meta::default_named(name),
        None => Meta::Resource(Resource {
            group: label("group"),
            kind,
            name,
            ..Resource::default()
        }),
    };
    Ok(Arc::new(meta))
}
