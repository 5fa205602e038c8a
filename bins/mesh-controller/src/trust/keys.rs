//! The keys of the mesh: of anchors, of issuers, and the one that signs bundle documents.
//!
//! Each has a key of its own in the store, written before the record names it and removed after the record has let it go. So
//! a crash leaves keys behind that nobody uses, never a record without its keys. All of it is secret and is never logged.
//!
//! - `elsewhere`: keys that are put away or come from elsewhere, and requests for certificates
//! - `cross`: cross-certificates

mod cross;
mod elsewhere;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mesh_tls::{
    TrustBundle, TrustDomain,
    ca::{Anchor, Authority, Issuer},
    pki_types::CertificateDer,
};
use mesh_trust_rotation::{
    AnchorId, ClusterId, Digest, Generation, IssuerId, Proposal, Rotation, crypto::BundleSigner,
    document::Document, lint::Facts, x509::bundle_digest,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Place, TrustError};
use crate::store::{Expected, StateStore, StoreError};

/// What is needed to sign, by the names that the record knows.
pub(super) struct Keys {
    place: Place,
    anchors: BTreeMap<AnchorId, HeldAnchor>,
    issuers: BTreeMap<IssuerId, Authority>,
    /// Cross-certificates, by the anchor whose key they certify and the one that signed them.
    bridges: BTreeMap<(AnchorId, AnchorId), CertificateDer<'static>>,
    bundle: Arc<BundleSigner>,
}

struct HeldAnchor {
    certificate: CertificateDer<'static>,
    /// None where the key was taken away, or never was here.
    key: Option<Anchor>,
}

/// An anchor with an issuer below it, or an issuer below an anchor that is held already, that nobody knows of yet.
pub(super) struct Made {
    anchor: Option<HeldAnchor>,
    issuer: Issuer,
    /// The certificate that the issuer leads to.
    above: CertificateDer<'static>,
}

#[derive(Serialize, Deserialize)]
struct StoredAnchor {
    certificate: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredIssuer {
    /// What it leads to: the anchor's certificate, so that an issuer is usable wherever the anchor's key is.
    anchor: String,
    chain: String,
    key: String,
}

#[derive(Serialize, Deserialize)]
struct StoredBundleKey {
    pkcs8: String,
}

/// How long what is made here lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetimes {
    pub(super) anchor: Duration,
    pub(super) issuer: Duration,
}

impl Keys {
    /// Reads all keys that there are; makes the bundle key if there is none.
    ///
    /// # Errors
    /// Any [`TrustError`].
    pub(super) async fn open(place: Place) -> Result<Self, TrustError> {
        let bundle = bundle_signer(&*place.shared).await?;
        let mut keys = Self {
            anchors: BTreeMap::new(),
            issuers: BTreeMap::new(),
            bridges: BTreeMap::new(),
            bundle: Arc::new(bundle),
            place,
        };
        keys.read().await?;
        Ok(keys)
    }

    /// Reads what others have made, and forgets what they have removed. Who leads forgets nothing before it is swept: what is
    /// not known here would stay in the store. Nobody else holds an anchor's key: whoever leads may have put it away since.
    ///
    /// # Errors
    /// Any [`TrustError`].
    pub(super) async fn follow(
        &mut self,
        rotation: &Rotation,
        leads: bool,
    ) -> Result<(), TrustError> {
        if !leads {
            self.anchors
                .retain(|id, _| rotation.anchors().contains_key(id));
            self.issuers
                .retain(|id, _| rotation.issuers().contains_key(id));
            let known = |id: &AnchorId| rotation.anchors().contains_key(id);
            self.bridges
                .retain(|(subject, signer), _| known(subject) && known(signer));
        }
        let anchors = rotation.anchors().keys();
        let issuers = rotation.issuers().keys();
        let missing = anchors.filter(|id| !self.anchors.contains_key(id)).count()
            + issuers.filter(|id| !self.issuers.contains_key(id)).count();
        // They are made after the record names the anchors.
        let mut bridges = rotation.bridges();
        if missing > 0 || bridges.any(|made| self.cross(made).is_none()) {
            self.read().await?;
        }
        if !leads {
            for held in self.anchors.values_mut() {
                held.key = None;
            }
        }
        Ok(())
    }

    /// Reads all that there are. Whoever begins to lead does, as the one before may have died between letting a key go in the
    /// record and removing it.
    ///
    /// # Errors
    /// Any [`TrustError`].
    pub(super) async fn read(&mut self) -> Result<(), TrustError> {
        for value in self.all(ANCHORS).await? {
            self.hold_anchor(&serde_json::from_slice(&value)?)?;
        }
        for value in self.all(ISSUERS).await? {
            self.hold_issuer(&serde_json::from_slice(&value)?)?;
        }
        self.read_bridges().await
    }

    async fn all(&self, prefix: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let (mut all, mut last) = (Vec::new(), None::<String>);
        loop {
            let page = self.place.shared.list(prefix, last.as_deref(), PAGE);
            let page = page.await?;
            let whole = page.len() < PAGE;
            last = page.last().map(|(key, _)| key.clone());
            all.extend(page.into_iter().map(|(_, stored)| stored.value));
            if whole {
                return Ok(all);
            }
        }
    }

    /// Makes an anchor and an issuer below it. Nothing is kept yet.
    ///
    /// # Errors
    /// [`TrustError::Tls`].
    pub(super) fn make(
        trust_domain: &TrustDomain,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Made, TrustError> {
        let anchor = Anchor::generate(&format!("root.{trust_domain}"), lifetimes.anchor, now)?;
        let issuer = anchor.issuer(&format!("issuer.{trust_domain}"), lifetimes.issuer, now)?;
        Ok(Made {
            above: anchor.certificate().clone(),
            anchor: Some(anchor.into()),
            issuer,
        })
    }

    /// Makes an issuer below an anchor that is held. Nothing is kept yet.
    ///
    /// # Errors
    /// [`TrustError::NoAnchorKey`], [`TrustError::Tls`].
    pub(super) fn make_issuer(
        &self,
        anchor: AnchorId,
        trust_domain: &TrustDomain,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Made, TrustError> {
        let held = self.anchors.get(&anchor);
        let key = held
            .and_then(|held| held.key.as_ref())
            .ok_or(TrustError::NoAnchorKey { anchor })?;
        let issuer = key.issuer(&format!("issuer.{trust_domain}"), lifetimes.issuer, now)?;
        Ok(Made {
            above: key.certificate().clone(),
            anchor: None,
            issuer,
        })
    }

    /// Keeps what was made. To be called before the record names it. What is held already stays as it is: the record may refuse
    /// what was made, and sign with what is held.
    ///
    /// # Errors
    /// [`TrustError::KeyInUse`], before anything is kept; or any other.
    pub(super) async fn keep(&mut self, made: &Made) -> Result<(), TrustError> {
        self.is_new(made)?;
        if let Some(anchor) = &made.anchor {
            let stored = anchor.stored()?;
            let id = self.hold_anchor(&stored)?;
            self.write(&format!("{ANCHORS}{id}"), &stored).await?;
        }
        let above = TrustBundle::from_der(0, [made.above.clone()])?;
        let stored = StoredIssuer {
            anchor: above.to_pem(),
            chain: made.issuer.chain_pem(),
            key: made.issuer.key_pem().expose().to_owned(),
        };
        let id = self.hold_issuer(&stored)?;
        self.write(&format!("{ISSUERS}{id}"), &stored).await
    }

    /// Whether no key of it is held, unless as the same.
    fn is_new(&self, made: &Made) -> Result<(), TrustError> {
        let in_use = |key: &[u8; 32]| {
            let key = Digest::new(*key);
            Err(TrustError::KeyInUse { key })
        };
        if let Some(anchor) = &made.anchor {
            let id = Facts::from_der(&anchor.certificate)?.anchor_id();
            let held = self.anchors.get(&id);
            let same = |held: &HeldAnchor| {
                held.certificate == anchor.certificate && held.key.is_some() == anchor.key.is_some()
            };
            if held.is_some_and(|held| !same(held)) {
                return in_use(id.as_bytes());
            }
        }
        let certificate = made.issuer.certificate();
        let id = Facts::from_der(certificate)?.issuer_id();
        let held = self.issuers.get(&id);
        let same = |held: &Authority| {
            held.issuer().certificate() == certificate && *held.anchor() == made.above
        };
        if held.is_some_and(|held| !same(held)) {
            return in_use(id.as_bytes());
        }
        Ok(())
    }

    /// Destroys an anchor's key. May be asked twice.
    ///
    /// # Errors
    /// [`TrustError::Store`].
    pub(super) async fn remove_anchor(&mut self, anchor: AnchorId) -> Result<(), TrustError> {
        self.remove(&format!("{ANCHORS}{anchor}")).await?;
        self.anchors.remove(&anchor);
        Ok(())
    }

    /// Removes keys that the record does not know.
    ///
    /// # Errors
    /// [`TrustError::Store`].
    pub(super) async fn sweep(&mut self, rotation: &Rotation) -> Result<(), TrustError> {
        let anchors: Vec<AnchorId> = self.anchors.keys().copied().collect();
        for anchor in anchors {
            if !rotation.anchors().contains_key(&anchor) {
                self.remove_anchor(anchor).await?;
            }
        }
        let issuers: Vec<IssuerId> = self.issuers.keys().copied().collect();
        for issuer in issuers {
            if !rotation.issuers().contains_key(&issuer) {
                self.remove(&format!("{ISSUERS}{issuer}")).await?;
                self.issuers.remove(&issuer);
            }
        }
        self.sweep_bridges(rotation).await
    }

    /// Who signs under this name.
    pub(super) fn authority(&self, issuer: IssuerId) -> Option<&Authority> {
        self.issuers.get(&issuer)
    }

    /// An anchor's certificate.
    pub(super) fn certificate(&self, anchor: AnchorId) -> Option<&CertificateDer<'static>> {
        self.anchors.get(&anchor).map(|held| &held.certificate)
    }

    /// The certificates of these anchors, in order of their names.
    ///
    /// # Errors
    /// [`TrustError::NoAnchor`].
    pub(super) fn certificates(
        &self,
        anchors: &BTreeSet<AnchorId>,
    ) -> Result<Vec<CertificateDer<'static>>, TrustError> {
        let held = |anchor: &AnchorId| {
            let held = self.anchors.get(anchor);
            let missing = TrustError::NoAnchor { anchor: *anchor };
            held.map(|held| held.certificate.clone()).ok_or(missing)
        };
        anchors.iter().map(held).collect()
    }

    /// The digest of the bundle of these anchors.
    ///
    /// # Errors
    /// [`TrustError::NoAnchor`].
    pub(super) fn digest(&self, anchors: &BTreeSet<AnchorId>) -> Result<Digest, TrustError> {
        let certificates = self.certificates(anchors)?;
        Ok(bundle_digest(certificates.iter().map(AsRef::as_ref)))
    }

    #[cfg(test)]
    pub(super) fn use_place(&mut self, place: Place) {
        self.place = place;
    }

    /// What signs bundle documents.
    pub(super) fn bundle_signer(&self) -> &Arc<BundleSigner> {
        &self.bundle
    }

    /// The private keys that can be exported: of anchors whose key is here.
    pub(super) fn anchor_pem(&self, anchor: AnchorId) -> Option<(String, mesh_tls::ca::SecretPem)> {
        let key = self.anchors.get(&anchor)?.key.as_ref()?;
        Some((key.certificate_pem(), key.key_pem()))
    }

    fn hold_anchor(&mut self, stored: &StoredAnchor) -> Result<AnchorId, TrustError> {
        let bundle = TrustBundle::from_pem(0, stored.certificate.as_bytes())?;
        let certificate = bundle.anchors()[0].clone();
        let id = Facts::from_der(&certificate)?.anchor_id();
        let key = match &stored.key {
            Some(key) => Some(Anchor::from_pem(
                stored.certificate.as_bytes(),
                key.as_bytes(),
            )?),
            None => None,
        };
        self.anchors.insert(id, HeldAnchor { certificate, key });
        Ok(id)
    }

    fn hold_issuer(&mut self, stored: &StoredIssuer) -> Result<IssuerId, TrustError> {
        let authority = Authority::from_pem(
            stored.anchor.as_bytes(),
            stored.chain.as_bytes(),
            stored.key.as_bytes(),
        )?;
        let id = Facts::from_der(authority.issuer().certificate())?.issuer_id();
        self.issuers.insert(id, authority);
        Ok(id)
    }

    /// Writes what nobody else writes otherwise: a key's name is made of the key.
    async fn write(&self, name: &str, value: &impl Serialize) -> Result<(), TrustError> {
        let value = serde_json::to_vec(value)?;
        match self.place.leading.put(name, Expected::Absent, value).await {
            // It was written before a crash.
            Err(StoreError::Conflict { .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn remove(&self, name: &str) -> Result<(), TrustError> {
        let Some(stored) = self.place.leading.get(name).await? else {
            return Ok(());
        };
        Ok(self.place.leading.delete(name, stored.version).await?)
    }
}

impl HeldAnchor {
    fn stored(&self) -> Result<StoredAnchor, TrustError> {
        let key = self.key.as_ref();
        Ok(StoredAnchor {
            certificate: TrustBundle::from_der(0, [self.certificate.clone()])?.to_pem(),
            key: key.map(|key| key.key_pem().expose().to_owned()),
        })
    }
}

impl From<Anchor> for HeldAnchor {
    fn from(anchor: Anchor) -> Self {
        Self {
            certificate: anchor.certificate().clone(),
            key: Some(anchor),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("anchors", &self.anchors.keys())
            .field("issuers", &self.issuers.keys())
            .finish_non_exhaustive()
    }
}

impl Made {
    /// Takes an authority that was made before there was a record.
    ///
    /// # Errors
    /// [`TrustError::Tls`].
    pub(super) fn taken_over(
        anchor: &str,
        anchor_key: &str,
        issuer: &str,
        issuer_key: &str,
    ) -> Result<Self, TrustError> {
        let anchor = Anchor::from_pem(anchor.as_bytes(), anchor_key.as_bytes())?;
        Ok(Self {
            above: anchor.certificate().clone(),
            anchor: Some(anchor.into()),
            issuer: Issuer::from_pem(issuer.as_bytes(), issuer_key.as_bytes())?,
        })
    }

    /// What the machine is to judge.
    ///
    /// # Errors
    /// [`TrustError::Rotation`].
    pub(super) fn proposal(&self, cluster: &ClusterId) -> Result<Proposal, TrustError> {
        let anchor = match &self.anchor {
            Some(anchor) => Some(Facts::from_der(&anchor.certificate)?),
            None => None,
        };
        let issuer = Facts::from_der(self.issuer.certificate())?;
        Ok(Proposal {
            anchor,
            issuers: [(cluster.clone(), issuer)].into(),
            canaries: BTreeSet::new(),
        })
    }
}

/// A document that gives out these anchors.
///
/// # Errors
/// [`TrustError::Rotation`].
pub(super) fn signed(
    signer: &BundleSigner,
    trust_domain: &TrustDomain,
    generation: Generation,
    anchors: &[CertificateDer<'static>],
) -> Result<mesh_control_api::trust::Document, TrustError> {
    let anchors = anchors.iter().map(|anchor| anchor.to_vec());
    let document = Document::new(trust_domain.as_str(), generation, anchors)?;
    let signed = signer.sign(&document)?;
    Ok(mesh_control_api::trust::Document {
        payload: signed.payload().to_vec(),
        signature: signed.signature().to_vec(),
    })
}

async fn bundle_signer(store: &dyn StateStore) -> Result<BundleSigner, TrustError> {
    loop {
        if let Some(stored) = store.get(BUNDLE_KEY).await? {
            let stored: StoredBundleKey = serde_json::from_slice(&stored.value)?;
            let pkcs8 = STANDARD.decode(stored.pkcs8).unwrap_or_default();
            return Ok(BundleSigner::from_pkcs8(&pkcs8)?);
        }
        let (_, pkcs8) = BundleSigner::generate()?;
        let value = serde_json::to_vec(&StoredBundleKey {
            pkcs8: STANDARD.encode(pkcs8),
        })?;
        match store.put(BUNDLE_KEY, Expected::Absent, value).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

const ANCHORS: &str = "trust/anchor/";
const ISSUERS: &str = "trust/issuer/";
const BUNDLE_KEY: &str = "trust/bundle-key";
/// A change has two of each, an emergency a few more: there is one page.
const PAGE: usize = 64;
