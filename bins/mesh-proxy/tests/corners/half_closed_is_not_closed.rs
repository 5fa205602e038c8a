//! One direction of a connection of bytes ends, and the other goes on: plain, in a tunnel, and over the mesh.

use crate::mesh::Mesh;
use crate::policy;
use crate::wire::{Wire, app};

#[tokio::test(flavor = "multi_thread")]
async fn in_a_tunnel_over_the_mesh() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        if wire.exactly(1).await == b"\x01" {
            let asked = wire.rest().await;
            // Long after the client has ended.
            for byte in [b'<', asked[0], b'>'] {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                wire.send([byte]).await;
            }
        } else {
            wire.send("done").await;
            wire.finish().await;
            assert_eq!(wire.rest().await, b"more");
        }
    })
    .await;
    let port = mesh.net.app().port();
    for endpoint in [
        policy::meshed(mesh.net.mesh_port()),
        policy::meshed_opaque(mesh.net.mesh_port(), port),
    ] {
        mesh.says.endpoints("web.test:80", vec![endpoint]);
        for first in [b"\x01a", b"\x02b"] {
            let mut wire = Wire::connect(mesh.net.http_proxy()).await;
            let connect = "CONNECT web.test:80 HTTP/1.1\r\nhost: web.test:80\r\n\r\n";
            assert_eq!(wire.ask(connect).await.status(), 200);
            if first[0] == 1 {
                wire.send(first).await;
                wire.finish().await;
                assert_eq!(wire.rest().await, b"<a>");
            } else {
                wire.send(&first[..1]).await;
                assert_eq!(wire.rest().await, b"done");
                wire.send("more").await;
                wire.finish().await;
            }
        }
    }
}
