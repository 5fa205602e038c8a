//! Identities whose certificates are not renewed, because their last good token was revoked.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::store::{Expected, StateStore, StoreError, Version, Versioned};

/// The barred identities of one controller.
#[derive(Debug, Clone)]
pub(super) struct Bars {
    store: Arc<dyn StateStore>,
}

#[derive(Serialize, Deserialize)]
struct Bar {
    /// For those who look into the store; the key has its digest only.
    identity: String,
    /// From then on there is no certificate left that could be renewed.
    #[serde(with = "super::unix_millis")]
    until: SystemTime,
}

impl Bars {
    pub(super) fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store }
    }

    /// Bars an identity from `now` on.
    pub(super) async fn impose(&self, identity: &str, now: SystemTime) -> Result<(), StoreError> {
        let expected = match self.find(identity).await? {
            Some((_, version)) => Expected::At(version),
            None => Expected::Absent,
        };
        let bar = Bar {
            identity: identity.to_owned(),
            until: now + LONGEST_LEAF,
        };
        let bar = serde_json::to_vec(&bar).unwrap_or_default();
        let put = self.store.put(&key(identity), expected, bar);
        put.await.map(drop)
    }

    /// Ends the bar of an identity, if there is one.
    pub(super) async fn lift(&self, identity: &str) -> Result<(), StoreError> {
        match self.find(identity).await? {
            Some((_, version)) => self.store.delete(&key(identity), version).await,
            None => Ok(()),
        }
    }

    /// Whether an identity is barred at `now`.
    pub(super) async fn holds(&self, identity: &str, now: SystemTime) -> Result<bool, StoreError> {
        let bar = self.find(identity).await?;
        Ok(bar.is_some_and(|(bar, _)| now < bar.until))
    }

    /// Removes bars that nobody can run into any more, and says whether there are as many left as are kept.
    pub(super) async fn are_full(&self, now: SystemTime) -> Result<bool, StoreError> {
        let mut left = 0;
        for (key, value) in self.store.list(PREFIX, None, MAX_BARS + 1).await? {
            match read(&value) {
                Some((bar, version)) if bar.until <= now => {
                    self.store.delete(&key, version).await?;
                }
                _ => left += 1,
            }
        }
        Ok(left >= MAX_BARS)
    }

    async fn find(&self, identity: &str) -> Result<Option<(Bar, Version)>, StoreError> {
        let stored = self.store.get(&key(identity)).await?;
        Ok(stored.as_ref().and_then(read))
    }
}

fn read(from: &Versioned) -> Option<(Bar, Version)> {
    let bar = serde_json::from_slice(&from.value).ok()?;
    Some((bar, from.version))
}

/// An identity may be longer than a key of the store.
fn key(identity: &str) -> String {
    let digest = digest::digest(&digest::SHA256, identity.as_bytes());
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(digest))
}

const PREFIX: &str = "barred/";
/// So many are kept before no token is issued for another identity.
pub(super) const MAX_BARS: usize = 10_000;
/// The longest that `MeshConfig` lets a certificate live.
const LONGEST_LEAF: Duration = Duration::from_hours(365 * 24);
