//! Sockets: listeners that share an address among workers, and where a redirected connection was meant to go.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel holds for one listener before they are accepted.
const BACKLOG: i32 = 4096;

/// Binds `address` so that every worker can bind it too; the kernel spreads connections over them.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Where `stream` was going before a redirect rule sent it here; `None` when it was not redirected.
pub(crate) fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let local = stream.local_addr().ok()?;
    let original = original(stream, local)?;
    (original != local).then_some(original)
}

#[cfg(target_os = "linux")]
fn original(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    // SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST of netfilter.
    // A listener on `::` takes IPv4 too, and the kernel keeps that apart: `::ffff:10.0.0.1` was redirected as IPv4.
    let address = if local.ip().to_canonical().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    address.ok()?.as_socket()
}

#[cfg(not(target_os = "linux"))]
fn original(_: &TcpStream, _: SocketAddr) -> Option<SocketAddr> {
    None
}

/// Sends small writes at once, and finds peers that vanished.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(std::time::Duration::from_secs(10))
        .with_interval(std::time::Duration::from_secs(10));
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
