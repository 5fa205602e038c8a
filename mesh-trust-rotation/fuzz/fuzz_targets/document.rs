//! Whatever bytes travel as a bundle document, signed or not: they are taken or refused, and the generation never goes down.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_trust_rotation::Generation;
use mesh_trust_rotation::crypto::Ed25519;
use mesh_trust_rotation::document::{BundleKey, Pin, SignedDocument, Verify};

/// Takes any signature, so that what is signed is read.
struct Anything;

impl Verify for Anything {
    fn verify(&self, _: &BundleKey, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (signature, payload) = bytes.split_at(bytes.len().min(64));
    let signed = SignedDocument::new(payload.to_vec(), signature.to_vec());
    let Ok(key) = BundleKey::new([7; 32]) else { return };
    let mut pin = Pin::new("mesh.example", key, Generation(3));
    assert!(pin.clone().accept(&signed, &Ed25519).is_err());
    if pin.accept(&signed, &Anything).is_ok() {
        assert!(pin.generation() > Generation(3));
        assert!(pin.accept(&signed, &Anything).is_err());
    }
});
