//! mesh-proxy: two of them with a controller, on a mesh port and a listener for each service.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{CIPHER_SUITE, KEY_EXCHANGE, Kind, Links, Running};
use crate::error::Error;
use crate::stage::{Child, Ground, Host, output};

/// The mesh's programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// mesh-proxy.
    pub(crate) proxy: PathBuf,
    /// mesh-controller.
    pub(crate) controller: PathBuf,
    /// mesh.
    pub(crate) cli: PathBuf,
}

impl Programs {
    /// Whether the cipher suite and the key exchange can be set: builds of earlier code are compared with as well.
    pub(crate) fn can_pin(&self) -> bool {
        let help = output(Command::new(&self.proxy).arg("--help")).unwrap_or_default();
        help.contains("--identity-key-exchanges")
    }
}

/// A mesh whose service has so many endpoints: all are one proxy, at addresses of its host.
///
/// # Errors
/// If it cannot be started, or carries nothing in time.
pub(crate) async fn start(
    ground: &Ground,
    programs: &Programs,
    endpoints: u32,
) -> Result<Running, Error> {
    let mut links = Links::of(Kind::Mesh, ground);
    let folder = ground.folder("mesh")?;
    let manifests = manifests(&links, endpoints);
    let control = Control::start(ground, programs, &folder, PORT, &manifests).await?;
    if endpoints > 1 {
        ground.network.many_addresses(MANY)?;
        for between in &mut links.between {
            between.set_ip(Ipv4Addr::UNSPECIFIED.into());
        }
    }
    let server = control.proxy(
        &ground.network.server,
        "web",
        &inbound(&links),
        ground.cores.server_proxy.as_ref(),
    )?;
    let client = control.proxy(
        &ground.network.client,
        "client",
        &outbound(&links),
        ground.cores.client_proxy.as_ref(),
    )?;
    let [http, _, tcp] = links.listen;
    let running = Running {
        kind: Kind::Mesh,
        http1: http,
        http2: http,
        grpc: Some(http),
        tcp: Some(tcp),
        client: Some(client),
        server: Some(server),
        others: vec![control.process],
    };
    running.answers(ground).await?;
    Ok(running)
}

/// A controller on the server's host, and where its files are.
#[derive(Debug)]
pub(crate) struct Control {
    programs: Programs,
    pub(crate) folder: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) process: Child,
}

impl Control {
    /// Starts it with these files of manifests, and waits until it serves.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) async fn start(
        ground: &Ground,
        programs: &Programs,
        folder: &Path,
        port: u16,
        manifests: &[String],
    ) -> Result<Self, Error> {
        let (data, watched) = (folder.join("data"), folder.join("manifests"));
        // What an earlier one announced is not what this one serves.
        let announcement = data.join("controller.json");
        if announcement.exists() {
            std::fs::remove_file(&announcement).map_err(Error::file(&announcement))?;
        }
        std::fs::create_dir_all(&watched).map_err(Error::file(&watched))?;
        for (number, manifests) in manifests.iter().enumerate() {
            let file = watched.join(format!("mesh-{number}.yaml"));
            std::fs::write(&file, manifests).map_err(Error::file(file))?;
        }
        let address = SocketAddr::from((ground.network.server.address(), port));
        let mut process = ground
            .network
            .server
            .spawn(&programs.controller)
            .args([
                Path::new("--data"),
                &data,
                Path::new("--manifests"),
                &watched,
            ])
            .args(["--listen", &address.to_string(), "--admin", "127.0.0.1:0"])
            .start(&folder.join("controller.log"))?;
        process
            .until("the controller serves", async || announcement.exists())
            .await?;
        Ok(Self {
            programs: programs.clone(),
            folder: folder.to_owned(),
            address,
            process,
        })
    }

    /// Starts the proxy of the workload of that name, with these tables of its configuration.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn proxy(
        &self,
        host: &Host,
        name: &str,
        tables: &str,
        cores: Option<&String>,
    ) -> Result<Child, Error> {
        let data = self.folder.join("data");
        let identity = identity(name);
        let token = output(
            Command::new(&self.programs.cli)
                .args(["token", "create", "--identity", &identity, "--data"])
                .arg(&data),
        )?;
        let write = |name: String, text: &str| {
            let path = self.folder.join(name);
            std::fs::write(&path, text).map_err(Error::file(&path))?;
            Ok::<_, Error>(path)
        };
        let token = write(format!("{name}.token"), &token)?;
        let pinned = if self.programs.can_pin() {
            format!("cipher_suites = [\"{CIPHER_SUITE}\"]\nkey_exchanges = [\"{KEY_EXCHANGE}\"]\n")
        } else {
            String::new()
        };
        let config = format!(
            "[identity]\nname = \"{identity}\"\ntrust_anchors_file = \"{}\"\ntoken_file = \"{}\"\n\
             {pinned}\n\
             [control]\naddress = \"{}\"\nname = \"{CONTROLLER}\"\n\
             workload = '{{\"ns\":\"default\",\"pod\":\"{name}\"}}'\n\n{tables}\n\
             [limits]\nworkers = 1\nmax_connections = 20000\n",
            data.join("anchors.pem").display(),
            token.display(),
            self.address,
        );
        let config = write(format!("{name}.toml"), &config)?;
        host.spawn(&self.programs.proxy)
            .args([Path::new("--config"), &config])
            .cores(cores)
            .start(&self.folder.join(format!("{name}.log")))
    }
}

/// Where the controller listens.
const PORT: u16 = 8086;
/// What the controller's certificate says.
const CONTROLLER: &str = "mesh-controller.linkerd.serviceaccount.identity.linkerd.cluster.local";

/// The identity of a workload.
pub(crate) fn identity(name: &str) -> String {
    format!("{name}.default.serviceaccount.identity.linkerd.cluster.local")
}

/// The ports of the service, from its first port on: a name, which of the links it is, what it carries. A request goes to the
/// application in the version it came in, so one carries all of HTTP.
const PIPES: [(&str, usize, &str); 2] = [("http", 0, "http"), ("tcp", 2, "opaque")];
const FIRST_PORT: u16 = 81;

/// Addresses of the server's host beside its own, and how many bits they have in common.
const MANY: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 80, 0, 0), 16);

/// The address of an endpoint. The first has the host's own.
fn endpoint(links: &Links, number: u32) -> IpAddr {
    match number {
        0 => links.between[0].ip(),
        _ => Ipv4Addr::from_bits(MANY.0.to_bits() + number).into(),
    }
}

/// How many workloads are declared in one file: the controller takes no more than some thousand.
const IN_A_FILE: usize = 1_000;

/// A mesh of one service, and its workloads.
fn manifests(links: &Links, endpoints: u32) -> Vec<String> {
    let (mut service, mut ports) = (String::new(), String::new());
    for (port, (name, pipe, protocol)) in (FIRST_PORT..).zip(PIPES) {
        let (app, between) = (links.apps[pipe].port(), links.between[pipe].port());
        // Writing to a string cannot fail.
        let _ = writeln!(
            service,
            "  - {{name: {name}, port: {port}, targetPort: {app}}}"
        );
        let _ = writeln!(
            ports,
            "  - {{name: {name}, port: {app}, meshPort: {between}, protocol: {protocol}}}"
        );
    }
    let mesh = format!(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh}}\n\
         spec: {{trustDomain: cluster.local}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\n\
         spec:\n  selector: {{app: web}}\n  ports:\n{service}"
    );
    let workload = |number| {
        let (address, identity) = (endpoint(links, number), identity("web"));
        let name = match number {
            0 => "web".to_owned(),
            _ => format!("web-{number}"),
        };
        format!(
            "---\napiVersion: mesh-rs.io/v1alpha1\nkind: Workload\n\
             metadata: {{name: {name}, namespace: default, labels: {{app: web}}}}\n\
             spec:\n  identity: {identity}\n  addresses: [{address}]\n  ports:\n{ports}"
        )
    };
    let workloads: Vec<String> = (0..endpoints).map(workload).collect();
    let files = workloads.chunks(IN_A_FILE).map(<[String]>::concat);
    std::iter::once(mesh).chain(files).collect()
}

fn inbound(links: &Links) -> String {
    let ports: String = PIPES
        .iter()
        .map(|(_, pipe, _)| {
            let (listen, app) = (links.between[*pipe], links.apps[*pipe]);
            format!("  {{ listen = \"{listen}\", app = \"{app}\" }},\n")
        })
        .collect();
    format!("[inbound]\nports = [\n{ports}]\n")
}

fn outbound(links: &Links) -> String {
    let services: String = (FIRST_PORT..)
        .zip(PIPES)
        .map(|(port, (_, pipe, _))| {
            let (listen, service) = (links.listen[pipe], "web.default.svc.cluster.local");
            format!("  {{ listen = \"{listen}\", authority = \"{service}:{port}\" }},\n")
        })
        .collect();
    format!("[outbound]\nservices = [\n{services}]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_the_service_has_a_mesh_port_and_a_listener() {
        let links = Links::example();
        let manifests = manifests(&links, 3).concat();
        assert!(manifests.contains("{name: http, port: 81, targetPort: 21}"));
        assert!(manifests.contains("{name: http, port: 21, meshPort: 11, protocol: http}"));
        assert!(manifests.contains("{name: tcp, port: 22, meshPort: 13, protocol: opaque}"));
        assert!(manifests.contains("addresses: [127.0.0.1]"));
        assert!(manifests.contains("addresses: [10.80.0.2]"));
        assert!(inbound(&links).contains(r#"{ listen = "127.0.0.1:13", app = "127.0.0.1:22" }"#));
        let last = r#"{ listen = "127.0.0.1:3", authority = "web.default.svc.cluster.local:82" }"#;
        assert!(outbound(&links).contains(last));
    }
}
