//! From manifests to processes: a value in, a value out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use mesh_discovery::manifests::{Ready, Run};
use mesh_discovery::{Name, Service, Workload};

use super::addresses;
use super::app::App;
use super::environment;
use super::mesh::{Mesh, Runnable};
use super::ports::{ADMIN, HTTP_PROXY, Listeners};
use super::proxy::{Proxy, Settings};
use crate::Error;
use crate::probe::Probe;
use crate::process::Launch;

/// Where the proxy of whoever sits at this machine may listen, best first: one for each mesh that runs there.
pub(crate) fn client_addresses() -> impl Iterator<Item = IpAddr> {
    (200..=254)
        .rev()
        .map(|last| IpAddr::V4(Ipv4Addr::new(127, 77, 255, last)))
}

/// What planning needs to know beside the manifests.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// The controller's gRPC address.
    pub(crate) control: SocketAddr,
    /// Where the client's proxy listens.
    pub(crate) client: IpAddr,
    /// Where the files of each workload go.
    pub(crate) data: PathBuf,
    /// Where commands run.
    pub(crate) manifests: PathBuf,
    /// The proxy's program.
    pub(crate) proxy_program: PathBuf,
}

/// Everything that is to run, beside the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In order of namespace and name, the client's proxy last.
    pub(crate) units: Vec<Unit>,
}

/// A workload's application and its proxy, which come and go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// The workload.
    pub(crate) name: Name,
    /// What its proxy proves.
    pub(crate) identity: String,
    /// The application. The client's proxy has none.
    pub(crate) app: Option<App>,
    /// The proxy, twice: they differ in where they answer about themselves, so that one can take over from the other.
    pub(crate) proxies: [Proxy; 2],
    /// Where the proxy's files go.
    pub(crate) folder: PathBuf,
    /// Everything that listens, and what it is in messages.
    pub(crate) listens: Vec<(SocketAddr, String)>,
}

/// A process, and what shows that it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The process.
    pub(crate) launch: Launch,
    /// Without one it is ready once it runs.
    pub(crate) ready: Option<Probe>,
}

/// Plans what `mesh` asks for.
///
/// # Errors
/// When it cannot be run on one machine: no address, no mesh port, two that want the same address and port.
pub(crate) fn plan(
    mesh: &Mesh,
    listeners: &mut Listeners,
    around: &Surroundings,
) -> Result<Plan, Error> {
    listeners
        .assign(&mesh.services)
        .map_err(|wanted| Error::Plan {
            subject: "services".to_owned(),
            reason: format!(
                "they have {wanted} ports, more than the 999 that one machine has listeners for"
            ),
        })?;
    let mut units = Vec::new();
    for Runnable { workload, run } in &mesh.workloads {
        if let Some(run) = run {
            units.push(unit(workload, Some(run), mesh, listeners, around)?);
        }
    }
    units.push(unit(
        &client(around.client, &mesh.trust_domain),
        None,
        mesh,
        listeners,
        around,
    )?);
    addresses::check_distinct(&units)?;
    Ok(Plan { units })
}

/// The workload that stands for whoever sits at this machine.
fn client(address: IpAddr, trust_domain: &str) -> Workload {
    let mut client = Workload::new("mesh-up", "client");
    client.identity = Some(format!(
        "client.mesh-up.serviceaccount.identity.linkerd.{trust_domain}"
    ));
    client.addresses = vec![address];
    client
}

fn unit(
    workload: &Workload,
    run: Option<&Run>,
    mesh: &Mesh,
    listeners: &Listeners,
    around: &Surroundings,
) -> Result<Unit, Error> {
    let wrong = |reason: &str| Error::Plan {
        subject: format!("workload {}", workload.id()),
        reason: reason.to_owned(),
    };
    let address = *workload.addresses.first().ok_or_else(|| {
        wrong("it has a command to run but no address; give it one of its own, as in `addresses: [127.77.0.2]`")
    })?;
    let identity = workload.identity.clone().ok_or_else(|| {
        wrong("it has a command to run but no identity; set spec.identity or spec.serviceAccount")
    })?;
    let name = workload.id();
    let label = label(&name);
    let mut listens = Vec::new();
    let mut inbound = Vec::new();
    for port in &workload.ports {
        let Some(mesh_port) = port.mesh_port else {
            return Err(wrong(&format!(
                "port {} has no meshPort, where its proxy would listen for the mesh",
                port.port
            )));
        };
        let (app, mesh) = (
            SocketAddr::new(address, port.port),
            SocketAddr::new(address, mesh_port),
        );
        listens.push((
            app,
            format!(
                "{label}'s port {}",
                port.name.as_deref().unwrap_or("for its command")
            ),
        ));
        listens.push((
            mesh,
            format!("the mesh port of {label}'s port {}", port.port),
        ));
        inbound.push((mesh, app));
    }
    let mut outbound = Vec::new();
    for (service, port) in service_ports(&mesh.services) {
        if let Some(listener) = listeners.of(service, port) {
            let listener = SocketAddr::new(address, listener);
            let authority = format!(
                "{}.{}.svc.cluster.local:{port}",
                service.name, service.namespace
            );
            listens.push((
                listener,
                format!("{label}'s listener for {}:{port}", service.id()),
            ));
            outbound.push((listener, authority));
        }
    }
    let http_proxy = SocketAddr::new(address, HTTP_PROXY);
    let admins = ADMIN.map(|port| SocketAddr::new(address, port));
    listens.push((http_proxy, format!("{label}'s HTTP proxy")));
    for admin in admins {
        listens.push((admin, format!("{label}'s proxy, about itself")));
    }

    let folder = around
        .data
        .join("workloads")
        .join(format!("{}.{}", name.namespace, name.name));
    let proxies = admins.map(|admin| {
        Proxy::new(&Settings {
            program: &around.proxy_program,
            name: &name,
            identity: &identity,
            control: around.control,
            data: &around.data,
            folder: &folder,
            inbound: &inbound,
            outbound: &outbound,
            zone: workload.zone.as_deref(),
            http_proxy,
            admin,
        })
    });
    Ok(Unit {
        app: run.map(|run| app(workload, address, run, mesh, listeners, around)),
        name,
        identity,
        proxies,
        folder,
        listens,
    })
}

fn app(
    workload: &Workload,
    address: IpAddr,
    run: &Run,
    mesh: &Mesh,
    listeners: &Listeners,
    around: &Surroundings,
) -> App {
    let mut env = environment::own(workload, address);
    env.extend(run.env.clone());
    let mut services = environment::services(workload, address, &mesh.services, listeners);
    services.retain(|name, _| !env.contains_key(name));
    let on = |port| SocketAddr::new(address, port);
    let ready = match &run.ready {
        Some(Ready::HttpGet { path, port }) => Some(Probe::Http {
            address: on(*port),
            path: path.clone(),
        }),
        Some(Ready::Tcp { port }) => Some(Probe::Tcp(on(*port))),
        // Whoever listens on its first port serves.
        _ => workload.ports.first().map(|port| Probe::Tcp(on(port.port))),
    };
    let folder = run.working_dir.as_ref().map_or_else(
        || around.manifests.clone(),
        |folder| around.manifests.join(folder),
    );
    let launch = Launch {
        name: label(&workload.id()),
        command: run.command.iter().map(Into::into).collect(),
        env,
        isolated: false,
        folder,
    };
    App {
        part: Part { launch, ready },
        services,
    }
}

/// Every port of every service.
pub(crate) fn service_ports(services: &[Service]) -> impl Iterator<Item = (&Service, u16)> {
    services
        .iter()
        .flat_map(|service| service.ports.iter().map(move |port| (service, port.port)))
}

/// What something is called in messages: its namespace is left out when it is the one everybody starts in.
pub(crate) fn label(name: &Name) -> String {
    if name.namespace == "default" {
        name.name.clone()
    } else {
        name.to_string()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use mesh_discovery::{Protocol, ServicePort, WorkloadPort};

    use super::*;

    pub(crate) fn runnable(name: &str, address: [u8; 4]) -> Runnable {
        let mut workload = Workload::new("default", name);
        workload.identity =
            Some("web.default.serviceaccount.identity.linkerd.cluster.local".to_owned());
        workload.zone = Some("eu-1a".to_owned());
        workload.addresses = vec![address.into()];
        workload.ports = vec![WorkloadPort {
            name: Some("http".to_owned()),
            mesh_port: Some(14_143),
            protocol: Protocol::Http,
            ..WorkloadPort::new(8080)
        }];
        let ready = Ready::HttpGet {
            path: "/healthz".to_owned(),
            port: 8080,
        };
        let run = Run {
            command: vec!["./web".to_owned(), "--fast".to_owned()],
            env: [("COLOUR".to_owned(), "blue".to_owned())].into(),
            working_dir: None,
            ready: Some(ready),
        };
        Runnable {
            workload,
            run: Some(run),
        }
    }

    pub(crate) fn service(name: &str) -> Service {
        let mut service = Service::new("default", name);
        service.ports = vec![ServicePort::new(80)];
        service
    }

    pub(crate) fn around() -> Surroundings {
        Surroundings {
            control: ([127, 0, 0, 1], 8086).into(),
            client: [127, 77, 255, 254].into(),
            data: "/data".into(),
            manifests: "/manifests".into(),
            proxy_program: "/bin/mesh-proxy".into(),
        }
    }

    pub(crate) fn planned(mesh: &Mesh) -> Result<Plan, Error> {
        plan(mesh, &mut Listeners::default(), &around())
    }

    #[test]
    fn a_workload_becomes_an_application_and_its_proxy() {
        let mesh = Mesh {
            trust_domain: "cluster.local".to_owned(),
            services: vec![service("web")],
            workloads: vec![runnable("web-1", [127, 77, 0, 2])],
        };

        let plan = planned(&mesh).unwrap();

        assert_eq!(plan.units.len(), 2, "the workload and the client");
        let unit = &plan.units[0];
        let app = unit.app.as_ref().unwrap();
        let launch = app.launch();
        assert_eq!(launch.name, "web-1");
        assert_eq!(launch.command, ["./web", "--fast"]);
        assert_eq!(launch.folder, PathBuf::from("/manifests"));
        assert_eq!(
            app.part.ready,
            Some(Probe::Http {
                address: ([127, 77, 0, 2], 8080).into(),
                path: "/healthz".into()
            })
        );
        let env: Vec<_> = launch
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            env,
            [
                "COLOUR=blue",
                "HOST=127.77.0.2",
                "HTTP_PROXY=http://127.77.0.2:15000",
                "MESH_IDENTITY=web.default.serviceaccount.identity.linkerd.cluster.local",
                "MESH_NAMESPACE=default",
                "MESH_WEB_ADDR=127.77.0.2:15001",
                "MESH_WORKLOAD=web-1",
                "MESH_ZONE=eu-1a",
                "NO_PROXY=",
                "PORT=8080",
                "PORT_HTTP=8080",
                "http_proxy=http://127.77.0.2:15000",
                "no_proxy=",
            ]
        );
        let [proxy, next] = &unit.proxies;
        assert_eq!(
            proxy.part.launch.command,
            [
                "/bin/mesh-proxy",
                "--config",
                "/data/workloads/default.web-1/proxy-4191.toml"
            ]
        );
        assert!(proxy.part.launch.isolated);
        assert_eq!(
            proxy.part.ready,
            Some(Probe::Http {
                address: ([127, 77, 0, 2], 4191).into(),
                path: "/ready".into()
            })
        );
        assert_eq!(
            proxy.config,
            r#"[identity]
name = "web.default.serviceaccount.identity.linkerd.cluster.local"
trust_anchors_file = "/data/workloads/default.web-1/anchors.pem"
bundle_key_file = "/data/bundle-key.pub"
bundle_file = "/data/workloads/default.web-1/bundle.json"
token_file = "/data/workloads/default.web-1/token"

[control]
address = "127.0.0.1:8086"
workload = "{\"ns\":\"default\",\"pod\":\"web-1\"}"
context = "{\"ns\":\"default\",\"pod\":\"web-1\"}"

[inbound]
ports = [
  { listen = "127.77.0.2:14143", app = "127.77.0.2:8080" },
]

[outbound]
services = [
  { listen = "127.77.0.2:15001", authority = "web.default.svc.cluster.local:80" },
]
http_proxy = "127.77.0.2:15000"

[limits]
workers = 1
drain_timeout = "10s"

[admin]
listen = "127.77.0.2:4191"

[balance]
zone = "eu-1a"
"#
        );
        assert_eq!(next.config, proxy.config.replace(":4191", ":4192"));
        assert_ne!(next.file, proxy.file);
        let listens = [14143, 15001, 15000].map(|port| SocketAddr::from(([127, 77, 0, 2], port)));
        assert_eq!(proxy.listens, listens);
    }

    #[test]
    fn the_client_has_a_proxy_and_an_identity_of_its_own() {
        let plan = planned(&Mesh {
            trust_domain: "cluster.local".to_owned(),
            services: vec![service("web")],
            workloads: Vec::new(),
        })
        .unwrap();
        let client = &plan.units[0];
        assert_eq!(
            client.identity,
            "client.mesh-up.serviceaccount.identity.linkerd.cluster.local"
        );
        assert!(client.app.is_none());
        assert!(client.proxies[0].config.contains(
            r#"{ listen = "127.77.255.254:15001", authority = "web.default.svc.cluster.local:80" }"#
        ));
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_what_to_do() {
        let refused = |change: fn(&mut Runnable)| {
            let mut one = runnable("web-1", [127, 77, 0, 2]);
            change(&mut one);
            planned(&Mesh {
                trust_domain: "cluster.local".to_owned(),
                services: Vec::new(),
                workloads: vec![one],
            })
            .unwrap_err()
            .to_string()
        };
        assert!(refused(|one| one.workload.addresses.clear()).contains("addresses: [127.77.0.2]"));
        assert!(refused(|one| one.workload.identity = None).contains("spec.serviceAccount"));
        assert!(
            refused(|one| one.workload.ports[0].mesh_port = None)
                .contains("port 8080 has no meshPort")
        );
        assert_eq!(
            refused(|one| one.workload.ports[0].mesh_port = Some(4_191)),
            "127.77.0.2:4191: both the mesh port of web-1's port 8080 and web-1's proxy, about itself want it; \
             give one of them another port or address"
        );
    }

    #[test]
    fn workloads_may_not_share_an_address() {
        let twins = vec![
            runnable("web-1", [127, 77, 0, 2]),
            runnable("web-2", [127, 77, 0, 2]),
        ];
        let error = planned(&Mesh {
            trust_domain: "cluster.local".to_owned(),
            services: Vec::new(),
            workloads: twins,
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.starts_with(
                "127.77.0.2:8080: both web-1's port http and web-2's port http want it"
            ),
            "{error}"
        );
    }
}
