//! What is known of the mesh's trust when the proxy starts: the key that signs its bundles, and the last bundle if it was kept.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mesh_tls::TrustBundle;
use mesh_trust_rotation::Generation;
use mesh_trust_rotation::document::{BundleKey, Pin};
use serde::{Deserialize, Serialize};

use crate::config;

/// Far more than a key takes.
const MAX_KEY_BYTES: u64 = 4 * 1024;
/// The largest bundle as PEM, and what is around it.
const MAX_KEPT_BYTES: u64 = 1024 * 1024;

/// What a proxy that follows the mesh's bundles begins with.
#[derive(Debug)]
pub struct Start {
    /// Whose documents are taken, and above which generation.
    pub pin: Pin,
    /// The bundle that was kept; without one, the configured anchors count.
    pub bundle: Option<TrustBundle>,
    pub(super) keeper: Option<Keeper>,
}

/// What is written down after each change.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    pin: Pin,
    /// As PEM.
    anchors: String,
    /// The key of `identity.bundle_key_file` that this began with: where that is another, the workload has joined anew.
    joined: BundleKey,
}

/// The file of `identity.bundle_file`, and what it has to be of.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    joined: BundleKey,
}

impl Start {
    /// Follows what this pin vouches for, and keeps nothing.
    #[must_use]
    pub fn with(pin: Pin) -> Self {
        Self {
            pin,
            bundle: None,
            keeper: None,
        }
    }

    /// Reads what `identity` names; `None` where bundles are not followed.
    ///
    /// # Errors
    /// When a file is there and cannot be used.
    pub(crate) fn read(
        identity: &config::Identity,
        trust_domain: &str,
    ) -> Result<Option<Self>, Error> {
        let Some(path) = &identity.bundle_key_file else {
            return Ok(None);
        };
        let joined = key(path)?;
        let mut start = Self::with(Pin::new(trust_domain, joined.clone(), Generation(0)));
        if let Some(path) = identity.bundle_file.clone() {
            let keeper = Keeper { path, joined };
            if let Some((pin, bundle)) = keeper.read(trust_domain)? {
                (start.pin, start.bundle) = (pin, Some(bundle));
            }
            start.keeper = Some(keeper);
        }
        Ok(Some(start))
    }
}

impl Keeper {
    fn read(&self, trust_domain: &str) -> Result<Option<(Pin, TrustBundle)>, Error> {
        let key = "identity.bundle_file";
        let unusable = |reason: String| Error::Unusable {
            key,
            path: self.path.clone(),
            reason,
        };
        let Some(text) = read(key, &self.path, MAX_KEPT_BYTES)? else {
            return Ok(None);
        };
        let kept: Kept =
            serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
        // Of another mesh, or of a time before it joined this one.
        if kept.joined != self.joined || kept.pin.trust_domain() != trust_domain {
            return Ok(None);
        }
        let generation = kept.pin.generation().0;
        let bundle = TrustBundle::from_pem(generation, kept.anchors.as_bytes())
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Some((kept.pin, bundle)))
    }

    /// Writes both down, so that whoever reads sees the old or the new.
    pub(super) fn write(&self, pin: &Pin, bundle: &TrustBundle) -> io::Result<()> {
        let kept = Kept {
            pin: pin.clone(),
            anchors: bundle.to_pem(),
            joined: self.joined.clone(),
        };
        let mut scratch = self.path.clone().into_os_string();
        scratch.push(".new");
        let scratch = PathBuf::from(scratch);
        let mut file = std::fs::File::create(&scratch)?;
        file.write_all(&serde_json::to_vec_pretty(&kept)?)?;
        file.sync_all()?;
        std::fs::rename(&scratch, &self.path)
    }
}

/// A bundle key as hex digits, as a controller keeps it beside its anchors.
fn key(path: &Path) -> Result<BundleKey, Error> {
    let key = "identity.bundle_key_file";
    let unusable = |reason: String| Error::Unusable {
        key,
        path: path.to_owned(),
        reason,
    };
    let text = read(key, path, MAX_KEY_BYTES)?
        .ok_or_else(|| unusable("there is no such file".to_owned()))?;
    BundleKey::try_from(text.trim().to_owned()).map_err(|error| unusable(error.to_string()))
}

fn read(key: &'static str, path: &Path, most: u64) -> Result<Option<String>, Error> {
    let unusable = |reason: String| Error::Unusable {
        key,
        path: path.to_owned(),
        reason,
    };
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(error.to_string())),
    };
    if length > most {
        return Err(unusable(format!(
            "it has {length} bytes, expected at most {most}"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    Ok(Some(text))
}

/// Why bundles cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is not what it should be.
    #[error("{} ({key}): {reason}", path.display())]
    Unusable {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use mesh_tls::ca::Anchor;
    use mesh_trust_rotation::crypto::BundleSigner;

    use super::*;

    const DOMAIN: &str = "mesh.example";

    fn identity(folder: &Path, key: &BundleKey) -> config::Identity {
        let path = folder.join("bundle-key.pub");
        std::fs::write(&path, String::from(key.clone()) + "\n").unwrap();
        config::Identity {
            bundle_key_file: Some(path),
            bundle_file: Some(folder.join("bundle.json")),
            ..config::Identity::default()
        }
    }

    fn key() -> BundleKey {
        BundleSigner::generate().unwrap().0.public_key().clone()
    }

    #[test]
    fn what_was_kept_is_read_back_unless_it_is_of_another_mesh() {
        let folder = tempfile::tempdir().unwrap();
        let joined = key();
        let settings = identity(folder.path(), &joined);
        let start = Start::read(&settings, DOMAIN).unwrap().unwrap();
        assert_eq!(
            (start.pin.generation(), start.bundle),
            (Generation(0), None)
        );
        let day = Duration::from_secs(24 * 3600);
        let anchor = Anchor::generate("root", day, SystemTime::now()).unwrap();
        let bundle = TrustBundle::from_der(7, [anchor.certificate().clone()]).unwrap();
        let moved = Pin::new(DOMAIN, key(), Generation(7));
        start.keeper.unwrap().write(&moved, &bundle).unwrap();

        let again = Start::read(&settings, DOMAIN).unwrap().unwrap();
        assert_eq!((again.pin, again.bundle), (moved, Some(bundle)));
        let other = Start::read(&settings, "other.example").unwrap().unwrap();
        assert_eq!(other.bundle, None);
        let anew = identity(folder.path(), &key());
        assert_eq!(Start::read(&anew, DOMAIN).unwrap().unwrap().bundle, None);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = identity(folder.path(), &key());
        std::fs::write(folder.path().join("bundle.json"), "{}").unwrap();
        let error = Start::read(&settings, DOMAIN).unwrap_err().to_string();
        assert!(error.contains("identity.bundle_file"), "{error}");
        for wrong in [None, Some("xyz"), Some("")] {
            let path = folder.path().join("other");
            if let Some(wrong) = wrong {
                std::fs::write(&path, wrong).unwrap();
            }
            settings.bundle_key_file = Some(path);
            let error = Start::read(&settings, DOMAIN).unwrap_err().to_string();
            assert!(error.contains("identity.bundle_key_file"), "{error}");
        }
        let unset = config::Identity::default();
        assert!(Start::read(&unset, DOMAIN).unwrap().is_none());
    }
}
