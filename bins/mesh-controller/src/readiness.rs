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
        obstacles.extend(self.trust.failure());
        obstacles
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_discovery::{Registry, shared};

    use super::*;
    use crate::{mesh::Settings, store::EmbeddedStore};

    #[tokio::test]
    async fn ready_once_the_manifests_are_read_and_as_long_as_it_can_issue() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(&folder.path().join("s")).unwrap());
        let (_writer, reader) = shared::new(Registry::new(()));
        let mesh = Arc::new(Mesh::new(reader, "cluster.local".to_owned()));
        let now = SystemTime::now();
        let settings = Settings::default();
        let (trust, driver) = Trust::open(crate::trust::Place::sole(store), &settings, now)
            .await
            .unwrap();
        let readiness = Readiness::new(mesh.clone(), Arc::new(trust));
        assert!(readiness.obstacles(now)[0].contains("manifests"));
        mesh.publish(settings.clone(), Vec::new(), false);
        assert_eq!(readiness.obstacles(now).len(), 1, "they could not be read");
        mesh.publish(settings, Vec::new(), true);
        assert!(readiness.obstacles(now).is_empty());
        let year_on = now + Duration::from_hours(24 * 366);
        assert!(readiness.obstacles(year_on)[0].contains("issuer"));
        drop(driver);
        assert!(readiness.obstacles(now)[0].contains("has ended"));
    }
}
