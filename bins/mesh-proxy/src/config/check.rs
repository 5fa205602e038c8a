//! What has to be so between settings.

use std::collections::HashMap;
use std::time::Duration;

use mesh_tls::Identity as Name;

use super::host_port::HostPort;
use super::tables::{Control, Identity, Tap};
use super::{Config, Controller, Controllers, Error};

/// `identity.name`, parsed.
pub(super) fn name(identity: &Identity) -> Result<Name, Error> {
    let why = "the identity of this workload";
    required_name("identity.name", identity.name.as_deref(), why)
}

/// Where each service of the controller is, and who has to be there.
pub(super) fn controllers(identity: &Identity, control: &Control) -> Result<Controllers, Error> {
    let controller = |own: Own<'_>| {
        let (address_key, address) = match (own.address, &control.address) {
            (Some(address), _) => (own.address_key, address),
            (None, Some(address)) => ("control.address", address),
            (None, None) => {
                let why = "the controller's gRPC address";
                return Err(Error::Missing {
                    key: if control.any_address() {
                        own.address_key
                    } else {
                        "control.address"
                    },
                    why,
                });
            }
        };
        let (name_key, name) = match own.name {
            Some(name) => (own.name_key, Some(name)),
            None => ("control.name", control.name.as_deref()),
        };
        let name = match name {
            Some(_) => Some(required_name(name_key, name, "")?),
            None if address.is_loopback() => None,
            None => {
                return Err(Error::Unnamed {
                    key: if address_key == "control.address" {
                        "control.name"
                    } else {
                        own.name_key
                    },
                    address_key,
                    address: address.clone(),
                });
            }
        };
        Ok(Controller {
            address: address.clone(),
            name,
        })
    };
    let certifies = identity.workload_api.is_none();
    Ok(Controllers {
        destination: controller(Own {
            address_key: "control.destination_address",
            address: control.destination_address.as_ref(),
            name_key: "control.destination_name",
            name: control.destination_name.as_deref(),
        })?,
        policy: controller(Own {
            address_key: "control.policy_address",
            address: control.policy_address.as_ref(),
            name_key: "control.policy_name",
            name: control.policy_name.as_deref(),
        })?,
        identity: certifies
            .then(|| {
                controller(Own {
                    address_key: "control.identity_address",
                    address: control.identity_address.as_ref(),
                    name_key: "control.identity_name",
                    name: control.identity_name.as_deref(),
                })
            })
            .transpose()?,
    })
}

/// What is set for one service of the controller alone.
struct Own<'a> {
    address_key: &'static str,
    address: Option<&'a HostPort>,
    name_key: &'static str,
    name: Option<&'a str>,
}

/// Everything else.
pub(super) fn all(config: &Config) -> Result<(), Error> {
    anchors(&config.identity)?;
    proof(&config.identity)?;
    ranges(config)?;
    tap(&config.tap)?;
    listeners(config)
}

fn required_name(key: &'static str, text: Option<&str>, why: &'static str) -> Result<Name, Error> {
    let text = text.ok_or(Error::Missing { key, why })?;
    Name::parse(text).map_err(|_| Error::Value {
        key,
        value: format!("{text:?}"),
        expected: "expected a DNS name or a SPIFFE URI",
    })
}

fn anchors(identity: &Identity) -> Result<(), Error> {
    match (&identity.trust_anchors_file, &identity.trust_anchors) {
        (None, None) => Err(Error::Missing {
            key: "identity.trust_anchors_file",
            why: "the trust anchors of the mesh (or identity.trust_anchors, the PEM text itself)",
        }),
        (Some(_), Some(_)) => Err(Error::Value {
            key: "identity.trust_anchors",
            value: "set".to_owned(),
            expected: "identity.trust_anchors_file is set too; expected one of the two",
        }),
        _ => Ok(()),
    }
}

/// A token for the controller, or a Workload API, which needs none.
fn proof(identity: &Identity) -> Result<(), Error> {
    let refuse = |key, value: String, expected| {
        Err(Error::Value {
            key,
            value,
            expected,
        })
    };
    if let Some(server_name) = &identity.server_name
        && Name::parse(server_name).is_ok_and(|name| name.is_spiffe())
    {
        let expected = "expected a DNS name";
        return refuse("identity.server_name", format!("{server_name:?}"), expected);
    }
    let Some(socket) = &identity.workload_api else {
        if identity.token_file.is_none() {
            return Err(Error::Missing {
                key: "identity.token_file",
                why: "the token that proves who this workload is (or identity.workload_api)",
            });
        }
        if identity.refresh_max < identity.refresh_min {
            let expected = "expected at least identity.refresh_min";
            return refuse(
                "identity.refresh_max",
                format!("{:?}", identity.refresh_max),
                expected,
            );
        }
        return Ok(());
    };
    if identity.token_file.is_some() || identity.key_dir.is_some() {
        let expected = "it issues key and certificate; expected neither identity.token_file nor identity.key_dir beside it";
        return refuse("identity.workload_api", socket.to_string(), expected);
    }
    if identity
        .name
        .as_deref()
        .is_some_and(|name| !name.starts_with("spiffe://"))
    {
        let expected = "expected a SPIFFE URI, as identity.workload_api is set";
        return refuse(
            "identity.name",
            format!("{:?}", identity.name.as_deref().unwrap_or_default()),
            expected,
        );
    }
    Ok(())
}

fn tap(tap: &Tap) -> Result<(), Error> {
    if tap.listen.is_some() && tap.identities.is_empty() {
        return Err(Error::Missing {
            key: "tap.identities",
            why: "who may observe requests, required with tap.listen",
        });
    }
    Ok(())
}

fn ranges(config: &Config) -> Result<(), Error> {
    let Config {
        control,
        limits,
        admin,
        ..
    } = config;
    let durations = [
        ("control.connect_timeout", control.connect_timeout),
        ("control.keepalive_interval", control.keepalive_interval),
        ("control.keepalive_timeout", control.keepalive_timeout),
        ("control.backoff_min", control.backoff_min),
        ("control.idle_timeout", control.idle_timeout),
        ("identity.refresh_min", config.identity.refresh_min),
        ("inbound.detect_timeout", config.inbound.detect_timeout),
        ("inbound.connect_timeout", config.inbound.connect_timeout),
        ("outbound.detect_timeout", config.outbound.detect_timeout),
        ("outbound.connect_timeout", config.outbound.connect_timeout),
        ("limits.header_read_timeout", limits.header_read_timeout),
    ];
    for (key, duration) in durations {
        at_least(key, duration.as_millis(), 1, "expected more than nothing")?;
    }
    let (inbound, outbound) = (&config.inbound, &config.outbound);
    let sockets = [
        ("inbound.keepalive", Some(inbound.keepalive)),
        ("inbound.user_timeout", inbound.user_timeout),
        ("inbound.connect_keepalive", Some(inbound.connect_keepalive)),
        ("inbound.connect_user_timeout", inbound.connect_user_timeout),
        ("outbound.keepalive", Some(outbound.keepalive)),
        ("outbound.user_timeout", outbound.user_timeout),
        (
            "outbound.connect_keepalive",
            Some(outbound.connect_keepalive),
        ),
        (
            "outbound.connect_user_timeout",
            outbound.connect_user_timeout,
        ),
    ];
    for (key, duration) in sockets {
        let seconds = duration.map_or(1, |duration| duration.as_secs());
        at_least(key, seconds.into(), 1, "expected at least 1s")?;
    }
    let sizes = [
        ("control.max_targets", control.max_targets, 1),
        ("control.max_ports", control.max_ports, 1),
        ("limits.max_connections", limits.max_connections, 1),
        ("limits.max_header_bytes", limits.max_header_bytes, 8_192),
        (
            "limits.http2_max_concurrent_streams",
            limits.http2_max_concurrent_streams as usize,
            1,
        ),
        ("admin.max_connections", admin.max_connections, 1),
    ];
    for (key, size, least) in sizes {
        at_least(key, size as u128, least, "expected more: see --help")?;
    }
    if control.backoff_max < control.backoff_min {
        return Err(Error::Value {
            key: "control.backoff_max",
            value: format!("{:?}", control.backoff_max),
            expected: "expected at least control.backoff_min",
        });
    }
    if limits.drain_timeout > Duration::from_secs(120) {
        return Err(Error::Value {
            key: "limits.drain_timeout",
            value: format!("{:?}", limits.drain_timeout),
            expected: "expected at most 120s",
        });
    }
    if limits.workers > 1_024 {
        return Err(Error::Value {
            key: "limits.workers",
            value: limits.workers.to_string(),
            expected: "expected at most 1024",
        });
    }
    Ok(())
}

fn at_least(
    key: &'static str,
    value: u128,
    least: u128,
    expected: &'static str,
) -> Result<(), Error> {
    if value < least {
        return Err(Error::Value {
            key,
            value: value.to_string(),
            expected,
        });
    }
    Ok(())
}

/// Listeners of distinct kinds may not share an address. Port 0 takes any free port, so it never clashes.
fn listeners(config: &Config) -> Result<(), Error> {
    let Config {
        inbound,
        outbound,
        admin,
        tap,
        ..
    } = config;
    let all = [("admin.listen", admin.listen)]
        .into_iter()
        .chain(tap.listen.map(|address| ("tap.listen", address)))
        .chain(
            inbound
                .listen
                .iter()
                .map(|address| ("inbound.listen", *address)),
        )
        .chain(
            inbound
                .ports
                .iter()
                .map(|port| ("inbound.ports", port.listen)),
        )
        .chain(
            outbound
                .listen
                .iter()
                .map(|address| ("outbound.listen", *address)),
        )
        .chain(
            outbound
                .services
                .iter()
                .map(|service| ("outbound.services", service.listen)),
        )
        .chain(
            outbound
                .http_proxy
                .map(|address| ("outbound.http_proxy", address)),
        );
    let mut seen = HashMap::new();
    for (second, address) in all.filter(|(_, address)| address.port() != 0) {
        if let Some(first) = seen.insert(address, second) {
            return Err(Error::Listeners {
                first,
                second,
                address,
            });
        }
    }
    Ok(())
}
