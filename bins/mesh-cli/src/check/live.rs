//! Looking at a running mesh.

use std::path::Path;

use mesh_control_api::admin::{ManifestError, Service, Status, Token, Workload};

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
    pub(super) manifest_errors: Vec<ManifestError>,
    pub(super) services: Vec<Service>,
    pub(super) workloads: Vec<Workload>,
    pub(super) tokens: Vec<Token>,
    /// The proxies of a `mesh up`: whose, and why it is not ready.
    pub(super) proxies: Vec<(String, Result<(), String>)>,
}

/// Asks the controller and each proxy that is known.
pub(super) async fn look(admin: &Admin, data: &Path) -> Result<Seen, Error> {
    let mut seen = Seen {
        status: admin.status().await?,
        manifest_errors: admin.manifest_errors().await?,
        services: admin.services().await?,
        workloads: admin.workloads().await?,
        tokens: admin.tokens().await?,
        proxies: Vec::new(),
    };
    if let Some(running) = Running::read(data) {
        for (name, address) in running.proxies {
            let ready = Probe::Http {
                address,
                path: "/ready".to_owned(),
            }
            .ask()
            .await;
            seen.proxies.push((name, ready));
        }
    }
    Ok(seen)
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
