//! Looking at a running mesh.

use std::net::{IpAddr, TcpListener};
use std::path::Path;

use mesh_control_api::admin::{ManifestError, Service, Status, Token, Trust, Workload};

use super::balancers::{self, Balancer};
use super::findings::Finding;
use crate::Error;
use crate::admin::Admin;
use crate::data::Running;
use crate::probe::Probe;
use crate::up::Addresses;

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) status: Status,
    pub(super) trust: Trust,
    pub(super) manifest_errors: Vec<ManifestError>,
    pub(super) services: Vec<Service>,
    pub(super) workloads: Vec<Workload>,
    pub(super) tokens: Vec<Token>,
    /// The proxies of a `mesh up`: whose, and why it is not ready.
    pub(super) proxies: Vec<(String, Result<(), String>)>,
    /// What they tell of the endpoints of services.
    pub(super) balancers: Vec<(String, Vec<Balancer>)>,
}

/// Asks the controller and each proxy that is known.
pub(super) async fn look(admin: &Admin, data: &Path) -> Result<Seen, Error> {
    let mut seen = Seen {
        status: admin.status().await?,
        trust: admin.trust().await?,
        manifest_errors: admin.manifest_errors().await?,
        services: admin.services().await?,
        workloads: admin.workloads().await?,
        tokens: admin.tokens().await?,
        proxies: Vec::new(),
        balancers: Vec::new(),
    };
    if let Some(running) = Running::read(data) {
        for (name, address) in running.proxies {
            let ready = if is_here(address.ip()) {
                Probe::Http {
                    address,
                    path: "/ready".to_owned(),
                }
                .ask()
                .await
            } else {
                // Whoever is there is not the one to ask.
                Err(format!(
                    "cannot be on {}, which is no address of this machine",
                    address.ip()
                ))
            };
            if ready.is_ok() {
                let told = balancers::look(address).await;
                seen.balancers.push((name.clone(), told));
            }
            seen.proxies.push((name, ready));
        }
    }
    Ok(seen)
}

/// Whether an address is this machine's: then something can listen on it. Nothing is sent.
fn is_here(address: IpAddr) -> bool {
    TcpListener::bind((address, 0)).is_ok()
}

/// What to say when nobody answers.
pub(super) fn no_controller(data: &Path, error: &Error) -> Finding {
    let advice = match (Running::read(data), Addresses::read(data)) {
        (Some(running), _) => format!(
            "`mesh up` (process {}) runs and starts it again; see what it prints",
            running.pid
        ),
        (None, Some(_)) => format!(
            "it was started and is gone; run `mesh up --data {0}` or mesh-controller --data {0}",
            data.display()
        ),
        (None, None) => format!(
            "no controller was ever started in {}; is it the right --data?",
            data.display()
        ),
    };
    Finding::bad("controller", error.to_string(), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_machine_is_told_without_asking_there() {
        assert!(is_here([127, 0, 0, 1].into()));
        // Of a network that documentation alone uses (RFC 5737).
        assert!(!is_here([192, 0, 2, 1].into()));
    }
}
