//! Sockets: listeners that share an address among workers, and where a redirected connection was meant to go.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::os;

/// Binds `address` so that every worker can bind it too; the kernel spreads connections over them. It holds `backlog` of
/// them before they are accepted.
pub(crate) fn listen(address: SocketAddr, backlog: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    os::share_address(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.into())?;
    TcpListener::from_std(socket.into())
}

/// Where `stream` was going before a redirect rule sent it here; `None` when it was not redirected.
pub(crate) fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let local = stream.local_addr().ok()?;
    let original = os::original_destination(&SockRef::from(stream), local)?;
    (original != local).then_some(original)
}

/// How peers that vanished are found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    /// How long a silent peer is left alone.
    pub(crate) keepalive: Duration,
    /// How long what was sent may go unacknowledged.
    pub(crate) user_timeout: Option<Duration>,
}

/// Sends small writes at once, and finds peers that vanished.
pub(crate) fn tune(stream: &TcpStream, liveness: Liveness) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(liveness.keepalive)
        .with_interval(liveness.keepalive);
    let socket = SockRef::from(stream);
    if let Some(timeout) = liveness.user_timeout {
        os::set_user_timeout(&socket, timeout)?;
    }
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_of_liveness_is_in_force() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)), 7).unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, connected) = tokio::join!(listener.accept(), connecting);
        let (near, _far) = (accepted.unwrap().0, connected.unwrap());
        let liveness = Liveness {
            keepalive: Duration::from_secs(21),
            user_timeout: Some(Duration::from_secs(42)),
        };
        // The most that a configuration may say is not too much for the kernel.
        let most = Liveness {
            keepalive: Duration::from_secs(32_767),
            user_timeout: Some(Duration::from_secs(2_147_483)),
        };
        for liveness in [liveness, most] {
            tune(&near, liveness).unwrap();
            let socket = SockRef::from(&near);
            assert_eq!(socket.tcp_keepalive_time().unwrap(), liveness.keepalive);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), liveness.keepalive);
            assert_eq!(socket.tcp_user_timeout().unwrap(), liveness.user_timeout);
        }
    }
}
