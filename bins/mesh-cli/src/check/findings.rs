//! From what was seen to what is wrong: a value in, a value out.

use std::time::{Duration, SystemTime};

use super::live::Seen;
use super::{balancers, trust};
use crate::error::count;
use crate::token::remaining;

/// A token that expires sooner is worth a word.
const TOKEN_SOON: Duration = Duration::from_secs(3_600);

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// What.
    pub(super) subject: String,
    /// How it is.
    pub(super) text: String,
    /// What to do, when something is wrong.
    pub(super) advice: Option<String>,
}

impl Finding {
    /// All well.
    pub(super) fn good(subject: &str, text: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            text: text.into(),
            advice: None,
        }
    }

    /// Something is wrong.
    pub(super) fn bad(subject: &str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            text: text.into(),
            advice: Some(advice.into()),
        }
    }
}

/// What is to be said about what was seen at `now`.
pub(super) fn findings(seen: &Seen, now: SystemTime) -> Vec<Finding> {
    let mut found = Vec::new();
    controller(seen, &mut found);
    manifests(seen, &mut found);
    trust::findings(&seen.status, &seen.trust, now, &mut found);
    services(seen, &mut found);
    workloads(seen, &mut found);
    proxies(seen, &mut found);
    tokens(seen, now, &mut found);
    found
}

fn controller(seen: &Seen, found: &mut Vec<Finding>) {
    let status = &seen.status;
    let addresses: Vec<_> = status
        .listeners
        .iter()
        .map(|listener| listener.address.clone())
        .collect();
    if status.ready {
        let text = format!(
            "{} on {}, {}",
            status.version,
            addresses.join(", "),
            count_u64(status.streams, "stream")
        );
        found.push(Finding::good("controller", text));
    }
    for reason in &status.not_ready {
        found.push(Finding::bad(
            "controller",
            format!("not ready: {reason}"),
            "see what it logs; it becomes ready by itself when this ends",
        ));
    }
    if !status.ready && status.not_ready.is_empty() {
        found.push(Finding::bad("controller", "not ready", "see what it logs"));
    }
}

fn manifests(seen: &Seen, found: &mut Vec<Finding>) {
    for error in &seen.manifest_errors {
        let line = if error.line == 0 {
            String::new()
        } else {
            format!(":{}", error.line)
        };
        let field = if error.field.is_empty() {
            String::new()
        } else {
            format!("{}: ", error.field)
        };
        let advice = if error.kept {
            "correct it; the resource counts without this, or as it was before"
        } else {
            "correct it; the resource does not count until then"
        };
        found.push(Finding::bad(
            "manifests",
            format!("{}{line}: {field}{}", error.file, error.reason),
            advice,
        ));
    }
    if seen.manifest_errors.is_empty() {
        let status = &seen.status;
        let text = format!(
            "{}, {}",
            count_u64(status.services, "service"),
            count_u64(status.workloads, "workload")
        );
        found.push(Finding::good("manifests", text));
    }
}

fn services(seen: &Seen, found: &mut Vec<Finding>) {
    for service in &seen.services {
        let name = format!("{}/{}", service.namespace, service.name);
        for port in &service.ports {
            if port.endpoints == 0 {
                let text = format!("{name} port {} has no endpoints", port.port);
                let advice = "compare its selector with the labels of workloads, and its targetPort with their ports";
                found.push(Finding::bad("service", text, advice));
            } else if port.meshed < port.endpoints {
                let plain = port.endpoints - port.meshed;
                let text = format!(
                    "{name} port {}: {plain} of {} without identity, so in plaintext",
                    port.port,
                    count_u64(port.endpoints, "endpoint")
                );
                found.push(Finding::bad(
                    "service",
                    text,
                    "give their workload ports a meshPort, and run a proxy there",
                ));
            }
        }
    }
}

fn workloads(seen: &Seen, found: &mut Vec<Finding>) {
    for workload in &seen.workloads {
        let name = format!("{}/{}", workload.namespace, workload.name);
        if !workload.ready {
            found.push(Finding::bad(
                "workload",
                format!("{name} is not ready"),
                "see why it says so where it runs",
            ));
        } else if workload.services.is_empty() {
            let advice =
                "fine if it only calls others; else give it the labels that a service selects";
            found.push(Finding::good(
                "workload",
                format!("{name} is in no service: {advice}"),
            ));
        }
    }
}

fn proxies(seen: &Seen, found: &mut Vec<Finding>) {
    for (name, ready) in &seen.proxies {
        if let Err(reason) = ready {
            let advice = "`mesh up --logs` shows what it prints";
            found.push(Finding::bad(
                "proxy",
                format!("{name}'s proxy {reason}"),
                advice,
            ));
        }
    }
    if !seen.proxies.is_empty() && seen.proxies.iter().all(|(_, ready)| ready.is_ok()) {
        found.push(Finding::good(
            "proxies",
            format!("all {} ready", seen.proxies.len()),
        ));
    }
    for (name, told) in &seen.balancers {
        balancers::findings(name, told, found);
    }
}

fn tokens(seen: &Seen, now: SystemTime, found: &mut Vec<Finding>) {
    let soon = |expires| remaining(expires, now).is_none_or(|left| left < TOKEN_SOON);
    let expiring = seen
        .tokens
        .iter()
        .filter(|token| soon(token.expires_at))
        .count();
    let text = match expiring {
        0 => count(seen.tokens.len(), "token"),
        _ => format!(
            "{}, {expiring} of them good for less than an hour",
            count(seen.tokens.len(), "token")
        ),
    };
    found.push(Finding::good("tokens", text));
}

fn count_u64(number: u64, noun: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

#[cfg(test)]
mod tests {
    use mesh_control_api::admin::{ManifestError, Service, ServicePort, Status, Workload};

    use super::*;

    fn sound(now: SystemTime) -> Seen {
        let year = Some((now + Duration::from_secs(365 * 86_400)).into());
        Seen {
            status: Status {
                ready: true,
                anchor_expires_at: year,
                issuer_expires_at: year,
                ..Status::default()
            },
            ..Seen::default()
        }
    }

    fn wrong(seen: &Seen, now: SystemTime) -> Vec<String> {
        findings(seen, now)
            .into_iter()
            .filter(|finding| finding.advice.is_some())
            .map(|finding| finding.text)
            .collect()
    }

    #[test]
    fn a_sound_mesh_has_no_problem() {
        let now = SystemTime::now();
        assert_eq!(wrong(&sound(now), now), Vec::<String>::new());
    }

    #[test]
    fn each_problem_is_found() {
        let now = SystemTime::now();
        let mut seen = sound(now);
        seen.status.ready = false;
        seen.status.not_ready = vec!["the store is locked".into()];
        seen.status.issuer_expires_at = Some((now + Duration::from_secs(3 * 86_400)).into());
        seen.status.anchor_expires_at = Some((now - Duration::from_secs(1)).into());
        seen.manifest_errors = vec![ManifestError {
            file: "web.yaml".into(),
            line: 7,
            field: "spec.ports[0].port".into(),
            reason: "`eighty` is not a port".into(),
            kept: false,
        }];
        let port = |endpoints, meshed| ServicePort {
            port: 80,
            endpoints,
            meshed,
            ..ServicePort::default()
        };
        seen.services = vec![Service {
            namespace: "default".into(),
            name: "web".into(),
            ports: vec![port(0, 0), port(2, 1), port(2, 2)],
            ..Service::default()
        }];
        seen.workloads = vec![Workload {
            namespace: "default".into(),
            name: "web-1".into(),
            ..Workload::default()
        }];
        seen.proxies = vec![
            (
                "web-1".into(),
                Err("answers /ready with 503 no certificate".into()),
            ),
            ("web-2".into(), Ok(())),
        ];

        assert_eq!(
            wrong(&seen, now),
            [
                "not ready: the store is locked",
                "web.yaml:7: spec.ports[0].port: `eighty` is not a port",
                "has expired: nobody trusts new certificates",
                "ends in 3 d",
                "default/web port 80 has no endpoints",
                "default/web port 80: 1 of 2 endpoints without identity, so in plaintext",
                "default/web-1 is not ready",
                "web-1's proxy answers /ready with 503 no certificate",
            ]
        );
    }
}
