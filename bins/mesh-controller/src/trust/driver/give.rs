//! What others see: how things stand, and the bundles that are given out.

use super::*;

impl Driver {
    /// Lets others see how things stand.
    pub(in crate::trust) fn show(&mut self, now: SystemTime) -> Result<(), TrustError> {
        self.note_own_report(unix(now));
        // Before others see how long the chain is.
        if let Some((_, archive)) = &mut self.data {
            archive.append(self.stored.record.audit())?;
        }
        let rotation = self.rotation();
        let domain = &self.settings.trust_domain;
        let anchor = rotation.anchors().get(&rotation.active().anchor);
        let here = rotation.clusters().get(&self.cluster);
        let issuer = here.and_then(|here| rotation.issuers().get(&here.signer));
        let anchor_not_after = anchor.map_or(now, |anchor| system(anchor.not_after));
        let live = Live {
            leads: self.leads,
            settings: self.settings.clone(),
            trust_domain: domain.clone(),
            identity: own_identity(domain)?,
            bundle: (*self.own.bundle.load()).clone(),
            record: self.stored.record.clone(),
            anchor_not_after,
            issuer_not_after: issuer
                .map_or(now, |issuer| system(issuer.not_after))
                .min(anchor_not_after),
            own_anchor: self.own.leaf.as_ref().map(|leaf| leaf.anchor),
            // Who follows does not know where the key is.
            root: Some(self.root()).filter(|root| self.leads || *root == Root::Outside),
            disbelieved: self.disbelieved(),
            offered: self.outside.as_ref().map(|outside| Offered {
                folder: outside.source().folder.clone(),
                standing: outside.standing.clone(),
            }),
        };
        let moved = live.trust_domain != self.shared.live.load().trust_domain;
        let before = self.shared.live.swap(Arc::new(live));
        if !Arc::ptr_eq(&before.record, &self.stored.record) {
            self.shared.turns.send_modify(|turns| *turns += 1);
        }
        if moved {
            let generation = Generation(self.own.bundle.load().generation());
            let published = published(&self.keys, self.rotation(), generation, domain)?;
            self.shared.published.send_replace(Arc::new(published));
        }
        Ok(())
    }

    /// Gives a bundle out: to who verifies here, in the data folder, and on every stream.
    pub(in crate::trust) fn give_out(&mut self, generation: Generation) -> Result<(), TrustError> {
        let domain = &self.settings.trust_domain;
        let published = published(&self.keys, self.rotation(), generation, domain)?;
        let bundle = bundle(&published.all)?;
        if bundle.generation() > self.own.bundle.load().generation() {
            self.own.bundle.set(bundle.clone())?;
        }
        if let Some((data, _)) = &self.data {
            data.write_anchors(&bundle.to_pem())?;
        }
        self.shared.published.send_replace(Arc::new(published));
        Ok(())
    }

    /// The generation that everybody is given.
    pub(in crate::trust) fn given_out(&self) -> Generation {
        Generation(self.own.bundle.load().generation())
    }
}

/// The generation that this controller is known to give out; the one to be given out, if that is none.
pub(super) fn served(rotation: &Rotation) -> Generation {
    let given = |generation: Generation| {
        let bundle = rotation.bundles().known(generation);
        bundle.is_some_and(|bundle| bundle.digest.is_some())
    };
    let here = rotation.clusters().get(&cluster());
    let published = here.map(|here| here.published).unwrap_or_default();
    let current = rotation.bundles().current();
    if given(published) { published } else { current }
}

/// What is given out when everybody gets this generation.
pub(super) fn published(
    keys: &Keys,
    rotation: &Rotation,
    generation: Generation,
    trust_domain: &TrustDomain,
) -> Result<Published, TrustError> {
    let given = |generation: Generation| -> Result<Given, TrustError> {
        let none = BTreeSet::new();
        let bundle = rotation.bundles().known(generation);
        let anchors = keys.certificates(bundle.map_or(&none, |bundle| &bundle.anchors))?;
        let document = keys::signed(keys.bundle_signer(), trust_domain, generation, &anchors)?;
        Ok(Given {
            generation,
            anchors,
            document,
        })
    };
    let canary = rotation.bundles().canary();
    let composed = |generation: &Generation| {
        let bundle = rotation.bundles().known(*generation);
        bundle.is_some_and(|bundle| bundle.digest.is_some())
    };
    let canaries = rotation.change().map(|change| change.canaries.clone());
    Ok(Published {
        trust_domain: trust_domain.clone(),
        all: given(generation)?,
        canary: canary.filter(composed).map(given).transpose()?,
        canaries: canaries.unwrap_or_default(),
    })
}

pub(super) fn bundle(given: &Given) -> Result<TrustBundle, TrustError> {
    Ok(TrustBundle::from_der(
        given.generation.0,
        given.anchors.iter().cloned(),
    )?)
}
