//! The TOML file.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use thiserror::Error;

use super::{HostPort, TlsMode};

/// The keys of the file, each as optional as its flag.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) data: Option<PathBuf>,
    pub(super) manifests: Option<PathBuf>,
    pub(super) etcd: Option<Vec<String>>,
    pub(super) etcd_prefix: Option<String>,
    pub(super) etcd_ca: Option<PathBuf>,
    pub(super) etcd_cert: Option<PathBuf>,
    pub(super) etcd_key: Option<PathBuf>,
    pub(super) etcd_compact_minutes: Option<u16>,
    pub(super) lead_lease: Option<u16>,
    pub(super) outside_ca: Option<PathBuf>,
    pub(super) outside_ca_anchors: Option<PathBuf>,
    pub(super) listen: Option<Vec<SocketAddr>>,
    pub(super) tls: Option<TlsMode>,
    pub(super) advertise: Option<HostPort>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) log: Option<String>,
    pub(super) cluster_domain: Option<String>,
    pub(super) max_connections: Option<u32>,
    pub(super) max_uncertified: Option<u32>,
    pub(super) max_streams: Option<u32>,
    pub(super) max_certifications: Option<u32>,
}

/// What is wrong with the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{}:{line}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

pub(super) fn read(path: &Path) -> Result<File, FileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|error| FileError::Content {
        path: path.to_owned(),
        line: line_of(&text, error.span().map_or(0, |span| span.start)),
        reason: error.message().replace('\n', "; "),
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
