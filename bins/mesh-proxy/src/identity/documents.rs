//! A key and a signing request that were made before the proxy started, as linkerd2-proxy takes them.

use std::io;
use std::path::{Path, PathBuf};

use mesh_tls::LeafKey;

/// The files of `identity.key_dir`: `key.p8` (PKCS #8, ECDSA P-256) and `csr.der` (PKCS #10).
#[derive(Debug)]
pub struct Documents {
    key: LeafKey,
    csr: Vec<u8>,
}

impl Documents {
    /// Reads them from `folder`.
    ///
    /// # Errors
    /// When a file is missing or empty, or the key is no key of the kind.
    pub fn read(folder: &Path) -> Result<Self, DocumentsError> {
        let path = folder.join("key.p8");
        let key = LeafKey::from_pkcs8_der(&read(&path)?)
            .map_err(|source| DocumentsError::Key { path, source })?;
        let csr = read(&folder.join("csr.der"))?;
        Ok(Self { key, csr })
    }

    pub(super) fn key(&self) -> &LeafKey {
        &self.key
    }

    pub(super) fn csr(&self) -> &[u8] {
        &self.csr
    }
}

/// Why there is no key to certify.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentsError {
    /// A file cannot be read.
    #[error("cannot read {} (identity.key_dir): {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key is none that can be used.
    #[error("{} (identity.key_dir): {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong; never the key.
        source: mesh_tls::Error,
    },
}

/// Keys and requests are a few hundred bytes.
const MAX_BYTES: u64 = 64 * 1024;

fn read(path: &Path) -> Result<Vec<u8>, DocumentsError> {
    let length = std::fs::metadata(path).map(|metadata| metadata.len());
    let bytes = length.and_then(|length| match length {
        1..=MAX_BYTES => std::fs::read(path),
        length => Err(io::Error::other(format!(
            "it has {length} bytes, expected 1 to {MAX_BYTES}"
        ))),
    });
    bytes.map_err(|source| DocumentsError::Read {
        path: path.to_owned(),
        source,
    })
}
