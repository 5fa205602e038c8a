//! Windows.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient};
use tokio::signal::windows::{CtrlC, CtrlShutdown, ctrl_c, ctrl_shutdown};

/// Whether several sockets may listen on one address, so that the kernel spreads connections over workers. Here one of
/// them would get all connections, so there is one worker.
pub(crate) const LISTENERS_SHARE: bool = false;

/// A connection to a server on this machine.
pub(crate) type LocalStream = NamedPipeClient;

/// Connects to the pipe at `path`.
// As a future, because elsewhere it is one.
#[allow(clippy::unused_async)]
pub(crate) async fn connect_local(path: &Path) -> io::Result<LocalStream> {
    ClientOptions::new().open(path)
}

/// The path of a named pipe written as its path or `npipe:NAME`.
pub(crate) fn local_path(text: &str) -> Option<PathBuf> {
    let path = match text.strip_prefix("npipe:") {
        Some(name) => format!("{PIPES}{name}"),
        None => text.to_owned(),
    };
    let name = path.strip_prefix(PIPES)?;
    (!name.is_empty()).then(|| path.into())
}

/// An address belongs to who binds it first; the option that would change this lets anyone take it over.
// With a result, because elsewhere it has one.
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn share_address(_: &Socket) -> io::Result<()> {
    Ok(())
}

/// Nothing is redirected.
pub(crate) fn original_destination(_: &SockRef<'_>, _: SocketAddr) -> Option<SocketAddr> {
    None
}

/// The system has its own limit.
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn set_user_timeout(_: &SockRef<'_>, _: Duration) -> io::Result<()> {
    Ok(())
}

/// The system has its own way.
pub(crate) fn use_small_pages() {}

/// Waits for what asks a process to end. It no longer ends it by itself once this exists.
#[derive(Debug)]
pub(crate) struct Signals {
    control_c: CtrlC,
    shutdown: CtrlShutdown,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            control_c: ctrl_c()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    /// Resolves at the next one, with its name.
    pub(crate) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.control_c.recv() => "Ctrl-C",
            _ = self.shutdown.recv() => "shutdown",
        }
    }
}

const PIPES: &str = r"\\.\pipe\";
