//! The files of an outside authority, read so that they belong together.

use std::{fs::File, io::Read as _, path::Path};

use zeroize::Zeroizing;

use super::{Fault, Source};

/// What was in them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) anchors: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) key: Zeroizing<Vec<u8>>,
}

impl Source {
    /// Reads all three. Where the folder is mounted by Kubernetes, `..data` is a link that moves when all files are there; so they
    /// are read from what it leads to at this moment.
    pub(super) fn read(&self) -> Result<Files, Fault> {
        let now = std::fs::canonicalize(self.folder.join("..data"));
        let folder = now.unwrap_or_else(|_| self.folder.clone());
        let named = |name: &str| self.folder.join(name);
        Ok(Files {
            anchors: match &self.anchors {
                Some(path) => read(path, path)?,
                None => read(&folder.join(ANCHORS), &named(ANCHORS))?,
            },
            issuer: read(&folder.join(ISSUER), &named(ISSUER))?,
            key: Zeroizing::new(read(&folder.join(KEY), &named(KEY))?),
        })
    }
}

impl std::fmt::Debug for Files {
    /// Without the private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

fn read(path: &Path, name: &Path) -> Result<Vec<u8>, Fault> {
    let fault = |reason: String| Fault {
        file: name.to_owned(),
        line: None,
        field: "file",
        reason,
    };
    let read = || {
        let mut bytes = Vec::new();
        let mut most = File::open(path)?.take(MAX_BYTES + 1);
        most.read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = read().map_err(|error| fault(format!("{error}; expected PEM text")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(fault(format!(
            "it has more than {MAX_BYTES} bytes, which is the most that is read"
        )));
    }
    Ok(bytes)
}

pub(super) const ANCHORS: &str = "ca.crt";
pub(super) const ISSUER: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";
const MAX_BYTES: u64 = 256 * 1024;
