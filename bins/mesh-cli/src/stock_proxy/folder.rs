//! A folder that nothing was in.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::{Error, data};

/// A folder that this command fills, for this user alone.
#[derive(Debug)]
pub(super) struct NewFolder {
    path: PathBuf,
}

impl NewFolder {
    /// Makes it, or takes an empty one.
    ///
    /// # Errors
    /// When something is in it: a key that is in use would be lost.
    pub(super) fn at(path: &Path) -> Result<Self, Error> {
        data::make_private(path)?;
        let failed = |source| Error::File {
            path: path.to_path_buf(),
            source,
        };
        let path = path.canonicalize().map_err(failed)?;
        if std::fs::read_dir(&path).map_err(failed)?.next().is_some() {
            return Err(Error::StockProxy {
                subject: path.display().to_string(),
                reason: "the folder is not empty, and nothing in it is overwritten; give a new one"
                    .to_owned(),
            });
        }
        Ok(Self { path })
    }

    /// Where it is, from the root on.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file that only this user reads.
    pub(super) fn write_private(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.write(name, content, 0o600)
    }

    /// A file that anybody may read who may enter the folder.
    pub(super) fn write_public(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.write(name, content, 0o644)
    }

    fn write(&self, name: &str, content: &[u8], mode: u32) -> Result<(), Error> {
        let path = self.path.join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .map_err(|source| Error::File { path, source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_there_stays() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b");
        let folder = NewFolder::at(&path).unwrap();
        folder.write_private("key.p8", b"one").unwrap();
        assert!(folder.write_private("key.p8", b"two").is_err());
        let error = NewFolder::at(&path).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
        assert_eq!(std::fs::read(path.join("key.p8")).unwrap(), b"one");
    }

    #[test]
    fn secrets_are_for_this_user_only() {
        let base = tempfile::tempdir().unwrap();
        let folder = NewFolder::at(&base.path().join("new")).unwrap();
        folder.write_private("key.p8", b"key").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.path().join("key.p8")), 0o600);
    }
}
