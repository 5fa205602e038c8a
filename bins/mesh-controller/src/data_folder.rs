//! The files in the data folder that others read.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use mesh_trust_rotation::document::BundleKey;
use serde::{Deserialize, Serialize};

/// Where everything lives.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder {
    path: PathBuf,
}

/// What `controller.json` says about a controller that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The first address of the proxy API.
    pub grpc: SocketAddr,
    /// All addresses of the proxy API.
    pub listeners: Vec<SocketAddr>,
    /// Where `/ready` and its like are served.
    pub admin: SocketAddr,
    /// The process.
    pub pid: u32,
}

impl DataFolder {
    /// Makes the folder, for its owner only, unless it is there.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The store.
    #[must_use]
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("state.redb")
    }

    /// The Unix socket of the admin API.
    #[must_use]
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }

    /// What the controller that last served from this folder announced.
    #[must_use]
    pub(crate) fn last_announcement(&self) -> Option<Announcement> {
        let text = fs::read(self.path.join(ANNOUNCEMENT)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Says where this controller serves. Whoever reads the file sees the old text or the new, never half of it.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn announce(&self, announcement: &Announcement) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(announcement)?;
        text.push(b'\n');
        self.replace(ANNOUNCEMENT, &text)
    }

    /// Writes the public trust bundle.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn write_anchors(&self, pem: &str) -> io::Result<()> {
        self.replace("anchors.pem", pem.as_bytes())
    }

    /// What is in the file of anchors.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn read_anchors(&self) -> io::Result<String> {
        fs::read_to_string(self.path.join("anchors.pem"))
    }

    /// Writes the public key that bundle documents are signed by, in hex digits.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn write_bundle_key(&self, key: &BundleKey) -> io::Result<()> {
        let key: String = key.clone().into();
        self.replace("bundle-key.pub", format!("{key}\n").as_bytes())
    }

    /// Where all entries of the audit chain are, one JSON object a line.
    #[must_use]
    pub(crate) fn audit(&self) -> PathBuf {
        self.path.join("trust-audit.jsonl")
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let scratch = self.path.join(format!(".{name}.{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&scratch)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&scratch, self.path.join(name))
    }
}

/// Binds the address of a setting. Port 0 means the port of the last run, if it is free, else any.
///
/// A controller that was killed so comes back where its proxies look for it.
///
/// # Errors
/// What the system says.
pub(crate) fn bind(
    wanted: SocketAddr,
    last: Option<SocketAddr>,
) -> io::Result<std::net::TcpListener> {
    let last = last.filter(|last| wanted.port() == 0 && last.ip() == wanted.ip());
    let socket = match last.map(listen) {
        Some(Ok(socket)) => socket,
        _ => listen(wanted)?,
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    // The standard library sets SO_REUSEADDR, so connections of the last run in TIME_WAIT do not hold the port.
    std::net::TcpListener::bind(address)
}

/// Binds the admin socket, mode 0600. One that is there is replaced only if nobody answers on it.
///
/// # Errors
/// `AddrInUse` if somebody answers; else what the system says.
pub(crate) fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net::{UnixListener, UnixStream};
    match UnixStream::connect(path) {
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another controller answers on it",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // A plain file refuses connections too, and is not ours to remove.
            if !fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(error);
            }
            fs::remove_file(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Bound in a folder of its own first: between bind and chmod, the socket has the mode that the umask gives.
    let private = path.with_extension(format!("{}.d", std::process::id()));
    // One of that name is left by a process of the same id that was killed here.
    let _ = fs::remove_dir_all(&private);
    DirBuilder::new().mode(0o700).create(&private)?;
    let bound = (|| {
        let scratch = private.join("s");
        let socket = UnixListener::bind(&scratch)?;
        fs::set_permissions(&scratch, Permissions::from_mode(0o600))?;
        fs::rename(&scratch, path)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })();
    let _ = fs::remove_dir_all(&private);
    bound
}

/// The address that others on this host reach a socket at: itself, or loopback if it is bound to all.
#[must_use]
pub(crate) fn reachable(bound: SocketAddr) -> SocketAddr {
    match bound {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), bound.port())
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), bound.port())
        }
        other => other,
    }
}

const ANNOUNCEMENT: &str = "controller.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_returns_to_the_last_port_if_it_is_free() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let first = bind(any, None).unwrap();
        let last = first.local_addr().unwrap();
        let busy = bind(any, Some(last)).unwrap();
        assert_ne!(busy.local_addr().unwrap(), last);
        drop(first);
        assert_eq!(bind(any, Some(last)).unwrap().local_addr().unwrap(), last);
        let elsewhere = "127.0.0.2:0".parse().unwrap();
        let other = bind(elsewhere, Some(last)).unwrap().local_addr().unwrap();
        assert_eq!(other.ip(), elsewhere.ip());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let live = bind_unix(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            bind_unix(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(live);
        bind_unix(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "not a socket").unwrap();
        assert!(bind_unix(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"not a socket");
    }

    #[test]
    fn what_is_announced_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(&folder.path().join("a/b")).unwrap();
        assert_eq!(data.last_announcement(), None);
        let announcement = Announcement {
            grpc: "127.0.0.1:1".parse().unwrap(),
            listeners: vec!["127.0.0.1:1".parse().unwrap()],
            admin: "127.0.0.1:2".parse().unwrap(),
            pid: 3,
        };
        data.announce(&announcement).unwrap();
        assert_eq!(data.last_announcement(), Some(announcement));
    }
}
