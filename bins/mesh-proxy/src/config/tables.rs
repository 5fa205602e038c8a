//! Every key there is, with its default.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use mesh_policy::inbound::DefaultPolicy;
use mesh_tls::Identity as Name;

use super::table::table;
use super::types::{Pem, PortMap, ServiceListener};
use super::{Config, Error};

table! {
    /// Who this proxy is, and how it proves it.
    Identity, IdentityLayer, "Identity" {
        /// The identity of the workload: a DNS name or a SPIFFE URI. Required.
        name: Option<String> = None, "identity-name", "MESH_PROXY_IDENTITY_NAME";
        /// The trust anchors, as a PEM file. This or identity.trust_anchors is required.
        trust_anchors_file: Option<PathBuf> = None, "identity-trust-anchors-file", "MESH_PROXY_IDENTITY_TRUST_ANCHORS_FILE";
        /// The trust anchors, as PEM text.
        trust_anchors: Option<Pem> = None, "identity-trust-anchors", "MESH_PROXY_IDENTITY_TRUST_ANCHORS";
        /// The file with the token that Certify is called with, read anew for each call. Required.
        token_file: Option<PathBuf> = None, "identity-token-file", "MESH_PROXY_IDENTITY_TOKEN_FILE";
    }
}

table! {
    /// Where the controller is, and how it is watched.
    Control, ControlLayer, "Control" {
        /// The controller's gRPC address. Required. A loopback address means plaintext HTTP/2.
        address: Option<SocketAddr> = None, "control-address", "MESH_PROXY_CONTROL_ADDRESS";
        /// The controller's identity, verified in the TLS handshake. Required unless its address is loopback.
        name: Option<String> = None, "control-name", "MESH_PROXY_CONTROL_NAME";
        /// The opaque text that names this workload to the policy services.
        workload: String = String::new(), "control-workload", "MESH_PROXY_CONTROL_WORKLOAD";
        /// The opaque text sent with endpoint and profile lookups (the proxy API's context token).
        context: String = String::new(), "control-context", "MESH_PROXY_CONTROL_CONTEXT";
        /// How long connecting to the controller may take.
        connect_timeout: Duration = Duration::from_secs(3), "control-connect-timeout", "MESH_PROXY_CONTROL_CONNECT_TIMEOUT";
        /// How often the connection to the controller is pinged.
        keepalive_interval: Duration = Duration::from_secs(10), "control-keepalive-interval", "MESH_PROXY_CONTROL_KEEPALIVE_INTERVAL";
        /// How long a ping may go unanswered before the connection counts as dead.
        keepalive_timeout: Duration = Duration::from_secs(5), "control-keepalive-timeout", "MESH_PROXY_CONTROL_KEEPALIVE_TIMEOUT";
        /// The first pause after a failure; it doubles, with jitter, up to control.backoff_max.
        backoff_min: Duration = Duration::from_millis(200), "control-backoff-min", "MESH_PROXY_CONTROL_BACKOFF_MIN";
        /// The longest pause after failures.
        backoff_max: Duration = Duration::from_secs(10), "control-backoff-max", "MESH_PROXY_CONTROL_BACKOFF_MAX";
        /// How long new traffic waits for the first policy: then outbound traffic is refused, inbound traffic gets the default policy.
        policy_timeout: Duration = Duration::from_secs(3), "control-policy-timeout", "MESH_PROXY_CONTROL_POLICY_TIMEOUT";
        /// How long an unused target (outbound) or port (inbound) stays watched.
        idle_timeout: Duration = Duration::from_secs(300), "control-idle-timeout", "MESH_PROXY_CONTROL_IDLE_TIMEOUT";
        /// Outbound targets watched at once; more are refused.
        max_targets: usize = 10_000, "control-max-targets", "MESH_PROXY_CONTROL_MAX_TARGETS";
        /// Inbound ports watched at once; more are closed.
        max_ports: usize = 1_000, "control-max-ports", "MESH_PROXY_CONTROL_MAX_PORTS";
    }
}

table! {
    /// Traffic to the application.
    Inbound, InboundLayer, "Inbound" {
        /// Where redirected traffic arrives; its original destination says which port it is for.
        listen: Option<SocketAddr> = None, "inbound-listen", "MESH_PROXY_INBOUND_LISTEN";
        /// One mesh port for each application port: LISTEN=APP, comma separated; in the file {listen, app}.
        ports: Vec<PortMap> = Vec::new(), "inbound-ports", "MESH_PROXY_INBOUND_PORTS";
        /// What is permitted until the controller answers: all-unauthenticated, all-authenticated, cluster-unauthenticated, cluster-authenticated, audit or deny.
        default_policy: DefaultPolicy = DefaultPolicy::AllAuthenticated, "inbound-default-policy", "MESH_PROXY_INBOUND_DEFAULT_POLICY";
        /// The networks that the cluster-* default policies mean, comma separated.
        networks: Vec<IpNet> = private_networks(), "inbound-networks", "MESH_PROXY_INBOUND_NETWORKS";
        /// How long protocol detection may take under the default policy.
        detect_timeout: Duration = Duration::from_secs(10), "inbound-detect-timeout", "MESH_PROXY_INBOUND_DETECT_TIMEOUT";
        /// How long connecting to the application may take.
        connect_timeout: Duration = Duration::from_secs(1), "inbound-connect-timeout", "MESH_PROXY_INBOUND_CONNECT_TIMEOUT";
    }
}

table! {
    /// Traffic from the application.
    Outbound, OutboundLayer, "Outbound" {
        /// Where redirected traffic arrives; it goes on to its original destination's service.
        listen: Option<SocketAddr> = None, "outbound-listen", "MESH_PROXY_OUTBOUND_LISTEN";
        /// One listener for each service: LISTEN=AUTHORITY, comma separated; in the file {listen, authority}.
        services: Vec<ServiceListener> = Vec::new(), "outbound-services", "MESH_PROXY_OUTBOUND_SERVICES";
        /// Where requests in HTTP proxy form (absolute URI, CONNECT) are taken.
        http_proxy: Option<SocketAddr> = None, "outbound-http-proxy", "MESH_PROXY_OUTBOUND_HTTP_PROXY";
        /// How long protocol detection may take where the controller says nothing.
        detect_timeout: Duration = Duration::from_secs(10), "outbound-detect-timeout", "MESH_PROXY_OUTBOUND_DETECT_TIMEOUT";
        /// How long connecting to an endpoint may take, TLS handshake included.
        connect_timeout: Duration = Duration::from_secs(1), "outbound-connect-timeout", "MESH_PROXY_OUTBOUND_CONNECT_TIMEOUT";
        /// Ports whose servers speak first, carried as opaque TCP where the controller says nothing, comma separated.
        opaque_ports: Vec<u16> = vec![25, 587, 3306, 4444, 5432, 6379, 9300, 11211], "outbound-opaque-ports", "MESH_PROXY_OUTBOUND_OPAQUE_PORTS";
    }
}

table! {
    /// Choosing endpoints.
    Balance, BalanceLayer, "Balance" {
        /// How long a request waits for a new balancer's first endpoints before it is answered 503.
        ready_timeout: Duration = Duration::from_secs(3), "balance-ready-timeout", "MESH_PROXY_BALANCE_READY_TIMEOUT";
    }
}

table! {
    /// What is bounded.
    Limits, LimitsLayer, "Limits" {
        /// Worker threads, each with its own listeners and connections; 0 means one for each core.
        workers: usize = 0, "limits-workers", "MESH_PROXY_LIMITS_WORKERS";
        /// Connections accepted at once, inbound and outbound each, over all workers; more wait in the kernel.
        max_connections: usize = 10_000, "limits-max-connections", "MESH_PROXY_LIMITS_MAX_CONNECTIONS";
        /// The largest head of a request or response, in bytes.
        max_header_bytes: usize = 65_536, "limits-max-header-bytes", "MESH_PROXY_LIMITS_MAX_HEADER_BYTES";
        /// How long a client may take to send a request's head.
        header_read_timeout: Duration = Duration::from_secs(30), "limits-header-read-timeout", "MESH_PROXY_LIMITS_HEADER_READ_TIMEOUT";
        /// How long a client's HTTP connection may go without a request before it is ended in order; 0s means for ever.
        client_idle_timeout: Duration = Duration::from_secs(3600), "limits-client-idle-timeout", "MESH_PROXY_LIMITS_CLIENT_IDLE_TIMEOUT";
        /// Streams at once on one HTTP/2 connection of a client.
        http2_max_concurrent_streams: u32 = 1_000, "limits-http2-max-concurrent-streams", "MESH_PROXY_LIMITS_HTTP2_MAX_CONCURRENT_STREAMS";
        /// Streams a client may have reset that are not yet worked off; more end its HTTP/2 connection.
        http2_max_pending_resets: usize = 20, "limits-http2-max-pending-resets", "MESH_PROXY_LIMITS_HTTP2_MAX_PENDING_RESETS";
        /// How long draining may take before what is left is cut off; at most 120s.
        drain_timeout: Duration = Duration::from_secs(30), "limits-drain-timeout", "MESH_PROXY_LIMITS_DRAIN_TIMEOUT";
    }
}

table! {
    /// The admin server and the log.
    Admin, AdminLayer, "Admin" {
        /// Where /live, /ready, /metrics and /config are served.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 4191)), "admin-listen", "MESH_PROXY_ADMIN_LISTEN";
        /// Connections at once to the admin server.
        max_connections: usize = 64, "admin-max-connections", "MESH_PROXY_ADMIN_MAX_CONNECTIONS";
        /// What is logged: a level, or `target=level` directives, comma separated.
        log: String = "info".to_owned(), "admin-log", "MESH_PROXY_ADMIN_LOG";
    }
}

/// One layer of all tables: what the flags and the environment, or the file, state.
#[derive(Clone, Debug, Default, clap::Args, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Layers {
    #[command(flatten)]
    identity: IdentityLayer,
    #[command(flatten)]
    control: ControlLayer,
    #[command(flatten)]
    inbound: InboundLayer,
    #[command(flatten)]
    outbound: OutboundLayer,
    #[command(flatten)]
    balance: BalanceLayer,
    #[command(flatten)]
    limits: LimitsLayer,
    #[command(flatten)]
    admin: AdminLayer,
}

impl Layers {
    /// Joins this layer with the one below and checks the whole.
    pub(super) fn over(self, below: Self) -> Result<Config, Error> {
        let identity = self.identity.over(below.identity);
        let control = self.control.over(below.control);
        let config = Config {
            name: required_name(
                "identity.name",
                identity.name.as_deref(),
                "the identity of this workload",
            )?,
            controller: controller_name(&control)?,
            identity,
            control,
            inbound: self.inbound.over(below.inbound),
            outbound: self.outbound.over(below.outbound),
            balance: self.balance.over(below.balance),
            limits: self.limits.over(below.limits),
            admin: self.admin.over(below.admin),
        };
        check_identity(&config.identity)?;
        check_ranges(&config)?;
        check_listeners(&config)?;
        Ok(config)
    }
}

/// The defaults of all keys, by table, as `/config` would show them.
pub(super) fn defaults() -> serde_json::Value {
    serde_json::json!({
        "identity": Identity::default().to_json(),
        "control": Control::default().to_json(),
        "inbound": Inbound::default().to_json(),
        "outbound": Outbound::default().to_json(),
        "balance": Balance::default().to_json(),
        "limits": Limits::default().to_json(),
        "admin": Admin::default().to_json(),
    })
}

fn private_networks() -> Vec<IpNet> {
    [
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fd00::/8",
    ]
    .iter()
    .filter_map(|text| text.parse().ok())
    .collect()
}

fn required_name(key: &'static str, text: Option<&str>, why: &'static str) -> Result<Name, Error> {
    let text = text.ok_or(Error::Missing { key, why })?;
    Name::parse(text).map_err(|_| Error::Value {
        key,
        value: format!("{text:?}"),
        expected: "expected a DNS name or a SPIFFE URI",
    })
}

fn controller_name(control: &Control) -> Result<Option<Name>, Error> {
    let address = control.address.ok_or(Error::Missing {
        key: "control.address",
        why: "the controller's gRPC address",
    })?;
    if address.ip().is_loopback() && control.name.is_none() {
        return Ok(None);
    }
    let why =
        "the controller's identity, required because control.address is not a loopback address";
    required_name("control.name", control.name.as_deref(), why).map(Some)
}

fn check_identity(identity: &Identity) -> Result<(), Error> {
    if identity.trust_anchors_file.is_none() && identity.trust_anchors.is_none() {
        let why = "the trust anchors of the mesh (or identity.trust_anchors, the PEM text itself)";
        return Err(Error::Missing {
            key: "identity.trust_anchors_file",
            why,
        });
    }
    if identity.trust_anchors_file.is_some() && identity.trust_anchors.is_some() {
        return Err(Error::Value {
            key: "identity.trust_anchors",
            value: "set".to_owned(),
            expected: "identity.trust_anchors_file is set too; expected one of the two",
        });
    }
    if identity.token_file.is_none() {
        return Err(Error::Missing {
            key: "identity.token_file",
            why: "the token that proves who this workload is",
        });
    }
    Ok(())
}

fn check_ranges(config: &Config) -> Result<(), Error> {
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
        ("inbound.detect_timeout", config.inbound.detect_timeout),
        ("inbound.connect_timeout", config.inbound.connect_timeout),
        ("outbound.detect_timeout", config.outbound.detect_timeout),
        ("outbound.connect_timeout", config.outbound.connect_timeout),
        ("limits.header_read_timeout", limits.header_read_timeout),
    ];
    for (key, duration) in durations {
        at_least(key, duration.as_millis(), 1, "expected more than nothing")?;
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
fn check_listeners(config: &Config) -> Result<(), Error> {
    let Config {
        inbound,
        outbound,
        admin,
        ..
    } = config;
    let all = [("admin.listen", admin.listen)]
        .into_iter()
        .chain(inbound.listen.map(|address| ("inbound.listen", address)))
        .chain(
            inbound
                .ports
                .iter()
                .map(|port| ("inbound.ports", port.listen)),
        )
        .chain(outbound.listen.map(|address| ("outbound.listen", address)))
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
