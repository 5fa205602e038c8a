//! The application behind the proxies: HTTP/1, HTTP/2 and gRPC on one port, bytes on another, on one thread.

mod answer;
mod http;
mod tcp;

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::args;
use crate::error::Error;

pub(crate) use answer::GRPC_STATUS;
pub(crate) use http::{
    CONNECTION_WINDOW, ECHO_PATH, LocalExec, MESSAGE_HEAD, STREAM_WINDOW, UNARY_PATH, message,
};
pub(crate) use tcp::{CHUNK, Work};

/// Serves until it is killed.
///
/// # Errors
/// If a port cannot be listened on.
pub(crate) async fn serve(arguments: args::Backend) -> Result<(), Error> {
    LocalSet::new()
        .run_until(async {
            let http = listen(arguments.http)?;
            let tcp = listen(arguments.tcp)?;
            tokio::task::spawn_local(tcp::serve(tcp));
            http::serve(http).await;
            Ok(())
        })
        .await
}

/// 10,000 connections may come at once.
const BACKLOG: u32 = 16_384;

fn listen(port: u16) -> Result<TcpListener, Error> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let open = || {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(Error::io(format!("cannot listen on {address}")))
}

/// The next connection. One that is gone before it is accepted, or finds no room, is no reason to stop.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        if let Ok((stream, _)) = listener.accept().await
            && stream.set_nodelay(true).is_ok()
        {
            return stream;
        }
        tokio::task::yield_now().await;
    }
}
