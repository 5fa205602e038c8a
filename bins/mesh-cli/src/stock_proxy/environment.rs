//! The variables of a stock proxy.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use mesh_control_api::JoinToken;
use mesh_control_api::admin::{Status, Workload};

use crate::Error;

/// Where a stock proxy takes what is redirected from the network.
pub(super) const INBOUND_PORT: u16 = 4143;

/// Variables in the order in which they are written, without the `LINKERD2_PROXY_` that each begins with.
#[derive(Debug)]
pub(super) struct Environment {
    variables: Vec<(&'static str, String)>,
}

impl Environment {
    /// The variables of the proxy before `workload`.
    ///
    /// # Errors
    /// When a value cannot be written so that every reader takes it as it is, or the controller is one that a stock proxy
    /// cannot talk to.
    pub(super) fn new(
        folder: &Path,
        workload: &Workload,
        status: &Status,
        token: &JoinToken,
        anchors: &str,
    ) -> Result<Self, Error> {
        let controller = &token.controller_address;
        let plaintext = is_loopback(controller);
        let serves_tls = |listener: &&mesh_control_api::admin::Listener| {
            listener.address == *controller && listener.tls
        };
        if plaintext
            && status
                .listeners
                .iter()
                .any(|listener| serves_tls(&listener))
        {
            return Err(Error::StockProxy {
                subject: controller.clone(),
                reason: "the controller speaks TLS there, and a linkerd2-proxy speaks none to loopback addresses; \
                         start the controller without `--tls always`, or name another of its addresses with --controller"
                    .to_owned(),
            });
        }
        let subject = format!(
            r#"{{"ns":{},"pod":{}}}"#,
            serde_json::Value::from(workload.namespace.as_str()),
            serde_json::Value::from(workload.name.as_str())
        );
        let ipv6 = workload
            .addresses
            .iter()
            .any(|address| address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()));
        let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let ports = |chosen: fn(&str) -> bool| {
            let of = workload.ports.iter().filter(|port| chosen(&port.protocol));
            let numbers: Vec<String> = of.map(|port| port.port.to_string()).collect();
            numbers.join(",")
        };

        let mut variables = Vec::new();
        for (address, name) in [
            ("DESTINATION_SVC_ADDR", "DESTINATION_SVC_NAME"),
            ("POLICY_SVC_ADDR", "POLICY_SVC_NAME"),
            ("IDENTITY_SVC_ADDR", "IDENTITY_SVC_NAME"),
        ] {
            variables.push((address, controller.clone()));
            if !plaintext {
                variables.push((name, token.controller_name.clone()));
            }
        }
        variables.extend([
            ("POLICY_WORKLOAD", subject.clone()),
            ("DESTINATION_CONTEXT", subject),
            // All of them are asked about; where the controller knows nothing, connections go where they were meant to.
            ("DESTINATION_PROFILE_NETWORKS", "0.0.0.0/0,::/0".to_owned()),
            (
                "DESTINATION_PROFILE_SUFFIXES",
                format!("svc.{}.", status.cluster_domain),
            ),
            ("IDENTITY_LOCAL_NAME", token.identity.clone()),
            ("IDENTITY_DIR", folder.to_string_lossy().into_owned()),
            ("IDENTITY_TOKEN_FILE", file("token")),
            ("IDENTITY_TRUST_ANCHORS", anchors.to_owned()),
            (
                "INBOUND_LISTEN_ADDR",
                format!("{}:{INBOUND_PORT}", if ipv6 { "[::]" } else { "0.0.0.0" }),
            ),
            (
                "OUTBOUND_LISTEN_ADDRS",
                if ipv6 {
                    "127.0.0.1:4140,[::1]:4140"
                } else {
                    "127.0.0.1:4140"
                }
                .to_owned(),
            ),
            ("ADMIN_LISTEN_ADDR", "127.0.0.1:4191".to_owned()),
            (
                "INBOUND_DEFAULT_POLICY",
                status.default_inbound_policy.clone(),
            ),
            ("POLICY_CLUSTER_NETWORKS", CLUSTER_NETWORKS.to_owned()),
        ]);
        // Empty lists are no addresses to a stock proxy, but an error.
        if !workload.addresses.is_empty() {
            variables.push(("INBOUND_IPS", workload.addresses.join(",")));
        }
        variables.extend([
            ("INBOUND_PORTS", ports(|_| true)),
            (
                "INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION",
                ports(|protocol| matches!(protocol, "opaque" | "tls")),
            ),
            ("LOG", "warn,linkerd=info".to_owned()),
        ]);
        for (name, value) in &variables {
            check(folder, name, value)?;
        }
        Ok(Self { variables })
    }

    /// Assignments that a POSIX shell and systemd's `EnvironmentFile=` read alike: what stands in single quotes is taken as
    /// it is, line breaks included.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.variables {
            let _ = writeln!(text, "LINKERD2_PROXY_{name}='{}'", value.trim_end());
        }
        text
    }
}

/// Whether variables can name `folder`.
///
/// # Errors
/// When its name cannot be written so that every reader takes it as it is.
pub(super) fn check_folder(folder: &Path) -> Result<(), Error> {
    check(folder, "IDENTITY_DIR", &folder.to_string_lossy())
}

fn check(folder: &Path, name: &str, value: &str) -> Result<(), Error> {
    let is_plain = !value.contains(['\'', '\0', '\r', '\\'])
        && (!value.contains('\n') || name == "IDENTITY_TRUST_ANCHORS");
    if is_plain {
        return Ok(());
    }
    Err(Error::StockProxy {
        subject: folder.display().to_string(),
        reason: format!(
            "LINKERD2_PROXY_{name} would be {value:?}, which not every reader of environment files takes as it is; \
             choose a folder without quotes, backslashes and line breaks in its name"
        ),
    })
}

/// Whether a stock proxy takes the address for one of its own host, to which it speaks plaintext.
fn is_loopback(address: &str) -> bool {
    address
        .parse::<SocketAddr>()
        .is_ok_and(|address| address.ip().is_loopback())
        || address.rsplit_once(':').is_some_and(|(host, _)| {
            host.eq_ignore_ascii_case("localhost") || host.eq_ignore_ascii_case("localhost.")
        })
}

/// Linkerd's default, and this host: what the policies named `cluster-` let in.
const CLUSTER_NETWORKS: &str =
    "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8,127.0.0.0/8,::1/128";

#[cfg(test)]
mod tests {
    use std::process::Command;

    use mesh_control_api::TokenSecret;
    use mesh_control_api::admin::{Listener, WorkloadPort};

    use super::*;

    const ANCHORS: &str = "-----BEGIN CERTIFICATE-----\nMIIB+/=\n-----END CERTIFICATE-----\n";

    fn token(controller: &str) -> JoinToken {
        JoinToken {
            controller_address: controller.into(),
            controller_name: "controller.example".into(),
            bundle_digest: "sha256:00".into(),
            identity: "web.example".into(),
            id: "t1".into(),
            secret: TokenSecret::from_random([7; 32]),
        }
    }

    fn environment(folder: &str, controller: &str, tls: bool) -> Result<Environment, Error> {
        let port = |port, protocol: &str| WorkloadPort {
            port,
            protocol: protocol.into(),
            ..WorkloadPort::default()
        };
        let workload = Workload {
            namespace: "shop".into(),
            name: "web-1".into(),
            identity: "web.example".into(),
            addresses: vec!["10.0.0.2".into()],
            ports: vec![port(8080, "http"), port(6379, "opaque")],
            ..Workload::default()
        };
        let status = Status {
            default_inbound_policy: "all-authenticated".into(),
            cluster_domain: "mesh.test".into(),
            listeners: vec![Listener {
                address: controller.into(),
                tls,
            }],
            ..Status::default()
        };
        Environment::new(
            Path::new(folder),
            &workload,
            &status,
            &token(controller),
            ANCHORS,
        )
    }

    fn value<'a>(environment: &'a Environment, name: &str) -> Option<&'a str> {
        let found = environment.variables.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_controller_elsewhere_is_named_and_one_on_this_host_is_not() {
        let remote = environment("/p", "10.0.0.1:8443", true).unwrap();
        for service in ["DESTINATION", "POLICY", "IDENTITY"] {
            let of = |part| value(&remote, &format!("{service}_SVC_{part}"));
            assert_eq!(of("ADDR"), Some("10.0.0.1:8443"));
            assert_eq!(of("NAME"), Some("controller.example"));
        }
        for local in ["127.0.0.1:8086", "[::1]:8086", "localhost:8086"] {
            let local = environment("/p", local, false).unwrap();
            assert_eq!(value(&local, "IDENTITY_SVC_NAME"), None);
        }
        let error = environment("/p", "127.0.0.1:8086", true).unwrap_err();
        assert!(error.to_string().contains("--tls always"), "{error}");
    }

    #[test]
    fn the_workload_is_described_as_the_manifests_have_it() {
        let found = environment("/p", "10.0.0.1:8443", true).unwrap();
        for (name, expected) in [
            ("POLICY_WORKLOAD", r#"{"ns":"shop","pod":"web-1"}"#),
            ("DESTINATION_CONTEXT", r#"{"ns":"shop","pod":"web-1"}"#),
            ("IDENTITY_LOCAL_NAME", "web.example"),
            ("INBOUND_IPS", "10.0.0.2"),
            ("INBOUND_PORTS", "8080,6379"),
            ("INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", "6379"),
            ("INBOUND_DEFAULT_POLICY", "all-authenticated"),
            ("DESTINATION_PROFILE_SUFFIXES", "svc.mesh.test."),
        ] {
            assert_eq!(value(&found, name), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_shell_reads_each_value_as_it_was_written() {
        let environment = environment("/a folder/$HOME `x`", "10.0.0.1:8443", true).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy.env");
        std::fs::write(&file, environment.to_text()).unwrap();
        let read = Command::new("sh")
            .args(["-c", "set -a; . \"$0\"; exec env -0"])
            .arg(&file)
            .env_clear()
            .output()
            .unwrap();
        let read = String::from_utf8(read.stdout).unwrap();
        let read: Vec<&str> = read.split('\0').collect();
        for (name, value) in &environment.variables {
            let line = format!("LINKERD2_PROXY_{name}={}", value.trim_end());
            assert!(read.contains(&line.as_str()), "{line} is not in {read:?}");
        }
    }

    #[test]
    fn what_readers_take_differently_is_refused() {
        for folder in ["/it's", "/a\nb", "/a\\b"] {
            let error = environment(folder, "10.0.0.1:8443", true).unwrap_err();
            assert!(error.to_string().contains("choose a folder"), "{error}");
        }
    }

    #[test]
    fn no_value_is_secret() {
        let secret = token("10.0.0.1:8443").to_text();
        let text = environment("/p", "10.0.0.1:8443", true).unwrap().to_text();
        assert!(!text.contains(&secret));
    }
}
