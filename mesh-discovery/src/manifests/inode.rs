//! Which folder a path leads to, as the operating system tells it.

use std::fs;
use std::path::Path;

/// The device and the number of a folder: another one, put in its place, has others.
pub(super) type Inode = (u64, u64);

/// The folder at `path`; `None` when none is there.
#[cfg(unix)]
pub(super) fn inode(path: &Path) -> Option<Inode> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some((metadata.dev(), metadata.ino()))
}

/// Elsewhere a folder put in another's place is noticed when it is read.
#[cfg(not(unix))]
pub(super) fn inode(path: &Path) -> Option<Inode> {
    fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some((0, 0))
}
