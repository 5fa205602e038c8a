//! A mesh on a network: a controller on a host of its own, reached over mTLS with join tokens, and workloads whose proxies
//! catch their traffic by redirect.

mod several;
mod trust;
mod workload;

pub use several::ETCD;
pub use workload::Workload;
use workload::{declaration, mesh_port, start_proxy};

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::admin::Admin;
use crate::clock::Clock;
use crate::network::{Host, Network};
use crate::process::Process;
use crate::programs;
use crate::redirect::Redirect;
use crate::requirement::Requirement;
use crate::stock;

/// What a test with a mesh needs.
pub const MESH: [Requirement; 8] = [
    Requirement::Built("mesh-controller"),
    Requirement::Built("mesh-proxy"),
    Requirement::Built("e2e-app"),
    Requirement::Built("e2e-load"),
    Requirement::Built("e2e-member"),
    Requirement::Built("e2e-impostor"),
    Requirement::Program("nft"),
    Requirement::Program("curl"),
];

pub(crate) const CONTROLLER_PORT: u16 = 8086;

/// The program that is the proxy of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `mesh-proxy`, from a file of its own settings.
    Ours,
    /// The same, without redirect of what arrives: it listens on a mesh port for each port.
    Listeners,
    /// A stock linkerd2-proxy, from what `mesh token --stock-proxy` wrote.
    Stock,
    /// `mesh-proxy`, from what `mesh token --stock-proxy` wrote.
    StandIn,
}

/// A controller and the folder of manifests it follows. Every service and workload is in the namespace `default`.
#[derive(Debug)]
pub struct Mesh<'n> {
    network: &'n Network,
    folder: TempDir,
    host: Host,
    admin: Admin,
    controller: Process,
    /// Those beside the first, where several share an etcd.
    several: Option<several::Several>,
    services: Cell<u8>,
    tokens: RefCell<Vec<String>>,
}

impl<'n> Mesh<'n> {
    /// Starts a controller. `spec` is the `MeshConfig`'s, as lines of YAML; empty for the defaults.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn start(network: &'n Network, spec: &str) -> Self {
        let folder = folder_with(spec);
        let host = network.host("controller");
        let controller = start_controller(&host, folder.path(), None);
        let admin = Admin::new(&folder.path().join("data"));
        Self {
            network,
            folder,
            host,
            admin,
            controller,
            several: None,
            services: Cell::new(0),
            tokens: RefCell::default(),
        }
    }

    /// The controller's host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The token that was made last; empty if none was.
    #[must_use]
    pub fn last_token(&self) -> String {
        self.tokens.borrow().last().cloned().unwrap_or_default()
    }

    /// Declares a workload of another mesh in this one.
    ///
    /// # Panics
    /// If the controller does not take it in.
    pub fn declare(&self, workload: &Workload) {
        replace(
            &self.manifest("workload", &workload.name),
            &workload.declaration(&workload.identity()),
        );
        self.admin
            .wait_workload(&workload.name, Some(&workload.identity()));
    }

    /// A file in the controller's data folder.
    #[must_use]
    pub fn data(&self, file: &str) -> PathBuf {
        self.folder.path().join("data").join(file)
    }

    /// The controller's process, to be killed.
    pub fn controller(&mut self) -> &mut Process {
        &mut self.controller
    }

    /// Starts the controller anew on its old data, after it has ended.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn restart_controller(&mut self) {
        self.controller = start_controller(&self.host, self.folder.path(), None);
    }

    /// Ends the controller and starts it anew on its old data, to live by that clock.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn restart_controller_by(&mut self, clock: &Clock) {
        self.controller.kill();
        self.controller = start_controller(&self.host, self.folder.path(), Some(clock));
    }

    /// Declares a service of the workloads of that `app` label, and gives its own address. The protocol is `http`, `grpc` or
    /// `opaque`; callers and workloads use the same ports.
    ///
    /// # Panics
    /// If the controller does not take it in.
    pub fn service(&self, app: &str, ports: &[(u16, &str)]) -> Ipv4Addr {
        self.services.set(self.services.get() + 1);
        let address = Ipv4Addr::new(10, 78, 0, self.services.get());
        self.service_at(address, app, ports, &[]);
        address
    }

    /// Declares a service at that address, or changes the one there is.
    ///
    /// # Panics
    /// If the controller does not take it in.
    pub fn service_at(
        &self,
        address: Ipv4Addr,
        app: &str,
        ports: &[(u16, &str)],
        annotations: &[(&str, &str)],
    ) {
        let mut manifest = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {app}\n  namespace: default\n  annotations: {{"
        );
        for (name, value) in annotations {
            let _ = write!(manifest, "{name}: '{value}', ");
        }
        let _ = write!(
            manifest,
            "}}\nspec:\n  clusterIP: {address}\n  selector: {{app: {app}}}\n  ports:\n"
        );
        for (port, protocol) in ports {
            let _ = writeln!(
                manifest,
                "  - {{name: p{port}, port: {port}, appProtocol: {protocol}}}"
            );
        }
        replace(&self.manifest("service", app), &manifest);
        self.admin.wait_service(app);
    }

    /// A new host with a proxy that is ready. It is not an endpoint until [`Workload::publish`].
    ///
    /// # Panics
    /// If the proxy does not become ready.
    #[must_use]
    pub fn workload(&self, name: &str, app: &str, ports: &[(u16, &'static str)]) -> Workload {
        let mut workload = self.joining(name, app, ports);
        workload.wait_ready();
        workload
    }

    /// As [`Mesh::workload`], with a proxy that has only just started.
    ///
    /// # Panics
    /// If its files cannot be written, or no token can be had.
    #[must_use]
    pub fn joining(&self, name: &str, app: &str, ports: &[(u16, &'static str)]) -> Workload {
        self.joining_as(name, app, ports, &identity(name))
    }

    /// As [`Mesh::joining`], with a token for another identity than the one the proxy claims.
    ///
    /// # Panics
    /// If its files cannot be written, or no token can be had.
    #[must_use]
    pub fn joining_as(
        &self,
        name: &str,
        app: &str,
        ports: &[(u16, &'static str)],
        proven: &str,
    ) -> Workload {
        self.ours(Program::Ours, name, app, ports, proven)
    }

    fn ours(
        &self,
        program: Program,
        name: &str,
        app: &str,
        ports: &[(u16, &'static str)],
        proven: &str,
    ) -> Workload {
        let host = self.network.host(name);
        let redirected = program == Program::Ours;
        let inbound = if redirected {
            "listen = \"0.0.0.0:4143\"".to_owned()
        } else {
            let listeners: Vec<String> = ports
                .iter()
                .map(|(port, _)| {
                    format!(
                        "{{listen = \"0.0.0.0:{}\", app = \"127.0.0.1:{port}\"}}",
                        mesh_port(*port)
                    )
                })
                .collect();
            format!("ports = [{}]", listeners.join(", "))
        };
        let folder = self.folder.path().join(name);
        let token = self.token(proven);
        let anchors = self.folder.path().join("data/anchors.pem");
        let bundle_key = self.folder.path().join("data/bundle-key.pub");
        let config = format!(
            "[identity]\nname = \"{identity}\"\ntrust_anchors_file = \"{anchors}\"\nbundle_key_file = \"{bundle_key}\"\ntoken_file = \"{folder}/token\"\n\n\
             [control]\naddress = {controller}\nname = \"{controller_name}\"\n\
             workload = '{{\"ns\":\"default\",\"pod\":\"{name}\"}}'\ncontext = '{{\"ns\":\"default\",\"pod\":\"{name}\"}}'\n\n\
             [inbound]\n{inbound}\n\n[outbound]\nlisten = \"127.0.0.1:4140\"\n\n\
             [limits]\nworkers = 2\n",
            identity = identity(name),
            anchors = anchors.display(),
            bundle_key = bundle_key.display(),
            folder = folder.display(),
            controller = self.control_addresses(),
            controller_name = self.admin.controller(),
        );
        replace(&folder.join("proxy.toml"), &config);
        replace(&folder.join("token"), &token);
        let redirect = Redirect::default();
        redirect.outgoing(&host);
        let numbers: Vec<u16> = ports.iter().map(|(port, _)| *port).collect();
        if redirected && !numbers.is_empty() {
            redirect.incoming(&host, &numbers);
        }
        let proxy = start_proxy(program, &host, &folder);
        Workload {
            name: name.to_owned(),
            app: app.to_owned(),
            ports: ports.to_vec(),
            admin: self.admin.clone(),
            manifest: self.manifest("workload", name),
            program,
            folder,
            host,
            proxy,
        }
    }

    /// A new host with a proxy that is ready, whichever program that is. It is declared, so it is an endpoint at once: a
    /// stock proxy is set up from the manifests.
    ///
    /// # Panics
    /// If it cannot be set up, or does not become ready.
    #[must_use]
    pub fn published(
        &self,
        program: Program,
        name: &str,
        app: &str,
        ports: &[(u16, &'static str)],
    ) -> Workload {
        if matches!(program, Program::Ours | Program::Listeners) {
            let mut workload = self.ours(program, name, app, ports, &identity(name));
            workload.wait_ready();
            workload.publish();
            return workload;
        }
        let host = self.network.host(name);
        let folder = self.folder.path().join(name);
        let manifest = self.manifest("workload", name);
        let declaration = declaration(program, name, app, &host, ports, &identity(name));
        replace(&manifest, &declaration);
        self.admin.wait_workload(name, Some(&identity(name)));
        let controller = format!("{}:{CONTROLLER_PORT}", self.host.address());
        stock::set_up(&self.folder.path().join("data"), &controller, name, &folder);
        let redirect = Redirect::default();
        redirect.outgoing(&host);
        let numbers: Vec<u16> = ports.iter().map(|(port, _)| *port).collect();
        if !numbers.is_empty() {
            redirect.incoming(&host, &numbers);
        }
        let proxy = start_proxy(program, &host, &folder);
        let mut workload = Workload {
            name: name.to_owned(),
            app: app.to_owned(),
            ports: ports.to_vec(),
            admin: self.admin.clone(),
            manifest,
            program,
            folder,
            host,
            proxy,
        };
        workload.wait_ready();
        workload
    }

    /// Writes anew what the proxy of a workload is started with, if that came from `mesh token --stock-proxy`: with the anchors
    /// of the day.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn set_up_again(&self, workload: &Workload) {
        let controller = format!("{}:{CONTROLLER_PORT}", self.host.address());
        let data = self.folder.path().join("data");
        std::fs::remove_dir_all(&workload.folder)
            .unwrap_or_else(|error| panic!("{}: {error}", workload.folder.display()));
        stock::set_up(&data, &controller, &workload.name, &workload.folder);
    }

    fn token(&self, identity: &str) -> String {
        let token = self.admin.token(identity);
        self.tokens.borrow_mut().push(token.clone());
        token
    }

    fn manifest(&self, kind: &str, name: &str) -> PathBuf {
        self.folder
            .path()
            .join(format!("manifests/{kind}-{name}.yaml"))
    }
}

/// The identity of the workload of that name.
#[must_use]
pub fn identity(workload: &str) -> String {
    format!("{workload}.default.serviceaccount.identity.linkerd.cluster.local")
}

/// What a controller is started with: an empty folder for its data, and one of manifests with this `MeshConfig`.
fn folder_with(spec: &str) -> TempDir {
    let folder =
        tempfile::tempdir().unwrap_or_else(|error| panic!("no folder for a mesh: {error}"));
    for part in ["data", "manifests"] {
        let part = folder.path().join(part);
        std::fs::create_dir(&part).unwrap_or_else(|error| panic!("{}: {error}", part.display()));
    }
    let spec: String = spec.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "  {line}");
        text
    });
    let config = format!(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh}}\nspec:\n\
         {spec}  trustDomain: cluster.local\n"
    );
    replace(&folder.path().join("manifests/mesh.yaml"), &config);
    folder
}

fn start_controller(host: &Host, folder: &Path, clock: Option<&Clock>) -> Process {
    start_controller_on(host, folder, "data", CONTROLLER_PORT, &[], clock)
}

fn start_controller_on(
    host: &Host,
    folder: &Path,
    data: &str,
    port: u16,
    more: &[String],
    clock: Option<&Clock>,
) -> Process {
    let data = folder.join(data);
    let announcement = data.join("controller.json");
    let mut controller = host
        .spawn(programs::built("mesh-controller"))
        .by(clock)
        .arg("--data")
        .arg(&data)
        .arg("--manifests")
        .arg(folder.join("manifests"))
        .args(["--listen", &format!("{}:{port}", host.address())])
        .args(more)
        .user(0)
        .start();
    controller.wait_until("controller.json tells its process", |process| {
        let text = std::fs::read_to_string(&announcement).unwrap_or_default();
        let said: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        said["pid"] == process.id()
    });
    controller
}

/// Writes a file so that a reader sees the old text or the new.
fn replace(path: &Path, text: &str) {
    let scratch = path.with_extension("new");
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&scratch, text))
        .and_then(|()| std::fs::rename(&scratch, path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
