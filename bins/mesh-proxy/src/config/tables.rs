//! Every key there is, with its default.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use mesh_policy::inbound::DefaultPolicy;
use mesh_tls::Identity as Name;
use mesh_tls::renewal::Renewal;

use super::addresses::Addresses;
use super::balance::{LoadBand, Percent, RateLimiting, Zone};
use super::crypto::{CipherSuite, KeyExchange};
use super::table::table;
use super::types::{DnsSuffix, LogFormat, Pem, PortMap, PortRange, ServiceListener, SocketPath};
use super::{Config, Error, Unheeded, check};

table! {
    /// Who this proxy is, and how it proves it.
    Identity, IdentityLayer, "Identity" {
        /// The identity of the workload: a DNS name or a SPIFFE URI. Required.
        name: Option<String> = None, "identity-name", "MESH_PROXY_IDENTITY_NAME";
        /// The server name by which mesh TLS asks for this workload. A DNS name that is the identity needs none; a SPIFFE URI
        /// does with inbound.listen: what the controller tells its peers, which from mesh-controller is WORKLOAD.NAMESPACE.
        server_name: Option<String> = None, "identity-server-name", "MESH_PROXY_IDENTITY_SERVER_NAME";
        /// The trust anchors, as a PEM file. This or identity.trust_anchors is required.
        trust_anchors_file: Option<PathBuf> = None, "identity-trust-anchors-file", "MESH_PROXY_IDENTITY_TRUST_ANCHORS_FILE";
        /// The trust anchors, as PEM text.
        trust_anchors: Option<Pem> = None, "identity-trust-anchors", "MESH_PROXY_IDENTITY_TRUST_ANCHORS";
        /// The file with the key that signs the mesh's trust bundles, as hex digits: bundle-key.pub in the data folder of
        /// mesh-controller. With it, trust anchors are replaced while the proxy runs; without it they stay those it starts with.
        bundle_key_file: Option<PathBuf> = None, "identity-bundle-key-file", "MESH_PROXY_IDENTITY_BUNDLE_KEY_FILE";
        /// Where the trust bundle in use is kept, so that the proxy starts again with it rather than with identity.trust_anchors.
        bundle_file: Option<PathBuf> = None, "identity-bundle-file", "MESH_PROXY_IDENTITY_BUNDLE_FILE";
        /// The file with the token that Certify is called with, read anew for each call. This or identity.workload_api is required.
        token_file: Option<PathBuf> = None, "identity-token-file", "MESH_PROXY_IDENTITY_TOKEN_FILE";
        /// A folder with key.p8 and csr.der: that key is certified, by that request, rather than one made in memory.
        key_dir: Option<PathBuf> = None, "identity-key-dir", "MESH_PROXY_IDENTITY_KEY_DIR";
        /// The socket of a SPIFFE Workload API, which then issues the certificate: a path, or unix:///PATH.
        workload_api: Option<SocketPath> = None, "identity-workload-api", "MESH_PROXY_IDENTITY_WORKLOAD_API";
        /// The least between two certificates from the controller.
        refresh_min: Duration = Renewal::MIN_DELAY, "identity-refresh-min", "MESH_PROXY_IDENTITY_REFRESH_MIN";
        /// The most between two certificates from the controller, however long they live.
        refresh_max: Duration = Renewal::MAX_DELAY, "identity-refresh-max", "MESH_PROXY_IDENTITY_REFRESH_MAX";
        /// The cipher suites of mesh TLS, most preferred first, such as TLS_AES_128_GCM_SHA256; empty: all there are.
        cipher_suites: Vec<CipherSuite> = Vec::new(), "identity-cipher-suites", "MESH_PROXY_IDENTITY_CIPHER_SUITES";
        /// The key exchanges of mesh TLS, most preferred first, such as X25519; empty: all there are.
        key_exchanges: Vec<KeyExchange> = Vec::new(), "identity-key-exchanges", "MESH_PROXY_IDENTITY_KEY_EXCHANGES";
    }
}

table! {
    /// Where the controller is, and how it is watched.
    Control, ControlLayer, "Control" {
        /// The controller's gRPC address: an IP or a DNS name, with a port. Required. A loopback address means plaintext HTTP/2.
        /// Several controllers of one mesh are comma separated, or an array: any is connected to, and another when that one fails.
        address: Option<Addresses> = None, "control-address", "MESH_PROXY_CONTROL_ADDRESS";
        /// The controller's identity, verified in the TLS handshake. Required unless its address is loopback.
        name: Option<String> = None, "control-name", "MESH_PROXY_CONTROL_NAME";
        /// Where endpoints and profiles are looked up, if not at control.address.
        destination_address: Option<Addresses> = None, "control-destination-address", "MESH_PROXY_CONTROL_DESTINATION_ADDRESS";
        /// The identity there, if not control.name.
        destination_name: Option<String> = None, "control-destination-name", "MESH_PROXY_CONTROL_DESTINATION_NAME";
        /// Where policies are looked up, if not at control.address.
        policy_address: Option<Addresses> = None, "control-policy-address", "MESH_PROXY_CONTROL_POLICY_ADDRESS";
        /// The identity there, if not control.name.
        policy_name: Option<String> = None, "control-policy-name", "MESH_PROXY_CONTROL_POLICY_NAME";
        /// Where certificates are asked for, if not at control.address.
        identity_address: Option<Addresses> = None, "control-identity-address", "MESH_PROXY_CONTROL_IDENTITY_ADDRESS";
        /// The identity there, if not control.name.
        identity_name: Option<String> = None, "control-identity-name", "MESH_PROXY_CONTROL_IDENTITY_NAME";
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
        /// The only networks whose addresses are looked up as profiles, comma separated; all where it is not set.
        profile_networks: Option<Vec<IpNet>> = None, "control-profile-networks", "MESH_PROXY_CONTROL_PROFILE_NETWORKS";
        /// The only ends of names that are looked up as profiles, comma separated; all where it is not set.
        profile_suffixes: Option<Vec<DnsSuffix>> = None, "control-profile-suffixes", "MESH_PROXY_CONTROL_PROFILE_SUFFIXES";
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
        /// Where redirected traffic arrives, comma separated; its original destination says which port it is for.
        listen: Vec<SocketAddr> = Vec::new(), "inbound-listen", "MESH_PROXY_INBOUND_LISTEN";
        /// One mesh port for each application port: LISTEN=APP, comma separated; in the file {listen, app}.
        ports: Vec<PortMap> = Vec::new(), "inbound-ports", "MESH_PROXY_INBOUND_PORTS";
        /// What is permitted until the controller answers: all-unauthenticated, all-authenticated, cluster-unauthenticated, cluster-authenticated, audit or deny.
        default_policy: DefaultPolicy = DefaultPolicy::AllAuthenticated, "inbound-default-policy", "MESH_PROXY_INBOUND_DEFAULT_POLICY";
        /// The networks that the cluster-* default policies mean, comma separated.
        networks: Vec<IpNet> = private_networks(), "inbound-networks", "MESH_PROXY_INBOUND_NETWORKS";
        /// The workload's own addresses, comma separated: redirected traffic for any other is refused, and what it sends to itself
        /// goes to the application at once. Any address where it is empty.
        ips: Vec<IpAddr> = Vec::new(), "inbound-ips", "MESH_PROXY_INBOUND_IPS";
        /// Ports that are watched from the start and never forgotten, comma separated: 8080, 9000-9010. At most half of control.max_ports.
        watch_ports: Vec<PortRange> = Vec::new(), "inbound-watch-ports", "MESH_PROXY_INBOUND_WATCH_PORTS";
        /// Ports that are opaque under the default policy, comma separated.
        opaque_ports: Vec<PortRange> = Vec::new(), "inbound-opaque-ports", "MESH_PROXY_INBOUND_OPAQUE_PORTS";
        /// Ports where the default policy asks for a verified identity, comma separated.
        identity_ports: Vec<PortRange> = Vec::new(), "inbound-identity-ports", "MESH_PROXY_INBOUND_IDENTITY_PORTS";
        /// Ports where the default policy asks for mesh TLS, comma separated.
        tls_ports: Vec<PortRange> = Vec::new(), "inbound-tls-ports", "MESH_PROXY_INBOUND_TLS_PORTS";
        /// How long protocol detection may take under the default policy.
        detect_timeout: Duration = Duration::from_secs(10), "inbound-detect-timeout", "MESH_PROXY_INBOUND_DETECT_TIMEOUT";
        /// How long a client is silent before it is asked whether it is still there.
        keepalive: Duration = KEEPALIVE, "inbound-keepalive", "MESH_PROXY_INBOUND_KEEPALIVE";
        /// How long what is sent to a client may go unacknowledged; the kernel's choice where it is not set.
        user_timeout: Option<Duration> = None, "inbound-user-timeout", "MESH_PROXY_INBOUND_USER_TIMEOUT";
        /// As inbound.keepalive, for connections to the application.
        connect_keepalive: Duration = KEEPALIVE, "inbound-connect-keepalive", "MESH_PROXY_INBOUND_CONNECT_KEEPALIVE";
        /// As inbound.user_timeout, for connections to the application.
        connect_user_timeout: Option<Duration> = None, "inbound-connect-user-timeout", "MESH_PROXY_INBOUND_CONNECT_USER_TIMEOUT";
        /// Connections that the kernel holds for one listener before they are accepted.
        backlog: u16 = 4_096, "inbound-backlog", "MESH_PROXY_INBOUND_BACKLOG";
        /// How often a peer's HTTP/2 connection is pinged.
        http2_keepalive_interval: Duration = Duration::from_secs(30), "inbound-http2-keepalive-interval", "MESH_PROXY_INBOUND_HTTP2_KEEPALIVE_INTERVAL";
        /// How long such a ping may go unanswered before the connection counts as dead.
        http2_keepalive_timeout: Duration = Duration::from_secs(20), "inbound-http2-keepalive-timeout", "MESH_PROXY_INBOUND_HTTP2_KEEPALIVE_TIMEOUT";
        /// Streams at once on one of these connections; limits.http2_max_concurrent_streams where it is not set.
        http2_max_concurrent_streams: Option<u32> = None, "inbound-http2-max-concurrent-streams", "MESH_PROXY_INBOUND_HTTP2_MAX_CONCURRENT_STREAMS";
        /// Resets not yet worked off on one of these connections; limits.http2_max_pending_resets where it is not set.
        http2_max_pending_resets: Option<usize> = None, "inbound-http2-max-pending-resets", "MESH_PROXY_INBOUND_HTTP2_MAX_PENDING_RESETS";
        /// How long an unused port stays watched; control.idle_timeout where it is not set.
        idle_timeout: Option<Duration> = None, "inbound-idle-timeout", "MESH_PROXY_INBOUND_IDLE_TIMEOUT";
        /// How long connecting to the application may take.
        connect_timeout: Duration = Duration::from_secs(1), "inbound-connect-timeout", "MESH_PROXY_INBOUND_CONNECT_TIMEOUT";
    }
}

table! {
    /// Traffic from the application.
    Outbound, OutboundLayer, "Outbound" {
        /// Where redirected traffic arrives, comma separated; it goes on to its original destination's service.
        listen: Vec<SocketAddr> = Vec::new(), "outbound-listen", "MESH_PROXY_OUTBOUND_LISTEN";
        /// One listener for each service: LISTEN=AUTHORITY, comma separated; in the file {listen, authority}.
        services: Vec<ServiceListener> = Vec::new(), "outbound-services", "MESH_PROXY_OUTBOUND_SERVICES";
        /// Where requests in HTTP proxy form (absolute URI, CONNECT) are taken.
        http_proxy: Option<SocketAddr> = None, "outbound-http-proxy", "MESH_PROXY_OUTBOUND_HTTP_PROXY";
        /// How long protocol detection may take where the controller says nothing.
        detect_timeout: Duration = Duration::from_secs(10), "outbound-detect-timeout", "MESH_PROXY_OUTBOUND_DETECT_TIMEOUT";
        /// As inbound.keepalive, for the application's connections.
        keepalive: Duration = KEEPALIVE, "outbound-keepalive", "MESH_PROXY_OUTBOUND_KEEPALIVE";
        /// As inbound.user_timeout, for the application's connections.
        user_timeout: Option<Duration> = None, "outbound-user-timeout", "MESH_PROXY_OUTBOUND_USER_TIMEOUT";
        /// As inbound.keepalive, for connections to endpoints.
        connect_keepalive: Duration = KEEPALIVE, "outbound-connect-keepalive", "MESH_PROXY_OUTBOUND_CONNECT_KEEPALIVE";
        /// As inbound.user_timeout, for connections to endpoints.
        connect_user_timeout: Option<Duration> = None, "outbound-connect-user-timeout", "MESH_PROXY_OUTBOUND_CONNECT_USER_TIMEOUT";
        /// As inbound.backlog.
        backlog: u16 = 4_096, "outbound-backlog", "MESH_PROXY_OUTBOUND_BACKLOG";
        /// How often an application's HTTP/2 connection is pinged.
        http2_keepalive_interval: Duration = Duration::from_secs(30), "outbound-http2-keepalive-interval", "MESH_PROXY_OUTBOUND_HTTP2_KEEPALIVE_INTERVAL";
        /// How long such a ping may go unanswered before the connection counts as dead.
        http2_keepalive_timeout: Duration = Duration::from_secs(20), "outbound-http2-keepalive-timeout", "MESH_PROXY_OUTBOUND_HTTP2_KEEPALIVE_TIMEOUT";
        /// Streams at once on one of these connections; limits.http2_max_concurrent_streams where it is not set.
        http2_max_concurrent_streams: Option<u32> = None, "outbound-http2-max-concurrent-streams", "MESH_PROXY_OUTBOUND_HTTP2_MAX_CONCURRENT_STREAMS";
        /// Resets not yet worked off on one of these connections; limits.http2_max_pending_resets where it is not set.
        http2_max_pending_resets: Option<usize> = None, "outbound-http2-max-pending-resets", "MESH_PROXY_OUTBOUND_HTTP2_MAX_PENDING_RESETS";
        /// How long an unused target stays watched; control.idle_timeout where it is not set.
        idle_timeout: Option<Duration> = None, "outbound-idle-timeout", "MESH_PROXY_OUTBOUND_IDLE_TIMEOUT";
        /// How long connecting to an endpoint may take, TLS handshake included.
        connect_timeout: Duration = Duration::from_secs(1), "outbound-connect-timeout", "MESH_PROXY_OUTBOUND_CONNECT_TIMEOUT";
        /// Ports whose servers speak first, carried as opaque TCP where the controller says nothing, comma separated.
        opaque_ports: Vec<u16> = vec![25, 587, 3306, 4444, 5432, 6379, 9300, 11211], "outbound-opaque-ports", "MESH_PROXY_OUTBOUND_OPAQUE_PORTS";
    }
}

table! {
    /// Choosing endpoints.
    Balance, BalanceLayer, "Balance" {
        /// How long a request waits for the first endpoints of a service that only a profile describes, before it is answered 503. An
        /// outbound policy of the controller's says for itself.
        ready_timeout: Duration = Duration::from_secs(3), "balance-ready-timeout", "MESH_PROXY_BALANCE_READY_TIMEOUT";
        /// What is made of refusals for their rate, where the controller asks for more than latency (PenaltyPeakEwma): learned limits and holds, or exact, the published penalty and no more.
        rate_limits: RateLimiting = RateLimiting::Learned, "balance-rate-limits", "MESH_PROXY_BALANCE_RATE_LIMITS";
        /// The largest share of a service's endpoints, in percent, that breakers may take out at once; the controller may set a floor beside it.
        max_ejected_percent: Percent = Percent::ALL, "balance-max-ejected-percent", "MESH_PROXY_BALANCE_MAX_EJECTED_PERCENT";
        /// The zone that this workload is in. Where it is set, requests stay in the zone while its endpoints can take them.
        zone: Option<Zone> = None, "balance-zone", "MESH_PROXY_BALANCE_ZONE";
        /// Other zones, from the nearest on, comma separated; those not named are the farthest.
        zones_nearest: Vec<Zone> = Vec::new(), "balance-zones-nearest", "MESH_PROXY_BALANCE_ZONES_NEAREST";
        /// The load of a zone, in requests in flight per endpoint: above the upper end endpoints of other zones help, below the lower end no more. LOW-HIGH; in the file {low, high}.
        zones: LoadBand = LoadBand::default(), "balance-zones", "MESH_PROXY_BALANCE_ZONES";
        /// To how many endpoints of a service requests are kept while these can take them; more are used as more requests are in flight. 0 is all.
        aperture: u32 = 256, "balance-aperture", "MESH_PROXY_BALANCE_APERTURE";
        /// How long an endpoint that joins others takes until it has its whole share of requests; 0s is not at all.
        slow_start: Duration = Duration::ZERO, "balance-slow-start", "MESH_PROXY_BALANCE_SLOW_START";
    }
}

table! {
    /// What is bounded.
    Limits, LimitsLayer, "Limits" {
        /// Worker threads, each with its own listeners and connections; 0 means one for each core. On Windows there is one.
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
        /// Whether a POST of /shutdown from this machine ends the proxy as SIGTERM does.
        shutdown: bool = false, "admin-shutdown", "MESH_PROXY_ADMIN_SHUTDOWN";
        /// What is logged: a level, or `target=level` directives, comma separated.
        log: String = "info".to_owned(), "admin-log", "MESH_PROXY_ADMIN_LOG";
        /// How the log is written: plain or json.
        log_format: LogFormat = LogFormat::Plain, "admin-log-format", "MESH_PROXY_ADMIN_LOG_FORMAT";
    }
}

table! {
    /// Letting requests be observed.
    Tap, TapLayer, "Tap" {
        /// Where requests may be observed (Tap.Observe), in mesh TLS. Not at all when unset.
        listen: Option<SocketAddr> = None, "tap-listen", "MESH_PROXY_TAP_LISTEN";
        /// The identities that may observe them, comma separated. Required with tap.listen.
        identities: Vec<Name> = Vec::new(), "tap-identities", "MESH_PROXY_TAP_IDENTITIES";
    }
}

/// What finds peers that vanished without being a burden.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// One layer of all tables: what the flags and the environment, or the file, state.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Layers {
    #[command(flatten)]
    pub(super) identity: IdentityLayer,
    #[command(flatten)]
    pub(super) control: ControlLayer,
    #[command(flatten)]
    pub(super) inbound: InboundLayer,
    #[command(flatten)]
    pub(super) outbound: OutboundLayer,
    #[command(flatten)]
    pub(super) balance: BalanceLayer,
    #[command(flatten)]
    pub(super) limits: LimitsLayer,
    #[command(flatten)]
    pub(super) admin: AdminLayer,
    #[command(flatten)]
    pub(super) tap: TapLayer,
}

impl Layers {
    /// This layer, and where it says nothing, the one below.
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            identity: self.identity.over(below.identity),
            control: self.control.over(below.control),
            inbound: self.inbound.over(below.inbound),
            outbound: self.outbound.over(below.outbound),
            balance: self.balance.over(below.balance),
            limits: self.limits.over(below.limits),
            admin: self.admin.over(below.admin),
            tap: self.tap.over(below.tap),
        }
    }

    /// Fills in the defaults and checks the whole.
    pub(super) fn resolve(self) -> Result<Config, Error> {
        let identity = self.identity.resolve();
        let control = self.control.resolve();
        let config = Config {
            name: check::name(&identity)?,
            controllers: check::controllers(&control)?,
            issuer: check::issuer(&identity, &control)?,
            identity,
            control,
            inbound: self.inbound.resolve(),
            outbound: self.outbound.resolve(),
            balance: self.balance.resolve(),
            limits: self.limits.resolve(),
            admin: self.admin.resolve(),
            tap: self.tap.resolve(),
            unheeded: Unheeded::default(),
        };
        check::all(&config)?;
        Ok(config)
    }
}

impl Control {
    /// Whether one of the services has an address of its own.
    pub(super) fn any_address(&self) -> bool {
        let own = [
            &self.destination_address,
            &self.policy_address,
            &self.identity_address,
        ];
        own.iter().any(|address| address.is_some())
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
        "tap": Tap::default().to_json(),
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
