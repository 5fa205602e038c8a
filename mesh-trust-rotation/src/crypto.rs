//! SHA-256 and Ed25519 by aws-lc-rs.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use aws_lc_rs::{digest, rand};

use crate::audit::Hash;
use crate::document::{BundleKey, Document, SignedDocument, Verify};
use crate::error::Error;
use crate::id::Digest;

/// SHA-256 (FIPS 180-4).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha256;

impl Hash for Sha256 {
    fn digest(&self, bytes: &[u8]) -> Digest {
        let mut array = [0; 32];
        array.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Digest::new(array)
    }
}

/// Ed25519 (RFC 8032); bundle keys are 32 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ed25519;

impl Verify for Ed25519 {
    fn verify(&self, key: &BundleKey, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, key.as_bytes())
            .verify(message, signature)
            .is_ok()
    }
}

/// A private bundle key. It signs bundle documents and nothing else, and is apart from every anchor.
pub struct BundleSigner {
    pair: Ed25519KeyPair,
    key: BundleKey,
}

impl BundleSigner {
    /// Makes a key; the second value is what to keep, as PKCS #8.
    ///
    /// # Errors
    /// [`Error::Key`] if no randomness is to be had.
    pub fn generate() -> Result<(Self, Vec<u8>), Error> {
        let wrong = |_| Error::Key {
            expected: "a source of randomness",
        };
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&rand::SystemRandom::new()).map_err(wrong)?;
        let pkcs8 = pkcs8.as_ref().to_vec();
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// Reads a kept key.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        let wrong = |_| Error::Key {
            expected: "an Ed25519 key as PKCS #8",
        };
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(wrong)?;
        let key = BundleKey::new(pair.public_key().as_ref())?;
        Ok(Self { pair, key })
    }

    /// The public key, to be pinned.
    #[must_use]
    pub fn public_key(&self) -> &BundleKey {
        &self.key
    }

    /// Signs a document.
    ///
    /// # Errors
    /// [`Error::Document`] if it is too large.
    pub fn sign(&self, document: &Document) -> Result<SignedDocument, Error> {
        let payload = document.to_bytes()?;
        let signature = self.pair.sign(&payload).as_ref().to_vec();
        Ok(SignedDocument::new(payload, signature))
    }
}

impl std::fmt::Debug for BundleSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BundleSigner")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Pin;
    use crate::id::Generation;

    #[test]
    fn a_document_is_believed_by_who_pinned_its_key() {
        let (signer, kept) = BundleSigner::generate().unwrap();
        let again = BundleSigner::from_pkcs8(&kept).unwrap();
        assert_eq!(signer.public_key(), again.public_key());
        let document = Document::new("mesh.example", Generation(2), [vec![1, 2, 3]]).unwrap();
        let signed = again.sign(&document).unwrap();
        let mut pin = Pin::new("mesh.example", signer.public_key().clone(), Generation(1));
        assert_eq!(pin.accept(&signed, &Ed25519), Ok(document.clone()));

        let (other, _) = BundleSigner::generate().unwrap();
        let mut pin = Pin::new("mesh.example", other.public_key().clone(), Generation(1));
        assert_eq!(pin.accept(&signed, &Ed25519), Err(Error::WrongSignature));
    }

    #[test]
    fn secrets_are_not_printed() {
        let (signer, _) = BundleSigner::generate().unwrap();
        assert_eq!(
            format!("{signer:?}"),
            format!("BundleSigner {{ key: {:?}, .. }}", signer.public_key())
        );
    }
}
