//! A controller, and a mesh-proxy for each client, told `PenaltyPeakEwma` with its published defaults and a unified breaker. The
//! endpoints are not meshed themselves: what is looked at is what a client's proxy chooses.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::server::Server;
use super::through::{PATIENCE, Process, found, free_address, listens};
use crate::args::Limits;
use crate::error::Error;

#[derive(Debug)]
pub(super) struct Mesh {
    folder: tempfile::TempDir,
    proxy: PathBuf,
    cli: PathBuf,
    control: SocketAddr,
    pub(super) processes: Vec<Process>,
}

impl Mesh {
    pub(super) async fn start(servers: &[Arc<Server>], arguments: &Limits) -> Result<Self, Error> {
        let remedy = "build it: cargo build --release, or name it";
        let proxy = found(arguments.proxy.as_ref(), "mesh-proxy", remedy)?;
        let controller = found(arguments.controller.as_ref(), "mesh-controller", remedy)?;
        let cli = found(arguments.cli.as_ref(), "mesh", remedy)?;
        let folder = tempfile::tempdir().map_err(Error::io("no folder"))?;
        let manifests = folder.path().join("manifests");
        std::fs::create_dir_all(&manifests).map_err(file(&manifests))?;
        let path = manifests.join("mesh.yaml");
        std::fs::write(&path, mesh(servers)).map_err(file(&path))?;
        let control = free_address()?;
        let data = folder.path().join("data");
        let process = Process::start(
            Command::new(&controller)
                .arg("--data")
                .arg(&data)
                .arg("--manifests")
                .arg(&manifests)
                .args(["--listen", &control.to_string(), "--admin", "127.0.0.1:0"]),
        )?;
        listens(control, &controller).await?;
        let mesh = Self {
            folder,
            proxy,
            cli,
            control,
            processes: vec![process],
        };
        mesh.becomes("the controller's anchors", || {
            data.join("anchors.pem").exists()
        })
        .await?;
        mesh.becomes("the controller's address", || {
            data.join("controller.json").exists()
        })
        .await?;
        Ok(mesh)
    }

    /// Starts the proxy of a client, and says where it listens for the service.
    pub(super) async fn proxy(&mut self, number: usize) -> Result<(SocketAddr, Process), Error> {
        let data = self.folder.path().join("data");
        let name = format!("client-{number}");
        let identity = format!("{name}.default.serviceaccount.identity.linkerd.cluster.local");
        let token = Command::new(&self.cli)
            .args(["token", "create", "--identity", &identity, "--data"])
            .arg(&data)
            .output()
            .map_err(|source| Error::Program {
                program: self.cli.display().to_string(),
                source,
            })?;
        if !token.status.success() {
            return Err(Error::Ended {
                program: format!("{} token create", self.cli.display()),
                status: token.status.to_string(),
                said: String::from_utf8_lossy(&token.stderr).into_owned(),
            });
        }
        let token_file = self.folder.path().join(format!("{name}.token"));
        std::fs::write(&token_file, &token.stdout).map_err(file(&token_file))?;
        let (listen, admin) = (free_address()?, free_address()?);
        let config = format!(
            "[identity]\nname = \"{identity}\"\ntrust_anchors_file = \"{}\"\ntoken_file = \"{}\"\n\n\
             [control]\naddress = \"{}\"\nworkload = '{{\"ns\":\"default\",\"pod\":\"{name}\"}}'\n\n\
             [inbound]\nports = []\n\n\
             [outbound]\nservices = [{{ listen = \"{listen}\", authority = \"web.default.svc.cluster.local:80\" }}]\n\n\
             [limits]\nworkers = 1\n\n[admin]\nlisten = \"{admin}\"\n",
            data.join("anchors.pem").display(),
            token_file.display(),
            self.control,
        );
        let path = self.folder.path().join(format!("{name}.toml"));
        std::fs::write(&path, config).map_err(file(&path))?;
        let process = Process::start(Command::new(&self.proxy).arg("--config").arg(&path))?;
        listens(listen, &self.proxy).await?;
        Ok((listen, process))
    }

    async fn becomes(&self, what: &str, is_so: impl Fn() -> bool) -> Result<(), Error> {
        let began = Instant::now();
        while !is_so() {
            if began.elapsed() > PATIENCE {
                return Err(Error::NotInTime {
                    what: what.to_owned(),
                    limit: PATIENCE,
                    said: String::new(),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::File { path, source }
}

/// The service with its settings, and a workload for each endpoint.
fn mesh(servers: &[Arc<Server>]) -> String {
    let mut text = String::from(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\n\
         spec: {trustDomain: cluster.local}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: default\n  annotations:\n    \
         balancer.linkerd.io/failure-accrual: unified\n    \
         balancer.alpha.linkerd.io/penalize-failures: \"true\"\n\
         spec:\n  selector: {app: web}\n  ports:\n  - {name: http, port: 80, targetPort: http}\n",
    );
    for (number, server) in servers.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: mesh-rs.io/v1alpha1\nkind: Workload\n\
             metadata: {{name: web-{number}, namespace: default, labels: {{app: web}}}}\n\
             spec:\n  serviceAccount: web\n  addresses: [{}]\n  \
             ports: [{{name: http, port: {}, protocol: http}}]\n",
            server.address.ip(),
            server.address.port(),
        );
    }
    text
}
