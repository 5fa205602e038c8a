//! A clock of a program's own, which can be set while it runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The time by which a program lives: that of the machine, and so much more or less. Timers are not touched, as where a host's clock
/// is set. By Debian's libfaketime, which is preloaded.
#[derive(Debug)]
pub struct Clock {
    folder: TempDir,
}

impl Clock {
    /// A clock that is right.
    ///
    /// # Panics
    /// If there is no folder to be had.
    #[must_use]
    pub fn right() -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("no folder: {error}"));
        let clock = Self { folder };
        clock.set(0);
        clock
    }

    /// Sets it so many seconds ahead of the machine's; behind, if negative. It is noticed within a second.
    ///
    /// # Panics
    /// If its file cannot be written.
    pub fn set(&self, ahead: i32) {
        let (file, scratch) = (self.file(), self.folder.path().join("new"));
        std::fs::write(&scratch, format!("{ahead:+}\n"))
            .and_then(|()| std::fs::rename(&scratch, &file))
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// What a program is started with.
    pub(crate) fn environment(&self) -> [(&'static str, OsString); 5] {
        let library = library().unwrap_or_default();
        [
            ("LD_PRELOAD", library.into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().into()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("FAKETIME_FORCE_MONOTONIC_FIX", "0".into()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}

/// Where libfaketime is, if it is installed.
pub(crate) fn library() -> Option<PathBuf> {
    let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    let path = Path::new("/usr/lib")
        .join(machine)
        .join("faketime/libfaketimeMT.so.1");
    path.is_file().then_some(path)
}
