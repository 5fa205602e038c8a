//! Each variable of linkerd2-proxy, without its prefix: what it sets here, or why nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Given, forms, put};
use crate::config::host_port::HostPort;
use crate::config::value::Value;

/// A variable that takes effect.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name, without the prefix.
    pub name: &'static str,
    /// The key that it sets.
    pub key: &'static str,
    /// What linkerd2-proxy takes where the variable is not set and this proxy would take something else.
    pub default: Option<&'static str>,
    pub(super) set: fn(&mut Given, &str) -> Result<(), String>,
}

/// `"NAME" => table.key`: the variable's text is read as the key's. `via form`: as that function reads it.
/// `else "value"`: linkerd2-proxy's default where this proxy's differs. `do function`: see there.
macro_rules! variables {
    ($($name:literal => $table:ident.$key:ident $(via $form:path)? $(, do $set:path)? $(, else $default:literal)?;)*) => {
        &[$(Variable {
            name: $name,
            key: concat!(stringify!($table), ".", stringify!($key)),
            default: variables!(@default $($default)?),
            set: variables!(@set $table.$key $(via $form)? $(, do $set)?),
        },)*]
    };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
    (@set $table:ident.$key:ident) => { variables!(@set $table.$key via Value::parse) };
    (@set $table:ident.$key:ident via $form:path) => {
        |given, text| put(&mut given.layers.$table.$key, $form(text))
    };
    (@set $table:ident.$key:ident, do $set:path) => { $set };
}

/// The variables that take effect. A later one goes over an earlier one of the same key.
pub const HONOURED: &[Variable] = variables! {
    // A name makes no difference at a loopback address, so the addresses come after the names.
    "DESTINATION_SVC_NAME" => control.destination_name;
    "DESTINATION_SVC_ADDR" => control.destination_address, do destination;
    "DESTINATION_CONTEXT" => control.context;
    "DESTINATION_PROFILE_NETWORKS" => control.profile_networks, else "";
    "DESTINATION_PROFILE_SUFFIXES" => control.profile_suffixes, else "svc.cluster.local.";
    "POLICY_SVC_NAME" => control.policy_name;
    "POLICY_SVC_ADDR" => control.policy_address, do policy;
    "POLICY_WORKLOAD" => control.workload;
    "POLICY_CLUSTER_NETWORKS" => inbound.networks;

    "IDENTITY_SVC_NAME" => control.identity_name;
    "IDENTITY_SVC_ADDR" => control.identity_address, do identity;
    "IDENTITY_SERVER_ID" => identity.name;
    "IDENTITY_SERVER_NAME" => identity.server_name;
    "IDENTITY_LOCAL_NAME" => identity.name, do local_name;
    "IDENTITY_TRUST_ANCHORS" => identity.trust_anchors via forms::anchors;
    "IDENTITY_DIR" => identity.key_dir;
    "IDENTITY_TOKEN_FILE" => identity.token_file;
    "IDENTITY_MIN_REFRESH" => identity.refresh_min via forms::duration;
    "IDENTITY_MAX_REFRESH" => identity.refresh_max via forms::duration, else "1d";
    "IDENTITY_SPIRE_SOCKET" => identity.workload_api, do workload_api;
    "IDENTITY_SPIRE_WORKLOAD_API_ADDRESS" => identity.workload_api, do workload_api;
    "IDENTITY_DISABLED" => identity.name, do disabled;

    "INBOUND_LISTEN_ADDR" => inbound.listen, else "0.0.0.0:4143";
    "INBOUND_IPS" => inbound.ips;
    "INBOUND_PORTS" => inbound.watch_ports;
    "INBOUND_DEFAULT_POLICY" => inbound.default_policy, else "all-unauthenticated";
    "INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION" => inbound.opaque_ports;
    "INBOUND_PORTS_REQUIRE_IDENTITY" => inbound.identity_ports;
    "INBOUND_PORTS_REQUIRE_TLS" => inbound.tls_ports;
    "INBOUND_DETECT_TIMEOUT" => inbound.detect_timeout via forms::duration;
    "INBOUND_ACCEPT_KEEPALIVE" => inbound.keepalive via forms::duration;
    "INBOUND_ACCEPT_USER_TIMEOUT" => inbound.user_timeout via forms::limit;
    "INBOUND_CONNECT_KEEPALIVE" => inbound.connect_keepalive via forms::duration;
    "INBOUND_CONNECT_USER_TIMEOUT" => inbound.connect_user_timeout via forms::limit;
    "INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL" => inbound.http2_keepalive_interval via forms::duration;
    "INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT" => inbound.http2_keepalive_timeout via forms::duration;
    "INBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS" => inbound.http2_max_concurrent_streams;
    "INBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS" => inbound.http2_max_pending_resets;
    "INBOUND_TCP_LISTEN_BACKLOG" => inbound.backlog via forms::backlog;
    "INBOUND_DISCOVERY_IDLE_TIMEOUT" => inbound.idle_timeout via forms::limit;
    "INBOUND_CONNECT_TIMEOUT" => inbound.connect_timeout via forms::duration, else "300ms";

    "OUTBOUND_LISTEN_ADDR" => outbound.listen, else "127.0.0.1:4140";
    "OUTBOUND_LISTEN_ADDRS" => outbound.listen;
    "OUTBOUND_DETECT_TIMEOUT" => outbound.detect_timeout via forms::duration;
    "OUTBOUND_ACCEPT_KEEPALIVE" => outbound.keepalive via forms::duration;
    "OUTBOUND_ACCEPT_USER_TIMEOUT" => outbound.user_timeout via forms::limit;
    "OUTBOUND_CONNECT_KEEPALIVE" => outbound.connect_keepalive via forms::duration;
    "OUTBOUND_CONNECT_USER_TIMEOUT" => outbound.connect_user_timeout via forms::limit;
    "OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL" => outbound.http2_keepalive_interval via forms::duration;
    "OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT" => outbound.http2_keepalive_timeout via forms::duration;
    "OUTBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS" => outbound.http2_max_concurrent_streams;
    "OUTBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS" => outbound.http2_max_pending_resets;
    "OUTBOUND_TCP_LISTEN_BACKLOG" => outbound.backlog via forms::backlog;
    "OUTBOUND_DISCOVERY_IDLE_TIMEOUT" => outbound.idle_timeout via forms::limit;
    "OUTBOUND_CONNECT_TIMEOUT" => outbound.connect_timeout via forms::duration;
    "OUTBOUND_HTTP_FAILFAST_TIMEOUT" => balance.ready_timeout via forms::duration;

    "ADMIN_LISTEN_ADDR" => admin.listen;
    // Requests are observed by somebody or by nobody, so the address alone makes no difference.
    "CONTROL_LISTEN_ADDR" => tap.listen, do tap_listen;
    "TAP_SVC_NAME" => tap.identities, do tap;
    "SHUTDOWN_ENDPOINT_ENABLED" => admin.shutdown;
    "LOG" => admin.log via forms::log;
    "LOG_FORMAT" => admin.log_format via forms::log_format;
    "CORES" => limits.workers, do cores_min, else "1";
    "CORES_MIN" => limits.workers, do cores_min;
    "CORES_MAX" => limits.workers, do cores_max;
    "CORES_MAX_RATIO" => limits.workers, do cores_max_ratio;
    "SHUTDOWN_GRACE_PERIOD" => limits.drain_timeout via forms::grace, else "2m";
};

/// The variables that linkerd2-proxy has and this proxy does not honour, and why.
pub const NOT_HONOURED: &[(&str, &str)] = &[
    ("ACCESS_LOG", "there is no access log"),
    (
        "CONTROL_STREAM_IDLE_TIMEOUT",
        "streams live as long as the controller lets them; dead connections are found by pings",
    ),
    (
        "CONTROL_STREAM_INITIAL_TIMEOUT",
        "see `control.policy_timeout`",
    ),
    ("CONTROL_STREAM_LIFETIME", "as CONTROL_STREAM_IDLE_TIMEOUT"),
    (
        "DESTINATION_PROFILE_INITIAL_TIMEOUT",
        "inbound traffic needs no profile",
    ),
    (
        "DNS_MAX_TTL",
        "names are looked up at each connection to the controller",
    ),
    ("DNS_MIN_TTL", "as DNS_MAX_TTL"),
    (
        "HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
        "windows are sized for throughput",
    ),
    (
        "HTTP2_INITIAL_STREAM_WINDOW_SIZE",
        "as HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
    ),
    (
        "IDENTITY_SPIRE_EXP_BACKOFF_JITTER",
        "the Workload API is asked again after 100 ms to 10 s",
    ),
    (
        "IDENTITY_SPIRE_EXP_BACKOFF_MAX",
        "as IDENTITY_SPIRE_EXP_BACKOFF_JITTER",
    ),
    (
        "IDENTITY_SPIRE_EXP_BACKOFF_MIN",
        "as IDENTITY_SPIRE_EXP_BACKOFF_JITTER",
    ),
    (
        "INBOUND_CONNECT_EXP_BACKOFF_JITTER",
        "each request connects for itself; none waits for another's pause",
    ),
    (
        "INBOUND_CONNECT_EXP_BACKOFF_MAX",
        "as INBOUND_CONNECT_EXP_BACKOFF_JITTER",
    ),
    (
        "INBOUND_CONNECT_EXP_BACKOFF_MIN",
        "as INBOUND_CONNECT_EXP_BACKOFF_JITTER",
    ),
    (
        "INBOUND_GATEWAY_SUFFIXES",
        "there is no gateway between clusters",
    ),
    (
        "INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT",
        "unused HTTP/1 connections close after 15 to 30 s",
    ),
    (
        "INBOUND_HTTP_FAILFAST_TIMEOUT",
        "nothing queues before the application",
    ),
    (
        "INBOUND_HTTP_QUEUE_CAPACITY",
        "as INBOUND_HTTP_FAILFAST_TIMEOUT",
    ),
    (
        "INBOUND_MAX_IN_FLIGHT",
        "see `limits.max_connections` and `limits.http2_max_concurrent_streams`",
    ),
    (
        "INBOUND_METRICS_AUTHORITY_LABELS",
        "no metric has labels that clients choose",
    ),
    (
        "INBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL",
        "as HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
    ),
    (
        "INBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
        "as HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
    ),
    (
        "INBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE",
        "as HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
    ),
    (
        "INBOUND_SERVER_HTTP2_MAX_FRAME_SIZE",
        "frames have the protocol's size",
    ),
    (
        "INBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE",
        "see `limits.max_header_bytes`",
    ),
    (
        "INBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE",
        "as HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
    ),
    (
        "INGRESS_MODE",
        "the target of a request is its authority only in HTTP proxy form: see `outbound.http_proxy`",
    ),
    (
        "MAX_IDLE_CONNS_PER_ENDPOINT",
        "as INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT",
    ),
    ("METRICS_RETAIN_IDLE", "what is counted stays"),
    (
        "OUTBOUND_CONNECT_EXP_BACKOFF_JITTER",
        "as INBOUND_CONNECT_EXP_BACKOFF_JITTER",
    ),
    (
        "OUTBOUND_CONNECT_EXP_BACKOFF_MAX",
        "as INBOUND_CONNECT_EXP_BACKOFF_JITTER",
    ),
    (
        "OUTBOUND_CONNECT_EXP_BACKOFF_MIN",
        "as INBOUND_CONNECT_EXP_BACKOFF_JITTER",
    ),
    (
        "OUTBOUND_DISABLE_INFORMATIONAL_HEADERS",
        "the headers that say why a request failed are always sent",
    ),
    (
        "OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT",
        "as INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT",
    ),
    (
        "OUTBOUND_HTTP_QUEUE_CAPACITY",
        "requests wait in their connections, not in a queue",
    ),
    (
        "OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT",
        "as INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT",
    ),
    ("OUTBOUND_MAX_IN_FLIGHT", "as INBOUND_MAX_IN_FLIGHT"),
    (
        "OUTBOUND_METRICS_HOSTNAME_LABELS",
        "as INBOUND_METRICS_AUTHORITY_LABELS",
    ),
    (
        "OUTBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL",
        "as HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
    ),
    (
        "OUTBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
        "as HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
    ),
    (
        "OUTBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE",
        "as HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
    ),
    (
        "OUTBOUND_SERVER_HTTP2_MAX_FRAME_SIZE",
        "frames have the protocol's size",
    ),
    (
        "OUTBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE",
        "see `limits.max_header_bytes`",
    ),
    (
        "OUTBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE",
        "as HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
    ),
    (
        "OUTBOUND_TCP_FAILFAST_TIMEOUT",
        "as OUTBOUND_HTTP_QUEUE_CAPACITY",
    ),
    (
        "OUTBOUND_TCP_QUEUE_CAPACITY",
        "as OUTBOUND_HTTP_QUEUE_CAPACITY",
    ),
    ("TRACE_ATTRIBUTES_PATH", "no traces are sent"),
    ("TRACE_COLLECTOR_SVC_ADDR", "no traces are sent"),
    ("TRACE_COLLECTOR_SVC_NAME", "no traces are sent"),
    ("TRACE_EXTRA_ATTRIBUTES", "no traces are sent"),
    ("TRACE_SERVICE_NAME", "no traces are sent"),
];

fn destination(given: &mut Given, text: &str) -> Result<(), String> {
    let control = &mut given.layers.control;
    let address = HostPort::parse(text)?;
    if address.is_loopback() {
        control.destination_name = None;
    }
    put(&mut control.destination_address, Ok(Some(address.into())))
}

fn policy(given: &mut Given, text: &str) -> Result<(), String> {
    let control = &mut given.layers.control;
    let address = HostPort::parse(text)?;
    if address.is_loopback() {
        control.policy_name = None;
    }
    put(&mut control.policy_address, Ok(Some(address.into())))
}

fn identity(given: &mut Given, text: &str) -> Result<(), String> {
    let control = &mut given.layers.control;
    let address = HostPort::parse(text)?;
    if address.is_loopback() {
        control.identity_name = None;
    }
    put(&mut control.identity_address, Ok(Some(address.into())))
}

/// Goes over IDENTITY_SERVER_ID and IDENTITY_SERVER_NAME both.
fn local_name(given: &mut Given, text: &str) -> Result<(), String> {
    given.layers.identity.server_name = None;
    put(&mut given.layers.identity.name, Value::parse(text))
}

/// Goes over how a controller would be asked.
fn workload_api(given: &mut Given, text: &str) -> Result<(), String> {
    let (control, identity) = (&mut given.layers.control, &mut given.layers.identity);
    (control.identity_address, control.identity_name) = (None, None);
    (identity.token_file, identity.key_dir) = (None, None);
    (identity.refresh_min, identity.refresh_max) = (None, None);
    put(&mut identity.workload_api, Value::parse(text))
}

fn tap_listen(given: &mut Given, text: &str) -> Result<(), String> {
    given.tap = Some(Value::parse(text)?);
    Ok(())
}

fn tap(given: &mut Given, text: &str) -> Result<(), String> {
    let listen = given.tap.unwrap_or(DEFAULT_TAP);
    put(&mut given.layers.tap.listen, Ok(Some(listen)))?;
    put(&mut given.layers.tap.identities, Value::parse(text))
}

/// Where linkerd2-proxy has requests observed.
const DEFAULT_TAP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 4190);

/// linkerd2-proxy had this once, and refuses it too.
fn disabled(_: &mut Given, text: &str) -> Result<(), String> {
    match text {
        "" => Ok(()),
        _ => Err("expected nothing: a proxy has an identity".to_owned()),
    }
}

/// CORES_MIN is the newer name of CORES.
fn cores_min(given: &mut Given, text: &str) -> Result<(), String> {
    given.cores.min = Some(forms::cores(text)?);
    Ok(())
}

fn cores_max(given: &mut Given, text: &str) -> Result<(), String> {
    given.cores.max = Some(forms::cores(text)?);
    Ok(())
}

fn cores_max_ratio(given: &mut Given, text: &str) -> Result<(), String> {
    given.cores.max_ratio = Some(forms::ratio(text)?);
    Ok(())
}
