//! The mesh's certificate authority, and the controller's own certificate.
//!
//! At the first start an anchor and an issuer are made and kept in the store, as one value: what is valid together is
//! written together.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use mesh_tls::{
    ClientAuth, CredentialWriter, Identity, LeafKey, Tls, TlsServer, TrustBundle, TrustDomain,
    TrustWriter,
    ca::{Anchor, Authority, IssuedLeaf, Issuer},
    credential_store, trust_store,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::info;

use crate::store::{Expected, StateStore, StoreError, Versioned};

/// Issues certificates, and sees to it that it can go on doing so.
pub(crate) struct Trust {
    store: Arc<dyn StateStore>,
    current: ArcSwap<Current>,
    key: LeafKey,
    credentials: CredentialWriter,
    /// Dropped last: a store without its writer is closed to its readers.
    _bundle: TrustWriter,
    tls: Tls,
}

struct Current {
    authority: Authority,
    trust_domain: TrustDomain,
    /// Of the controller itself.
    identity: Identity,
    bundle: TrustBundle,
    anchor_not_after: SystemTime,
    own_leaf: (SystemTime, SystemTime),
}

/// Why there is no authority.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in the store is not an authority.
    #[error("the certificate authority in the store cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A certificate cannot be made or used.
    #[error("the certificate authority failed: {0}")]
    Tls(#[from] mesh_tls::Error),
}

/// The authority as it is stored. All of it is secret.
#[derive(Serialize, Deserialize)]
struct Record {
    anchor: String,
    anchor_key: String,
    issuer: String,
    issuer_key: String,
}

impl Trust {
    /// Takes the authority from the store; makes one if there is none.
    ///
    /// # Errors
    /// Any [`TrustError`].
    pub(crate) async fn open(
        store: Arc<dyn StateStore>,
        trust_domain: TrustDomain,
        now: SystemTime,
    ) -> Result<Self, TrustError> {
        let record = match store.get(KEY).await? {
            Some(stored) => Record::read(&stored)?,
            None => Record::create(&*store, &trust_domain, now).await?,
        };
        let key = LeafKey::generate()?;
        let (bundle, trust) = trust_store(record.bundle()?);
        let (credentials, credential_reader) = credential_store();
        let current = Current::new(&record, trust_domain, &key, &credentials, now)?;
        let trust = Self {
            store,
            current: ArcSwap::from_pointee(current),
            key,
            credentials,
            _bundle: bundle,
            tls: Tls::new(trust, credential_reader),
        };
        trust.keep(trust.trust_domain(), now).await?;
        Ok(trust)
    }

    /// Renews what is due: the issuer when a third of its life is left, the controller's own leaf when 30% is. Takes over
    /// `trust_domain`. To be called every minute or so, and when the domain changes.
    ///
    /// # Errors
    /// Any [`TrustError`]; what was valid stays in use.
    pub(crate) async fn keep(
        &self,
        trust_domain: TrustDomain,
        now: SystemTime,
    ) -> Result<(), TrustError> {
        let current = self.current.load_full();
        let issuer_ends = current.authority.issuer().not_after();
        // Near the anchor's own end, another issuer would live no longer.
        let issuer_due = remaining(now, issuer_ends) < ISSUER_LIFE / 3
            && remaining(issuer_ends, current.anchor_not_after) > DAY;
        let (from, until) = current.own_leaf;
        let own_life = until.duration_since(from).unwrap_or_default();
        let own_due = remaining(now, until) < own_life.mul_f32(0.3);
        if !issuer_due && !own_due && current.trust_domain == trust_domain {
            return Ok(());
        }
        let record = if issuer_due {
            let renewed = Record::renew_issuer(&*self.store, &trust_domain, now).await?;
            info!("renewed the issuer");
            renewed
        } else {
            let stored = self.store.get(KEY).await?.ok_or(StoreError::Io(
                "the certificate authority has gone from the store".to_owned(),
            ))?;
            Record::read(&stored)?
        };
        let renewed = Current::new(&record, trust_domain, &self.key, &self.credentials, now)?;
        self.current.store(Arc::new(renewed));
        Ok(())
    }

    /// Certifies the key in `csr` (PKCS #10, DER) for an identity that the caller has proven.
    ///
    /// # Errors
    /// What is wrong with the request, or with the authority.
    pub(crate) fn issue(
        &self,
        csr: &[u8],
        identity: &Identity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<IssuedLeaf, mesh_tls::Error> {
        let authority = &self.current.load().authority;
        authority.issue(csr, identity, lifetime, now)
    }

    /// What peers must trust.
    pub(crate) fn bundle(&self) -> TrustBundle {
        self.current.load().bundle.clone()
    }

    /// The domain in which certificates are issued.
    pub(crate) fn trust_domain(&self) -> TrustDomain {
        self.current.load().trust_domain.clone()
    }

    /// The controller's own identity, and the name by which it is asked for.
    pub(crate) fn identity(&self) -> Identity {
        self.current.load().identity.clone()
    }

    /// When the anchor ends.
    pub(crate) fn anchor_not_after(&self) -> SystemTime {
        self.current.load().anchor_not_after
    }

    /// When the issuer ends.
    pub(crate) fn issuer_not_after(&self) -> SystemTime {
        self.current.load().authority.not_after()
    }

    /// TLS for listeners of the proxy API. A client may have no certificate yet.
    pub(crate) fn server(&self) -> TlsServer {
        self.tls.server(&[b"h2"], ClientAuth::Optional)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.current.load();
        f.debug_struct("Trust")
            .field("trust_domain", &current.trust_domain)
            .field("identity", &current.identity)
            .finish_non_exhaustive()
    }
}

impl Current {
    /// Puts the authority of `record` in use, with a new leaf for the controller itself.
    fn new(
        record: &Record,
        trust_domain: TrustDomain,
        key: &LeafKey,
        credentials: &CredentialWriter,
        now: SystemTime,
    ) -> Result<Self, mesh_tls::Error> {
        let anchor = Anchor::from_pem(record.anchor.as_bytes(), record.anchor_key.as_bytes())?;
        let authority = Authority::from_pem(
            record.anchor.as_bytes(),
            record.issuer.as_bytes(),
            record.issuer_key.as_bytes(),
        )?
        .with_trust_domain(trust_domain.clone());
        let identity = own_identity(&trust_domain)?;
        let leaf = authority.issue(&key.csr(&identity)?, &identity, OWN_LEAF_LIFE, now)?;
        let own_leaf = (leaf.not_before(), leaf.not_after());
        credentials.set(key.credentials(leaf.into_chain())?);
        Ok(Self {
            bundle: record.bundle()?,
            anchor_not_after: anchor.not_after(),
            authority,
            trust_domain,
            identity,
            own_leaf,
        })
    }
}

impl Record {
    async fn create(
        store: &dyn StateStore,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, TrustError> {
        let anchor = Anchor::generate(&format!("root.{trust_domain}"), ANCHOR_LIFE, now)?;
        let issuer = anchor.issuer(&format!("issuer.{trust_domain}"), ISSUER_LIFE, now)?;
        let record = Self::of(&anchor, &issuer);
        store
            .put(KEY, Expected::Absent, serde_json::to_vec(&record)?)
            .await?;
        info!(%trust_domain, "made a trust anchor and an issuer");
        Ok(record)
    }

    async fn renew_issuer(
        store: &dyn StateStore,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, TrustError> {
        loop {
            let stored = store.get(KEY).await?.ok_or(StoreError::Io(
                "the certificate authority has gone from the store".to_owned(),
            ))?;
            let record = Self::read(&stored)?;
            let anchor = Anchor::from_pem(record.anchor.as_bytes(), record.anchor_key.as_bytes())?;
            let issuer = anchor.issuer(&format!("issuer.{trust_domain}"), ISSUER_LIFE, now)?;
            let renewed = Self::of(&anchor, &issuer);
            let value = serde_json::to_vec(&renewed)?;
            match store.put(KEY, Expected::At(stored.version), value).await {
                Ok(_) => return Ok(renewed),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read(stored: &Versioned) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(&stored.value)
    }

    fn of(anchor: &Anchor, issuer: &Issuer) -> Self {
        Self {
            anchor: anchor.certificate_pem(),
            anchor_key: anchor.key_pem().expose().to_owned(),
            issuer: issuer.chain_pem(),
            issuer_key: issuer.key_pem().expose().to_owned(),
        }
    }

    fn bundle(&self) -> Result<TrustBundle, mesh_tls::Error> {
        TrustBundle::from_pem(FIRST_GENERATION, self.anchor.as_bytes())
    }
}

fn own_identity(trust_domain: &TrustDomain) -> Result<Identity, mesh_tls::Error> {
    Identity::linkerd("mesh-controller", "linkerd", "linkerd", trust_domain)
}

fn remaining(now: SystemTime, until: SystemTime) -> Duration {
    until.duration_since(now).unwrap_or_default()
}

const KEY: &str = "trust/authority";
/// There is one set of anchors as long as there is one anchor.
const FIRST_GENERATION: u64 = 1;
const DAY: Duration = Duration::from_hours(24);
const ANCHOR_LIFE: Duration = DAY.saturating_mul(3650);
const ISSUER_LIFE: Duration = DAY.saturating_mul(365);
const OWN_LEAF_LIFE: Duration = DAY;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EmbeddedStore;

    fn store() -> (tempfile::TempDir, Arc<dyn StateStore>) {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&folder.path().join("s")).unwrap();
        (folder, Arc::new(store))
    }

    fn domain(name: &str) -> TrustDomain {
        TrustDomain::parse(name).unwrap()
    }

    #[tokio::test]
    async fn the_anchor_stays_and_the_issuer_is_renewed_in_time() {
        let (_folder, store) = store();
        let start = SystemTime::now();
        let trust = Trust::open(store.clone(), domain("a.example"), start)
            .await
            .unwrap();
        let (digest, issuer) = (trust.bundle().digest(), trust.issuer_not_after());
        trust
            .keep(domain("a.example"), start + DAY * 240)
            .await
            .unwrap();
        assert_eq!(trust.issuer_not_after(), issuer);
        trust
            .keep(domain("a.example"), start + DAY * 250)
            .await
            .unwrap();
        assert!(trust.issuer_not_after() > issuer);
        let again = Trust::open(store, domain("a.example"), start + DAY * 251)
            .await
            .unwrap();
        assert_eq!(again.bundle().digest(), digest);
        assert_eq!(again.issuer_not_after(), trust.issuer_not_after());
    }

    #[tokio::test]
    async fn identities_of_other_domains_are_refused_until_the_domain_changes() {
        let (_folder, store) = store();
        let now = SystemTime::now();
        let trust = Trust::open(store, domain("a.example"), now).await.unwrap();
        let key = LeafKey::generate().unwrap();
        let web = Identity::linkerd("web", "shop", "linkerd", &domain("b.example")).unwrap();
        let csr = key.csr(&web).unwrap();
        assert!(trust.issue(&csr, &web, DAY, now).is_err());
        trust.keep(domain("b.example"), now).await.unwrap();
        trust.issue(&csr, &web, DAY, now).unwrap();
        assert!(trust.identity().as_str().ends_with(".linkerd.b.example"));
    }
}
