//! Join tokens: what is kept of them, and whether one proves what it is used for.

mod bars;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mesh_control_api::{JoinToken, TokenSecret};
use mesh_tls::Identity;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Mutex;

use self::bars::{Bars, MAX_BARS};
use crate::store::{Expected, StateStore, StoreError, Version, Versioned};

/// The tokens of one controller. Of a secret, only its SHA-256 is kept.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    store: Arc<dyn StateStore>,
    bars: Bars,
    /// Held by who issues or revokes: whether an identity is barred depends on all of its tokens.
    changes: Arc<Mutex<()>>,
}

/// What is known of a token. `Debug` does not show the hash.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    /// Names the token.
    pub id: String,
    /// The one identity it proves.
    pub identity: String,
    #[serde(with = "unix_millis")]
    /// When it was made.
    pub issued_at: SystemTime,
    #[serde(with = "unix_millis")]
    /// From when on it proves nothing.
    pub expires_at: SystemTime,
    /// Whether it was revoked before that.
    pub revoked: bool,
    secret_sha256: String,
}

/// What goes into a new token beside its secret.
#[derive(Debug, Clone)]
pub(crate) struct TokenTerms {
    /// The one identity it is to prove.
    pub identity: Identity,
    /// How long it is good for.
    pub lifetime: Duration,
    /// `host:port` of the controller.
    pub controller_address: String,
    /// Identity of the controller.
    pub controller_name: String,
    /// Digest of the trust bundle.
    pub bundle_digest: String,
}

/// Why a token is not made, or proves nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The lifetime is outside what is allowed.
    #[error("a token's lifetime of {}s is out of range: from 1s to {}s (366 days)", lifetime.as_secs(), MAX_LIFETIME.as_secs())]
    Lifetime {
        /// What was asked for.
        lifetime: Duration,
    },
    /// There are as many live tokens as a controller keeps.
    #[error("there are already {MAX_TOKENS} live tokens; revoke some, or wait until they expire")]
    TooMany,
    /// As many identities are barred as a controller keeps.
    #[error(
        "the tokens of {MAX_BARS} identities are revoked already, as many as are kept; issue tokens for some of those, or wait until their certificates have expired"
    )]
    TooManyBarred,
    /// The text is no token.
    #[error(transparent)]
    Unreadable(#[from] mesh_control_api::Error),
    /// No such token, or not its secret. Which of the two is not said.
    #[error("the join token is not one of this controller's")]
    Unknown,
    /// It was good once.
    #[error("the join token {id} expired {} seconds ago; make another with `mesh token`", ago.as_secs())]
    Expired {
        /// The token.
        id: String,
        /// For how long it has been expired.
        ago: Duration,
    },
    /// An operator took it back.
    #[error("the join token {id} was revoked")]
    Revoked {
        /// The token.
        id: String,
    },
    /// The system gives no random numbers.
    #[error("the system's random source failed")]
    Random,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Tokens {
    /// Keeps its records in `store`.
    #[must_use]
    pub(crate) fn new(store: Arc<dyn StateStore>) -> Self {
        Self {
            bars: Bars::new(store.clone()),
            store,
            changes: Arc::default(),
        }
    }

    /// Makes a token, lets certificates of its identity be renewed again, and forgets tokens that are of no use any more.
    ///
    /// # Errors
    /// [`TokenError::Lifetime`], [`TokenError::TooMany`], [`TokenError::TooManyBarred`], [`TokenError::Random`] or
    /// [`TokenError::Store`].
    pub(crate) async fn issue(
        &self,
        terms: TokenTerms,
        now: SystemTime,
    ) -> Result<(JoinToken, TokenRecord), TokenError> {
        if terms.lifetime < Duration::from_secs(1) || terms.lifetime > MAX_LIFETIME {
            return Err(TokenError::Lifetime {
                lifetime: terms.lifetime,
            });
        }
        let _changes = self.changes.lock().await;
        if self.forget(now).await? >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        let identity = terms.identity.as_str();
        // Else a token could come to be that cannot be revoked.
        if self.bars.are_full(now).await? && !self.bars.holds(identity, now).await? {
            return Err(TokenError::TooManyBarred);
        }
        let mut random = [0; ID_BYTES + TokenSecret::LEN];
        rand::fill(&mut random).map_err(|_| TokenError::Random)?;
        let (id, secret) = random.split_at(ID_BYTES);
        let secret = TokenSecret::from_random(secret.try_into().map_err(|_| TokenError::Random)?);
        let record = TokenRecord {
            // Hexadecimal, as an id that begins with a hyphen is an option to a shell's commands.
            id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            identity: terms.identity.as_str().to_owned(),
            issued_at: now,
            expires_at: now + terms.lifetime,
            revoked: false,
            secret_sha256: hash(&secret),
        };
        self.store
            .put(&key(&record.id), Expected::Absent, record.to_bytes())
            .await?;
        // Not before the token is there: who is killed in between leaves the bar.
        self.bars.lift(identity).await?;
        let token = JoinToken {
            controller_address: terms.controller_address,
            controller_name: terms.controller_name,
            bundle_digest: terms.bundle_digest,
            identity: record.identity.clone(),
            id: record.id.clone(),
            secret,
        };
        Ok((token, record))
    }

    /// The record of a token that is good at `now`. Takes as long for a wrong secret as for the right one.
    ///
    /// # Errors
    /// [`TokenError::Unreadable`], [`TokenError::Unknown`], [`TokenError::Expired`], [`TokenError::Revoked`] or
    /// [`TokenError::Store`].
    pub(crate) async fn verify(
        &self,
        text: &str,
        now: SystemTime,
    ) -> Result<TokenRecord, TokenError> {
        let token = JoinToken::parse(text)?;
        if token.id.len() > MAX_ID_LEN {
            return Err(TokenError::Unknown);
        }
        let (record, _) = self.find(&token.id).await?.ok_or(TokenError::Unknown)?;
        constant_time::verify_slices_are_equal(
            hash(&token.secret).as_bytes(),
            record.secret_sha256.as_bytes(),
        )
        .map_err(|_| TokenError::Unknown)?;
        if record.revoked {
            return Err(TokenError::Revoked { id: record.id });
        }
        if now >= record.expires_at {
            return Err(TokenError::Expired {
                ago: now.duration_since(record.expires_at).unwrap_or_default(),
                id: record.id,
            });
        }
        Ok(record)
    }

    /// Makes a token useless at `now`. Without another good token for its identity, that identity's certificates are not
    /// renewed until there is one. A token that is revoked already stays so.
    ///
    /// # Errors
    /// [`TokenError::Unknown`] or [`TokenError::Store`].
    pub(crate) async fn revoke(&self, id: &str, now: SystemTime) -> Result<(), TokenError> {
        let _changes = self.changes.lock().await;
        let (mut record, version) = self.find(id).await?.ok_or(TokenError::Unknown)?;
        if record.revoked {
            return Ok(());
        }
        let live = self.list(now).await?;
        let replaced = live
            .iter()
            .any(|other| other.identity == record.identity && other.id != record.id);
        if !replaced {
            // First: who is killed in between has a token that can be revoked again.
            self.bars.impose(&record.identity, now).await?;
        }
        record.revoked = true;
        let expected = Expected::At(version);
        self.store
            .put(&key(id), expected, record.to_bytes())
            .await?;
        Ok(())
    }

    /// Whether certificates of `identity` are not to be renewed at `now`, because its last token was revoked.
    ///
    /// # Errors
    /// [`TokenError::Store`].
    pub(crate) async fn is_barred(
        &self,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<bool, TokenError> {
        Ok(self.bars.holds(identity.as_str(), now).await?)
    }

    /// The tokens that are good at `now`, oldest first.
    ///
    /// # Errors
    /// [`TokenError::Store`].
    pub(crate) async fn list(&self, now: SystemTime) -> Result<Vec<TokenRecord>, TokenError> {
        let mut live: Vec<_> = self
            .all()
            .await?
            .into_iter()
            .map(|(record, _)| record)
            .filter(|record| record.is_live(now))
            .collect();
        live.sort_by(|a, b| (a.issued_at, &a.id).cmp(&(b.issued_at, &b.id)));
        Ok(live)
    }

    /// Removes tokens that expired a day ago and more, and of those that are of no use for less long the oldest when they
    /// are many. Says how many live ones there are.
    async fn forget(&self, now: SystemTime) -> Result<usize, TokenError> {
        let (live, mut dead): (Vec<_>, Vec<_>) = self
            .all()
            .await?
            .into_iter()
            .partition(|(record, _)| record.is_live(now));
        dead.sort_by_key(|(record, _)| std::cmp::Reverse(record.expires_at));
        let keep = dead
            .partition_point(|(record, _)| record.expires_at + KEPT_AFTER_EXPIRY > now)
            .min(MAX_DEAD);
        for (record, version) in &dead[keep..] {
            match self.store.delete(&key(&record.id), *version).await {
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(live.len())
    }

    async fn find(&self, id: &str) -> Result<Option<(TokenRecord, Version)>, TokenError> {
        Ok(self
            .store
            .get(&key(id))
            .await?
            .as_ref()
            .and_then(TokenRecord::from_versioned))
    }

    async fn all(&self) -> Result<Vec<(TokenRecord, Version)>, TokenError> {
        let list = self
            .store
            .list(PREFIX, None, MAX_TOKENS * 2 + MAX_DEAD)
            .await?;
        Ok(list
            .iter()
            .filter_map(|(_, value)| TokenRecord::from_versioned(value))
            .collect())
    }
}

impl TokenRecord {
    fn from_versioned(from: &Versioned) -> Option<(Self, Version)> {
        let record = serde_json::from_slice(&from.value).ok()?;
        Some((record, from.version))
    }

    fn is_live(&self, now: SystemTime) -> bool {
        !self.revoked && now < self.expires_at
    }

    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRecord")
            .field("id", &self.id)
            .field("identity", &self.identity)
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .field("revoked", &self.revoked)
            .finish_non_exhaustive()
    }
}

fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

fn hash(secret: &TokenSecret) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, secret.expose()))
}

mod unix_millis {
    use super::{Duration, SystemTime, UNIX_EPOCH};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        to.serialize_u64(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let millis = u64::deserialize(from)?;
        UNIX_EPOCH
            .checked_add(Duration::from_millis(millis))
            .ok_or_else(|| D::Error::custom("a time that is out of range"))
    }
}

const PREFIX: &str = "token/";
const ID_BYTES: usize = 9;
const MAX_ID_LEN: usize = 64;
/// The longest a token may be good for.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_hours(366 * 24);
/// How long a token is good for when nothing is said.
pub(crate) const DEFAULT_LIFETIME: Duration = Duration::from_hours(24);
/// How many live tokens a controller keeps.
pub(crate) const MAX_TOKENS: usize = 10_000;
/// How many expired and revoked ones it keeps, to tell them from unknown ones.
const MAX_DEAD: usize = 10_000;
/// So long is an expired token told from an unknown one.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EmbeddedStore;

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&folder.path().join("s")).unwrap();
        (folder, Tokens::new(Arc::new(store)))
    }

    fn terms(lifetime: u64) -> TokenTerms {
        TokenTerms {
            identity: "web.default.example".parse().unwrap(),
            lifetime: Duration::from_secs(lifetime),
            controller_address: "127.0.0.1:1".into(),
            controller_name: "c.example".into(),
            bundle_digest: "sha256:0".into(),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    #[tokio::test]
    async fn good_until_it_expires_and_as_often_as_wanted() {
        let (_folder, tokens) = tokens();
        let (token, _) = tokens.issue(terms(60), at(0)).await.unwrap();
        let text = token.to_text();
        for second in [0, 59] {
            let record = tokens.verify(&text, at(second)).await.unwrap();
            assert_eq!(record.identity, "web.default.example");
        }
        let expired = tokens.verify(&text, at(60)).await.unwrap_err();
        assert!(matches!(expired, TokenError::Expired { .. }), "{expired}");
        assert!(tokens.list(at(60)).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn revoked_is_useless_at_once() {
        let (_folder, tokens) = tokens();
        let (token, record) = tokens.issue(terms(60), at(0)).await.unwrap();
        tokens.revoke(&record.id, at(1)).await.unwrap();
        tokens.revoke(&record.id, at(1)).await.unwrap();
        let error = tokens.verify(&token.to_text(), at(1)).await.unwrap_err();
        assert!(matches!(error, TokenError::Revoked { .. }), "{error}");
        assert!(tokens.list(at(1)).await.unwrap().is_empty());
        assert!(matches!(
            tokens.revoke("other", at(1)).await,
            Err(TokenError::Unknown)
        ));
    }

    #[tokio::test]
    async fn revoking_the_last_token_bars_the_identity_until_there_is_another() {
        let (_folder, tokens) = tokens();
        let web = terms(60).identity;
        let barred = async |second| tokens.is_barred(&web, at(second)).await.unwrap();
        let (_, first) = tokens.issue(terms(60), at(0)).await.unwrap();
        let (_, second) = tokens.issue(terms(60), at(0)).await.unwrap();
        let mut other = terms(60);
        other.identity = "api.default.example".parse().unwrap();
        tokens.issue(other, at(0)).await.unwrap();
        tokens.revoke(&first.id, at(1)).await.unwrap();
        assert!(!barred(1).await, "another token is good");
        tokens.revoke(&second.id, at(2)).await.unwrap();
        assert!(barred(3).await);

        let (_, third) = tokens.issue(terms(60), at(4)).await.unwrap();
        assert!(!barred(4).await);
        tokens.revoke(&second.id, at(5)).await.unwrap();
        assert!(!barred(5).await, "revoked before the new one was issued");
        assert!(!barred(90).await, "expiry bars nobody");
        tokens.revoke(&third.id, at(90)).await.unwrap();
        assert!(barred(91).await, "an expired token can be revoked, too");
        assert!(!barred(91 + 365 * 24 * 3600).await, "no leaf lives so long");
    }

    #[tokio::test]
    async fn a_bar_outlives_the_controller() {
        let (folder, tokens) = tokens();
        let (_, record) = tokens.issue(terms(60), at(0)).await.unwrap();
        tokens.revoke(&record.id, at(1)).await.unwrap();
        drop(tokens);
        let store = EmbeddedStore::open(&folder.path().join("s")).unwrap();
        let tokens = Tokens::new(Arc::new(store));
        assert!(tokens.is_barred(&terms(60).identity, at(2)).await.unwrap());
    }

    #[tokio::test]
    async fn revoked_tokens_do_not_count_and_are_not_kept_for_ever() {
        let (_folder, tokens) = tokens();
        for second in 0..3 {
            let (_, record) = tokens.issue(terms(60), at(second)).await.unwrap();
            tokens.revoke(&record.id, at(second)).await.unwrap();
        }
        assert_eq!(tokens.forget(at(3)).await.unwrap(), 0);
        assert_eq!(tokens.all().await.unwrap().len(), 3);
        tokens.forget(at(62 + 24 * 3600)).await.unwrap();
        assert_eq!(tokens.all().await.unwrap().len(), 0);
    }

    #[tokio::test]
    async fn another_secret_is_as_unknown_as_another_id() {
        let (_folder, tokens) = tokens();
        let (token, _) = tokens.issue(terms(60), at(0)).await.unwrap();
        let mut forged = token.clone();
        forged.secret = TokenSecret::from_random([0; 32]);
        let wrong_secret = tokens.verify(&forged.to_text(), at(1)).await.unwrap_err();
        forged.id = "AAAA".into();
        let wrong_id = tokens.verify(&forged.to_text(), at(1)).await.unwrap_err();
        assert_eq!(wrong_secret.to_string(), wrong_id.to_string());
    }

    #[tokio::test]
    async fn the_identity_of_the_record_counts_not_that_of_the_text() {
        let (_folder, tokens) = tokens();
        let (mut token, _) = tokens.issue(terms(60), at(0)).await.unwrap();
        token.identity = "admin.default.example".into();
        let record = tokens.verify(&token.to_text(), at(1)).await.unwrap();
        assert_eq!(record.identity, "web.default.example");
    }

    #[tokio::test]
    async fn the_store_has_no_secret() {
        let (_folder, tokens) = tokens();
        let (token, record) = tokens.issue(terms(60), at(0)).await.unwrap();
        let kept = tokens.store.list("", None, 10).await.unwrap();
        assert_eq!(kept.len(), 1);
        let text = String::from_utf8(kept[0].1.value.clone()).unwrap();
        assert!(!text.contains(&URL_SAFE_NO_PAD.encode(token.secret.expose())));
        assert!(!format!("{record:?}").contains(&record.secret_sha256));
    }

    #[tokio::test]
    async fn what_expired_long_ago_is_forgotten() {
        let (_folder, tokens) = tokens();
        let (token, _) = tokens.issue(terms(60), at(0)).await.unwrap();
        let later = at(60 + 24 * 3600);
        tokens.issue(terms(60), later).await.unwrap();
        assert!(matches!(
            tokens.verify(&token.to_text(), later).await,
            Err(TokenError::Unknown)
        ));
    }

    #[tokio::test]
    async fn lifetimes_out_of_range_are_refused() {
        let (_folder, tokens) = tokens();
        for lifetime in [0, MAX_LIFETIME.as_secs() + 1] {
            let error = tokens.issue(terms(lifetime), at(0)).await.unwrap_err();
            assert!(matches!(error, TokenError::Lifetime { .. }), "{error}");
        }
    }
}
