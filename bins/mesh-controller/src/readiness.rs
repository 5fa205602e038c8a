//! Whether the controller can do its work, and if not, why.

use std::{sync::Arc, time::SystemTime};

use crate::{mesh::Mesh, trust::Trust};

/// Answers `/ready`.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    mesh: Arc<Mesh>,
    trust: Arc<Trust>,
}

impl Readiness {
    /// Judges by these.
    #[must_use]
    pub(crate) fn new(mesh: Arc<Mesh>, trust: Arc<Trust>) -> Self {
        Self { mesh, trust }
    }

    /// What stands in the way at `now`. Nothing: ready.
    #[must_use]
    pub(crate) fn obstacles(&self, now: SystemTime) -> Vec<String> {
        let mut obstacles = Vec::new();
        if !self.mesh.is_loaded() {
            obstacles.push("the manifests have not been read yet".to_owned());
        }
        if now >= self.trust.issuer_not_after() {
            obstacles.push("the issuer of certificates has expired".to_owned());
        }
        obstacles
    }
}
