//! A transport header is taken from who says who it is, and leads to applications, never to the proxy itself.

use std::net::{IpAddr, SocketAddr};

use linkerd2_proxy_api::inbound::Server;
use mesh_http::transport_header::{ALPN, Session, TransportHeader};

use crate::mesh::{CLIENT, Mesh};
use crate::policy;
use crate::wire::mirror;

const GET: &str = "GET /ready HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n";

/// What comes back for a request behind a header that names `port`.
async fn through(mesh: &Mesh, to: SocketAddr, name: Option<&str>, port: u16) -> String {
    let header = TransportHeader {
        port,
        name: None,
        session: Some(Session::Http1),
    };
    let mut wire = mesh.tls(to, name, &[ALPN]).await;
    let _ = wire
        .offer([&header.encode()[..], GET.as_bytes()].concat())
        .await;
    String::from_utf8(wire.rest_if_any().await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_identity_chooses_no_port() {
    let mesh = Mesh::start();
    let settings = format!("inbound.listen = \"{}\"", mesh.net.inbound());
    let _server = mesh.server(&settings).await;
    let port = mesh.net.app().port();
    let _app = mirror(mesh.net.app()).await;
    let _redirected = mirror(SocketAddr::new(mesh.net.inbound().ip(), port)).await;
    for to in [mesh.net.mesh_port(), mesh.net.inbound()] {
        let seen = through(&mesh, to, Some(CLIENT), port).await;
        assert!(seen.contains("\nl5d-client-id: client.test\n"), "{seen}");
        // Although the port's policy asks nobody who it is.
        assert_eq!(through(&mesh, to, None, port).await, "");
    }
    // Without a header, such a client is let in like any.
    let mut wire = mesh.tls(mesh.net.mesh_port(), None, &[]).await;
    assert_eq!(wire.ask(GET).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_addresses_of_the_server_are_taken() {
    let mesh = Mesh::start();
    let inbound = mesh.net.inbound();
    let _server = mesh
        .server(&format!("inbound.listen = \"{inbound}\""))
        .await;
    let elsewhere: IpAddr = "192.0.2.1".parse().unwrap();
    let with_ips = |ips: &[IpAddr]| Server {
        server_ips: ips.iter().map(|ip| (*ip).into()).collect(),
        ..policy::open()
    };
    for (port, ips, taken) in [
        (8081, vec![], true),
        (8082, vec![elsewhere], false),
        (8083, vec![elsewhere, inbound.ip()], true),
    ] {
        let _app = mirror(SocketAddr::new(inbound.ip(), port)).await;
        mesh.says.server(port, with_ips(&ips));
        let seen = through(&mesh, inbound, Some(CLIENT), port).await;
        assert_eq!(seen.starts_with("HTTP/1.1 200"), taken, "{ips:?}: {seen}");
    }
    // At a mesh port, nobody connects to an address of the application's.
    mesh.says
        .server(mesh.net.app().port(), with_ips(&[elsewhere]));
    let _app = mirror(mesh.net.app()).await;
    let mut wire = mesh.tls(mesh.net.mesh_port(), Some(CLIENT), &[]).await;
    assert_eq!(wire.ask(GET).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxys_own_ports_are_nobodys_target() {
    let mesh = Mesh::start();
    let inbound = mesh.net.inbound();
    let own = |port| SocketAddr::new(inbound.ip(), port);
    let settings = format!(
        "inbound.listen = \"{inbound}\"\noutbound.http_proxy = \"{}\"\n\
         outbound.services = [{{listen = \"{}\", authority = \"web.test:80\"}}]",
        own(3128),
        own(8000)
    );
    let _server = mesh.server(&settings).await;
    let _app = mirror(own(8080)).await;
    let ports = [inbound, mesh.net.admin(2), own(3128), own(8000), own(14143)];
    for port in ports.map(|address| address.port()) {
        mesh.says.server(port, policy::open());
        let seen = through(&mesh, inbound, Some(CLIENT), port).await;
        assert_eq!(seen, "", "port {port}");
    }
    let seen = through(&mesh, inbound, Some(CLIENT), 8080).await;
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
    // At a mesh port, only what the proxy stands before there can be named.
    for port in [4191, 8081] {
        let seen = through(&mesh, mesh.net.mesh_port(), Some(CLIENT), port).await;
        assert_eq!(seen, "", "port {port}");
    }
}
