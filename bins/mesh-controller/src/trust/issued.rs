//! Which keys have leaves of this mesh, as long as those live.
//!
//! Whoever has the key of an anchor can sign a certificate of anybody, but for a key of their own: nobody else's is at hand. So below
//! an anchor in other hands, a certificate proves something only if a leaf was issued here for its key. What was issued is kept in
//! the store, in batches, a few seconds late: who got a leaf in the seconds before a crash has to prove itself by a token.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use mesh_trust_rotation::{AnchorId, Digest, UnixTime, audit::Hash as _, crypto::Sha256};
use serde::{Deserialize, Serialize};
use tracing::warn;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

use super::unix;
use crate::store::{Expected, StateStore, StoreError};

/// The key of a leaf that somebody has shown, and the anchor that it was verified under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShownLeaf {
    /// Under which it was verified.
    pub(crate) anchor: AnchorId,
    /// SHA-256 over its public key.
    pub(crate) key: Digest,
}

/// The keys that leaves were issued for.
pub(super) struct Issued {
    store: Arc<dyn StateStore>,
    /// What no other controller's batches are called.
    name: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// With the end of the leaf that lives longest.
    keys: HashMap<Digest, UnixTime>,
    unwritten: Vec<Entry>,
    written: Option<SystemTime>,
    /// When the last leaf of each batch ends.
    batches: BTreeMap<String, UnixTime>,
    number: u64,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
struct Entry {
    key: Digest,
    until: UnixTime,
}

impl Issued {
    /// Reads what was kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn open(
        store: Arc<dyn StateStore>,
        now: SystemTime,
    ) -> Result<Self, StoreError> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let micros = since.unwrap_or_default().as_micros();
        let issued = Self {
            store,
            name: format!("{micros:x}-{}", std::process::id()),
            inner: Mutex::default(),
        };
        issued.read().await?;
        Ok(issued)
    }

    /// A leaf was issued for the key of this request (PKCS #10, DER).
    pub(super) fn note(&self, csr: &[u8], until: UnixTime) {
        let Ok((_, request)) = X509CertificationRequest::from_der(csr) else {
            return;
        };
        let key = request.certification_request_info.subject_pki.raw;
        let key = Sha256.digest(key);
        let mut inner = self.lock();
        if inner.keys.len() < MAX_KEYS {
            inner.keys.insert(key, until);
            inner.unwritten.push(Entry { key, until });
        }
    }

    /// Writes what is new, every few seconds, and removes what has ended.
    ///
    /// # Errors
    /// [`StoreError`]; what was not written is written another time.
    pub(super) async fn write(&self, now: SystemTime) -> Result<(), StoreError> {
        let at = unix(now);
        let (name, batch, ended) = {
            let mut inner = self.lock();
            let lately = inner.written.is_some_and(|written| {
                now.duration_since(written)
                    .is_ok_and(|since| since < INTERVAL)
            });
            if lately || inner.unwritten.is_empty() {
                return Ok(());
            }
            inner.written = Some(now);
            inner.number += 1;
            inner.keys.retain(|_, until| *until >= at);
            let ended = inner.batches.iter().filter(|(_, until)| **until < at);
            let ended: Vec<String> = ended.map(|(name, _)| name.clone()).collect();
            let name = format!("{BATCHES}{}-{}", self.name, inner.number);
            let most = inner.unwritten.len().min(MAX_BATCH);
            let batch: Vec<Entry> = inner.unwritten.drain(..most).collect();
            (name, batch, ended)
        };
        let written = match serde_json::to_vec(&batch) {
            Ok(value) => self.store.put(&name, Expected::Absent, value).await,
            Err(error) => Err(StoreError::Io(error.to_string())),
        };
        if let Err(error) = written {
            self.lock().unwritten.extend(batch);
            return Err(error);
        }
        let until = batch.iter().map(|entry| entry.until).max();
        self.lock().batches.insert(name, until.unwrap_or(at));
        for name in ended {
            if let Some(stored) = self.store.get(&name).await? {
                self.store.delete(&name, stored.version).await?;
            }
            self.lock().batches.remove(&name);
        }
        Ok(())
    }

    /// Whether a leaf was issued for this key, as far as this controller knows.
    pub(super) fn knows(&self, key: Digest) -> bool {
        self.lock().keys.contains_key(&key)
    }

    /// Whether a leaf was issued for this key, by any controller.
    pub(super) async fn finds(&self, key: Digest) -> bool {
        if self.knows(key) {
            return true;
        }
        if let Err(error) = self.read().await {
            warn!(%error, "cannot read which keys leaves were issued for");
        }
        self.knows(key)
    }

    async fn read(&self) -> Result<(), StoreError> {
        let mut last = None::<String>;
        loop {
            let page = self.store.list(BATCHES, last.as_deref(), PAGE).await?;
            let whole = page.len() < PAGE;
            last = page.last().map(|(name, _)| name.clone());
            let mut inner = self.lock();
            for (name, stored) in page {
                if inner.batches.contains_key(&name) {
                    continue;
                }
                let batch: Vec<Entry> = serde_json::from_slice(&stored.value).unwrap_or_default();
                let until = batch.iter().map(|entry| entry.until).max();
                inner.batches.insert(name, until.unwrap_or_default());
                for entry in batch {
                    if inner.keys.len() < MAX_KEYS {
                        let known = inner.keys.entry(entry.key).or_default();
                        *known = entry.until.max(*known);
                    }
                }
            }
            drop(inner);
            if whole {
                return Ok(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

const BATCHES: &str = "trust/issued/";
const INTERVAL: Duration = Duration::from_secs(5);
/// Some 90 bytes each.
const MAX_BATCH: usize = 5_000;
const MAX_KEYS: usize = 1_000_000;
const PAGE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EmbeddedStore;

    fn csr(name: &str) -> (Vec<u8>, Digest) {
        let key = mesh_tls::LeafKey::generate().unwrap();
        let identity = mesh_tls::Identity::parse(name).unwrap();
        let digest = Sha256.digest(&key.public_key_der());
        (key.csr(&identity).unwrap(), digest)
    }

    #[tokio::test]
    async fn what_was_issued_is_known_to_others_and_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&folder.path().join("state.redb")).unwrap();
        let store: Arc<dyn StateStore> = Arc::new(store);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let open = || Issued::open(store.clone(), now);
        let (one, other) = (open().await.unwrap(), open().await.unwrap());
        let (csr, key) = csr("web.example");
        assert!(!one.knows(key));
        one.note(&csr, unix(now).after(Duration::from_secs(60)));
        assert!(one.knows(key));
        assert!(!other.finds(key).await, "it is not written yet");
        one.write(now).await.unwrap();
        assert!(!other.knows(key));
        assert!(other.finds(key).await);
        assert!(open().await.unwrap().knows(key));
        // A minute later it goes, with the next that is written.
        let later = now + Duration::from_secs(61);
        let (next, _) = self::csr("web.example");
        one.note(&next, unix(later).after(Duration::from_secs(60)));
        one.write(later).await.unwrap();
        assert!(!one.knows(key));
        assert_eq!(store.list(BATCHES, None, 9).await.unwrap().len(), 1);
        one.note(b"no request", unix(later));
    }
}
