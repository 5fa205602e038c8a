//! Where the programs of this workspace are.

use std::path::{Path, PathBuf};

/// The path of a program of this workspace: in `MESH_BIN_DIR` if set, else in the target folder the running test was
/// built into. It need not exist: see [`Requirement::Built`](crate::Requirement::Built).
#[must_use]
pub fn built(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("MESH_BIN_DIR") {
        return PathBuf::from(folder).join(name);
    }
    // A test runs from `target/PROFILE/deps`; a doctest from a folder that tells nothing.
    let own = std::env::current_exe().ok();
    let beside = own
        .as_deref()
        .and_then(|own| own.parent()?.parent())
        .map(|folder| folder.join(name));
    match beside {
        Some(beside) if beside.is_file() => beside,
        _ => target().join("debug").join(name),
    }
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}
