//! `mesh token --stock-proxy`: everything a stock linkerd2-proxy is started with, for one workload of the manifests.
//!
//! A proxy of ours makes its key in memory. A stock one reads its key, the request for its certificate and its token
//! from files, and all else from its environment.

mod environment;
mod folder;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use mesh_control_api::JoinToken;
use mesh_control_api::admin::Workload;
use mesh_tls::{Identity, LeafKey};

use self::environment::Environment;
use self::folder::NewFolder;
use crate::admin::Admin;
use crate::args::StockProxy;
use crate::output::Output;
use crate::token::left;
use crate::{Error, data};

pub(crate) async fn run(options: StockProxy) -> Result<ExitCode, Error> {
    // Without a subcommand, the command line has both.
    let (folder, wanted) = options.folder.zip(options.workload).unwrap_or_default();
    let admin = Admin::connect(&data::find(options.data.data)?).await?;
    let workload = find(admin.workloads().await?, &wanted)?;
    let status = admin.status().await?;
    let refused = |reason: String| Error::StockProxy {
        subject: wanted.clone(),
        reason,
    };
    let identity =
        Identity::parse(&workload.identity).map_err(|error| refused(error.to_string()))?;
    if identity.is_spiffe() {
        return Err(refused(format!(
            "its identity is {identity}, which a linkerd2-proxy proves by a SPIFFE agent alone, without a token; give the workload a \
             name as identity"
        )));
    }
    let key = LeafKey::generate().map_err(|error| refused(error.to_string()))?;
    let csr = key
        .csr(&identity)
        .map_err(|error| refused(error.to_string()))?;

    let folder = NewFolder::at(&folder)?;
    let lifetime = options.lifetime.unwrap_or(TOKEN_LIFETIME);
    let issued = admin
        .issue_token(identity.as_str(), Some(lifetime), options.controller)
        .await?;
    let token = JoinToken::parse(&issued.token).map_err(|error| refused(error.to_string()))?;
    let environment = Environment::new(
        folder.path(),
        &workload,
        &status,
        &token,
        &issued.bundle_pem,
    )?;

    folder.write_private("key.p8", key.to_pkcs8_der().secret_pkcs8_der())?;
    folder.write_private("csr.der", &csr)?;
    folder.write_private("token", issued.token.as_bytes())?;
    folder.write_public("trust-anchors.pem", issued.bundle_pem.as_bytes())?;
    let text = environment.to_text();
    folder.write_private("proxy.env", text.as_bytes())?;

    // Only the variables on standard output, so that they can be put into a file of another kind.
    let mut output = Output::new();
    output.line(text.trim_end());
    let path = folder.path().display();
    eprintln!(
        "{path} is ready for {identity}; the folder must be readable by the user whom the proxy runs as, and by nobody else\n\
         start it:  (set -a; . {path}/proxy.env; exec linkerd2-proxy)   or in a systemd unit: EnvironmentFile={path}/proxy.env\n\
         token {}: good for {}; the proxy needs one whenever it starts. Renew it: mesh token create --identity {identity} > {path}/token",
        issued.id,
        left(issued.expires_at, SystemTime::now()),
    );
    Ok(ExitCode::SUCCESS)
}

/// The workload that is meant, if a stock proxy can stand before it.
fn find(workloads: Vec<Workload>, wanted: &str) -> Result<Workload, Error> {
    let refused = |reason: String| Error::StockProxy {
        subject: wanted.to_owned(),
        reason,
    };
    let (namespace, name) = wanted
        .split_once('/')
        .unwrap_or((DEFAULT_NAMESPACE, wanted));
    let workload = workloads
        .into_iter()
        .find(|workload| workload.namespace == namespace && workload.name == name)
        .ok_or_else(|| {
            refused(format!(
                "the manifests have no Workload {name} in the namespace {namespace}"
            ))
        })?;
    if workload.identity.is_empty() {
        return Err(refused(
            "the Workload is not meshed; write `meshed: true` into its spec".to_owned(),
        ));
    }
    if let Some(port) = workload.ports.iter().find(|port| port.mesh_port != 0) {
        return Err(refused(format!(
            "its port {} has meshPort {}, and a linkerd2-proxy has no listener for each port; take out meshPort, write \
             `meshed: true`, and redirect the port to {}",
            port.port,
            port.mesh_port,
            environment::INBOUND_PORT
        )));
    }
    Ok(workload)
}

const DEFAULT_NAMESPACE: &str = "default";
/// The token lies beside the key, which does not expire, and is needed at each start.
const TOKEN_LIFETIME: Duration = Duration::from_hours(30 * 24);

#[cfg(test)]
mod tests {
    use mesh_control_api::admin::WorkloadPort;

    use super::*;

    fn workload(identity: &str, mesh_port: u32) -> Workload {
        Workload {
            namespace: "default".into(),
            name: "web-1".into(),
            identity: identity.into(),
            ports: vec![WorkloadPort {
                port: 8080,
                mesh_port,
                ..WorkloadPort::default()
            }],
            ..Workload::default()
        }
    }

    #[test]
    fn a_workload_is_found_with_or_without_its_namespace() {
        let all = || vec![workload("web.example", 0)];
        assert_eq!(find(all(), "web-1").unwrap().name, "web-1");
        assert_eq!(find(all(), "default/web-1").unwrap().name, "web-1");
        for missing in ["web-2", "other/web-1"] {
            let error = find(all(), missing).unwrap_err().to_string();
            assert!(error.contains("have no Workload"), "{error}");
        }
    }

    #[test]
    fn what_no_stock_proxy_can_stand_before_is_refused() {
        let error = |workload| find(vec![workload], "web-1").unwrap_err().to_string();
        assert!(error(workload("", 0)).contains("`meshed: true`"));
        assert!(error(workload("web.example", 14143)).contains("take out meshPort"));
    }
}
