//! Whose TLS a redirected connection speaks: the mesh's, or the application's own.

use std::io;

use bytes::BytesMut;
use mesh_http::Prefixed;
use rustls::server::Acceptor;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::worker::Worker;

/// The most bytes that a ClientHello is looked for in: one TLS record.
const MAX_CLIENT_HELLO: usize = 16 * 1024 + 5;

/// Whether the ClientHello asks for this proxy's own name. A ClientHello that cannot be read is the application's.
pub(super) async fn is_ours(
    worker: &Worker,
    stream: Prefixed<TcpStream>,
) -> io::Result<(bool, Prefixed<TcpStream>)> {
    let name = &worker.shared.config.name;
    if name.is_spiffe() {
        // A SPIFFE URI cannot be asked for by name, so all TLS is taken for the mesh's.
        return Ok((true, stream));
    }
    let (prefix, mut stream) = stream.into_parts();
    let mut hello = BytesMut::from(&prefix[..]);
    let asked = loop {
        match server_name(&hello) {
            Hello::Whole(asked) => break asked,
            Hello::Unreadable => break None,
            Hello::Partial if hello.len() >= MAX_CLIENT_HELLO => break None,
            Hello::Partial => {
                hello.reserve(2048);
                if stream.read_buf(&mut hello).await? == 0 {
                    break None;
                }
            }
        }
    };
    let ours = asked.is_some_and(|asked| asked.eq_ignore_ascii_case(name.as_str()));
    Ok((ours, Prefixed::new(hello.freeze(), stream)))
}

enum Hello {
    Partial,
    Whole(Option<String>),
    Unreadable,
}

fn server_name(mut bytes: &[u8]) -> Hello {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        match acceptor.read_tls(&mut bytes) {
            Ok(0) | Err(_) => return Hello::Unreadable,
            Ok(_) => {}
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                return Hello::Whole(accepted.client_hello().server_name().map(str::to_owned));
            }
            Ok(None) => {}
            Err(_) => return Hello::Unreadable,
        }
    }
    Hello::Partial
}
