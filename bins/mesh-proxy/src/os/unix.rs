//! Linux and its kin.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whether several sockets may listen on one address, so that the kernel spreads connections over workers.
pub(crate) const LISTENERS_SHARE: bool = true;

/// A connection to a server on this machine.
pub(crate) type LocalStream = tokio::net::UnixStream;

/// Connects to the socket at `path`.
pub(crate) async fn connect_local(path: &Path) -> io::Result<LocalStream> {
    LocalStream::connect(path).await
}

/// The path of a local socket written as a path, `unix:PATH` or `unix://PATH`.
pub(crate) fn local_path(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("unix:").unwrap_or(text);
    let path = Path::new(path.strip_prefix("//").unwrap_or(path));
    path.is_absolute().then(|| path.to_owned())
}

/// Lets others bind the address of `socket` too, if they ask for it as well.
pub(crate) fn share_address(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)
}

/// What the redirect rules of netfilter changed: SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST.
#[cfg(target_os = "linux")]
pub(crate) fn original_destination(socket: &SockRef<'_>, local: SocketAddr) -> Option<SocketAddr> {
    // A listener on `::` takes IPv4 too, and the kernel keeps that apart: `::ffff:10.0.0.1` was redirected as IPv4.
    let address = if local.ip().to_canonical().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    address.ok()?.as_socket()
}

/// Nothing is redirected.
#[cfg(not(target_os = "linux"))]
pub(crate) fn original_destination(_: &SockRef<'_>, _: SocketAddr) -> Option<SocketAddr> {
    None
}

/// Limits how long what was sent may go unacknowledged (RFC 5482).
#[cfg(target_os = "linux")]
pub(crate) fn set_user_timeout(socket: &SockRef<'_>, timeout: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(timeout))
}

/// The system has its own limit.
#[cfg(not(target_os = "linux"))]
pub(crate) fn set_user_timeout(_: &SockRef<'_>, _: Duration) -> io::Result<()> {
    Ok(())
}

/// Keeps the kernel from backing memory by huge pages, where a few live bytes in each hold 2 MiB.
#[cfg(target_os = "linux")]
pub(crate) fn use_small_pages() {
    // A kernel that cannot be told has none, or a sandbox forbids it: then more memory is used.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// The system has its own way.
#[cfg(not(target_os = "linux"))]
pub(crate) fn use_small_pages() {}

/// Waits for the signals that ask a process to end. They no longer end it by themselves once this exists.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the next one, with its name.
    pub(crate) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
