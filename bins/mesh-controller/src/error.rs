use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode};

use thiserror::Error;

use crate::{config::ConfigError, store::StoreError, trust::TrustError};

/// Why a controller does not run. Each says what failed, where, and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `--check` found manifests that are wrong; they have been listed.
    #[error("{count} errors in the manifests in {}", folder.display())]
    Manifests {
        /// Where they are.
        folder: PathBuf,
        /// How many.
        count: usize,
    },
    /// The data folder.
    #[error("cannot use the data folder {}: {source}; it must be a folder that this user may write", path.display())]
    Data {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate authority.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The manifests cannot be followed.
    #[error(transparent)]
    Discovery(#[from] mesh_discovery::Error),
    /// A port.
    #[error("cannot listen on {address} (`{key}`): {source}")]
    Listen {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The admin socket.
    #[error("cannot listen on {}: {source}", path.display())]
    AdminSocket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The asynchronous runtime, or the handling of signals.
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
}

impl Error {
    /// What the process ends with, as `--help` documents it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(_) => 2,
            Self::Manifests { .. } => 3,
            Self::Data { .. } | Self::Store(_) | Self::AdminSocket { .. } => 4,
            _ => 1,
        })
    }
}
