//! The mesh that `mesh up` runs when it is given none.

use std::path::{Path, PathBuf};

use crate::{Error, data};

const FILES: [(&str, &str); 4] = [
    ("mesh.yaml", include_str!("../../quickstart/mesh.yaml")),
    ("web.yaml", include_str!("../../quickstart/web.yaml")),
    (
        "greeter.yaml",
        include_str!("../../quickstart/greeter.yaml"),
    ),
    ("echo.yaml", include_str!("../../quickstart/echo.yaml")),
];

/// Writes its manifests below `data`, unless they are there: they may have been edited.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn write(data: &Path) -> Result<PathBuf, Error> {
    let folder = data.join("quickstart");
    data::make_private(&folder)?;
    for (name, text) in FILES {
        let path = folder.join(name);
        if !path.exists() {
            data::write_private(&path, text)?;
        }
    }
    Ok(folder)
}
