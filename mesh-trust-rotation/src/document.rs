//! Bundle documents: what travels to consumers, signed by a bundle key that is apart from every anchor.
//!
//! A consumer pins the bundle key when it joins. It takes a document only if the pinned key signed it, if it is for its trust
//! domain, and if its generation is above the one in use by at most [`MAX_STEP`]. The pin moves only by a document signed
//! with the key before it, the way TUF's root metadata moves. So a stolen anchor key publishes no bundle, and nobody who
//! once had the bundle key locks consumers out with a huge generation.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::Generation;

/// How far above the generation in use a document may be.
pub const MAX_STEP: u64 = 1024;

/// The most bytes a signed document may have.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

const VERSION: u32 = 1;

/// Checks signatures. The feature `crypto` has one: `Ed25519`.
pub trait Verify {
    /// Whether the key signed the message.
    fn verify(&self, key: &BundleKey, message: &[u8], signature: &[u8]) -> bool;
}

/// A public bundle key, in the form that the [`Verify`] in use reads.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BundleKey(Vec<u8>);

impl BundleKey {
    /// Takes a public key.
    ///
    /// # Errors
    /// [`Error::Key`] if it is empty or longer than 1024 bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > 1024 {
            return Err(Error::Key {
                expected: "1 to 1024 bytes",
            });
        }
        Ok(Self(bytes))
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for BundleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BundleKey({})", to_hex(&self.0))
    }
}

impl From<BundleKey> for String {
    fn from(key: BundleKey) -> Self {
        to_hex(&key.0)
    }
}

impl TryFrom<String> for BundleKey {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::new(from_hex(&text).ok_or(Error::Key {
            expected: "hex digits",
        })?)
    }
}

/// What a consumer is to trust from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    version: u32,
    trust_domain: String,
    generation: Generation,
    anchors: Vec<Hex>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_key: Option<BundleKey>,
}

/// Bytes that are hex digits in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hex(Vec<u8>);

impl Document {
    /// Makes a document of anchors as DER.
    ///
    /// # Errors
    /// [`Error::Document`] if there are no anchors.
    pub fn new(
        trust_domain: &str,
        generation: Generation,
        anchors: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<Self, Error> {
        let document = Self {
            version: VERSION,
            trust_domain: trust_domain.to_owned(),
            generation,
            anchors: anchors.into_iter().map(Hex).collect(),
            next_key: None,
        };
        document.check()?;
        Ok(document)
    }

    /// Has consumers pin another bundle key from now on.
    #[must_use]
    pub fn with_next_key(mut self, key: BundleKey) -> Self {
        self.next_key = Some(key);
        self
    }

    /// The trust domain it is for.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Its generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The anchors as DER.
    pub fn anchors(&self) -> impl Iterator<Item = &[u8]> {
        self.anchors.iter().map(|anchor| anchor.0.as_slice())
    }

    /// The bundle key to pin from now on.
    #[must_use]
    pub fn next_key(&self) -> Option<&BundleKey> {
        self.next_key.as_ref()
    }

    /// The bytes to sign.
    ///
    /// # Errors
    /// [`Error::Document`] if it is too large.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let bytes = serde_json::to_vec(self).map_err(malformed)?;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(malformed(format!(
                "{} bytes; at most {MAX_DOCUMENT_BYTES}",
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    fn check(&self) -> Result<(), Error> {
        if self.version != VERSION {
            return Err(malformed(format!(
                "version {}; expected {VERSION}",
                self.version
            )));
        }
        if self.anchors.is_empty() || self.anchors.iter().any(|anchor| anchor.0.is_empty()) {
            return Err(malformed("an empty bundle, or an empty anchor in it"));
        }
        Ok(())
    }
}

/// A document as it travels. What was signed is kept byte for byte, so that there is nothing to normalise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDocument {
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl SignedDocument {
    /// Joins the bytes of [`Document::to_bytes`] and a signature over them.
    #[must_use]
    pub fn new(payload: Vec<u8>, signature: Vec<u8>) -> Self {
        Self { payload, signature }
    }

    /// The bytes that were signed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
}

/// What a consumer holds on to: which key it believes, and what it uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    trust_domain: String,
    key: BundleKey,
    generation: Generation,
}

impl Pin {
    /// Pins a key, as learned when joining.
    #[must_use]
    pub fn new(trust_domain: &str, key: BundleKey, generation: Generation) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            key,
            generation,
        }
    }

    /// The generation in use.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The trust domain whose documents are taken.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The key that is believed.
    #[must_use]
    pub fn key(&self) -> &BundleKey {
        &self.key
    }

    /// Takes a document, and moves on to its generation and to its next key. Nothing is read before the signature is
    /// verified. Use the anchors only after storing the pin.
    ///
    /// # Errors
    /// [`Error::WrongSignature`], [`Error::Document`], [`Error::WrongTrustDomain`], [`Error::StaleGeneration`] or
    /// [`Error::GenerationLeap`]; the pin stays as it is.
    pub fn accept(
        &mut self,
        signed: &SignedDocument,
        verify: &impl Verify,
    ) -> Result<Document, Error> {
        if signed.payload.len() > MAX_DOCUMENT_BYTES {
            return Err(malformed(format!("more than {MAX_DOCUMENT_BYTES} bytes")));
        }
        if !verify.verify(&self.key, &signed.payload, &signed.signature) {
            return Err(Error::WrongSignature);
        }
        let document: Document = serde_json::from_slice(&signed.payload).map_err(malformed)?;
        document.check()?;
        if document.trust_domain != self.trust_domain {
            return Err(Error::WrongTrustDomain {
                found: document.trust_domain.chars().take(64).collect(),
                expected: self.trust_domain.clone(),
            });
        }
        step(self.generation, document.generation)?;
        self.generation = document.generation;
        if let Some(key) = &document.next_key {
            self.key = key.clone();
        }
        Ok(document)
    }
}

/// Whether a consumer may go from one generation to another: upwards, by a bounded step.
///
/// # Errors
/// [`Error::StaleGeneration`] or [`Error::GenerationLeap`].
pub fn step(current: Generation, found: Generation) -> Result<(), Error> {
    if found <= current {
        return Err(Error::StaleGeneration { found, current });
    }
    let highest = Generation(current.0.saturating_add(MAX_STEP));
    if found > highest {
        return Err(Error::GenerationLeap {
            found,
            current,
            highest,
        });
    }
    Ok(())
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        to_hex(&hex.0)
    }
}

impl TryFrom<String> for Hex {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        from_hex(&text)
            .map(Self)
            .ok_or_else(|| malformed("anchors are hex digits"))
    }
}

#[allow(clippy::needless_pass_by_value)] // both texts and errors are given
fn malformed(reason: impl ToString) -> Error {
    Error::Document {
        reason: reason.to_string(),
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signature is the key and the message.
    struct Toy;

    impl Verify for Toy {
        fn verify(&self, key: &BundleKey, message: &[u8], signature: &[u8]) -> bool {
            signature == [key.as_bytes(), message].concat()
        }
    }

    fn key(byte: u8) -> BundleKey {
        BundleKey::new([byte]).unwrap()
    }

    fn signed(by: &BundleKey, document: &Document) -> SignedDocument {
        let payload = document.to_bytes().unwrap();
        let signature = [by.as_bytes(), &payload].concat();
        SignedDocument::new(payload, signature)
    }

    fn document(generation: u64) -> Document {
        Document::new("mesh.example", Generation(generation), [vec![1], vec![2]]).unwrap()
    }

    #[test]
    fn the_pin_moves_up_and_never_down() {
        let mut pin = Pin::new("mesh.example", key(7), Generation(3));
        let taken = pin.accept(&signed(&key(7), &document(5)), &Toy).unwrap();
        assert_eq!(taken.anchors().count(), 2);
        assert_eq!(pin.generation(), Generation(5));
        for generation in [5, 4, 0] {
            let refused = pin.accept(&signed(&key(7), &document(generation)), &Toy);
            assert!(
                matches!(refused, Err(Error::StaleGeneration { .. })),
                "{generation}"
            );
        }
        assert_eq!(pin.generation(), Generation(5));
    }

    #[test]
    fn a_leap_locks_nobody_out() {
        let mut pin = Pin::new("mesh.example", key(7), Generation(3));
        for generation in [3 + MAX_STEP + 1, u64::MAX] {
            let refused = pin.accept(&signed(&key(7), &document(generation)), &Toy);
            assert!(
                matches!(refused, Err(Error::GenerationLeap { .. })),
                "{generation}"
            );
        }
        assert!(
            pin.accept(&signed(&key(7), &document(3 + MAX_STEP)), &Toy)
                .is_ok()
        );
    }

    #[test]
    fn the_key_moves_only_by_a_document_of_the_key_before() {
        let mut pin = Pin::new("mesh.example", key(7), Generation(3));
        let moving = document(4).with_next_key(key(8));
        assert_eq!(
            pin.accept(&signed(&key(8), &moving), &Toy),
            Err(Error::WrongSignature)
        );
        pin.accept(&signed(&key(7), &moving), &Toy).unwrap();
        assert_eq!(pin.key(), &key(8));
        assert_eq!(
            pin.accept(&signed(&key(7), &document(5)), &Toy),
            Err(Error::WrongSignature)
        );
        assert!(pin.accept(&signed(&key(8), &document(5)), &Toy).is_ok());
    }

    #[test]
    fn who_was_away_while_the_key_moved_catches_up() {
        let moved = [
            signed(&key(7), &document(9).with_next_key(key(8))),
            signed(&key(8), &document(20).with_next_key(key(9))),
        ];
        let latest = signed(&key(9), &document(31));
        let mut pin = Pin::new("mesh.example", key(7), Generation(3));
        assert_eq!(pin.accept(&latest, &Toy), Err(Error::WrongSignature));
        // The documents that moved the key, in order, lead to the one of the day; others may be left out.
        for document in moved.iter().chain([&latest]) {
            pin.accept(document, &Toy).unwrap();
        }
        assert_eq!((pin.generation(), pin.key()), (Generation(31), &key(9)));
    }

    #[test]
    fn another_trust_domain_and_an_empty_bundle_are_refused() {
        let mut pin = Pin::new("mesh.example", key(7), Generation(3));
        let other = Document::new("other.example", Generation(4), [vec![1]]).unwrap();
        let refused = pin.accept(&signed(&key(7), &other), &Toy);
        assert!(matches!(refused, Err(Error::WrongTrustDomain { .. })));
        assert!(Document::new("mesh.example", Generation(4), []).is_err());
        assert!(Document::new("mesh.example", Generation(4), [vec![]]).is_err());
    }

    #[test]
    fn a_document_that_is_too_large_is_neither_made_nor_read() {
        let of = |anchor_bytes: usize| {
            let anchor = vec![7; anchor_bytes];
            Document::new("mesh.example", Generation(4), [anchor]).unwrap()
        };
        // An anchor's byte is two hex digits.
        let rest = of(1).to_bytes().unwrap().len() - 2;
        let most = (MAX_DOCUMENT_BYTES - rest) / 2;
        assert!(matches!(
            of(most + 1).to_bytes(),
            Err(Error::Document { .. })
        ));
        let fits = signed(&key(7), &of(most));
        assert!(fits.payload().len() > MAX_DOCUMENT_BYTES - 2);
        let mut pin = Pin::new("mesh.example", key(7), Generation(3));
        assert!(pin.clone().accept(&fits, &Toy).is_ok());

        // Spaces after it change nothing but its size. The signature of what is too large is not even looked at.
        struct Never;
        impl Verify for Never {
            fn verify(&self, _: &BundleKey, _: &[u8], _: &[u8]) -> bool {
                panic!("read before its size was known")
            }
        }
        let mut payload = of(1).to_bytes().unwrap();
        payload.resize(MAX_DOCUMENT_BYTES, b' ');
        let signature = [key(7).as_bytes(), &payload].concat();
        let padded = SignedDocument::new(payload.clone(), signature);
        assert!(pin.clone().accept(&padded, &Toy).is_ok());
        payload.push(b' ');
        let refused = pin.accept(&SignedDocument::new(payload, Vec::new()), &Never);
        assert!(matches!(refused, Err(Error::Document { .. })));
        assert_eq!(pin.generation(), Generation(3));
    }

    #[test]
    fn a_document_says_what_it_was_made_of() {
        let of = document(4).with_next_key(key(0xab));
        assert_eq!(of.trust_domain(), "mesh.example");
        assert_eq!(of.generation(), Generation(4));
        assert_eq!(of.next_key(), Some(&key(0xab)));
        assert_eq!(of.anchors().collect::<Vec<_>>(), [[1], [2]]);
        assert_eq!(document(4).next_key(), None);
        let pin = Pin::new("mesh.example", key(7), Generation(3));
        assert_eq!(pin.trust_domain(), "mesh.example");
        let travels = SignedDocument::new(vec![1, 2], vec![3]);
        assert_eq!(
            (travels.payload(), travels.signature()),
            (&[1, 2][..], &[3][..])
        );
    }

    #[test]
    fn keys_are_hex_digits_in_pairs() {
        assert_eq!(format!("{:?}", key(0xab)), "BundleKey(ab)");
        assert_eq!(String::from(key(0xab)), "ab");
        assert_eq!(BundleKey::try_from("ab".to_owned()), Ok(key(0xab)));
        for wrong in ["", "a", "abc", "+a", "xy", "ab+1"] {
            assert!(BundleKey::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert!(BundleKey::new(vec![7; 1024]).is_ok());
        assert!(BundleKey::new(vec![7; 1025]).is_err());
    }

    /// As many bytes as may be, to the byte.
    #[test]
    fn the_largest_document_is_made() {
        let named = |name: &str| {
            let anchor = vec![7; MAX_DOCUMENT_BYTES / 2 - 100];
            Document::new(name, Generation(4), [anchor]).unwrap()
        };
        let rest = named("").to_bytes().unwrap().len();
        let most = MAX_DOCUMENT_BYTES - rest;
        let fits = named(&"a".repeat(most)).to_bytes().unwrap();
        assert_eq!(fits.len(), MAX_DOCUMENT_BYTES);
        assert!(named(&"a".repeat(most + 1)).to_bytes().is_err());
        assert_eq!(MAX_DOCUMENT_BYTES, 1024 * 1024);
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let mut pin = Pin::new("mesh.example", key(7), Generation(3));
        let signed = signed(&key(7), &document(4));
        for at in 0..signed.payload().len() {
            let mut payload = signed.payload().to_vec();
            payload[at] ^= 1;
            let changed = SignedDocument::new(payload, signed.signature().to_vec());
            assert_eq!(
                pin.accept(&changed, &Toy),
                Err(Error::WrongSignature),
                "{at}"
            );
        }
    }
}
