//! What fuzzing starts from, and what it has found, is read or refused; `scripts/fuzz` looks for more.

#![allow(clippy::unwrap_used)] // tests

use std::path::Path;

use mesh_trust_rotation::crypto::{Ed25519, Sha256};
use mesh_trust_rotation::document::{BundleKey, Pin, SignedDocument, Verify};
use mesh_trust_rotation::{Event, Generation, Record, UnixTime};

struct Anything;

impl Verify for Anything {
    fn verify(&self, _: &BundleKey, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let files = std::fs::read_dir(folder).unwrap();
    let all: Vec<_> = files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    assert!(!all.is_empty());
    all
}

#[test]
fn records_are_read_or_refused() {
    let mut read = 0;
    for bytes in corpus("record") {
        let Ok(mut record) = Record::from_bytes(&bytes) else {
            continue;
        };
        read += 1;
        let (epoch, now) = (record.rotation().epoch(), UnixTime(1_800_000_000));
        let _ = record.rotation().plan(now);
        for event in [Event::Tick, Event::Abort, Event::Restored, Event::Tick] {
            let _ = record.apply(epoch, now, "fuzz", event, &Sha256);
        }
    }
    assert!(read > 0);
}

#[test]
fn documents_are_taken_or_refused() {
    let mut taken = 0;
    for bytes in corpus("document") {
        let (signature, payload) = bytes.split_at(bytes.len().min(64));
        let signed = SignedDocument::new(payload.to_vec(), signature.to_vec());
        let key = BundleKey::new([7; 32]).unwrap();
        let mut pin = Pin::new("mesh.example", key, Generation(3));
        assert!(pin.clone().accept(&signed, &Ed25519).is_err());
        if pin.accept(&signed, &Anything).is_ok() {
            taken += 1;
            assert!(pin.generation() > Generation(3));
            assert!(pin.accept(&signed, &Anything).is_err());
        }
    }
    assert!(taken > 0);
}
