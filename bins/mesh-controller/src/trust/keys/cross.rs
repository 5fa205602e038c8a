//! Cross-certificates: made while the signer's key is here, and kept as long as both anchors are.

use mesh_trust_rotation::Bridge;

use super::*;

impl Keys {
    /// Certifies the key of `subject` with that of `signer`. If it was done before, what was made then is good still.
    ///
    /// # Errors
    /// [`TrustError::NoAnchorKey`], or any other.
    pub(in crate::trust) async fn bridge(
        &mut self,
        subject: AnchorId,
        signer: AnchorId,
        now: SystemTime,
    ) -> Result<Bridge, TrustError> {
        if !self.bridges.contains_key(&(subject, signer)) {
            let certificate = self.certificate(subject);
            let certificate = certificate.ok_or(TrustError::NoAnchor { anchor: subject })?;
            let held = self.anchors.get(&signer);
            let key = held.and_then(|held| held.key.as_ref());
            let key = key.ok_or(TrustError::NoAnchorKey { anchor: signer })?;
            let made = key.cross_certify(certificate, LIFETIME, now)?;
            self.write(&name(subject, signer), &made.to_vec()).await?;
            self.bridges.insert((subject, signer), made);
        }
        let made = &self.bridges[&(subject, signer)];
        Ok(Bridge {
            subject,
            signer,
            not_after: Facts::from_der(made)?.not_after,
        })
    }

    /// A cross-certificate that was made.
    pub(in crate::trust) fn cross(&self, bridge: &Bridge) -> Option<&CertificateDer<'static>> {
        self.bridges.get(&(bridge.subject, bridge.signer))
    }

    pub(super) async fn read_bridges(&mut self) -> Result<(), TrustError> {
        for (key, stored) in self.place.shared.list(BRIDGES, None, PAGE).await? {
            let der: Vec<u8> = serde_json::from_slice(&stored.value)?;
            let pair = key.strip_prefix(BRIDGES).and_then(|pair| {
                let (subject, signer) = pair.split_once('-')?;
                let id = |text: &str| Digest::try_from(text.to_owned()).ok();
                let anchor = |digest: Digest| AnchorId::new(*digest.as_bytes());
                Some((anchor(id(subject)?), anchor(id(signer)?)))
            });
            if let Some(pair) = pair {
                self.bridges.insert(pair, der.into());
            }
        }
        Ok(())
    }

    /// Removes those of which an anchor is gone, or that end: what is needed then is made anew.
    pub(super) async fn sweep_bridges(&mut self, rotation: &Rotation) -> Result<(), TrustError> {
        let known = |id: &AnchorId| rotation.anchors().contains_key(id);
        let gone = self.bridges.keys().copied();
        let gone: Vec<_> = gone
            .filter(|(subject, signer)| !known(subject) || !known(signer))
            .collect();
        for (subject, signer) in gone {
            self.remove(&name(subject, signer)).await?;
            self.bridges.remove(&(subject, signer));
        }
        Ok(())
    }
}

fn name(subject: AnchorId, signer: AnchorId) -> String {
    format!("{BRIDGES}{subject}-{signer}")
}

const BRIDGES: &str = "trust/bridge/";
/// Longer than any change; both ends end it too.
const LIFETIME: Duration = Duration::from_hours(24 * 365 * 10);
