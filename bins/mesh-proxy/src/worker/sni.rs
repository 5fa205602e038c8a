//! The server name that TLS asks for, without taking part in the handshake.

use std::io;

use bytes::BytesMut;
use mesh_http::Prefixed;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most bytes that a ClientHello is looked for in: one TLS record.
const MAX_CLIENT_HELLO: usize = 16 * 1024 + 5;

/// The server name that the ClientHello asks for; `None` when it asks for none, or cannot be read. The caller sets the
/// deadline.
pub(crate) async fn server_name<I>(stream: Prefixed<I>) -> io::Result<(Option<String>, Prefixed<I>)>
where
    I: AsyncRead + Unpin,
{
    let (prefix, mut stream) = stream.into_parts();
    let mut hello = BytesMut::from(&prefix[..]);
    let asked = loop {
        match read(&hello) {
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
    Ok((asked, Prefixed::new(hello.freeze(), stream)))
}

enum Hello {
    Partial,
    Whole(Option<String>),
    Unreadable,
}

fn read(mut bytes: &[u8]) -> Hello {
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
