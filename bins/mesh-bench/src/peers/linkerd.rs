//! A stock linkerd2-proxy on both sides, with our controller, by redirect.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use super::mesh::{Control, Programs};
use super::{Kind, Running};
use crate::error::Error;
use crate::stage::{Child, Ground, Host, output};

pub(super) async fn start(
    ground: &Ground,
    program: &Path,
    programs: &Programs,
) -> Result<Running, Error> {
    let folder = ground.folder("linkerd")?;
    let control = Control::start(ground, programs, &folder, PORT, &[manifests(ground)]).await?;
    let network = &ground.network;
    let outgoing = format!(
        "table ip mesh_outbound {{ chain output {{ type nat hook output priority -100; \
         ip daddr {SERVICE} tcp dport {{ {HTTP}, {TCP} }} redirect to :4140; }}; }}"
    );
    let incoming = format!(
        "table ip mesh_inbound {{ chain input {{ type nat hook prerouting priority -100; \
         iifname \"eth0\" tcp dport {{ {HTTP}, {TCP} }} redirect to :4143; }}; }}"
    );
    let backend = ground.another_backend(HTTP, TCP)?;
    let start = |host: &Host, name: &str, rules: &str, cores| {
        // A peer that is started anew finds the rules of the last time.
        let table = rules.split_whitespace().nth(2).unwrap_or_default();
        let _ = host.run("nft", &["delete", "table", "ip", table]);
        host.run("nft", &[rules])?;
        proxy(&control, programs, program, host, name, cores)
    };
    let cores = &ground.cores;
    let server = start(
        &network.server,
        "lweb",
        &incoming,
        cores.server_proxy.as_ref(),
    )?;
    let client = start(
        &network.client,
        "lclient",
        &outgoing,
        cores.client_proxy.as_ref(),
    )?;
    let http = SocketAddr::from((SERVICE, HTTP));
    let running = Running {
        kind: Kind::Linkerd,
        http1: http,
        http2: http,
        grpc: Some(http),
        tcp: Some((SERVICE, TCP).into()),
        client: Some(client),
        server: Some(server),
        others: vec![control.process, backend],
    };
    running.answers(ground).await?;
    Ok(running)
}

/// From what `mesh token --stock-proxy` writes.
fn proxy(
    control: &Control,
    programs: &Programs,
    program: &Path,
    host: &Host,
    name: &str,
    cores: Option<&String>,
) -> Result<Child, Error> {
    let folder = control.folder.join(name);
    // It wants a folder of its own each time.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(Error::file(&folder))?;
    }
    let mut command = Command::new(&programs.cli);
    command.args(["token", "--workload", name, "--stock-proxy"]);
    command.arg(&folder).arg("--controller");
    command.arg(control.address.to_string()).arg("--data");
    output(command.arg(control.folder.join("data")))?;
    let script = "set -a; . \"$0\"; export LINKERD2_PROXY_CORES=1 LINKERD2_PROXY_ADMIN_LISTEN_ADDR=127.0.0.1:4192; exec \"$1\"";
    host.spawn("sh")
        .args([Path::new("-c"), Path::new(script)])
        .args([&folder.join("proxy.env"), program])
        .cores(cores)
        .user(PROXY_USER)
        .start(&control.folder.join(format!("{name}.log")))
}

/// Where the controller listens.
const PORT: u16 = 8087;
/// The service, and the ports of the application that nobody else asks.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const HTTP: u16 = 8082;
const TCP: u16 = 8083;
/// The user that the proxies run as.
const PROXY_USER: u32 = 2140;

fn manifests(ground: &Ground) -> String {
    let workload = |name: &str, host: &Host, app: &str| {
        format!(
            "---\napiVersion: mesh-rs.io/v1alpha1\nkind: Workload\n\
             metadata: {{name: {name}, namespace: default, labels: {{app: {app}}}}}\n\
             spec:\n  identity: {}\n  meshed: true\n  addresses: [{}]\n  ports:\n\
             \x20 - {{name: http, port: {HTTP}, protocol: http}}\n\
             \x20 - {{name: tcp, port: {TCP}, protocol: opaque}}\n",
            super::mesh::identity(name),
            host.address()
        )
    };
    format!(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh}}\n\
         spec: {{trustDomain: cluster.local}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: lweb, namespace: default}}\n\
         spec:\n  clusterIP: {SERVICE}\n  selector: {{app: lweb}}\n  ports:\n\
         \x20 - {{name: http, port: {HTTP}, targetPort: {HTTP}}}\n\
         \x20 - {{name: tcp, port: {TCP}, targetPort: {TCP}}}\n{}{}",
        workload("lweb", &ground.network.server, "lweb"),
        workload("lclient", &ground.network.client, "lclient"),
    )
}
