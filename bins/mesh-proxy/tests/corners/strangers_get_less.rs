//! A client that proves no identity may hold less of the proxy's memory than one of the mesh.

use crate::mesh::{CLIENT, Mesh};
use crate::wire::Wire;

/// What the server's first frames permit: streams at once, the window of a stream, and of the connection.
async fn permitted<I>(wire: &mut Wire<I>) -> [u32; 3]
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let [mut streams, mut stream, mut connection] = [u32::MAX, 65_535, 65_535];
    let mut settled = false;
    while !(settled && connection > 65_535) {
        let (kind, payload) = wire.frame().await.expect("a frame");
        match (kind, payload.len()) {
            (4, 1..) => {
                settled = true;
                for setting in payload.chunks(6) {
                    match setting[1] {
                        3 => streams = number(&setting[2..]),
                        4 => stream = number(&setting[2..]),
                        _ => {}
                    }
                }
            }
            (8, 4) => connection += number(&payload),
            _ => {}
        }
    }
    [streams, stream, connection]
}

#[tokio::test(flavor = "multi_thread")]
async fn than_clients_of_the_mesh() {
    let mesh = Mesh::start();
    let _server = mesh.server("").await;
    let port = mesh.net.mesh_port();
    let mut plain = Wire::connect(port).await;
    assert_eq!(permitted(&mut plain).await, [100, 65_536, 1 << 20]);
    let mut anonymous = mesh.tls(port, None, &[]).await;
    assert_eq!(permitted(&mut anonymous).await, [100, 65_536, 1 << 20]);
    let mut known = mesh.tls(port, Some(CLIENT), &[]).await;
    assert_eq!(permitted(&mut known).await, [1_000, 512 << 10, 64 << 20]);
}
