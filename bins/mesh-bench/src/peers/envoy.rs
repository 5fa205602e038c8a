//! Envoy: HTTP/2 between the two, one worker each.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{Certificates, Kind, Links, Running, start_pair};
use crate::error::Error;
use crate::stage::Ground;

pub(super) async fn start(
    ground: &Ground,
    program: &Path,
    certificates: &Certificates,
) -> Result<Running, Error> {
    let links = Links::of(Kind::Envoy, ground);
    let files = [
        ("client.json", client(&links, certificates).to_string()),
        ("server.json", server(&links, certificates).to_string()),
    ];
    let running = start_pair(ground, Kind::Envoy, program, &FLAGS, &files)?;
    running.answers(ground).await?;
    Ok(running)
}

const FLAGS: [&str; 6] = [
    "--concurrency",
    "1",
    "--disable-hot-restart",
    "--log-level",
    "warn",
    "-c",
];

fn client(links: &Links, certificates: &Certificates) -> Value {
    let tls = |alpn: &[&str]| {
        let mut common = common_tls(certificates, "client", alpn);
        common["validation_context"]["match_typed_subject_alt_names"] = json!([
            {"san_type": "DNS", "matcher": {"exact": Certificates::SERVER_NAME}}
        ]);
        socket(
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            &json!({"common_tls_context": common, "sni": Certificates::SERVER_NAME, "max_session_keys": 0}),
        )
    };
    bootstrap([
        http_pipe(
            "http1",
            links.listen[0],
            None,
            links.between[0],
            true,
            Some(tls(&["h2"])),
        ),
        http_pipe(
            "http2",
            links.listen[1],
            None,
            links.between[1],
            true,
            Some(tls(&["h2"])),
        ),
        tcp_pipe(links.listen[2], None, links.between[2], Some(tls(&[]))),
    ])
}

fn server(links: &Links, certificates: &Certificates) -> Value {
    let tls = |alpn: &[&str]| {
        socket(
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            &json!({
                "common_tls_context": common_tls(certificates, "server", alpn),
                "require_client_certificate": true,
                "disable_stateless_session_resumption": true,
                "disable_stateful_session_resumption": true,
            }),
        )
    };
    bootstrap([
        http_pipe(
            "http1",
            links.between[0],
            Some(tls(&["h2"])),
            links.apps[0],
            false,
            None,
        ),
        http_pipe(
            "http2",
            links.between[1],
            Some(tls(&["h2"])),
            links.apps[1],
            true,
            None,
        ),
        tcp_pipe(links.between[2], Some(tls(&[])), links.apps[2], None),
    ])
}

fn bootstrap(pipes: [(Value, Value); 3]) -> Value {
    let (listeners, clusters): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}})
}

fn common_tls(certificates: &Certificates, role: &str, alpn: &[&str]) -> Value {
    let file = |name: &str| json!({"filename": certificates.path(name)});
    json!({
        // Suites of TLS 1.3 cannot be chosen in Envoy; with AES in hardware it takes the pinned one by itself.
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": [super::KEY_EXCHANGE],
        },
        "tls_certificates": [{
            "certificate_chain": file(&format!("{role}/cert.pem")),
            "private_key": file(&format!("{role}/key.pem")),
        }],
        "validation_context": {"trusted_ca": file("ca.pem")},
        "alpn_protocols": alpn,
    })
}

fn socket(kind: &str, config: &Value) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": typed(kind, config)})
}

/// A listener for HTTP of any version, and the cluster that it leads to.
fn http_pipe(
    name: &str,
    listen: SocketAddr,
    listen_tls: Option<Value>,
    to: SocketAddr,
    to_http2: bool,
    to_tls: Option<Value>,
) -> (Value, Value) {
    let route = json!({
        "name": name,
        "virtual_hosts": [{
            "name": name,
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}],
        }],
    });
    let manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        &json!({
            "stat_prefix": name,
            "route_config": route,
            "stream_idle_timeout": "0s",
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": typed("envoy.extensions.filters.http.router.v3.Router", &json!({})),
            }],
        }),
    );
    let filter =
        json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    let mut cluster = cluster(name, to, to_tls);
    if to_http2 {
        let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let options = json!({"explicit_http_config": {"http2_protocol_options": {}}});
        cluster["typed_extension_protocol_options"] = json!({kind: typed(kind, &options)});
    }
    (listener(name, listen, listen_tls, &filter), cluster)
}

/// A listener for bytes, and the cluster that it leads to.
fn tcp_pipe(
    listen: SocketAddr,
    listen_tls: Option<Value>,
    to: SocketAddr,
    to_tls: Option<Value>,
) -> (Value, Value) {
    let proxy = json!({"stat_prefix": "tcp", "cluster": "tcp", "idle_timeout": "0s"});
    let filter = json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", &proxy),
    });
    (
        listener("tcp", listen, listen_tls, &filter),
        cluster("tcp", to, to_tls),
    )
}

fn listener(name: &str, address: SocketAddr, tls: Option<Value>, filter: &Value) -> Value {
    let mut chain = json!({"filters": [filter]});
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({"name": name, "address": socket_address(address), "filter_chains": [chain]})
}

fn cluster(name: &str, to: SocketAddr, tls: Option<Value>) -> Value {
    let endpoint = json!({"endpoint": {"address": socket_address(to)}});
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        // Its defaults refuse what comes beyond 1,024 at once.
        "circuit_breakers": {"thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        }]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls;
    }
    cluster
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn typed(kind: &str, config: &Value) -> Value {
    let mut config = config.clone();
    config["@type"] = format!("type.googleapis.com/{kind}").into();
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_verify_and_speak_the_pinned_cryptography() {
        let links = Links::example();
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::make(folder.path()).unwrap();
        let [near, far] = [client(&links, &certificates), server(&links, &certificates)];
        for config in [&near, &far] {
            let text = config.to_string();
            assert_eq!(
                text.matches(r#""ecdh_curves":["X25519"]"#).count(),
                3,
                "{text}"
            );
            assert_eq!(text.matches("trusted_ca").count(), 3);
        }
        assert_eq!(
            near.to_string().matches(r#""exact":"server.test""#).count(),
            3
        );
        let required = r#""require_client_certificate":true"#;
        assert_eq!(far.to_string().matches(required).count(), 3);
    }
}
