//! What has to be so between settings.

use std::collections::HashMap;
use std::time::Duration;

use mesh_tls::Identity as Name;

use super::addresses::Addresses;
use super::tables::{Balance, Control, Identity, Tap};
use super::{Config, Controller, Controllers, Error, Issuer};

/// `identity.name`, parsed.
pub(super) fn name(identity: &Identity) -> Result<Name, Error> {
    let name = identity.name.as_deref().ok_or(Error::Missing {
        key: "identity.name",
        why: "the identity of this workload",
    })?;
    parsed_name("identity.name", name)
}

/// Where endpoints and policies are asked for, and who has to be there.
pub(super) fn controllers(control: &Control) -> Result<Controllers, Error> {
    Ok(Controllers {
        destination: controller(
            control,
            Own {
                address_key: "control.destination_address",
                address: control.destination_address.as_ref(),
                name_key: "control.destination_name",
                name: control.destination_name.as_deref(),
            },
        )?,
        policy: controller(
            control,
            Own {
                address_key: "control.policy_address",
                address: control.policy_address.as_ref(),
                name_key: "control.policy_name",
                name: control.policy_name.as_deref(),
            },
        )?,
    })
}

/// What issues the certificate: a controller, for a token, or a Workload API, which needs none.
pub(super) fn issuer(identity: &Identity, control: &Control) -> Result<Issuer, Error> {
    let refuse = |key, value, expected| {
        Err(Error::Value {
            key,
            value,
            expected,
        })
    };
    if let Some(server_name) = &identity.server_name
        && Name::parse(server_name).is_ok_and(|name| name.is_spiffe())
    {
        let shown = format!("{server_name:?}");
        return refuse("identity.server_name", shown, "expected a DNS name");
    }
    if identity.refresh_max < identity.refresh_min {
        let shown = format!("{:?}", identity.refresh_max);
        let expected = "expected at least identity.refresh_min";
        return refuse("identity.refresh_max", shown, expected);
    }
    match (&identity.workload_api, &identity.token_file) {
        (None, None) => Err(Error::Missing {
            key: "identity.token_file",
            why: "the token that proves who this workload is (or identity.workload_api)",
        }),
        (None, Some(token_file)) => {
            let own = Own {
                address_key: "control.identity_address",
                address: control.identity_address.as_ref(),
                name_key: "control.identity_name",
                name: control.identity_name.as_deref(),
            };
            Ok(Issuer::Controller {
                controller: controller(control, own)?,
                token_file: token_file.clone(),
            })
        }
        (Some(socket), None) if identity.key_dir.is_none() => match name(identity)? {
            name if name.is_spiffe() => Ok(Issuer::WorkloadApi(socket.clone())),
            name => {
                let expected = "expected a SPIFFE URI, as identity.workload_api is set";
                refuse("identity.name", format!("{:?}", name.as_str()), expected)
            }
        },
        (Some(socket), _) => refuse(
            "identity.workload_api",
            socket.to_string(),
            "it issues key and certificate; expected neither identity.token_file nor identity.key_dir beside it",
        ),
    }
}

/// One service of the controller: at an address of its own or at `control.address`.
fn controller(control: &Control, own: Own<'_>) -> Result<Controller, Error> {
    let common = Own {
        address_key: "control.address",
        address: control.address.as_ref(),
        name_key: "control.name",
        name: control.name.as_deref(),
    };
    let placed = if own.address.is_some() { &own } else { &common };
    let Some(address) = placed.address.cloned() else {
        // Where others have addresses of their own, it is this one's that is missing.
        let key = if control.any_address() {
            own.address_key
        } else {
            common.address_key
        };
        let why = "the controller's gRPC address";
        return Err(Error::Missing { key, why });
    };
    let named = if own.name.is_some() { &own } else { &common };
    let name = match named.name {
        Some(name) => Some(parsed_name(named.name_key, name)?),
        None if address.is_loopback() => None,
        None => {
            return Err(Error::Unnamed {
                key: placed.name_key,
                address_key: placed.address_key,
                address,
            });
        }
    };
    Ok(Controller { address, name })
}

/// What is set for one service of the controller alone, or for all.
#[derive(Clone, Copy)]
struct Own<'a> {
    address_key: &'static str,
    address: Option<&'a Addresses>,
    name_key: &'static str,
    name: Option<&'a str>,
}

/// Everything else.
pub(super) fn all(config: &Config) -> Result<(), Error> {
    anchors(&config.identity)?;
    bundles(config)?;
    zones(&config.balance)?;
    ranges(config)?;
    watched_ports(config)?;
    server_name(config)?;
    tap(&config.tap)?;
    listeners(config)
}

fn parsed_name(key: &'static str, text: &str) -> Result<Name, Error> {
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

/// The bundles of a trust domain are followed: which one, the name has to say.
fn bundles(config: &Config) -> Result<(), Error> {
    let identity = &config.identity;
    if identity.bundle_key_file.is_none() {
        return match identity.bundle_file {
            None => Ok(()),
            Some(_) => Err(Error::Missing {
                key: "identity.bundle_key_file",
                why: "the key that signs trust bundles, required with identity.bundle_file",
            }),
        };
    }
    if config.name.trust_domain().is_none() {
        return Err(Error::Value {
            key: "identity.name",
            value: format!("{:?}", config.name.as_str()),
            expected: "expected a name with a trust domain (a SPIFFE URI, or Linkerd's form), as identity.bundle_key_file is set",
        });
    }
    Ok(())
}

fn zones(balance: &Balance) -> Result<(), Error> {
    if balance.zone.is_none() && !balance.zones_nearest.is_empty() {
        return Err(Error::Missing {
            key: "balance.zone",
            why: "the workload's own zone, required with balance.zones_nearest",
        });
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
        (
            "inbound.http2_keepalive_interval",
            config.inbound.http2_keepalive_interval,
        ),
        (
            "inbound.http2_keepalive_timeout",
            config.inbound.http2_keepalive_timeout,
        ),
        (
            "outbound.http2_keepalive_interval",
            config.outbound.http2_keepalive_interval,
        ),
        (
            "outbound.http2_keepalive_timeout",
            config.outbound.http2_keepalive_timeout,
        ),
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
        let Some(duration) = duration else { continue };
        let (most, expected) = if key.ends_with("keepalive") {
            (MAX_KEEPALIVE, "expected 1s to 32767s, as the kernel takes")
        } else {
            (
                MAX_USER_TIMEOUT,
                "expected 1s to 2147483s, as the kernel takes",
            )
        };
        if !(Duration::from_secs(1)..=most).contains(&duration) {
            let value = format!("{duration:?}");
            return Err(Error::Value {
                key,
                value,
                expected,
            });
        }
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
        (
            "inbound.http2_max_concurrent_streams",
            inbound.http2_max_concurrent_streams.unwrap_or(1) as usize,
            1,
        ),
        (
            "outbound.http2_max_concurrent_streams",
            outbound.http2_max_concurrent_streams.unwrap_or(1) as usize,
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

/// A port that is watched for ever takes the place of another one for ever.
fn watched_ports(config: &Config) -> Result<(), Error> {
    let ranges = &config.inbound.watch_ports;
    let ports = ranges
        .iter()
        .map(|range| usize::from(range.last - range.first) + 1);
    let count: usize = ports.sum();
    if count > config.control.max_ports / 2 {
        return Err(Error::Value {
            key: "inbound.watch_ports",
            value: format!("{count} ports"),
            expected: "expected at most half of control.max_ports; the other half is for ports that are not in it, \
                       which would be closed",
        });
    }
    Ok(())
}

/// Redirected TLS is the mesh's when it asks for this proxy by name, and the application's own otherwise.
fn server_name(config: &Config) -> Result<(), Error> {
    let redirected = !config.inbound.listen.is_empty();
    if redirected && config.name.is_spiffe() && config.identity.server_name.is_none() {
        return Err(Error::Missing {
            key: "identity.server_name",
            why: "the name that mesh TLS asks for, required with inbound.listen and a SPIFFE identity, which is no such name",
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

/// What Linux takes for `TCP_KEEPIDLE` and `TCP_KEEPINTVL` (`MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPINTVL`).
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);
/// What Linux takes for `TCP_USER_TIMEOUT`, a signed number of milliseconds, in whole seconds.
const MAX_USER_TIMEOUT: Duration = Duration::from_secs(2_147_483);

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
