//! Which documents are taken: a value that is given them in the order in which they came.

use mesh_control_api::trust as api;
use mesh_control_api::trust::refused::Reason;
use mesh_tls::TrustBundle;
use mesh_tls::pki_types::CertificateDer;
use mesh_trust_rotation::Error;
use mesh_trust_rotation::crypto::Ed25519;
use mesh_trust_rotation::document::{Document, Pin, SignedDocument};

/// The most documents in one update.
const MAX_DOCUMENTS: usize = 64;

/// The pin and the bundle that go together.
#[derive(Debug)]
pub(super) struct Adopted {
    pin: Pin,
    bundle: TrustBundle,
}

/// A document that was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl Adopted {
    pub(super) fn new(pin: Pin, bundle: TrustBundle) -> Self {
        Self { pin, bundle }
    }

    pub(super) fn pin(&self) -> &Pin {
        &self.pin
    }

    /// What the documents of one update lead to: all of them are taken, or none. `None` when that is what is in use.
    pub(super) fn after(&self, documents: Vec<api::Document>) -> Result<Option<Self>, Refusal> {
        if documents.len() > MAX_DOCUMENTS {
            let found = documents.len();
            return Err(Refusal::malformed(format!(
                "{found} documents at once, expected at most {MAX_DOCUMENTS}"
            )));
        }
        let mut pin = self.pin.clone();
        let mut last = None;
        for document in documents {
            let signed = SignedDocument::new(document.payload, document.signature);
            match pin.accept(&signed, &Ed25519) {
                Ok(document) => last = Some(document),
                Err(Error::StaleGeneration { found, current })
                    if found == current && last.is_none() && self.is_in_use(&signed) => {}
                Err(error) => return Err(Refusal::from(error)),
            }
        }
        // Those before it led to it; what they say is of the past.
        let Some(document) = last else {
            return Ok(None);
        };
        let bundle = bundle(&document)?;
        Ok(Some(Self { pin, bundle }))
    }

    pub(super) fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// Whether the document, whose signature is good, has what is in use.
    fn is_in_use(&self, signed: &SignedDocument) -> bool {
        let same = |document: Document| bundle(&document).is_ok_and(|bundle| bundle == self.bundle);
        serde_json::from_slice(signed.payload()).is_ok_and(same)
    }
}

fn bundle(document: &Document) -> Result<TrustBundle, Refusal> {
    let anchors = document
        .anchors()
        .map(|der| CertificateDer::from(der.to_vec()));
    TrustBundle::from_der(document.generation().0, anchors)
        .map_err(|error| Refusal::malformed(error.to_string()))
}

impl Refusal {
    fn malformed(detail: String) -> Self {
        Self {
            reason: Reason::Malformed,
            detail,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::WrongSignature => Reason::Signature,
            Error::StaleGeneration { .. } => Reason::Stale,
            Error::GenerationLeap { .. } => Reason::Leap,
            Error::WrongTrustDomain { .. } => Reason::TrustDomain,
            _ => Reason::Malformed,
        };
        Self {
            reason,
            detail: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use mesh_tls::ca::Anchor;
    use mesh_trust_rotation::Generation;
    use mesh_trust_rotation::crypto::BundleSigner;
    use mesh_trust_rotation::document::MAX_STEP;

    use super::*;

    const DOMAIN: &str = "mesh.example";

    fn anchor() -> Vec<u8> {
        let day = Duration::from_secs(24 * 3600);
        let anchor = Anchor::generate("root", day, SystemTime::now()).unwrap();
        anchor.certificate().to_vec()
    }

    fn signer() -> BundleSigner {
        BundleSigner::generate().unwrap().0
    }

    fn document(generation: u64, anchor: &[u8]) -> Document {
        Document::new(DOMAIN, Generation(generation), [anchor.to_vec()]).unwrap()
    }

    fn signed(signer: &BundleSigner, document: &Document) -> api::Document {
        let signed = signer.sign(document).unwrap();
        api::Document {
            payload: signed.payload().to_vec(),
            signature: signed.signature().to_vec(),
        }
    }

    fn start(signer: &BundleSigner, anchor: &[u8]) -> Adopted {
        let pin = Pin::new(DOMAIN, signer.public_key().clone(), Generation(0));
        let bundle = TrustBundle::from_der(0, [CertificateDer::from(anchor.to_vec())]).unwrap();
        Adopted::new(pin, bundle)
    }

    #[test]
    fn a_document_leads_on_and_its_repetition_nowhere() {
        let (signer, old, new) = (signer(), anchor(), anchor());
        let start = start(&signer, &old);
        let third = signed(&signer, &document(3, &new));
        let adopted = start.after(vec![third.clone()]).unwrap().unwrap();
        assert_eq!(adopted.bundle().generation(), 3);
        assert_eq!(adopted.bundle().anchors()[0].as_ref(), new);
        assert!(adopted.after(vec![third.clone()]).unwrap().is_none());
        assert!(adopted.after(vec![]).unwrap().is_none());
        let fourth = signed(&signer, &document(4, &old));
        let on = adopted.after(vec![third, fourth]).unwrap().unwrap();
        assert_eq!(on.bundle().generation(), 4);
    }

    #[test]
    fn each_reason_to_refuse_has_its_name_and_changes_nothing() {
        let (signer, old, new) = (signer(), anchor(), anchor());
        let adopted = start(&signer, &old)
            .after(vec![signed(&signer, &document(3, &old))])
            .unwrap()
            .unwrap();
        let elsewhere = Document::new("other.example", Generation(4), [new.clone()]).unwrap();
        let mut changed = signed(&signer, &document(4, &new));
        changed.payload.push(b' ');
        for (document, reason) in [
            (
                signed(&self::signer(), &document(4, &new)),
                Reason::Signature,
            ),
            (changed, Reason::Signature),
            (signed(&signer, &document(2, &new)), Reason::Stale),
            // The generation in use, with other anchors.
            (signed(&signer, &document(3, &new)), Reason::Stale),
            (signed(&signer, &document(4 + MAX_STEP, &new)), Reason::Leap),
            (signed(&signer, &document(u64::MAX, &new)), Reason::Leap),
            (signed(&signer, &elsewhere), Reason::TrustDomain),
            (signed(&signer, &document(4, &[0x30, 0])), Reason::Malformed),
        ] {
            let refusal = adopted.after(vec![document]).unwrap_err();
            assert_eq!(refusal.reason, reason, "{refusal:?}");
        }
        let many = vec![signed(&signer, &document(4, &new)); MAX_DOCUMENTS + 1];
        assert_eq!(adopted.after(many).unwrap_err().reason, Reason::Malformed);
    }

    #[test]
    fn all_of_an_update_or_nothing() {
        let (signer, next, old, new) = (signer(), signer(), anchor(), anchor());
        let start = start(&signer, &old);
        let moves = document(5, &old).with_next_key(next.public_key().clone());
        let moves = signed(&signer, &moves);
        // What is on the way is led through, and never used.
        let led = start
            .after(vec![moves.clone(), signed(&next, &document(900, &new))])
            .unwrap()
            .unwrap();
        assert_eq!(led.pin().key(), next.public_key());
        assert_eq!(led.bundle().anchors()[0].as_ref(), new);
        let broken = vec![moves, signed(&signer, &document(6, &new))];
        assert_eq!(start.after(broken).unwrap_err().reason, Reason::Signature);
        assert_eq!(start.pin().generation(), Generation(0));
    }
}
