//! Data folders: where a mesh keeps what it knows, and how another command finds a running one.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, getpid, getuid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Longest path of a Unix socket that every system takes.
const SOCKET_PATH_BYTES: usize = 100;

/// A folder that `mesh up` works in.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    temporary: bool,
    /// Held for as long as this process lives, however it ends.
    _lock: File,
}

impl DataFolder {
    /// Uses `kept`, or a temporary folder that goes when this value does. Folders left by a killed `mesh up` go too.
    ///
    /// # Errors
    /// When it cannot be made, another `mesh up` is in it, or its path is too long for a socket.
    pub(crate) fn open(kept: Option<&Path>) -> Result<Self, Error> {
        let (path, temporary) = match kept {
            Some(path) => (path.to_path_buf(), false),
            None => {
                make_private(&temporary_folders())?;
                // Someone else's folder of that name would let them read our keys.
                if std::fs::metadata(temporary_folders())
                    .is_ok_and(|folder| folder.uid() != getuid().as_raw())
                {
                    let source =
                        std::io::Error::other("belongs to another user; set TMPDIR, or use --data");
                    return Err(Error::File {
                        path: temporary_folders(),
                        source,
                    });
                }
                remove_abandoned();
                (
                    temporary_folders().join(format!("up-{}", std::process::id())),
                    true,
                )
            }
        };
        make_private(&path)?;
        let file = |source| Error::File {
            path: path.clone(),
            source,
        };
        let path = path.canonicalize().map_err(file)?;
        let lock = lock(&path)?;
        let folder = Self {
            path,
            temporary,
            _lock: lock,
        };
        if folder.path.as_os_str().len() + "/admin.sock".len() > SOCKET_PATH_BYTES {
            let source = std::io::Error::other(
                "its path is too long for a socket in it; choose a shorter one with --data",
            );
            return Err(Error::File {
                path: folder.path.clone(),
                source,
            });
        }
        Running {
            pid: own_pid(),
            proxies: Vec::new(),
        }
        .write(&folder.path)?;
        Ok(folder)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        let left = if self.temporary {
            std::fs::remove_dir_all(&self.path)
        } else {
            std::fs::remove_file(self.path.join(RUNNING))
        };
        // What is left in the system's temporary folder is removed by the next run.
        drop(left);
    }
}

/// A folder that only this user may look into, with those above it.
pub(crate) fn make_private(path: &Path) -> Result<(), Error> {
    let file = |source| Error::File {
        path: path.to_path_buf(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(file)
}

/// Replaces a file, which only this user may read, in one step.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<(), Error> {
    let file = |source| Error::File {
        path: path.to_path_buf(),
        source,
    };
    let new = path.with_extension("new");
    std::fs::write(&new, "").map_err(file)?;
    std::fs::set_permissions(&new, Permissions::from_mode(0o600)).map_err(file)?;
    std::fs::write(&new, content).map_err(file)?;
    std::fs::rename(&new, path).map_err(file)
}

/// Has files of a folder, and the folder itself, outlast a crash of the machine.
pub(crate) fn flush(folder: &Path, names: &[&str]) -> Result<(), Error> {
    let sync = |path: PathBuf| {
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|source| Error::File { path, source })
    };
    for name in names {
        sync(folder.join(name))?;
    }
    sync(folder.to_owned())?;
    // It may have been made just now. Who may not look at what it is in has not made it there.
    match sync(folder.join("..")) {
        Err(Error::File { source, .. }) if source.kind() == ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

const RUNNING: &str = "up.json";
const LOCK: &str = "up.lock";

/// Takes a data folder for this process.
fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(LOCK);
    let failed = |source| Error::File {
        path: path.clone(),
        source,
    };
    let lock = File::create(&path).map_err(failed)?;
    let mut tries = 0;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if tries == 5 => {
                return Err(Error::DataInUse {
                    path: folder.to_path_buf(),
                });
            }
            // Somebody may just be looking whether it is taken.
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
        tries += 1;
    }
}

/// Whether a `mesh up` works in that folder.
fn is_taken(folder: &Path) -> bool {
    let lock = File::open(folder.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// What a running `mesh up` says about itself, in its data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Its process.
    pub(crate) pid: i32,
    /// The proxies it runs: whose, and where each answers `/ready`.
    pub(crate) proxies: Vec<(String, SocketAddr)>,
}

impl Running {
    /// Says so.
    pub(crate) fn write(&self, data: &Path) -> Result<(), Error> {
        write_private(
            &data.join(RUNNING),
            &serde_json::to_string_pretty(self).unwrap_or_default(),
        )
    }

    /// What is said in `data`, if whoever said it still runs.
    pub(crate) fn read(data: &Path) -> Option<Self> {
        let running: Self =
            serde_json::from_str(&std::fs::read_to_string(data.join(RUNNING)).ok()?).ok()?;
        is_taken(data).then_some(running)
    }
}

/// The data folder that is meant: the one given, or that of the only `mesh up` of this user.
///
/// # Errors
/// When none runs, or several do.
pub(crate) fn find(given: Option<PathBuf>) -> Result<PathBuf, Error> {
    if let Some(path) = given {
        return if path.is_dir() {
            Ok(path)
        } else {
            Err(Error::NoMesh(format!(
                "{} is not a folder; --data wants the data folder of a controller",
                path.display()
            )))
        };
    }
    let mut running: Vec<PathBuf> = folders()
        .into_iter()
        .filter(|path| is_taken(path))
        .collect();
    running.sort();
    match (running.pop(), running.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(Error::NoMesh(
            "no mesh runs here with a temporary data folder; start one with `mesh up`, or say which with --data DIR".to_owned(),
        )),
        (Some(last), others) => Err(Error::NoMesh(format!(
            "{} meshes run here; say which with --data DIR, for example --data {}",
            others + 1,
            last.display()
        ))),
    }
}

fn temporary_folders() -> PathBuf {
    std::env::temp_dir().join(format!("mesh-{}", getuid().as_raw()))
}

fn folders() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(temporary_folders()) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// The process that a temporary folder is named after.
fn owner(folder: &Path) -> Option<i32> {
    folder
        .file_name()?
        .to_str()?
        .strip_prefix("up-")?
        .parse()
        .ok()
}

/// This process.
pub(crate) fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}

fn alive(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

fn remove_abandoned() {
    for folder in folders() {
        if owner(&folder).is_some_and(|pid| !alive(pid)) {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_is_private_and_goes() {
        let folder = DataFolder::open(None).unwrap();
        let path = folder.path().to_path_buf();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_kept_folder_stays_without_the_sign_of_running() {
        let kept = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(Some(kept.path())).unwrap();
        assert_eq!(
            Running::read(kept.path()).map(|running| running.pid),
            Some(own_pid())
        );
        let second = DataFolder::open(Some(kept.path())).unwrap_err();
        assert!(
            second
                .to_string()
                .contains("is in use by another `mesh up`"),
            "{second}"
        );
        drop(folder);
        assert!(kept.path().is_dir());
        assert_eq!(Running::read(kept.path()), None);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let error = DataFolder::open(Some(&base.path().join("x".repeat(120)))).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("choose a shorter one with --data"),
            "{error}"
        );
    }

    #[test]
    fn secrets_are_for_this_user_only() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("token");
        write_private(&path, "secret").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "secret");
    }

    #[test]
    fn what_cannot_be_flushed_is_named() {
        let base = tempfile::tempdir().unwrap();
        write_private(&base.path().join("key"), "secret").unwrap();
        flush(base.path(), &["key"]).unwrap();
        let error = flush(base.path(), &["key", "gone"]).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }
}
