//! The key of the anchor in use, and what is made where it is: put away, brought back, and anchors and issuers from elsewhere.

use mesh_tls::ca::{Anchor, Issuer, SecretPem};
use mesh_trust_rotation::lint::Facts;

use super::turn::OPERATOR;
use super::*;

impl Driver {
    /// Removes the key of the anchor in use. Until when another issuer has to be there.
    ///
    /// # Errors
    /// [`TrustError::KeyStays`], or any other.
    pub(super) async fn remove_root(
        &mut self,
        anchor: AnchorId,
        now: SystemTime,
    ) -> Result<SystemTime, TrustError> {
        if let Some(error) = self.follows().await {
            return Err(error);
        }
        let rotation = self.rotation();
        let stays = |reason: &str| {
            let reason = reason.to_owned();
            Err(TrustError::KeyStays { reason })
        };
        let active = rotation.active().anchor;
        let tainted = rotation.anchors().get(&active).and_then(|it| it.tainted);
        let next = schedule::next(
            rotation,
            &self.cluster,
            &self.settings,
            Root::Here,
            unix(now),
        );
        match self.root() {
            _ if anchor != active => return stays("it is not that of the anchor in use"),
            Root::Outside => return stays("it is with the outside authority"),
            _ if tainted.is_some() => {
                return stays("the anchor is tainted; `mesh trust rotate` replaces it");
            }
            _ if rotation.change().is_some() => {
                return stays("a change is underway; wait until it has ended, or abort it");
            }
            _ if rotation.restoring_since().is_some() => {
                return stays("what is in force is learned after a restore; wait until it is");
            }
            Root::Here if self.settings.rotation.bridges => {
                return stays(
                    "`spec.rotation.bridges` is true, so the next change needs it for a cross-certificate; set that to false first",
                );
            }
            Root::Here if next.is_none_or(|next| next.at <= unix(now)) => {
                return stays(
                    "anchor or issuer is to be replaced already, and somebody would have to bring it at once; run `mesh trust rotate --issuer-only` first",
                );
            }
            Root::Here => {
                self.enter("remove root key", active, now).await?;
                self.keys.put_away(active).await?;
                warn!(
                    anchor = %active,
                    "the key of the anchor was removed: who has it signs the next issuer"
                );
            }
            // It was removed before. The store may have it still, if it was written by somebody else meanwhile.
            Root::PutAway => self.keys.put_away(active).await?,
        }
        self.show(now)?;
        let needed = schedule::needed_by(self.rotation(), &self.cluster, &self.settings);
        Ok(needed.map_or(now, system))
    }

    /// The key of the anchor in use, on its way to whom an operator gives it.
    ///
    /// # Errors
    /// [`TrustError::NoAnchorKey`], or any other.
    pub(super) async fn exported(
        &mut self,
        now: SystemTime,
    ) -> Result<(String, SecretPem), TrustError> {
        if let Some(error) = self.follows().await {
            return Err(error);
        }
        let anchor = self.rotation().active().anchor;
        let held = self.keys.anchor_pem(anchor);
        let held = held.ok_or(TrustError::NoAnchorKey { anchor })?;
        self.enter("export root key", anchor, now).await?;
        self.show(now)?;
        Ok(held)
    }

    /// Enters in the audit chain what an operator does with the key of an anchor. It is in the store when this returns.
    async fn enter(
        &mut self,
        deed: &str,
        anchor: AnchorId,
        now: SystemTime,
    ) -> Result<(), TrustError> {
        loop {
            let mut record = Record::clone(&self.stored.record);
            let about = (deed, &anchor.to_string().into_bytes()[..]);
            record.note(self.epoch, unix(now), OPERATOR, about, &Sha256)?;
            if self.stored.write(record, self.leads).await? {
                return Ok(());
            }
        }
    }

    /// Whether cross-certificates can be made: the keys of all anchors that a change is about are here. A gate that asked for others
    /// would wait for what nobody can make.
    pub(super) fn can_bridge(&self, rotation: &Rotation) -> bool {
        // One that is retired needs none any more.
        let signs = |anchor: AnchorId| {
            let known = rotation.anchors().contains_key(&anchor);
            !known || self.keys.signs(anchor)
        };
        let both = |change: &Change| signs(change.from.anchor) && signs(change.to.anchor);
        self.outside.is_none()
            && signs(rotation.active().anchor)
            && rotation.change().is_none_or(both)
    }

    /// Takes the key of the anchor in use.
    ///
    /// # Errors
    /// Any [`TrustError`].
    pub(super) async fn bring_back(
        &mut self,
        key: Anchor,
        now: SystemTime,
    ) -> Result<(), TrustError> {
        if let Some(error) = self.follows().await {
            return Err(error);
        }
        self.makes_its_own()?;
        let active = self.rotation().active().anchor;
        let anchor = Facts::from_der(key.certificate())?.anchor_id();
        // It may be that of an anchor which a change is about.
        if anchor != active {
            return Err(TrustError::NotInUse { anchor });
        }
        // What is in the chain may not have come to pass; nothing comes to pass that is not in it.
        self.enter("root key back", anchor, now).await?;
        self.keys.bring_back(key).await?;
        info!("the key of the anchor is here again");
        self.show(now)
    }

    /// # Errors
    /// [`TrustError::MadeOutside`], where anchors and issuers come from an outside authority.
    fn makes_its_own(&self) -> Result<(), TrustError> {
        let Some(outside) = &self.outside else {
            return Ok(());
        };
        let folder = outside.source().folder.clone();
        Err(TrustError::MadeOutside { folder })
    }

    /// A request for an issuer's certificate, to be signed where the anchor's key is.
    ///
    /// # Errors
    /// Any [`TrustError`].
    pub(super) async fn issuer_request(&self, anew: bool) -> Result<String, TrustError> {
        if let Some(error) = self.follows().await {
            return Err(error);
        }
        self.keys.request(&self.settings.trust_domain, anew).await
    }

    /// What was made elsewhere, with its keys.
    ///
    /// # Errors
    /// Any [`TrustError`].
    pub(super) async fn imported(
        &self,
        import: &Import,
        now: SystemTime,
    ) -> Result<Made, TrustError> {
        self.makes_its_own()?;
        let active = self.rotation().active().anchor;
        let held = self.keys.certificate(active);
        let held = held.ok_or(TrustError::NoAnchor { anchor: active })?;
        let given = import.anchor()?.filter(|(id, _)| *id != active);
        let is_new = given.is_some();
        if !is_new && !import.anchor_key.is_empty() {
            return Err(TrustError::KeyAlone);
        }
        let above = given.map_or_else(|| held.clone(), |(_, certificate)| certificate);
        let pem = TrustBundle::from_der(0, [above.clone()])?.to_pem();
        let key = match import.anchor_key.is_empty() {
            true => None,
            false => Some(Anchor::from_pem(
                pem.as_bytes(),
                import.anchor_key.as_bytes(),
            )?),
        };
        if is_new && key.is_none() && self.settings.rotation.bridges {
            return Err(TrustError::NoKeyToBridge);
        }
        if import.issuer.is_empty() {
            let lifetimes = settings::lifetimes(&self.settings);
            let key = key.ok_or(TrustError::Incomplete)?;
            return Made::below(key, &self.settings.trust_domain, lifetimes, now);
        }
        let requested;
        let issuer_key = if import.issuer_key.is_empty() {
            requested = self.keys.requested_key().await?;
            &requested
        } else {
            &import.issuer_key
        };
        let issuer = Issuer::from_pem(import.issuer.as_bytes(), issuer_key.as_bytes())?;
        Ok(Made::elsewhere(above, key, is_new, issuer))
    }
}
