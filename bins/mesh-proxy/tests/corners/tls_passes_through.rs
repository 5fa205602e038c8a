//! TLS of the application's own is carried as it is, to where the name it asks for leads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_tls::ca::Authority;
use mesh_tls::{ClientAuth, LeafKey, Tls, TrustBundle};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::controller::soon;
use crate::mesh::{self, Mesh};
use crate::policy;
use crate::wire::Wire;

/// TLS by an authority that the proxies know nothing of; with a name, as who has it.
fn tls(authority: &Authority, name: Option<&str>) -> Tls {
    let bundle = TrustBundle::from_pem(1, authority.anchor_pem().as_bytes()).unwrap();
    let ((_, anchors), (credentials, own)) =
        (mesh_tls::trust_store(bundle), mesh_tls::credential_store());
    if let Some(name) = name {
        let (key, identity) = (LeafKey::generate().unwrap(), name.parse().unwrap());
        let (csr, hour) = (key.csr(&identity).unwrap(), Duration::from_secs(3600));
        let leaf = authority
            .issue(&csr, &identity, hour, SystemTime::now())
            .unwrap();
        credentials.set(key.credentials(leaf.chain().to_vec()).unwrap());
    }
    Tls::new(anchors, own)
}

/// An application that speaks TLS itself, and says its name once the client has ended.
async fn serve(authority: &Authority, address: SocketAddr, name: &'static str) -> JoinHandle<()> {
    let server = tls(authority, Some(name)).server(&[], ClientAuth::Optional);
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok((mut stream, _)) = server.accept(stream).await else {
                continue;
            };
            tokio::spawn(async move {
                let mut asked = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut asked)
                    .await
                    .unwrap();
                let answer = [name.as_bytes(), b" heard ", &asked].concat();
                stream.write_all(&answer).await.unwrap();
                stream.shutdown().await.unwrap();
            });
        }
    })
}

/// What the application of that name answers, over TLS that only the two of them share.
async fn ask(authority: &Authority, to: SocketAddr, name: &str) -> String {
    let client = tls(authority, None).anonymous_client(&[]);
    let tcp = soon("a connection", TcpStream::connect(to)).await.unwrap();
    let server = name.parse().unwrap();
    let connected = client.connect(tcp, &server, None);
    let mut wire = Wire::over(soon("TLS from end to end", connected).await.unwrap());
    wire.send("hello").await;
    wire.finish().await;
    String::from_utf8(wire.rest().await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn to_where_its_server_name_leads() {
    let mesh = Mesh::start();
    let _client = mesh.client("").await;
    let authority = Arc::new(mesh::authority());
    let names = [("a.test", "a.test:443"), ("b.test", "b.test:443")];
    mesh.says.policy("web.test:80", policy::tls(&names));
    let mut apps = Vec::new();
    for (index, (name, path)) in names.into_iter().enumerate() {
        let address = mesh.net.plain(index as u16);
        mesh.says.endpoints(path, vec![policy::plain(address)]);
        apps.push(serve(&authority, address, name).await);
    }
    for (name, _) in names {
        let answer = ask(&authority, mesh.net.web(), name).await;
        assert_eq!(answer, format!("{name} heard hello"));
    }
    // A name without a route, and no TLS at all.
    let client = tls(&authority, None).anonymous_client(&[]);
    let tcp = TcpStream::connect(mesh.net.web()).await.unwrap();
    let nobody = "c.test".parse().unwrap();
    let connected = client.connect(tcp, &nobody, None);
    assert!(soon("a refusal", connected).await.is_err());
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    assert_eq!(wire.rest_if_any().await, b"");
    apps.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn within_the_mesh() {
    let mesh = Mesh::start();
    let (client, server) = mesh.both().await;
    let authority = Arc::new(mesh::authority());
    let app = serve(&authority, mesh.net.app(), "a.test").await;
    // Opaque by policy, by detection, and by the name it asks for; with a transport header where the peer must not look.
    let port = mesh.net.app().port();
    let meshed = policy::meshed_opaque(mesh.net.mesh_port(), port);
    mesh.says.endpoints("web.test:80", vec![meshed]);
    mesh.says
        .policy("other.test:80", policy::tls(&[("a.test", "web.test:80")]));
    for address in [mesh.net.web(), mesh.net.other()] {
        let answer = ask(&authority, address, "a.test").await;
        assert_eq!(answer, "a.test heard hello", "{address}");
    }
    for (proxy, family) in [(&client, "outbound_tcp"), (&server, "inbound_tcp")] {
        let open = format!("{family}_open_connections");
        proxy.metric_becomes(&open, &[], 0.0).await;
        let opened = format!("{family}_open_total");
        assert!(proxy.metric(&opened, &[]).await >= 2.0);
    }
    app.abort();
}
