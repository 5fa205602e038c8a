//! Where the other programs are.

use std::path::PathBuf;

use crate::Error;

/// The programs that `mesh up` runs beside the workloads'.
#[derive(Debug)]
pub(crate) struct Programs {
    /// `mesh-controller`.
    pub(crate) controller: PathBuf,
    /// `mesh-proxy`.
    pub(crate) proxy: PathBuf,
}

impl Programs {
    /// Looks in `MESH_BIN_DIR`, else beside this program.
    ///
    /// # Errors
    /// When one is missing.
    pub(crate) fn find() -> Result<Self, Error> {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.to_path_buf());
        let folder = std::env::var_os("MESH_BIN_DIR")
            .map(PathBuf::from)
            .or_else(beside)
            .unwrap_or_default();
        let find = |name: &'static str| {
            let path = folder.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(Error::MissingProgram {
                    name,
                    folder: folder.clone(),
                })
            }
        };
        Ok(Self {
            controller: find("mesh-controller")?,
            proxy: find("mesh-proxy")?,
        })
    }
}
