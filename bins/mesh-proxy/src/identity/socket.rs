//! Connecting to a server on this machine: a Unix socket, or a named pipe on Windows.

use std::io;
use std::path::Path;

/// A connection to it.
#[cfg(unix)]
pub(super) type LocalStream = tokio::net::UnixStream;

/// A connection to it.
#[cfg(windows)]
pub(super) type LocalStream = tokio::net::windows::named_pipe::NamedPipeClient;

/// Connects to the socket at `path`.
#[cfg(unix)]
pub(super) async fn connect(path: &Path) -> io::Result<LocalStream> {
    LocalStream::connect(path).await
}

/// Connects to the pipe at `path`.
#[cfg(windows)]
pub(super) async fn connect(path: &Path) -> io::Result<LocalStream> {
    tokio::net::windows::named_pipe::ClientOptions::new().open(path)
}
