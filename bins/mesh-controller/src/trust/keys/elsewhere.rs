//! Keys that are elsewhere: an anchor's that was put away, an issuer whose certificate is signed where that key is, and what an
//! outside authority brings.

use mesh_tls::ca::IssuerRequest;

use super::*;

#[derive(Serialize, Deserialize)]
struct StoredRequest {
    csr: String,
    key: String,
}

impl Keys {
    /// Whether an anchor's private key is here.
    pub(in crate::trust) fn signs(&self, anchor: AnchorId) -> bool {
        let held = self.anchors.get(&anchor);
        held.is_some_and(|held| held.key.is_some())
    }

    /// Removes an anchor's private key; its certificate stays. May be asked twice.
    ///
    /// # Errors
    /// [`TrustError::Store`].
    pub(in crate::trust) async fn put_away(&mut self, anchor: AnchorId) -> Result<(), TrustError> {
        let Some(held) = self.anchors.get(&anchor) else {
            return Ok(());
        };
        let held = HeldAnchor {
            certificate: held.certificate.clone(),
            key: None,
        };
        self.put(anchor, held).await
    }

    /// Takes the private key of an anchor that is held without it.
    ///
    /// # Errors
    /// [`TrustError::NoAnchor`], [`TrustError::Store`].
    pub(in crate::trust) async fn bring_back(&mut self, key: Anchor) -> Result<(), TrustError> {
        let anchor = Facts::from_der(key.certificate())?.anchor_id();
        let certificate = self.certificate(anchor);
        let certificate = certificate.ok_or(TrustError::NoAnchor { anchor })?;
        let held = HeldAnchor {
            certificate: certificate.clone(),
            key: Some(key),
        };
        self.put(anchor, held).await
    }

    /// Writes an anchor before it is held so: what failed is to be asked again.
    async fn put(&mut self, anchor: AnchorId, held: HeldAnchor) -> Result<(), TrustError> {
        let stored = held.stored()?;
        self.replace(&format!("{ANCHORS}{anchor}"), &stored).await?;
        self.anchors.insert(anchor, held);
        Ok(())
    }

    /// The request for an issuer's certificate that is out; one is made if there is none, or it is to be another.
    ///
    /// # Errors
    /// Any [`TrustError`].
    pub(in crate::trust) async fn request(
        &self,
        trust_domain: &TrustDomain,
        anew: bool,
    ) -> Result<String, TrustError> {
        if let Some(stored) = self.requested().await?.filter(|_| !anew) {
            return Ok(stored.csr);
        }
        let made = IssuerRequest::generate(&format!("issuer.{trust_domain}"))?;
        let stored = StoredRequest {
            csr: made.csr_pem().to_owned(),
            key: made.key_pem().expose().to_owned(),
        };
        self.replace(REQUEST, &stored).await?;
        Ok(stored.csr)
    }

    /// The private key of the request that is out, PEM.
    ///
    /// # Errors
    /// [`TrustError::NoRequest`], [`TrustError::Store`].
    pub(in crate::trust) async fn requested_key(&self) -> Result<Zeroizing<String>, TrustError> {
        let stored = self.requested().await?.ok_or(TrustError::NoRequest)?;
        Ok(Zeroizing::new(stored.key))
    }

    /// Forgets the request that is out: its issuer is in the record.
    ///
    /// # Errors
    /// [`TrustError::Store`].
    pub(in crate::trust) async fn forget_request(&self) -> Result<(), TrustError> {
        self.remove(REQUEST).await
    }

    async fn requested(&self) -> Result<Option<StoredRequest>, TrustError> {
        let stored = self.place.leading.get(REQUEST).await?;
        let stored = stored.map(|stored| serde_json::from_slice(&stored.value));
        Ok(stored.transpose()?)
    }

    async fn replace(&self, name: &str, value: &impl Serialize) -> Result<(), TrustError> {
        let value = serde_json::to_vec(value)?;
        let stored = self.place.leading.get(name).await?;
        let expected = stored.map_or(Expected::Absent, |stored| Expected::At(stored.version));
        self.place.leading.put(name, expected, value).await?;
        Ok(())
    }
}

impl Made {
    /// What was made elsewhere: an issuer below an anchor, which is a new one or held already.
    pub(in crate::trust) fn elsewhere(
        above: CertificateDer<'static>,
        key: Option<Anchor>,
        is_new: bool,
        issuer: Issuer,
    ) -> Self {
        let anchor = is_new.then(|| HeldAnchor {
            certificate: above.clone(),
            key,
        });
        Self {
            anchor,
            issuer,
            above,
        }
    }

    /// An issuer made below an anchor that comes with its key.
    ///
    /// # Errors
    /// [`TrustError::Tls`].
    pub(in crate::trust) fn below(
        anchor: Anchor,
        trust_domain: &TrustDomain,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Self, TrustError> {
        let issuer = anchor.issuer(&format!("issuer.{trust_domain}"), lifetimes.issuer, now)?;
        Ok(Self {
            above: anchor.certificate().clone(),
            anchor: Some(anchor.into()),
            issuer,
        })
    }
}

const REQUEST: &str = "trust/request";
