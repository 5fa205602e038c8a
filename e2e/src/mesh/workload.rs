//! A workload: a host, its proxy, and what is declared of it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Program, identity, replace};
use crate::admin::Admin;
use crate::clock::Clock;
use crate::network::Host;
use crate::process::{PROXY_USER, Process};
use crate::{programs, stock};

const LEAF_EXPIRY: &str = "control_identity_cert_expiration_timestamp_seconds";
const ADMIN: &str = "http://127.0.0.1:4191";

/// A host with a proxy. Dropped, both end; its manifest stays.
#[derive(Debug)]
pub struct Workload {
    pub(super) name: String,
    pub(super) app: String,
    pub(super) ports: Vec<(u16, &'static str)>,
    pub(super) admin: Admin,
    pub(super) manifest: PathBuf,
    pub(super) program: Program,
    pub(super) folder: PathBuf,
    /// The host, to run the application on. It outlives the proxy.
    pub host: Host,
    /// The proxy's process.
    pub proxy: Process,
}

impl Workload {
    /// The identity that its proxy proves.
    #[must_use]
    pub fn identity(&self) -> String {
        identity(&self.name)
    }

    /// The folder with what its proxy is started with.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Declares the workload, so that it becomes an endpoint of the services that select it.
    ///
    /// # Panics
    /// If the controller does not take it in.
    pub fn publish(&self) {
        self.publish_as(&self.identity());
    }

    /// Declares the workload anew, with another `app` label, so that the services of that label select it from now on.
    ///
    /// # Panics
    /// If the controller does not take it in.
    pub fn publish_for(&mut self, app: &str) {
        app.clone_into(&mut self.app);
        self.publish();
    }

    /// As [`Workload::publish`], with an identity that its proxy may not have.
    ///
    /// # Panics
    /// If the controller does not take it in.
    pub fn publish_as(&self, identity: &str) {
        replace(&self.manifest, &self.declaration(identity));
        self.admin.wait_workload(&self.name, Some(identity));
    }

    pub(super) fn declaration(&self, identity: &str) -> String {
        let Self {
            program,
            name,
            app,
            host,
            ports,
            ..
        } = self;
        declaration(*program, name, app, host, ports, identity)
    }

    /// Takes the declaration back.
    ///
    /// # Panics
    /// If the manifest is not there, or the controller does not notice.
    pub fn withdraw(&self) {
        std::fs::remove_file(&self.manifest)
            .unwrap_or_else(|error| panic!("{}: {error}", self.manifest.display()));
        self.admin.wait_workload(&self.name, None);
    }

    /// Waits until the proxy says that it is ready.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_ready(&mut self) {
        let host = &self.host;
        self.proxy
            .wait_until("it is ready", |_| answers_ready(host));
    }

    /// Whether the proxy says that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        answers_ready(&self.host)
    }

    /// When the leaf that the proxy uses now expires, in seconds since 1970, by its metrics.
    ///
    /// # Panics
    /// If its metrics do not tell.
    #[must_use]
    pub fn leaf_expiry(&self) -> u64 {
        let metrics = self.admin("/metrics");
        let line = metrics.lines().find(|line| line.starts_with(LEAF_EXPIRY));
        let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds since 1970"
        )]
        value.map_or_else(
            || panic!("no {LEAF_EXPIRY} in\n{metrics}"),
            |seconds| seconds as u64,
        )
    }

    /// Starts the proxy anew, after it has ended, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn restart_proxy(&mut self) {
        self.proxy = start_proxy(self.program, &self.host, &self.folder);
        self.wait_ready();
    }

    /// Starts the proxy anew, to live by that clock, and waits until it is ready.
    ///
    /// # Panics
    /// If it is not one of [`Program::Ours`], or does not become ready.
    pub fn restart_by(&mut self, clock: &Clock) {
        assert_eq!(self.program, Program::Ours);
        self.proxy.kill();
        self.proxy = start_own(&self.host, &self.folder, Some(clock));
        self.wait_ready();
    }

    /// What the proxy's admin server answers at `path`, such as `/metrics`.
    ///
    /// # Panics
    /// If it does not answer 200.
    #[must_use]
    pub fn admin(&self, path: &str) -> String {
        let answer = self
            .host
            .curl_as(PROXY_USER, &format!("{ADMIN}{path}"), &[]);
        assert_eq!(answer.status, 200, "{path} of {}: {answer:?}", self.name);
        answer.body
    }
}

fn answers_ready(host: &Host) -> bool {
    host.curl_as(PROXY_USER, &format!("{ADMIN}/ready"), &[])
        .status
        == 200
}

/// Where [`Program::Listeners`] listens for the mesh.
pub(super) fn mesh_port(port: u16) -> u16 {
    port + 10_000
}

pub(super) fn declaration(
    program: Program,
    name: &str,
    app: &str,
    host: &Host,
    ports: &[(u16, &str)],
    identity: &str,
) -> String {
    let mut manifest = format!(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: Workload\n\
         metadata: {{name: {name}, namespace: default, labels: {{app: {app}}}}}\n\
         spec:\n  identity: {identity}\n  meshed: true\n  addresses: [{}]\n",
        host.address()
    );
    if !ports.is_empty() {
        manifest.push_str("  ports:\n");
    }
    for (port, protocol) in ports {
        let _ = write!(
            manifest,
            "  - {{name: p{port}, port: {port}, protocol: {protocol}"
        );
        if program == Program::Listeners {
            let _ = write!(manifest, ", meshPort: {}", mesh_port(*port));
        }
        manifest.push_str("}\n");
    }
    manifest
}

pub(super) fn start_proxy(program: Program, host: &Host, folder: &Path) -> Process {
    if matches!(program, Program::Stock | Program::StandIn) {
        return stock::start(program, host, folder);
    }
    start_own(host, folder, None)
}

fn start_own(host: &Host, folder: &Path, clock: Option<&Clock>) -> Process {
    host.spawn(programs::built("mesh-proxy"))
        .by(clock)
        .arg("--config")
        .arg(folder.join("proxy.toml"))
        .user(PROXY_USER)
        .start()
}
